"""What earlier choices have given, and ranks within displays, beside slow twins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.kernels.given import (
    PRIOR_EVENTS,
    WINDOW,
    GivenColumns,
    PastChoices,
    rank_displays,
    sum_ranks,
    write_given,
)

SEEDS = st.integers(0, 2**32 - 1)


def drawn_offsets(draws: np.random.Generator, n: int, most: int) -> np.ndarray:
    return np.append(0, np.cumsum(draws.integers(1, most + 1, n))).astype(np.int32)


@given(SEEDS, st.integers(1, 3), st.integers(1, 3), st.integers(0, 12), st.booleans())
def test_what_was_given_is_that_of_the_rows_before(
    seed: int, n_keys: int, n_values: int, n_past: int, all_columns: bool
) -> None:
    draws = np.random.default_rng(seed)
    shape = (n_past, n_values)
    values = np.where(draws.random(shape) < 0.3, np.nan, draws.normal(size=shape))
    past = PastChoices(draws.integers(-1, 4, (n_past, n_keys)).astype(np.int32), values)
    offsets = drawn_offsets(draws, 3, 4)
    keys = draws.integers(-1, 4, (offsets[-1], n_keys)).astype(np.int32)
    first = draws.integers(0, n_past + 1, 3)
    last = np.maximum(first, draws.integers(0, n_past + 1, 3))
    priors = draws.normal(size=n_values)
    n = n_keys * n_values
    at = np.arange(n + 3 * n_values + 1)
    if not all_columns:
        at = np.where(draws.random(len(at)) < 0.5, at, -1)
    means, (of_all, latest, best) = at[:n].reshape(n_keys, -1), at[n:-1].reshape(3, -1)
    numbers = np.zeros((offsets[-1], len(at)), np.float32)
    columns = GivenColumns(means, of_all, latest, best, int(at[-1]))
    write_given(offsets, keys, first, last, past, priors, columns, numbers)
    wanted = np.zeros_like(numbers)

    def write(candidate: int, column: int, value: float) -> None:
        if column >= 0:
            wanted[candidate, column] = value

    for event in range(3):
        rows = slice(max(first[event], last[event] - WINDOW), last[event])
        before = past.keys[rows]
        for candidate in range(offsets[event], offsets[event + 1]):
            for value in range(n_values):
                of, prior = past.values[rows, value], priors[value]
                every = of[~np.isnan(of)]
                mean = (every.sum() + PRIOR_EVENTS * prior) / (len(every) + PRIOR_EVENTS)
                write(candidate, of_all[value], mean)
                for key in range(n_keys):
                    own = keys[candidate, key]
                    same = (before[:, key] == own) & (own >= 0) & ~np.isnan(of)
                    gave = of[same]
                    mean = (gave.sum() + PRIOR_EVENTS * prior) / (len(gave) + PRIOR_EVENTS)
                    write(candidate, means[key, value], mean)
                    if key == 0:
                        write(candidate, latest[value], gave[-1] if len(gave) else prior)
                        write(candidate, best[value], gave.max() if len(gave) else prior)
            is_last = len(before) > 0 and before[-1, 0] == keys[candidate, 0] >= 0
            write(candidate, int(at[-1]), float(is_last))
    np.testing.assert_allclose(numbers, wanted, atol=1e-5)


def test_no_row_further_back_than_the_window_is_read() -> None:
    n = WINDOW + 3
    values = np.ones((n, 1))
    values[:3] = 1000.0
    past = PastChoices(np.zeros((n, 1), np.int32), values)
    columns = GivenColumns(*(np.full(shape, -1) for shape in ((1, 1), 1, 1)), np.array([0]), -1)
    numbers, offsets = np.zeros((1, 1), np.float32), np.array([0, 1], np.int32)
    keys, ends = np.zeros((1, 1), np.int32), (np.array([0]), np.array([n]))
    write_given(offsets, keys, *ends, past, np.zeros(1), columns, numbers)
    assert numbers[0, 0] == 1


@given(SEEDS, st.integers(1, 3), st.integers(1, 6))
def test_ranks_compare_each_candidate_with_all_others(seed: int, n_columns: int, most: int) -> None:
    draws = np.random.default_rng(seed)
    offsets = drawn_offsets(draws, 4, most)
    numbers = draws.integers(0, 3, (offsets[-1], n_columns + 1)).astype(np.float32)
    ranks = np.empty((offsets[-1], n_columns), np.float32)
    rank_displays(offsets, np.arange(1, n_columns + 1), numbers, ranks)
    for start, stop in pairwise(offsets):
        shown = numbers[start:stop, 1:]
        signs = np.sign(shown[:, None] - shown[None]).sum(1)
        assert ranks[start:stop] == pytest.approx(signs / max(stop - start - 1, 1), abs=1e-6)


@given(SEEDS, st.integers(1, 3))
def test_ranks_of_earlier_choices_among_several_add_up(seed: int, n_columns: int) -> None:
    draws = np.random.default_rng(seed)
    sessions = drawn_offsets(draws, 3, 4)
    offsets = drawn_offsets(draws, int(sessions[-1]), 3)
    sizes = np.diff(offsets)
    choices = np.array([draws.integers(-1, size) for size in sizes], np.int32)
    ranks = draws.normal(size=(offsets[-1], n_columns)).astype(np.float32)
    sums, n = np.empty((len(sizes), n_columns)), np.empty(len(sizes), np.int64)
    sum_ranks(sessions, offsets, choices, ranks, sums, n)
    for start, stop in pairwise(sessions):
        for event in range(start, stop):
            before = [e for e in range(start, event) if choices[e] >= 0 and sizes[e] > 1]
            rows = [offsets[e] + choices[e] for e in before]
            np.testing.assert_allclose(sums[event], ranks[rows].sum(0), atol=1e-5)
            assert n[event] == len(before)
