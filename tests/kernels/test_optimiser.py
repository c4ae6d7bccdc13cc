"""The optimisers' steps: slots, sums, and that the sparse step is AdamW where every row is named in
every step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import optimiser as kernels
from fastgaum.ops.tables import Named
from tests.kernels.reals import REAL, assert_near


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(0, 8), max_size=30), seed=st.integers(0, 9))
def test_slots_and_sums(ids: list[int], seed: int) -> None:
    named, slot_of = np.array(ids, dtype=np.int32), np.full(9, -1, np.int32)
    slots, rows = np.empty(len(ids), np.int32), np.empty(len(ids), np.int32)
    count = kernels.number_rows(named, slot_of, slots, rows)
    assert (slot_of == -1).all()
    assert rows[:count].tolist() == list(dict.fromkeys(ids))
    assert rows[slots].tolist() == ids
    grad = np.random.default_rng(seed).standard_normal((len(ids), 3)).astype(REAL)
    total = np.full((count, 3), 99.0, REAL)
    offsets = np.arange(len(ids) + 1, dtype=np.int32)
    starts, bags = np.full(count + 1, 99, np.int32), np.full(len(ids), 99, np.int32)
    kernels.group_bags(slots, offsets, starts, bags)
    assert [bags[a:b].tolist() for a, b in pairwise(starts.tolist())] == [
        [i for i, other in enumerate(ids) if other == row] for row in rows[:count].tolist()
    ]
    for part in ((0, count // 2), (count // 2, count)):
        kernels.add_rows(grad, starts, bags, *part, total)
    expected = np.zeros((9, 3))
    np.add.at(expected, named, grad)
    assert_near(total, expected[rows[:count]], atol=1e-12)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 99),
    named=st.integers(0, 12),
    width=st.integers(1, 5),
    cut=st.integers(0, 12),
)
def test_rows_that_are_named_move_and_the_others_wait(
    seed: int, named: int, width: int, cut: int
) -> None:
    """Lazy AdamW against its formula, a row at a time; weight decay comes in arrears."""
    rng = np.random.default_rng(seed)
    rows, cut = rng.permutation(12)[:named].astype(np.int32), min(cut, named)
    table, grad, m = (rng.normal(size=(n, width)).astype(REAL) for n in (12, named, 12))
    v, shrunk = rng.random((12, width)).astype(REAL), -0.1 * rng.random(12)
    # powers of two, which float32 holds: a kernel takes 1 − β in it
    shrink, lr, log_decay, beta1, beta2, correction1, correction2, eps = (
        0.5,
        2**-7,
        -0.2,
        0.875,
        0.96875,
        0.25,
        0.5,
        2**-26,
    )
    adam, m1, v1, waits = table.copy(), m.copy(), v.copy(), shrunk.copy()
    for part in (slice(cut), slice(cut, named)):
        betas = (beta1, beta2, correction1, correction2, eps)
        rates = kernels.AdamRates(REAL(shrink), REAL(lr), log_decay, *map(REAL, betas))
        kernels.adam_rows(adam, m1, v1, waits, rows[part], grad[part], rates)
    by_adam = table.copy()
    for row, g in zip(rows, grad * shrink, strict=True):
        keep = np.exp(log_decay - shrunk[row])
        m[row], v[row] = beta1 * m[row] + (1 - beta1) * g, beta2 * v[row] + (1 - beta2) * g**2
        by_adam[row] = keep * table[row] - lr * (m[row] / correction1) / (
            np.sqrt(v[row]) / correction2 + eps
        )
    for found, wanted in ((adam, by_adam), (m1, m), (v1, v)):
        assert_near(found, wanted, rtol=1e-10, atol=1e-12)
    kernels.decay_rows(adam, waits, log_decay)
    by_adam[np.setdiff1d(np.arange(12), rows)] *= np.exp(log_decay - shrunk)[
        np.setdiff1d(np.arange(12), rows), None
    ]
    assert_near(adam, by_adam, rtol=1e-10, atol=1e-12)
    assert (waits == log_decay).all()


@settings(max_examples=30)
@given(n=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_dense_step_is_adamw_by_its_formula(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, grad, m = rng.normal(size=(3, n)).astype(REAL)
    v = rng.random(n).astype(REAL)
    found = values.copy(), m.copy(), v.copy()
    rates = (0.5, 2**-7, 2**-5, 0.875, 0.96875, 0.25, 0.5, 2**-26)
    kernels.adam_dense(*found, grad, kernels.AdamRates(*map(REAL, rates)))
    g = 0.5 * grad
    m, v = 0.875 * m + 0.125 * g, 0.96875 * v + 0.03125 * g**2
    moved = values * (1 - 2**-5) - 2**-7 * (m / 0.25) / (np.sqrt(v) / 0.5 + 2**-26)
    for one, wanted in zip(found, (moved, m, v), strict=True):
        assert_near(one, wanted, rtol=1e-10, atol=1e-12)


@given(st.integers(0, 700))
def test_squares_are_summed_in_parts(n: int) -> None:
    values, sums = np.random.default_rng(n).normal(size=n).astype(REAL), np.full(2, np.nan)
    for part in range(2):
        kernels.sum_of_squares(values, part, sums)
    assert_near(sums, [(values.astype(float) ** 2).sum(), 0], rtol=1e-12)


def test_an_id_that_is_no_row_is_named() -> None:
    slots, rows, slot_of = np.empty(3, np.int32), np.empty(3, np.int32), np.full(4, -1, np.int32)
    assert kernels.number_rows(np.array([1, 4, 2], np.int32), slot_of, slots, rows) == -2
    assert (slot_of == -1).all()
    with pytest.raises(IndexError, match="id 9 is not one of the 4 ids"):
        Named(np.array([1, 9], np.int32), np.array([0, 1, 2], np.int32), slot_of)
