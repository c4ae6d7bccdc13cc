"""One formula, two uses: a log replayed event by event through a world's counts has the numbers that
the encoder gives all its candidates at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.session_counts import SessionCounts
from fastgaum.features.standardise import BEND, Moments, made_robust, standardised
from fastgaum.kernels.candidate_counts import UserDisplays
from fastgaum.live_users.item_catalogue import Catalogue
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.ops.displays import parts_of
from tests.builders import put, random_log
from tests.worlds.simulated import Within


def log_like_a_world(seed: int, n_sessions: int) -> SessionLog:
    """A log in which all that a candidate has beside its session is its item's: view counts, and a
    number of the item."""
    log = random_log(seed, n_sessions=n_sessions, n_items=12, max_length=6, no_click=0.3)
    rng = np.random.default_rng(seed)
    views = rng.integers(1, 5, log.n_items).astype(np.uint16)
    return put(
        log, views=views[log.items], item={"price": rng.random(log.n_items).astype(np.float32)}
    )


def replayed(catalogue: Catalogue, log: SessionLog, within: bool) -> np.ndarray:
    """Numbers of the log's candidates, each session a user of a world, one event at a time."""
    rows_of_items = Vocabulary(catalogue.item_ids).codes(log.item_ids)
    counts = SessionCounts(catalogue.space, log.n_sessions, within)
    result = np.full((log.n_candidates, catalogue.space.n_numbers), np.nan, np.float32)
    lengths = np.diff(log.session_offsets)
    for t in range(int(lengths.max())):
        users = np.flatnonzero(lengths > t).astype(np.int32)
        events = log.session_offsets[users] + t
        offsets, candidates = pick_rows(log.display_offsets, events)
        shown = UserDisplays(users, offsets, rows_of_items[log.items[candidates]])
        of_items = catalogue.ids[shown.items], catalogue.fixed[shown.items]
        numbers, _ = counts.encode(shown, *of_items, parts_of(offsets, least=10))
        choices = log.choices[events]
        counts.make_room(int(np.diff(offsets).max(initial=0)))
        counts.count(shown, np.where(choices >= 0, offsets[:-1] + choices, -1).astype(np.int32))
        result[candidates] = numbers
    return result


@settings(max_examples=20, deadline=None)
@given(
    protocol=st.sampled_from(["identity", "bags", "views"]),
    relations=st.booleans(),
    seed=st.integers(0, 10_000),
    n_sessions=st.integers(3, 25),
    relative_numbers=st.booleans(),
    bounded=st.booleans(),
)
def test_a_replayed_log_has_the_encoder_s_numbers(
    protocol: str,
    relations: bool,
    seed: int,
    n_sessions: int,
    relative_numbers: bool,
    bounded: bool,
) -> None:
    log = log_like_a_world(seed, n_sessions)
    space = fit_space(log, protocol, relative_numbers, relations)
    # another log: a world's users are new, so nothing of their own is left out; all of it is
    # training, so that the catalogue has every item's views
    other = log_like_a_world(seed + 1, 2 * n_sessions)
    other = other.with_split(np.zeros(other.n_sessions, np.int8))
    new = Vocabulary(space.categorical[0].values).codes(other.item_ids) < 0
    catalogue = Catalogue.of(space, other, other.item_ids.filter(new) if new.any() else None)
    encoder = Within if bounded else Encoder
    expected = encoder(space, other).encode(other.sessions_in("all")).numbers
    found = replayed(catalogue, other, bounded)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_robust_numbers_stay_near_whatever_is_far() -> None:
    """The median is 0, the quartiles are nearly one apart, and the farthest number is within ±
    BEND, in its order; one that never varies, or is not asked for, is as it was, and half the range
    is the scale where the quartiles are equal."""
    rng = np.random.default_rng(0)
    raw = rng.lognormal(size=(4001, 5)).astype(np.float32)
    raw *= np.float32([1, -1e6, 1, 1, 1])
    raw[:, 2], raw[:, 3] = 7, 0
    raw[:9, 3] = np.linspace(1, 4, 9)
    moments = Moments()
    moments.add(raw)
    plain = standardised(moments, 5)
    code, numbers = made_robust(plain, raw, range(4)), np.empty((4001, 5), np.float32)
    code.write(raw, numbers)
    first, middle, third = np.quantile(numbers[:, :2], (0.25, 0.5, 0.75), axis=0)
    np.testing.assert_allclose(middle, 0, atol=1e-3)
    np.testing.assert_allclose(third - first, 1, atol=0.03)
    assert np.abs(numbers[:, :4]).max() < BEND
    ranks = [np.argsort(np.argsort(one)) for one in (raw[:, 0], numbers[:, 0])]
    assert np.mean(ranks[0] != ranks[1]) < 0.01
    unvaried = np.empty((4001, 5), np.float32)
    plain.write(raw, unvaried)
    np.testing.assert_array_equal(numbers[:, [2, 4]], unvaried[:, [2, 4]])
    np.testing.assert_allclose(numbers[8, 3], 2 / np.sqrt(1 + (2 / BEND) ** 2), rtol=1e-5)
    far = np.full((1, 5), 1e30, np.float32)
    code.write(far, numbers[:1])
    np.testing.assert_allclose(np.abs(numbers[0, [0, 1, 3]]), BEND, rtol=1e-4)
