"""Rank counts of the chosen candidate, ties counted and never broken."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels.ranking import best_of_sets, rank_counts
from tests import naive_segments as naive

SCORES = st.sampled_from([0.0, 1.0, 1.5, -1e4, 1e4, -np.inf, np.inf])


@st.composite
def choices_among(draw: Any) -> tuple[Any, Any, Any]:
    rows = draw(st.lists(st.lists(SCORES, min_size=1, max_size=6), max_size=6))
    choices = [draw(st.integers(-1, len(row) - 1)) for row in rows]
    offsets = np.cumsum([0] + [len(row) for row in rows]).astype(np.int32)
    return (
        np.array([v for row in rows for v in row], dtype=float),
        offsets,
        np.array(choices, dtype=np.int32),
    )


@settings(max_examples=50, deadline=None)
@given(choices_among())
def test_counts_equal_the_twin(case: tuple[Any, Any, Any]) -> None:
    found = rank_counts(*case)
    assert [count.tolist() for count in found] == list(naive.rank_counts(*case))
    assert found[0].dtype == found[1].dtype == np.int32


@settings(max_examples=50, deadline=None)
@given(choices_among())
def test_the_best_of_a_set_are_counted(case: tuple[Any, Any, Any]) -> None:
    scores, offsets, choices = case
    n_best = np.full(len(choices), -7, np.int32)
    is_best = np.zeros(len(choices), np.bool_)
    best_of_sets(*case, n_best, is_best)
    sets = [scores[i:j].tolist() for i, j in pairwise(offsets)]
    assert n_best.tolist() == [one.count(max(one)) for one in sets]
    chosen = [one[max(choice, 0)] for one, choice in zip(sets, choices, strict=True)]
    assert is_best.tolist() == [score == max(one) for score, one in zip(chosen, sets, strict=True)]


@pytest.mark.parametrize(
    ("scores", "better", "tied"),
    [
        ([np.nan, 1.0, 2.0], 2, 0),
        ([1.0, np.nan, 0.0], 1, 0),
        ([np.nan, np.nan], 1, 0),
        ([np.nan], 0, 0),
    ],
)
def test_a_nan_never_improves_a_rank(scores: list[float], better: int, tied: int) -> None:
    counts = rank_counts(
        np.array(scores), np.array([0, len(scores)], np.int32), np.array([0], np.int32)
    )
    assert [int(count[0]) for count in counts] == [better, tied]


@pytest.mark.parametrize(
    ("n", "choices", "message"),
    [
        (5, [2, 2], "event 1 chooses position 2 of 2 candidates"),
        (5, [-2, 1], "event 0 chooses position -2 of 3"),
        (4, [2, 1], "5 candidates, but there are 2 choices and 4 scores"),
    ],
)
def test_arrays_that_do_not_fit_are_named(n: int, choices: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_counts(np.zeros(n), np.array([0, 3, 5], np.int32), np.array(choices, np.int32))
