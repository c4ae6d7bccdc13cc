"""What a click model says of a list's first click, against every vector of clicks; how a log's lists
and the flags of its sessions are read; and the table of the rows."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from fastgaum.bench.click_lists import (
    FLAGS,
    ClickLists,
    click_lists,
    first_click,
)
from tests.builders import columns_of, log_of

N_PLACES = 4


def of_pbm(vectors: np.ndarray, attraction: np.ndarray, examined: np.ndarray) -> np.ndarray:
    """Log probability of a click at each place: the clicks above do not matter."""
    return np.broadcast_to(np.log(attraction * examined[:, 0]), vectors.shape)


def of_ubm(vectors: np.ndarray, attraction: np.ndarray, examined: np.ndarray) -> np.ndarray:
    """The same given the clicks above: examination by place and by the place of the last click."""
    found = np.empty(vectors.shape)
    for row, clicks in enumerate(vectors):
        last = 0
        for place in range(len(clicks)):
            found[row, place] = np.log(attraction[place] * examined[place, last])
            last = place + 1 if clicks[place] else last
    return found


@pytest.mark.parametrize("model", [of_pbm, of_ubm])
def test_first_click_is_the_sum_over_all_vectors_of_clicks(model: object) -> None:
    rng = np.random.default_rng(0)
    attraction, examined = rng.uniform(0.1, 0.9, N_PLACES), rng.uniform(0.1, 1.0, (N_PLACES, 5))
    vectors = np.array(list(itertools.product((0, 1), repeat=N_PLACES)))
    conditional = np.exp(model(vectors, attraction, examined))  # type: ignore[operator]
    weight = np.where(vectors, conditional, 1 - conditional).prod(axis=1)
    first = np.where(vectors.any(axis=1), vectors.argmax(axis=1), N_PLACES)
    expected = np.log(np.bincount(first, weight))
    none_above = model(np.zeros((1, N_PLACES)), attraction, examined)  # type: ignore[operator]
    (found,) = first_click(none_above)
    np.testing.assert_allclose(found, expected)
    assert np.exp(found).sum() == pytest.approx(1)


@pytest.fixture(scope="module")
def lists() -> ClickLists:
    """Two sessions: three lists of one query or another; one list of a user of the validation
    split. The second list has two clicks, the first of them in time is not the topmost."""
    a, b, c, d, e = range(5)
    log = log_of(
        [[([a, b], -1), ([b, a, c], 2), ([c, d, a], 1)], [([c, e, a], -1)]],
        split=[0, 1],
        columns=columns_of(
            event={"query": np.array([0, 0, 1, 1], np.int32)},
            categories={"query": pl.Series(["q", "r"])},
        ),
    )
    clicked = pl.DataFrame(
        {
            "session": ["s0", "s0", "s0", "s1"],
            "event": ["0", "1", "2", "3"],
            "clicked": [[], ["i2", "i1"], ["i3"], []],
        },
        schema_overrides={"clicked": pl.List(pl.String)},
    )
    return click_lists(log, clicked)


def test_lists_hold_all_clicks_and_the_first_in_time(lists: ClickLists) -> None:
    assert lists.places.tolist() == [[1, 2, 0], [1, 2, 3], [1, 2, 3], [1, 2, 3]]
    assert lists.clicks.tolist() == [[0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert lists.choices.tolist() == [-1, 2, 1, -1]
    assert lists.topmost.tolist() == [-1, 0, 1, -1]
    assert (lists.of(0).choices.tolist(), lists.of(1).choices.tolist()) == ([-1, 2, 1], [-1])


def test_a_pair_that_training_never_showed_is_none(lists: ClickLists) -> None:
    # (q: a b c), (r: c d a); validation shows c and a under r, and e
    assert lists.n_pairs == 6
    assert lists.pairs[0, 0] == lists.pairs[1, 1] > 0
    assert (lists.pairs[3] > 0).tolist() == [True, False, True]
    assert (lists.pairs[3, 0], lists.pairs[3, 2]) == (lists.pairs[2, 0], lists.pairs[2, 2])
    assert lists.pairs[2, 0] != lists.pairs[1, 2]


def test_flags_know_what_the_session_showed_and_clicked_before(lists: ClickLists) -> None:
    shown, clicked, same_query, any_click = (lists.flags[:3, :, at] for at in range(len(FLAGS)))
    assert shown.tolist() == [[0, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert clicked.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert same_query.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert any_click.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert not lists.flags[3].any()
