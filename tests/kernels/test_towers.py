"""Two towers: the kernels against the module in float64, on drawn shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import optimiser as rows_kernels
from fastgaum.kernels import towers as kernels
from fastgaum.kernels.draws import DropoutRule
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.tensors import Bags
from fastgaum.nets.towers import TwoTower

N_IDS, D, STATE = 7, 5, 3
SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=6)


def made(sizes: list[int], width: int, n_numbers: int) -> tuple[Any, ...]:
    """A tower with nothing left at zero, and display sets."""
    torch.manual_seed(len(sizes))
    items = BagLinear(N_IDS, 0, D, 0, 1.0, bias=False).double()
    tower = TwoTower(items, n_numbers, STATE).double()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter)
    n = sum(sizes)
    offsets = torch.tensor([0, *np.cumsum(sizes).tolist()], dtype=torch.int32)
    ids = torch.randint(0, N_IDS, (n, width), dtype=torch.int32)
    bags = Bags(
        ids.reshape(-1),
        torch.arange(0, n * width + 1, width, dtype=torch.int32),
        torch.randn(n, n_numbers, dtype=torch.float64),
    )
    states = torch.randn(len(sizes), STATE, dtype=torch.float64)
    return items, tower, bags, ids, offsets, states


CASES = {"sizes": SIZES, "width": st.integers(1, 3), "n_numbers": st.sampled_from([0, 2])}


@settings(max_examples=30, deadline=None)
@given(**CASES)
def test_scores_and_gradients(sizes: list[int], width: int, n_numbers: int) -> None:
    items, tower, bags, ids, offsets, states = made(sizes, width, n_numbers)
    users = tower.users(states).detach().requires_grad_()
    expanded = users.repeat_interleave(torch.tensor(sizes), 0)
    expected = (expanded * items(bags)).sum(1)
    if tower.numbers is not None:
        expected = expected + tower.numbers(bags.numbers)[:, 0]
    grad = torch.randn(len(expected), dtype=torch.float64)
    wanted = [users, items.table, *([] if tower.numbers is None else [tower.numbers.weight])]
    of_users, of_table, *of_numbers = torch.autograd.grad(
        expected, wanted, grad, allow_unused=True, materialize_grads=True
    )

    n_events, numbers = len(sizes), bags.numbers.numpy()
    weights = np.zeros(0) if tower.numbers is None else tower.numbers.weight.detach().numpy()[0]
    u, table = users.detach().numpy(), items.table.detach().numpy()
    displays = kernels.Displays(offsets.numpy(), ids.numpy(), numbers)
    scores = np.empty(len(ids))
    kernels.tower_scores(0, n_events, displays, kernels.Users(u, weights), table, scores)
    np.testing.assert_allclose(scores, expected.detach().numpy(), atol=1e-12)

    grads = kernels.Users(np.empty_like(u), np.empty((n_events, n_numbers)))
    kernels.user_gradients(0, n_events, displays, grad.numpy(), table, grads)
    np.testing.assert_allclose(grads.vectors, of_users.numpy(), atol=1e-12)
    for gradient in of_numbers:
        np.testing.assert_allclose(grads.weights.sum(0), gradient.numpy()[0], atol=1e-12)

    slots, rows = np.empty(ids.numel(), np.int32), np.empty(ids.numel(), np.int32)
    slot_of = np.full(N_IDS, -1, np.int32)
    count = rows_kernels.number_rows(bags.ids.numpy(), slot_of, slots, rows)
    starts, named = np.empty(count + 1, np.int32), np.empty(ids.numel(), np.int32)
    rows_kernels.group_bags(slots, bags.offsets.numpy(), starts, named)
    events = np.repeat(np.arange(n_events, dtype=np.int32), sizes)
    bag_grads = kernels.BagGradients(events, grad.numpy(), u, np.empty((0, D)))
    total = np.empty((count, D))
    kernels.row_gradients(0, count, starts, named, bag_grads, total)
    dense = np.zeros_like(table)
    dense[rows[:count]] = total
    np.testing.assert_allclose(dense, of_table.numpy(), atol=1e-12)


def test_row_gradients_add_the_rows_of_other_bags() -> None:
    # two candidates, of events 0 and 1, then a bag of another kind; all name one row
    grads = kernels.BagGradients(
        np.array([0, 1], np.int32),
        np.array([2.0, 3.0]),
        np.array([[1.0], [10.0]]),
        np.array([[100.0]]),
    )
    total = np.empty((1, 1))
    starts, bags = np.array([0, 3], np.int32), np.array([0, 1, 2], np.int32)
    kernels.row_gradients(0, 1, starts, bags, grads, total)
    assert total[0, 0] == 2 * 1 + 3 * 10 + 100


@settings(max_examples=30, deadline=None)
@given(**CASES)
def test_slates(sizes: list[int], width: int, n_numbers: int) -> None:
    _, tower, bags, ids, offsets, states = made(sizes, width, n_numbers)
    expected = tower(bags, states, offsets).detach().numpy()
    k = 7
    rows = np.full((len(sizes), k, width), -1, np.int32)
    numbers = np.zeros((len(sizes), k, n_numbers))
    # a gap before the first place of each slate
    event = np.repeat(np.arange(len(sizes)), sizes)
    place = 1 + np.arange(len(event)) - offsets.numpy()[event]
    rows[event, place], numbers[event, place] = ids.numpy(), bags.numbers.numpy()

    def array(value: torch.Tensor) -> Any:
        return np.ascontiguousarray(value.detach().numpy())

    def padded(value: torch.Tensor) -> Any:
        return np.pad(array(value.t()), ((0, 0), (0, 1)))

    folded = kernels.TowerTables(
        array(tower.items.table),
        array(tower.hidden.weight.t()),
        array(tower.hidden.bias),
        padded(tower.out.weight),
        padded(tower.direct.weight),
        np.append(array(tower.out.bias), 1.0),
        np.zeros(0) if tower.numbers is None else array(tower.numbers.weight[0]),
    )
    scores = np.full((len(sizes), k), np.nan)
    kernels.slate_tower_scores(0, len(sizes), rows, numbers, states.numpy(), folded, scores)
    np.testing.assert_allclose(scores[event, place], expected, atol=1e-12)
    assert (scores[rows[:, :, 0] < 0] == 0).all()


@settings(max_examples=5, deadline=None)
@given(key=st.integers(0, 2**31))
def test_dropout_of_a_matrix_is_the_same_twice(key: int) -> None:
    rule = DropoutRule(np.uint32(key), np.uint32(2**31), np.float32(2))
    once, twice = np.ones((50, 40), np.float32), np.ones((50, 40), np.float32)
    # hashes overflow on purpose; as plain Python numpy says so
    with np.errstate(over="ignore"):
        kernels.drop_matrix(once, rule)
        kernels.drop_matrix(twice, rule)
    assert (once == twice).all()
    assert set(np.unique(once)) == {0.0, 2.0}
    assert abs(once.mean() - 1) < 0.1
