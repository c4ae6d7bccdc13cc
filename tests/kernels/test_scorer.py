"""The scorer's kernels against a slow twin, and their gradients against finite differences in
float64."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import activations, draws, scorer
from fastgaum.kernels._jit import Array, jit_fast

KINDS = {0: lambda x: np.maximum(x, 0), 1: lambda x: np.where(x > 0, x, np.expm1(x)), 2: np.tanh}


class Case:
    """A scorer and display sets, drawn; float64 unless told."""

    def __init__(
        self,
        seed: int,
        sizes: list[int],
        hidden: list[int],
        n_numbers: int,
        n_fields: int,
        item_dim: int,
        wide: bool,
        kind: int,
        dtype: Any = np.float64,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.kind, self.item_dim, self.wide, self.n_numbers = kind, item_dim, wide, n_numbers
        self.offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
        n, n_ids, state_dim = int(self.offsets[-1]), 11, 3
        self.widths = np.array(hidden, dtype=np.int64)

        def draw(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(dtype)

        self.ids = rng.integers(0, n_ids, (n, n_fields)).astype(np.int32)
        self.numbers, self.states = draw(n, n_numbers), draw(len(sizes), state_dim)
        self.table, self.wide_table = (
            draw(n_ids, item_dim or hidden[0]),
            draw(n_ids if wide else 0, 1),
        )
        shapes = {
            "bias": (hidden[0],),
            "numbers": (hidden[0], n_numbers),
            "state": (hidden[0], state_dim),
        }
        shapes |= {"up": (item_dim, hidden[0])} if item_dim else {}
        shapes |= {"wide": (1 + n_numbers,)} if wide else {}
        for i, (before, after) in enumerate(zip(hidden, [*hidden[1:], 1], strict=True)):
            shapes |= {f"rest{i}": (after, before), f"rest bias{i}": (after,)}
        self.shapes, self.start, at = shapes, {}, 0
        for name, shape in shapes.items():
            self.start[name] = at
            at += int(np.prod(shape))
        self.dense = draw(at) * dtype(0.5)
        rest = [self.start[f"rest{i}"] for i in range(len(hidden))]
        self.starts = np.array(
            [
                0,
                self.start["numbers"],
                self.start["state"],
                self.start.get("up", -1),
                self.start.get("wide", -1),
                *rest,
            ]
        )
        self.grad = draw(n)

    def part(self, name: str) -> Array:
        size = int(np.prod(self.shapes[name]))
        return self.dense[self.start[name] : self.start[name] + size].reshape(self.shapes[name])

    def naive(self) -> Array:
        """Scores, one candidate after the other."""
        scores = np.zeros(len(self.ids), self.dense.dtype)
        for event in range(len(self.states)):
            for candidate in range(self.offsets[event], self.offsets[event + 1]):
                bag = self.table[self.ids[candidate]].sum(0)
                x = bag @ self.part("up") if self.item_dim else bag
                x = x + self.part("bias") + self.part("numbers") @ self.numbers[candidate]
                x = x + self.part("state") @ self.states[event]
                for i in range(len(self.widths)):
                    x = self.part(f"rest{i}") @ KINDS[self.kind](x) + self.part(f"rest bias{i}")
                if self.wide:
                    wide = self.part("wide")
                    x = (
                        x
                        + wide[0]
                        + wide[1:] @ self.numbers[candidate]
                        + self.wide_table[self.ids[candidate]].sum()
                    )
                scores[candidate] = x[0]
        return scores

    def records(self) -> tuple[scorer.ScorerInputs, scorer.ScorerWeights, draws.DropoutRule]:
        inputs = scorer.ScorerInputs(self.offsets, self.ids, self.numbers, self.states)
        tables = self.table, self.wide_table
        weights = scorer.ScorerWeights(*tables, self.dense, self.starts, self.widths, self.kind)
        return inputs, weights, self.dropout

    def forward(self, parts: list[tuple[int, int]], key: int = 0, rate: float = 0.0) -> Array:
        self.dropout = draws.DropoutRule(
            np.uint32(key),
            np.uint32(rate * 2**32),
            self.dense.dtype.type(1 / (1 - rate)),
        )
        n = len(self.ids)
        self.activations = np.empty(n * int(self.widths.sum()), self.dense.dtype)
        scores, sums = (
            np.empty(n, self.dense.dtype),
            np.empty((len(self.states), self.widths[0]), self.dense.dtype),
        )
        for part in parts:
            written = scorer.ScorerPass(sums, self.activations, scores)
            scorer.scorer_forward(*part, *self.records(), written)
        return scores

    def backward(self, parts: list[tuple[int, int]]) -> tuple[Array, Array, Array]:
        """Gradients of the dense parameters, of each candidate's bag and of the states."""
        n, like = len(self.ids), self.dense.dtype
        total, rows = np.zeros_like(self.dense), np.empty((n, self.table.shape[1]), like)
        sums, states = (
            np.empty((len(self.states), self.widths[0]), like),
            np.empty_like(self.states),
        )
        for part in parts:
            grad = np.empty_like(self.dense)
            scorer.scorer_backward(
                *part,
                *self.records(),
                self.activations,
                scorer.ScorerGrads(self.grad, grad, rows, sums, states),
            )
            total += grad
        return total, rows, states


CASES = st.builds(
    Case,
    seed=st.integers(0, 99),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    n_numbers=st.integers(0, 3),
    n_fields=st.integers(1, 2),
    item_dim=st.sampled_from([0, 2]),
    wide=st.booleans(),
    kind=st.sampled_from([0, 1, 2]),
)


@settings(max_examples=40, deadline=None)
@given(case=CASES)
def test_scores_are_those_of_the_slow_twin(case: Case) -> None:
    n_events = len(case.states)
    np.testing.assert_allclose(case.forward([(0, n_events)]), case.naive(), rtol=1e-9, atol=1e-9)
    if n_events > 1:
        np.testing.assert_allclose(
            case.forward([(0, 1), (1, n_events)]), case.naive(), rtol=1e-9, atol=1e-9
        )


@settings(max_examples=15, deadline=None)
@given(case=CASES, rate=st.sampled_from([0.0, 0.3]))
def test_gradients_are_those_of_finite_differences(case: Case, rate: float) -> None:
    parts = [(0, len(case.states))] if len(case.states) == 1 else [(0, 1), (1, len(case.states))]

    def value() -> float:
        return float(case.forward(parts, 5, rate) @ case.grad)

    value()
    dense, rows, states = case.backward(parts)
    rng = np.random.default_rng(1)
    for array, found in ((case.dense, dense), (case.states, states)):
        flat, gradient = array.reshape(-1), found.reshape(-1)
        for i in rng.choice(len(flat), min(6, len(flat)), replace=False):
            assert gradient[i] == pytest.approx(slope(flat, i, value), rel=1e-4, abs=1e-5)
    table = np.zeros_like(case.table)
    for candidate, ids in enumerate(case.ids):
        for row in ids:
            table[row] += rows[candidate]
    flat = case.table.reshape(-1)
    for i in rng.choice(len(flat), min(6, len(flat)), replace=False):
        assert table.reshape(-1)[i] == pytest.approx(slope(flat, i, value), rel=1e-4, abs=1e-5)


def slope(flat: Array, i: int, value: Any) -> float:
    before, step = flat[i], 1e-6
    flat[i] = before + step
    up = value()
    flat[i] = before - step
    down = value()
    flat[i] = before
    return float((up - down) / (2 * step))


def test_float32_is_close_to_float64() -> None:
    sizes = [3, 200, 1, 40]
    cases = [
        Case(3, sizes, [64, 64], 2, 1, 0, True, 1, dtype) for dtype in (np.float32, np.float64)
    ]
    low, high = (case.forward([(0, 4)]) for case in cases)
    np.testing.assert_allclose(low, high, rtol=1e-4, atol=2e-4)


@jit_fast
def _exp(x: Array) -> Array:
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = activations.exp_nonpositive(x[i])
    return result


def test_exp_keeps_its_stated_error() -> None:
    # a million in plain Python takes as long as all other kernels
    x = -np.linspace(0, 87, 20_001 if numba.config.DISABLE_JIT else 1_000_001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(_exp(x) / exact - 1).max() < 4e-7
    assert _exp(np.array([0.0], np.float32))[0] == 1.0
    assert 0 <= _exp(np.array([-1e4, -np.inf], np.float32)).max() < 1e-37
    assert np.isnan(_exp(np.array([np.nan], np.float32)))[0]
    wide = -np.linspace(0, 700, 1001)
    np.testing.assert_allclose(_exp(wide), np.exp(wide), rtol=1e-15)


@jit_fast
def _dropped(n: int, key: Any, threshold: Any) -> Array:
    row = np.ones(n, np.float32)
    draws.drop(row, 0, key, threshold, np.float32(2))
    return row


def test_dropout_is_fair_and_depends_on_the_key() -> None:
    n = 40_000 if numba.config.DISABLE_JIT else 200_000
    first, again, other = (
        _dropped(n, np.uint32(key), np.uint32(0.25 * 2**32)) for key in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert set(np.unique(first)) == {0.0, 2.0}
    for row in (first, other):
        assert (row == 0).mean() == pytest.approx(0.25, abs=0.005)
    assert ((first == 0) & (other == 0)).mean() == pytest.approx(0.0625, abs=0.004)
    # neighbours do not follow one another
    assert np.corrcoef(first[1:], first[:-1])[0, 1] == pytest.approx(0, abs=0.01)


@given(
    st.lists(st.integers(0, 5), max_size=40), st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.9])
)
def test_dropped_ids_are_those_of_dropped_entries(ids: list[int], key: int, rate: float) -> None:
    """One rule for both: where `drop` zeroes an entry, `drop_ids` replaces the id."""
    replacement, result = np.arange(10, 16, dtype=np.int32), np.full(len(ids), -1, np.int32)
    threshold = np.uint32(rate * 2**32)
    draws.drop_ids(np.array(ids, np.int32), replacement, np.uint32(key), threshold, result)
    dropped = _dropped(len(ids), np.uint32(key), threshold) == 0
    assert result.tolist() == [
        i + 10 if gone else i for i, gone in zip(ids, dropped.tolist(), strict=True)
    ]
