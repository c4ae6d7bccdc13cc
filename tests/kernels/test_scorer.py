"""The scorer's kernels against plain torch in float64, and their gradients against autograd's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.kernels import activations, choice, draws, scorer
from fastgaum.kernels import optimiser as rows_kernels
from fastgaum.kernels._jit import Array, jit_fast
from tests.kernels.reals import REAL, assert_near, eighths

KINDS = {0: torch.relu, 1: torch.nn.functional.elu}
N_IDS, STATE, KEY = 11, 3, 5


def drawn(*shape: int) -> Tensor:
    return eighths(*shape).requires_grad_()


class Case:
    """A scorer and display sets, drawn."""

    def __init__(
        self,
        seed: int,
        sizes: list[int],
        hidden: list[int],
        n_numbers: int,
        n_fields: int,
        wide: bool,
        kind: int,
        linear: bool = False,
    ) -> None:
        """`linear`: numbers have a weight of their own without the wide path, as beside towers."""
        torch.manual_seed(seed)
        n = sum(sizes)
        self.kind, self.hidden, self.wide = kind, hidden, wide
        self.offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
        self.event = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        self.ids = torch.randint(0, N_IDS, (n, n_fields), dtype=torch.int32)
        self.numbers, self.states = drawn(n, n_numbers).detach(), drawn(len(sizes), STATE)
        self.table = drawn(N_IDS, hidden[0])
        self.wide_table = drawn(N_IDS if wide else 0, 1)
        shapes: dict[str, tuple[int, ...]] = {
            "bias": (hidden[0],),
            "numbers": (hidden[0], n_numbers),
            "state": (hidden[0], STATE),
        }
        shapes |= {"wide": (1,)} if wide else {}
        shapes |= {"linear": (n_numbers,)} if wide else {}
        for i, (before, after) in enumerate(zip(hidden, [*hidden[1:], 1], strict=True)):
            shapes |= {f"rest{i}": (after, before), f"rest bias{i}": (after,)}
        shapes |= {"linear": (n_numbers,)} if linear else {}
        self.dense = {name: drawn(*shape) for name, shape in shapes.items()}
        ends = np.cumsum([0, *(part.numel() for part in self.dense.values())])
        start = dict(zip(self.dense, ends.tolist(), strict=False))
        names = ["bias", "numbers", "state", "wide", "linear"]
        names += [f"rest{i}" for i in range(len(hidden))]
        self.starts = np.array([start.get(name, -1) for name in names])
        self.grad, self.base = drawn(n).detach(), drawn(n).detach()

    def scores(self, rate: float) -> Tensor:
        """Those of plain torch."""
        part, ids = self.dense, self.ids.long()
        x = self.table[ids].sum(1)
        x = x + part["bias"] + self.numbers @ part["numbers"].T
        x = x + (self.states @ part["state"].T)[self.event]
        for i in range(len(self.hidden)):
            kept = self.kept(i, rate)
            x = (KINDS[self.kind](x) * kept) @ part[f"rest{i}"].T + part[f"rest bias{i}"]
        scores = x[:, 0]
        if self.wide:
            scores = scores + part["wide"] + self.wide_table[ids].sum((1, 2))
        return scores + self.numbers @ part["linear"] if "linear" in part else scores

    def kept(self, layer: int, rate: float) -> Tensor:
        """What dropout multiplies a layer with."""
        shares = np.ones(len(self.ids) * self.hidden[layer], REAL)
        if rate:
            threshold = np.uint32(rate * 2**32)
            with np.errstate(over="ignore"):
                _drop_all(shares, np.uint32(KEY + layer), threshold, REAL(1 / (1 - rate)))
        return torch.from_numpy(shares.reshape(len(self.ids), -1)).double()

    def run(
        self,
        parts: list[tuple[int, int]],
        loss: choice.Loss,
        rate: float = 0.0,
        states: bool = True,
    ) -> scorer.ScorerOutputs:
        """A pass; its `rows` and `wide_rows` are those of the whole tables, its dense gradient that
        of all parts."""

        def array(value: Tensor) -> Array:
            return value.detach().numpy().astype(REAL)

        def unknown(*shape: int) -> Array:
            return np.full(shape, np.nan, REAL)

        n, n_fields = self.ids.shape
        dropout = draws.DropoutRule(np.uint32(KEY), np.uint32(rate * 2**32), REAL(1 / (1 - rate)))
        dense = array(torch.cat([part.reshape(-1) for part in self.dense.values()]))
        table, wide_table = array(self.table), array(self.wide_table)
        widths = np.array(self.hidden, dtype=np.int64)
        weights = scorer.ScorerWeights(table, wide_table, dense, self.starts, widths, self.kind)
        slots, rows = np.empty((n, n_fields), np.int32), np.empty(n * n_fields, np.int32)
        slot_of, count, ids = np.full(N_IDS, -1, np.int32), 0, self.ids.numpy()
        for first, last in parts:
            start, stop = self.offsets[first], self.offsets[last]
            own, named = slots[start:stop].reshape(-1), ids[start:stop].reshape(-1)
            found = rows_kernels.number_rows(named, slot_of, own, rows[count:])
            own += count
            count += int(found)
        of_states, of_numbers = array(self.states), array(self.numbers)
        inputs = scorer.ScorerInputs(self.offsets, ids, of_numbers, of_states, slots)
        written = scorer.ScorerOutputs(
            array(self.base),
            unknown(len(of_states)),
            array(self.grad),
            dense[:0],
            unknown(count, table.shape[1]),
            unknown(count if self.wide else 0, 1),
            unknown(len(of_states) if states else 0, STATE),
        )
        total = np.zeros_like(dense)
        with np.errstate(over="ignore"):
            for part in parts:
                own_pass = written._replace(dense=np.full_like(dense, np.nan))
                scorer.scorer_pass(*part, inputs, weights, dropout, loss, own_pass)
                total += own_pass.dense
        tables = np.zeros_like(table), np.zeros_like(wide_table)
        if loss.kind != choice.SCORES:
            np.add.at(tables[0], rows[:count], written.rows)
            if self.wide:
                np.add.at(tables[1], rows[:count], written.wide_rows)
        return written._replace(dense=total, rows=tables[0], wide_rows=tables[1])

    def loss(self, kind: int, no_click: bool = False, eta: float = 1.0) -> choice.Loss:
        """One of that kind, its choices and targets drawn."""
        rng, sizes = np.random.default_rng(7), np.diff(self.offsets)
        choices = np.array([rng.integers(-1 if no_click else 0, n) for n in sizes], np.int32)
        targets = rng.random(len(self.ids)).astype(REAL)
        weights = rng.random(len(sizes) * int(rng.integers(2))).astype(REAL)
        return choice.Loss(kind, REAL(eta), no_click, choices, targets, weights)

    def parts(self) -> list[tuple[int, int]]:
        n_events = len(self.states)
        return [(0, n_events)] if n_events == 1 else [(0, 1), (1, n_events)]


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
    wide=st.booleans(),
    kind=st.sampled_from([0, 1]),
    linear=st.booleans(),
)
RATES = st.sampled_from([0.0, 0.5])


@settings(max_examples=20, deadline=None)
@given(case=CASES, rate=RATES)
def test_scores_are_added_to_what_stands_there(case: Case, rate: float) -> None:
    expected = (case.base + case.scores(rate)).detach().numpy()
    for parts in ([(0, len(case.states))], case.parts()):
        found = case.run(parts, case.loss(choice.SCORES), rate).scores
        assert_near(found, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    case=CASES,
    rate=RATES,
    kind=st.sampled_from([choice.GIVEN, choice.CHOICES, choice.TARGETS]),
    no_click=st.booleans(),
    eta=st.sampled_from([0.5, 1.0]),
    of_states=st.booleans(),
)
def test_gradients_are_those_of_autograd(
    case: Case, rate: float, kind: int, no_click: bool, eta: float, of_states: bool
) -> None:
    """Of given gradients of scores, and of the losses that one pass computes with them."""
    loss = case.loss(kind, no_click, eta)
    found = case.run(case.parts(), loss, rate, of_states)
    scores = case.base + case.scores(rate)
    if kind == choice.GIVEN:
        np.testing.assert_array_equal(found.scores, case.base)
        value = case.scores(rate) @ case.grad
    else:
        assert_near(found.scores, scores.detach(), rtol=1e-9, atol=1e-9)
        targets = torch.from_numpy(loss.targets.astype(float))
        if kind == choice.CHOICES:
            chosen = case.offsets[:-1][loss.choices >= 0] + loss.choices[loss.choices >= 0]
            targets = torch.zeros_like(targets)
            targets[chosen] = 1
        nothing = [torch.zeros(1, dtype=torch.float64)] if no_click else []
        events = (eta * scores).split(np.diff(case.offsets).tolist())
        totals = torch.stack([torch.cat([*nothing, one]).logsumexp(0) for one in events])
        assert_near(found.log_totals, totals.detach(), rtol=1e-9, atol=1e-9)
        weights = torch.from_numpy(loss.weights) if len(loss.weights) else torch.ones(len(totals))
        of_candidates = weights.repeat_interleave(torch.from_numpy(np.diff(case.offsets)))
        value = totals @ weights.double() / eta - (of_candidates * targets) @ scores
        value = value / len(case.states)
        (of_scores,) = torch.autograd.grad(value, scores, retain_graph=True)
        assert_near(found.grad_scores, of_scores, rtol=1e-9, atol=1e-12)
    leaves = [case.states, case.table, case.wide_table, *case.dense.values()]
    states, table, wide_table, *dense = torch.autograd.grad(
        value, leaves, allow_unused=True, materialize_grads=True
    )
    expected = [table, wide_table, torch.cat([part.reshape(-1) for part in dense])]
    for ours, theirs in zip((found.rows, found.wide_rows, found.dense), expected, strict=True):
        assert_near(ours, theirs, rtol=1e-8, atol=1e-9)
    if of_states:
        assert_near(found.states, states, rtol=1e-8, atol=1e-9)


@jit_fast
def _exp(x: Array) -> Array:
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = activations.exp_nonpositive(x[i])
    return result


def test_exp_keeps_its_stated_error() -> None:
    x = -np.linspace(0, 87, 1_000_001).astype(np.float32)
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
    n = 200_000
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
