"""The embedding bag: a linear layer on the multi-hot vector, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.nets.bags import bag_sum
from tests.naive_segments import multi_hot

BAGS = st.lists(st.lists(st.integers(0, 6), max_size=4), max_size=6)


def packed(bags: list[list[int]]) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([one for bag in bags for one in bag], dtype=torch.int32)
    return ids, torch.tensor(np.cumsum([0, *map(len, bags)]), dtype=torch.int32)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@settings(max_examples=60, deadline=None)
@given(bags=BAGS, weighted=st.booleans(), sparse=st.booleans())
def test_a_bag_is_the_linear_layer_on_the_multi_hot(
    bags: list[list[int]], weighted: bool, sparse: bool
) -> None:
    ids, offsets = packed(bags)
    table, weights = draw(7, 3).requires_grad_(), draw(len(ids)) if weighted else None
    each = None if weights is None else weights.numpy()
    dense = torch.from_numpy(multi_hot(ids.numpy(), offsets.numpy(), each, 7))
    found, grad = bag_sum(table, ids, offsets, weights, sparse), draw(len(bags), 3)
    torch.testing.assert_close(found, dense @ table)
    found.backward(grad)
    assert table.grad is not None
    assert table.grad.is_sparse == sparse
    torch.testing.assert_close(table.grad.to_dense(), dense.T @ grad)
    with torch.no_grad():
        torch.testing.assert_close(bag_sum(table, ids, offsets, weights), dense @ table)


def test_gradients() -> None:
    ids, offsets = packed([[4, 1], [], [4, 0, 0], [6], []])
    table, weights = draw(7, 3).requires_grad_(), draw(6).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, w: bag_sum(t, ids, offsets, w), (table, weights))
    assert torch.autograd.gradcheck(lambda w: bag_sum(table.detach(), ids, offsets, w), weights)


@pytest.mark.parametrize("bad", [7, -1])
def test_an_id_without_a_row_is_an_error(bad: int) -> None:
    ids, offsets = torch.tensor([0, bad], dtype=torch.int32), torch.tensor([0, 2]).int()
    for grad in (True, False):
        with pytest.raises(RuntimeError), torch.set_grad_enabled(grad):
            bag_sum(draw(7, 3), ids, offsets)
