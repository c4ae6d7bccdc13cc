"""The embedding bag: a linear layer on the multi-hot vector, its gradients, and stock torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastgaum.nets.bags import bag_sum
from tests.naive_segments import multi_hot

IDS = torch.tensor([4, 1, 4, 0, 0, 6], dtype=torch.int32)
OFFSETS = torch.tensor(
    [0, 2, 2, 5, 6, 6], dtype=torch.int32
)  # bags 1 and 4 are empty; bag 2 repeats an id
with_and_without_weights = pytest.mark.parametrize("weighted", [False, True])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@with_and_without_weights
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bag_is_the_linear_layer_on_the_multi_hot(weighted: bool, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(7, 16, bias=False, dtype=dtype)
    weights = draw(6, dtype=dtype) if weighted else None
    table = layer.weight.detach().T.contiguous().requires_grad_()
    dense = torch.from_numpy(
        multi_hot(IDS.numpy(), OFFSETS.numpy(), None if weights is None else weights.numpy(), 7)
    ).to(dtype)
    ours, theirs = bag_sum(table, IDS, OFFSETS, weights), layer(dense)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    grad_out = draw(5, 16, seed=1, dtype=dtype)
    ours.backward(grad_out)
    theirs.backward(grad_out)
    assert table.grad is not None
    assert layer.weight.grad is not None
    torch.testing.assert_close(table.grad, layer.weight.grad.T, rtol=0, atol=1e-6)


def test_gradients() -> None:
    table, weights = draw(7, 3).requires_grad_(), draw(6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: bag_sum(t, IDS, OFFSETS), table)
    assert torch.autograd.gradcheck(lambda t, w: bag_sum(t, IDS, OFFSETS, w), (table, weights))
    assert torch.autograd.gradcheck(lambda w: bag_sum(table.detach(), IDS, OFFSETS, w), weights)


@with_and_without_weights
def test_bags_without_ids_are_zeros(weighted: bool) -> None:
    nothing = torch.zeros(0, dtype=torch.int32), torch.zeros(3, dtype=torch.int32)
    weights = draw(0) if weighted else None
    for sparse in (False, True):
        assert torch.equal(
            bag_sum(draw(7, 3), *nothing, weights, sparse), torch.zeros(2, 3, dtype=torch.float64)
        )


@with_and_without_weights
def test_without_gradients_the_sums_are_the_same(weighted: bool) -> None:
    weights = draw(6, seed=1) if weighted else None
    with torch.no_grad():
        found = bag_sum(draw(7, 3), IDS, OFFSETS, weights)
    torch.testing.assert_close(found, bag_sum(draw(7, 3), IDS, OFFSETS, weights))


@with_and_without_weights
def test_a_sparse_gradient_is_the_dense_one(weighted: bool) -> None:
    weights = draw(6, seed=1) if weighted else None
    grads = []
    for sparse in (False, True):
        table = draw(7, 3).requires_grad_()
        bag_sum(table, IDS, OFFSETS, weights, sparse).backward(draw(5, 3, seed=2))
        assert table.grad is not None
        grads.append(table.grad)
    assert grads[1].is_sparse
    torch.testing.assert_close(grads[1].to_dense(), grads[0])


def test_the_order_of_ids_and_of_bags_does_not_matter() -> None:
    table = draw(7, 3)
    straight = bag_sum(table, IDS, OFFSETS)
    swapped = bag_sum(table, IDS[[1, 0, 4, 2, 3, 5]], OFFSETS)
    torch.testing.assert_close(swapped, straight)
    assert torch.equal(
        bag_sum(table, IDS[2:5], torch.tensor([0, 3], dtype=torch.int32)), straight[2:3]
    )


@pytest.mark.parametrize("bad", [7, -1])
def test_an_id_without_a_row_is_an_error(bad: int) -> None:
    ids, offsets = torch.tensor([0, bad], dtype=torch.int32), torch.tensor([0, 2]).int()
    with pytest.raises(RuntimeError):
        bag_sum(draw(7, 3), ids, offsets)
    with pytest.raises(RuntimeError), torch.no_grad():
        bag_sum(draw(7, 3), ids, offsets)
