from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastgaum.nets.ops import _position_stock
from fastgaum.nets.ops.recurrent import LagStructure, bag_outer_sum, lag_structure, lag_weighted
from tests import naive_recurrent as naive

OFFSETS = [0, 0, 3, 4, 4, 10]
N_IDS = 6
WINDOW = 3
N = 2
ACTIVATIONS = ["identity", "tanh", "elu"]


def _bags() -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, N_IDS, size=size).tolist() for size in (2, 1, 3, 0, 4, 1, 1, 2, 0, 3)]


def _int32(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _packed(bags: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    id_offsets = np.cumsum([0, *map(len, bags)]).tolist()
    return _int32(OFFSETS), _int32([feature for bag in bags for feature in bag]), _int32(id_offsets)


def _parameters(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """lag_weights, bias and table."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((WINDOW, N), (N,), (N_IDS * N, 5))
    weights, bias, table = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    )
    return weights.requires_grad_(), bias.requires_grad_(), table.requires_grad_()


def _structure() -> LagStructure:
    return lag_structure(*_packed(_bags()), WINDOW)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_readout_equals_the_dense_state_less_its_constant(
    activation: str, dtype: torch.dtype, tolerance: float
) -> None:
    lag_weights, bias, table = _parameters(dtype)
    found = bag_outer_sum(table, *lag_weighted(_structure(), lag_weights, bias, activation))
    dense = naive.dense_position_weight(
        OFFSETS, _bags(), N_IDS, lag_weights.detach().numpy(), bias.detach().numpy(), activation
    )
    rest = naive.activate(bias.detach().numpy(), activation)
    expected = (dense - rest).reshape(len(dense), -1) @ table.detach().numpy()
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_by_finite_differences(activation: str) -> None:
    structure = _structure()

    def readout(lag_weights: Tensor, bias: Tensor, table: Tensor) -> Tensor:
        return bag_outer_sum(table, *lag_weighted(structure, lag_weights, bias, activation))

    assert torch.autograd.gradcheck(readout, _parameters())


@pytest.mark.parametrize("window", [1, 3, 50])
def test_structure_equals_stock_torch(window: int) -> None:
    packed = _packed(_bags())
    ours, theirs = lag_structure(*packed, window), _position_stock.lag_structure(*packed, window)
    assert ours.window == window
    for found, expected in zip(ours[:4], theirs, strict=True):
        assert found.dtype == expected.dtype == torch.int32
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("offsets", [[0], [0, 0], [0, 2]])
def test_nothing_seen_gives_empty_states(offsets: list[int]) -> None:
    n_tokens = offsets[-1]
    packed = _int32(offsets), _int32([]), _int32([0] * (n_tokens + 1))
    structure = lag_structure(*packed, WINDOW)
    lag_weights, bias, table = _parameters()
    state = bag_outer_sum(table, *lag_weighted(structure, lag_weights, bias, "tanh"))
    assert state.shape == (n_tokens, 5)
    assert not state.any()
    state.sum().backward()
    assert not lag_weights.grad.any()
    assert [part.tolist() for part in _position_stock.lag_structure(*packed, WINDOW)] == [
        part.tolist() for part in structure[:4]
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_operators_equal_stock_torch(activation: str) -> None:
    structure = _structure()
    lag_weights, bias, table = _parameters()
    code = ACTIVATIONS.index(activation)
    ids, offsets, weights = lag_weighted(structure, lag_weights, bias, activation)
    generator = torch.Generator().manual_seed(5)
    grad = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad(weights, (lag_weights, bias), grad)
    with torch.no_grad():
        where = structure.entries, structure.lags
        stock = _position_stock.weigh(*where, lag_weights, bias, code, len(ids))
        stock_grads = _position_stock.weigh_backward(grad, *where, bias, code, stock, WINDOW)
    torch.testing.assert_close(weights, stock)
    torch.testing.assert_close(grads, stock_grads)

    weights = weights.detach().requires_grad_()
    sums = bag_outer_sum(table, ids, offsets, weights)
    grad = torch.randn(sums.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad(sums, (table, weights), grad)
    with torch.no_grad():
        torch.testing.assert_close(sums, _position_stock.outer_sum(table, ids, offsets, weights))
        torch.testing.assert_close(
            grads,
            (
                _position_stock.outer_table_grad(grad, ids, offsets, weights, len(table)),
                _position_stock.outer_weight_grad(grad, table, ids, offsets, N),
            ),
        )


def test_operator_registration() -> None:
    structure = _structure()
    lag_weights, bias, table = _parameters(torch.float32)
    ops = torch.ops.fastgaum
    weigh = (structure.entries, structure.lags, lag_weights, bias, 1, len(structure.state_ids))
    torch.library.opcheck(ops.lag_weigh.default, weigh)
    weights = ops.lag_weigh.default(*weigh).detach().requires_grad_()
    rest = structure.state_ids, structure.state_offsets
    torch.library.opcheck(ops.bag_outer_sum.default, (table, *rest, weights, False))
    grad = torch.ones(10, 5)
    torch.library.opcheck(
        ops.bag_outer_table_grad.default, (grad, *rest, weights.detach(), len(table))
    )
    torch.library.opcheck(ops.bag_outer_weight_grad.default, (grad, table.detach(), *rest, N))


def test_a_sparse_table_gradient_is_the_dense_one() -> None:
    structure = _structure()
    grads = []
    for sparse in (False, True):
        lag_weights, bias, table = _parameters()
        states = bag_outer_sum(table, *lag_weighted(structure, lag_weights, bias, "tanh"), sparse)
        states.backward(torch.arange(float(states.numel()), dtype=states.dtype).view(states.shape))
        assert table.grad is not None
        grads.append(table.grad)
    assert grads[1].is_sparse
    torch.testing.assert_close(grads[1].to_dense(), grads[0])


def test_what_does_not_fit_is_named() -> None:
    structure = _structure()
    lag_weights, bias, table = _parameters()
    ids, offsets, weights = lag_weighted(structure, lag_weights, bias, "elu")
    with pytest.raises(ValueError, match="did you mean 'tanh'"):
        lag_weighted(structure, lag_weights, bias, "tan")
    with pytest.raises(ValueError, match="a window of 3 and 2 biases"):
        lag_weighted(structure, lag_weights[:2], bias, "tanh")
    with pytest.raises(TypeError, match=r"bias torch\.float32"):
        lag_weighted(structure, lag_weights, bias.float(), "tanh")
    with pytest.raises(ValueError, match="window is 0"):
        lag_structure(*_packed(_bags()), 0)
    with pytest.raises(ValueError, match="offsets end at 10, but there are 9 tokens"):
        lag_structure(_packed(_bags())[0], *_packed(_bags()[:9])[1:], 1)
    with pytest.raises(IndexError, match=f"no rows in a table of {N_IDS - 1} features"):
        bag_outer_sum(table[: (N_IDS - 1) * N], ids, offsets, weights)
    with pytest.raises(ValueError, match="a table of 11 rows"):
        bag_outer_sum(table[:11], ids, offsets, weights)
    with pytest.raises(TypeError, match=r"weights torch\.float32"):
        bag_outer_sum(table, ids, offsets, weights.float())
