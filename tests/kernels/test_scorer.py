"""The scorer's kernels against a slow twin, and their gradients against finite differences in
float64."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import activations, choice, draws, scorer
from fastgaum.kernels import optimiser as rows_kernels
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
        linear: bool = False,
    ) -> None:
        """`linear`: numbers have a weight of their own without the wide path, as beside towers."""
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
        shapes |= {"wide": (1,), "linear": (n_numbers,)} if wide else {}
        for i, (before, after) in enumerate(zip(hidden, [*hidden[1:], 1], strict=True)):
            shapes |= {f"rest{i}": (after, before), f"rest bias{i}": (after,)}
        shapes |= {"linear": (n_numbers,)} if linear else {}
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
                self.start.get("linear", -1),
                *rest,
            ]
        )
        self.grad, self.base = draw(n), draw(n)

    def part(self, name: str) -> Array:
        size = int(np.prod(self.shapes[name]))
        return self.dense[self.start[name] : self.start[name] + size].reshape(self.shapes[name])

    def naive(self, key: int = 0, rate: float = 0.0) -> Array:
        """Scores, one candidate after the other."""
        scores = np.zeros(len(self.ids), self.dense.dtype)
        shares = [self.kept(layer, key, rate) for layer in range(len(self.widths))]
        for event in range(len(self.states)):
            for candidate in range(self.offsets[event], self.offsets[event + 1]):
                bag = self.table[self.ids[candidate]].sum(0)
                x = bag @ self.part("up") if self.item_dim else bag
                x = x + self.part("bias") + self.part("numbers") @ self.numbers[candidate]
                x = x + self.part("state") @ self.states[event]
                for i in range(len(self.widths)):
                    a = KINDS[self.kind](x) * shares[i][candidate]
                    x = self.part(f"rest{i}") @ a + self.part(f"rest bias{i}")
                if self.wide:
                    x = x + self.part("wide") + self.wide_table[self.ids[candidate]].sum()
                if "linear" in self.shapes:
                    x = x + self.part("linear") @ self.numbers[candidate]
                scores[candidate] = x[0]
        return scores

    def kept(self, layer: int, key: int, rate: float) -> Array:
        """What dropout multiplies a layer with."""
        shares = np.ones(len(self.ids) * int(self.widths[layer]), self.dense.dtype)
        if rate:
            threshold, scale = np.uint32(rate * 2**32), self.dense.dtype.type(1 / (1 - rate))
            with np.errstate(over="ignore"):
                _drop_all(shares, np.uint32(key + layer), threshold, scale)
        return shares.reshape(len(self.ids), -1)

    def run(
        self,
        parts: list[tuple[int, int]],
        loss: choice.Loss,
        key: int = 0,
        rate: float = 0.0,
        states: bool = True,
    ) -> scorer.ScorerPass:
        """A pass; its `rows` and `wide_rows` are those of the whole tables, its dense gradient that
        of all parts."""
        dtype, (n, n_fields) = self.dense.dtype.type, self.ids.shape
        scale = dtype(1 / (1 - rate))
        dropout = draws.DropoutRule(np.uint32(key), np.uint32(rate * 2**32), scale)
        weights = scorer.ScorerWeights(
            self.table, self.wide_table, self.dense, self.starts, self.widths, self.kind
        )
        slots, rows = np.empty((n, n_fields), np.int32), np.empty(n * n_fields, np.int32)
        slot_of, count = np.full(len(self.table), -1, np.int32), 0
        for first, last in parts:
            start, stop = self.offsets[first], self.offsets[last]
            own = slots[start:stop].reshape(-1)
            found = rows_kernels.number_rows(
                self.ids[start:stop].reshape(-1), slot_of, own, rows[count:]
            )
            own += count
            count += int(found)

        def unknown(*shape: int) -> Array:
            return np.full(shape, np.nan, dtype)

        inputs = scorer.ScorerInputs(self.offsets, self.ids, self.numbers, self.states, slots)
        written = scorer.ScorerPass(
            self.base.copy(),
            unknown(len(self.states)),
            self.grad.copy(),
            self.dense[:0],
            unknown(count, self.table.shape[1]),
            unknown(count if self.wide else 0, 1),
            unknown(len(self.states) if states else 0, self.states.shape[1]),
        )
        total = np.zeros_like(self.dense)
        with np.errstate(over="ignore"):
            for part in parts:
                own_pass = written._replace(dense=np.full_like(self.dense, np.nan))
                scorer.scorer_pass(*part, inputs, weights, dropout, loss, own_pass)
                total += own_pass.dense
        tables = np.zeros_like(self.table), np.zeros_like(self.wide_table)
        if loss.kind != choice.SCORES:
            np.add.at(tables[0], rows[:count], written.rows)
            if self.wide:
                np.add.at(tables[1], rows[:count], written.wide_rows)
        return written._replace(dense=total, rows=tables[0], wide_rows=tables[1])

    def loss(self, kind: int, outside: bool = False, eta: float = 1.0) -> choice.Loss:
        """One of that kind, its choices and targets drawn."""
        rng, sizes = np.random.default_rng(7), np.diff(self.offsets)
        dtype = self.dense.dtype.type
        choices = np.array([rng.integers(-1 if outside else 0, n) for n in sizes], np.int32)
        targets = rng.random(len(self.ids)).astype(dtype)
        return choice.Loss(kind, dtype(eta), outside, choices, targets)


@jit_fast
def _drop_all(flat: Array, key: Any, threshold: Any, scale: Any) -> None:
    draws.drop(flat, 0, key, threshold, scale)


CASES = st.builds(
    Case,
    seed=st.integers(0, 99),
    sizes=st.lists(st.sampled_from([1, 2, 3, 7, 40, 130, 300]), min_size=1, max_size=7),
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    n_numbers=st.integers(0, 3),
    n_fields=st.integers(1, 2),
    item_dim=st.sampled_from([0, 2]),
    wide=st.booleans(),
    kind=st.sampled_from([0, 1, 2]),
    linear=st.booleans(),
)
RATES = st.sampled_from([0.0, 0.3])


def parts_of(case: Case) -> list[tuple[int, int]]:
    n_events = len(case.states)
    return [(0, n_events)] if n_events == 1 else [(0, 1), (1, n_events)]


@settings(max_examples=30, deadline=None)
@given(case=CASES, rate=RATES)
def test_scores_are_added_to_what_stands_there(case: Case, rate: float) -> None:
    expected = case.base + case.naive(5, rate)
    for parts in ([(0, len(case.states))], parts_of(case)):
        found = case.run(parts, case.loss(choice.SCORES), 5, rate).scores
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(case=CASES, rate=RATES)
def test_gradients_are_those_of_finite_differences(case: Case, rate: float) -> None:
    parts = parts_of(case)

    def value() -> float:
        return float(case.run(parts, case.loss(choice.SCORES), 5, rate).scores @ case.grad)

    found = case.run(parts, case.loss(choice.GIVEN), 5, rate)
    np.testing.assert_array_equal(found.scores, case.base)
    rng = np.random.default_rng(1)
    for array, gradients in (
        (case.dense, found.dense),
        (case.states, found.states),
        (case.table, found.rows),
        (case.wide_table, found.wide_rows),
    ):
        flat, gradient = array.reshape(-1), gradients.reshape(-1)
        for i in rng.choice(len(flat), min(6, len(flat)), replace=False):
            assert gradient[i] == pytest.approx(slope(flat, i, value), rel=1e-4, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    case=CASES,
    rate=RATES,
    kind=st.sampled_from([choice.CHOICES, choice.TARGETS]),
    outside=st.booleans(),
    eta=st.sampled_from([0.5, 1.0]),
)
def test_what_is_learned_is_the_gradient_of_its_loss(
    case: Case, rate: float, kind: int, outside: bool, eta: float
) -> None:
    """One pass gives what scores, their softmax and a pass back give, one after the other."""
    parts, loss = parts_of(case), case.loss(kind, outside, eta)
    learned = case.run(parts, loss, 5, rate)
    scores = case.run(parts, case.loss(choice.SCORES), 5, rate).scores
    np.testing.assert_allclose(learned.scores, scores, rtol=1e-12)
    for event, logged in enumerate(loss.choices):
        own = slice(case.offsets[event], case.offsets[event + 1])
        total = np.exp(eta * scores[own]).sum() + outside
        assert learned.log_totals[event] == pytest.approx(np.log(total), rel=1e-9, abs=1e-9)
        target = loss.targets[own].copy()
        if kind == choice.CHOICES:
            target[:] = 0
            target[logged : logged + (logged >= 0)] = 1
        case.grad[own] = (np.exp(eta * scores[own]) / total - target) / len(case.states)
    np.testing.assert_allclose(learned.grad_scores, case.grad, rtol=1e-9, atol=1e-12)
    apart = case.run(parts, case.loss(choice.GIVEN), 5, rate, states=False)
    np.testing.assert_allclose(learned.dense, apart.dense, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(learned.rows, apart.rows, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(learned.wide_rows, apart.wide_rows, rtol=1e-9, atol=1e-11)


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
    low, high = (case.run([(0, 4)], case.loss(choice.SCORES)).scores for case in cases)
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
