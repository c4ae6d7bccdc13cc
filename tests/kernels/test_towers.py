"""Two towers: the kernels against the module in float64, on drawn shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import towers as kernels
from fastgaum.kernels._jit import jit_fast
from fastgaum.kernels.draws import DropoutRule, drop
from fastgaum.kernels.scorer import ScorerInputs, ScorerOutputs
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.tensors import Bags
from fastgaum.nets.towers import TwoTower
from fastgaum.ops.tables import NamedParts, NamedRoom
from fastgaum.ops.towers import tower_parameters, weights_of
from tests.kernels.reals import REAL, assert_near, eighths

N_IDS, D, STATE, N_NUMBERS = 7, 5, 3, 4
SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=6)


def made(sizes: list[int], width: int, own: range) -> tuple[Any, ...]:
    """A tower with nothing left at zero, and display sets with some numbers; of no ids where bags
    are empty."""
    torch.manual_seed(len(sizes))
    items = BagLinear(N_IDS, 0, D, 1.0, bias=False).double()
    tower = TwoTower(items if width else None, D, 0, STATE, own=own).double()
    for parameter in tower.parameters():
        parameter.data = eighths(*parameter.shape)
    n = sum(sizes)
    offsets = torch.tensor([0, *np.cumsum(sizes).tolist()], dtype=torch.int32)
    ids = torch.randint(0, N_IDS, (n, width), dtype=torch.int32)
    bags = Bags(
        ids.reshape(-1),
        width * torch.arange(n + 1, dtype=torch.int32),
        eighths(n, N_NUMBERS),
    )
    states = eighths(len(sizes), STATE)
    return items, tower, bags, ids, offsets, states


def rule(rate: float, key: int) -> DropoutRule:
    return DropoutRule(np.uint32(key), np.uint32(rate * 2**32), REAL(1 / (1 - rate)))


def kept(shape: Any, of: DropoutRule) -> torch.Tensor:
    """What a dropout multiplies with, entry by entry."""
    shares = np.ones(shape, REAL)
    with np.errstate(over="ignore"):  # hashes overflow on purpose; as plain Python numpy says so
        _drop(shares.reshape(-1), *of)
    return torch.from_numpy(shares).double()


@jit_fast
def _drop(row: Any, key: Any, threshold: Any, scale: Any) -> None:
    drop(row, 0, key, threshold, scale)


@settings(max_examples=30, deadline=None)
@given(
    sizes=SIZES,
    width=st.integers(0, 3),
    own=st.sampled_from([range(0), range(1, 3), range(4)]),
    rate=st.sampled_from([0.0, 0.5]),
    cut=st.booleans(),
)
def test_scores_and_gradients(
    sizes: list[int], width: int, own: range, rate: float, cut: bool
) -> None:
    items, tower, bags, ids, offsets, states = made(sizes, width, own)
    rules = rule(rate, 3), rule(rate, 4)
    states.requires_grad_()
    x = states * kept(states.shape, rules[0])
    hidden = torch.relu(tower.hidden(x)) * kept((len(sizes), 2 * D), rules[1])
    of_state = tower.out(hidden) + tower.direct(x)
    users = torch.cat([of_state, of_state.new_ones(len(sizes), 1)], 1)
    expanded = users.repeat_interleave(torch.tensor(sizes), 0)
    expected = (expanded * items(bags)).sum(1)
    if tower.tastes is not None:
        expected = expected + (
            expanded @ tower.tastes.T * bags.numbers[:, own.start : own.stop]
        ).sum(1)
    grad = torch.randn(len(expected), dtype=torch.float64)
    parameters = tower_parameters(tower)
    of_states, of_table, *of_dense = torch.autograd.grad(
        expected,
        [states, items.table, *parameters],
        grad,
        allow_unused=True,
        materialize_grads=True,
    )

    def array(value: torch.Tensor) -> Any:
        return value.detach().numpy().astype(REAL)

    n, n_events = len(ids), len(sizes)
    dense = array(torch.cat([part.reshape(-1) for part in parameters]))
    weights = weights_of(tower, array(items.table), dense)
    shapes = [(n_events, STATE), (n_events, 2 * D), (n_events, D), (n,)]
    written = kernels.TowerPass(*(np.full(shape, np.nan, REAL) for shape in shapes))
    parts = [(0, 1), (1, n_events)] if cut and n_events > 1 else [(0, n_events)]
    named = NamedParts(
        ids.numpy(),
        offsets.numpy(),
        parts,
        np.full(N_IDS, -1, np.int32),
        (NamedRoom(), NamedRoom()),
    )
    inputs = ScorerInputs(
        offsets.numpy(), ids.numpy(), array(bags.numbers), array(states), named.slots
    )
    total, none, no_rows = np.zeros_like(dense), np.empty(0, REAL), np.empty((0, 1), REAL)
    found_states, unwanted = np.ones((n_events, STATE), REAL), np.empty((0, STATE), REAL)
    with np.errstate(over="ignore"):
        for part in parts:
            kernels.tower_forward(*part, inputs, weights, rules, written)
        for states_wanted in (found_states, unwanted):
            total[:], rows = 0, np.full((named.count, D), np.nan, REAL)
            for part in parts:
                found = np.full_like(dense, np.nan)
                learned = array(grad), found, rows, no_rows, states_wanted
                grads = ScorerOutputs(none, none, *learned)
                kernels.tower_backward(*part, inputs, weights, rules, written, grads)
                total += found
    assert_near(written.users, users.detach().numpy(), atol=1e-12)
    assert_near(written.scores, expected.detach().numpy(), atol=1e-12)
    assert_near(found_states - 1, of_states.numpy(), atol=1e-11)
    wanted = torch.cat([part.reshape(-1) for part in of_dense]).numpy()
    assert_near(total, wanted, atol=1e-11)
    in_all = np.zeros((N_IDS, D))
    np.add.at(in_all, named.rows, rows)
    assert_near(in_all, of_table.numpy(), atol=1e-11)
    if rate == 0 and width:
        torch.testing.assert_close(tower(bags, states, offsets), expected)
