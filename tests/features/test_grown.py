"""A feature space that grows with a further log: its numbers are those of one log that holds both,
whatever either calls its items, and what is new is unknown."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import FeatureMismatchError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fields import former_ids
from fastgaum.features.fitting import fit_space, grow_training
from fastgaum.features.number_code import Moments, standardised
from fastgaum.features.sessions import select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import Column, SessionLog
from tests.builders import numbers_of, put, random_log
from tests.logs.test_context import navigation

ALL: dict[str, Any] = {"set_context": False, "relations": True}


def own_codes(log: SessionLog, seed: int) -> SessionLog:
    """The log with codes of its own: of items that it displays alone, in another order."""
    rng = np.random.default_rng(seed)

    def shuffled(codes: np.ndarray, names: pl.Series) -> tuple[np.ndarray, pl.Series]:
        kept = rng.permutation(np.unique(codes))
        code = np.full(len(names), -1, np.int32)
        code[kept] = np.arange(len(kept))
        return code[codes], names.gather(kept)

    items, item_ids = shuffled(log.items, log.item_ids)
    columns = {}
    for name, column in log.columns.items():
        columns[name] = column
        if column.texts is not None:
            columns[name] = Column(column.of, *shuffled(column.values, column.texts))
    return dataclasses.replace(log, items=items, item_ids=item_ids, columns=columns)


def in_two(log: SessionLog, n: int, seed: int) -> tuple[SessionLog, SessionLog]:
    """The first n sessions and the rest, each as a log of its own."""
    rows = np.arange(log.n_sessions)
    return own_codes(slice_sessions(log, rows[:n]), seed), own_codes(
        slice_sessions(log, rows[n:]), seed + 1
    )


def numbers(space: FeatureSpace, log: SessionLog, rows: np.ndarray) -> np.ndarray:
    """Numbers of the candidates, not standardised."""
    return numbers_of(Encoder(space, log), select_sessions(log, rows.astype(np.int32)))


def check_is_that_of_both(log: SessionLog, n: int, seed: int) -> None:
    first, second = in_two(log, n, seed)
    former = fit_space(first, **ALL)
    grown, whole = grow_training(former, second)[0], fit_space(log, **ALL)
    assert grown.number_names == whole.number_names
    # training sessions are read in the order of their own log
    rows = np.flatnonzero(second.split != 0)
    np.testing.assert_allclose(
        numbers(grown, second, rows), numbers(whole, log, rows + n), rtol=1e-5, atol=1e-5
    )
    # the former log's sessions keep their ids
    old, new = (Encoder(one, first).encode(first.sessions_in("train")) for one in (former, grown))
    known = former_ids(grown.fields, former.fields)
    np.testing.assert_array_equal(known[new.ids], old.ids)
    np.testing.assert_array_equal(known[new.context_ids], old.context_ids)
    unknown = np.setdiff1d(np.arange(grown.n_ids), np.concatenate([new.ids.ravel(), [0]]))
    assert set(known[unknown]) <= {0, *old.context_ids.ravel(), *former.unknown_of_id}


@given(seed=st.integers(0, 10**6), n=st.integers(8, 32), no_click=st.sampled_from([0.0, 0.3]))
@settings(max_examples=8)
def test_numbers_are_those_of_one_log_of_both(seed: int, n: int, no_click: float) -> None:
    log = random_log(seed, n_sessions=40, n_items=25, no_click=no_click)
    check_is_that_of_both(log, n, seed)


@pytest.mark.parametrize("fixed", [False, True])
def test_context_that_is_crossed_with_items_too(fixed: bool) -> None:
    """`fixed` pages display the same items in every event: walks over them are numbers too. The
    first sessions neither display nor name the items 0 to 2: an item that is named before it is
    known is counted by neither log."""
    log = navigation(400, n_items=50, seed=1, fixed=fixed)
    fields = {name: one for name, one in log.columns.items() if name != "kind"}
    log = dataclasses.replace(log, columns=fields)
    of_event = np.repeat(np.arange(log.n_sessions), np.diff(log.session_offsets))
    of_candidate = np.repeat(of_event, np.diff(log.display_offsets))
    named = [log.columns[name].values < 3 for name in ("page", "target")]
    new = np.union1d(of_candidate[log.items < 3], of_event[named[0] | named[1]])
    old = np.setdiff1d(np.arange(log.n_sessions), new)
    check_is_that_of_both(slice_sessions(log, np.append(old, new)), len(old), seed=3)


def test_the_label_of_an_event_of_the_further_log_is_in_none_of_its_numbers() -> None:
    first, second = in_two(random_log(5, n_sessions=40), 20, 0)
    former = fit_space(first, **ALL)
    row = second.sessions_in("train")[:1]
    event = second.session_offsets[row[0]]
    size = int(np.diff(second.display_offsets)[event])
    found = []
    for choice in range(size):
        choices = second.choices.copy()
        choices[event] = choice
        other = dataclasses.replace(second, choices=choices)
        read = grow_training(former, other)[1]
        first = read.display_offsets[read.session_offsets[:-1][read.rows == row[0]]]
        plain = dataclasses.replace(read, code=standardised(Moments(), former.n_raw)).numbers
        found.append(plain[first[:, None] + np.arange(size)])
    assert size > 1
    assert len(found[0])
    for one in found[1:]:
        # but for the rate of all choices, which is the same
        np.testing.assert_array_equal(one, found[0])


def test_numbers_are_standardised_as_before_and_widen_their_range() -> None:
    first, second = in_two(random_log(5, n_sessions=40), 20, 0)
    former = fit_space(first)
    grown, read = grow_training(former, second)
    for name, values in vars(former.code).items():
        np.testing.assert_array_equal(getattr(grown.code, name), values)
    plain = standardised(Moments(), former.n_raw)
    train = dataclasses.replace(read, code=plain).numbers
    np.testing.assert_array_equal(grown.least, np.minimum(former.least, train.min(0)))
    np.testing.assert_array_equal(grown.most, np.maximum(former.most, train.max(0)))


def test_places_keep_their_rates_and_a_place_in_the_bags_grows() -> None:
    first, second = in_two(random_log(5, n_sessions=60), 30, 0)
    first, second = (dataclasses.replace(log, ordered=True) for log in (first, second))
    small = slice_sessions(first, np.flatnonzero(np.diff(first.session_offsets) < 3))
    apart = fit_space(small, examination=True)
    grown = grow_training(apart, second)[0]
    np.testing.assert_array_equal(grown.place_rates, apart.place_rates)
    assert [field.name for field in grown.categorical] == ["item"]
    bags = fit_space(small, examination=False)
    longest = int(np.diff(second.display_offsets).max())
    assert grow_training(bags, second)[0].categorical[-1].values.to_list() == [
        str(i) for i in range(longest)
    ]


def test_what_cannot_grow_is_refused() -> None:
    first, second = in_two(navigation(240, n_items=40, seed=1), 120, 3)
    former = fit_space(first)
    with pytest.raises(LogFormatError, match="is the one that the model was trained on"):
        grow_training(former, first)
    with pytest.raises(LogFormatError, match="is the one that the model was trained on"):
        grow_training(former, slice_sessions(first, np.arange(first.n_sessions)[::-1]))
    with pytest.raises(FeatureMismatchError, match="trained on context fields"):
        grow_training(former, put(second, event={}, categories={}))
    with pytest.raises(LogFormatError, match="no training session"):
        grow_training(former, dataclasses.replace(second, split=np.ones_like(second.split)))
    fixed = fit_space(navigation(240, n_items=40, seed=1, fixed=True))
    with pytest.raises(
        FeatureMismatchError, match=r"other numbers .*walk2_page_target.*train anew"
    ):
        grow_training(fixed, second)
