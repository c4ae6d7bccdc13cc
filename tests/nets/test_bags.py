"""The embedding bag: a linear layer on the multi-hot vector, its gradients, and stock torch."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from fastgaum.nets.ops import bags
from fastgaum.nets.ops.bags import bag_sum
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


def test_a_fixed_weight_gets_no_gradient_and_keeps_no_table() -> None:
    table, weights = draw(7, 3).requires_grad_(), draw(6, seed=1)
    out = bag_sum(table, IDS, OFFSETS, weights)
    with torch.no_grad():
        table.mul_(2.0)  # would fail the backward if the table had been saved
    out.sum().backward()
    assert weights.grad is None
    assert table.grad is not None
    torch.testing.assert_close(table.grad[4], (weights[0] + weights[2]).expand(3))


@with_and_without_weights
def test_stock_torch_equals_numba(weighted: bool) -> None:
    table, grad_out, weights = draw(7, 3), draw(5, 3, seed=1), draw(6, seed=2) if weighted else None
    torch.testing.assert_close(
        bags._bag_sum_stock(table, IDS, OFFSETS, weights),
        bags._bag_sum_cpu(table, IDS, OFFSETS, weights),
    )
    torch.testing.assert_close(
        bags._bag_scatter_add_stock(grad_out, IDS, OFFSETS, weights, 7),
        bags._bag_scatter_add_cpu(grad_out, IDS, OFFSETS, weights, 7),
    )
    torch.testing.assert_close(
        bags._bag_weight_grad_stock(grad_out, table, IDS, OFFSETS),
        bags._bag_weight_grad_cpu(grad_out, table, IDS, OFFSETS),
    )
    nothing = torch.zeros(0, dtype=torch.int32), torch.zeros(3, dtype=torch.int32)
    no_weights = weights[:0] if weights is not None else None
    for function in (bags._bag_sum_stock, bags._bag_sum_cpu):
        assert torch.equal(
            function(table, *nothing, no_weights), torch.zeros(2, 3, dtype=torch.float64)
        )


@with_and_without_weights
def test_operator_checks(weighted: bool) -> None:
    table, grad_out = draw(7, 3).requires_grad_(), draw(5, 3, seed=1)
    weights = draw(6, seed=1).requires_grad_() if weighted else None
    namespace = torch.ops.fastgaum
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of its own parts
        torch.library.opcheck(namespace.bag_sum.default, (table, IDS, OFFSETS, weights, False))
    for op, args in (
        (namespace.bag_scatter_add, (grad_out, IDS, OFFSETS, weights, 7)),
        (namespace.bag_weight_grad, (grad_out, table, IDS, OFFSETS)),
    ):
        plain = [a.detach() if isinstance(a, Tensor) else a for a in args]
        torch.library.opcheck(op.default, plain, test_utils=("test_schema", "test_faketensor"))


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


def test_wrong_arguments_are_named() -> None:
    table = draw(7, 3)
    with pytest.raises(IndexError, match="id 7 at position 1 is not a row of a table of 7 rows"):
        bag_sum(
            table, torch.tensor([0, 7], dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32)
        )
    with pytest.raises(IndexError, match="id -1 at position 0"):
        bag_sum(
            table, torch.tensor([-1], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)
        )
    with pytest.raises(TypeError, match=r"ids are torch\.int64"):
        bag_sum(table, IDS.long(), OFFSETS)
    with pytest.raises(ValueError, match="offsets end at 6, but there are 5 ids"):
        bag_sum(table, IDS[:5], OFFSETS)
    with pytest.raises(
        ValueError, match=r"weights are torch\.float32 of shape \(6,\): one torch\.float64 per id"
    ):
        bag_sum(table, IDS, OFFSETS, torch.ones(6))
