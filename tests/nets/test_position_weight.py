from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastgaum.nets.sequences import LagStructure, lag_readout, lag_structure, lag_weighted
from tests import naive_recurrent as naive

OFFSETS = [0, 0, 3, 4, 4, 10]
N_IDS = 6
WINDOW = 3
N = 2


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


def _readout(lag_weights: Tensor, bias: Tensor, table: Tensor) -> Tensor:
    structure = _structure()
    return lag_readout(table, structure, lag_weighted(structure, lag_weights, bias))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_readout_equals_the_dense_state_less_its_constant(
    dtype: torch.dtype, tolerance: float
) -> None:
    lag_weights, bias, table = _parameters(dtype)
    found = _readout(lag_weights, bias, table)
    dense = naive.dense_position_weight(
        OFFSETS, _bags(), N_IDS, lag_weights.detach().numpy(), bias.detach().numpy()
    )
    rest = np.tanh(bias.detach().numpy())
    expected = (dense - rest).reshape(len(dense), -1) @ table.detach().numpy()
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=tolerance)


def test_gradients_by_finite_differences() -> None:
    assert torch.autograd.gradcheck(_readout, _parameters())


@pytest.mark.parametrize("window", [1, 3, 50])
def test_the_structure_is_that_of_its_twin(window: int) -> None:
    found = lag_structure(*_packed(_bags()), window)
    expected = naive.state_bags(OFFSETS, _bags(), window)
    assert found.state_offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert found.state_ids.tolist() == [feature for state in expected for feature in state]
    lags_of_entry: list[list[int]] = [[] for _ in found.state_ids]
    for entry, lag in zip(found.entries, found.lags, strict=True):
        lags_of_entry[entry].append(int(lag))
    assert lags_of_entry == [lags for state in expected for lags in state.values()]


@pytest.mark.parametrize("offsets", [[0], [0, 0], [0, 2]])
def test_nothing_seen_gives_empty_states(offsets: list[int]) -> None:
    n_tokens = offsets[-1]
    packed = _int32(offsets), _int32([]), _int32([0] * (n_tokens + 1))
    structure = lag_structure(*packed, WINDOW)
    lag_weights, bias, table = _parameters()
    state = lag_readout(table, structure, lag_weighted(structure, lag_weights, bias))
    assert state.shape == (n_tokens, 5)
    assert not state.any()
    state.sum().backward()
    assert not lag_weights.grad.any()


def test_a_sparse_table_gradient_is_the_dense_one() -> None:
    structure = _structure()
    grads = []
    for sparse in (False, True):
        lag_weights, bias, table = _parameters()
        states = lag_readout(table, structure, lag_weighted(structure, lag_weights, bias), sparse)
        states.backward(torch.arange(float(states.numel()), dtype=states.dtype).view(states.shape))
        assert table.grad is not None
        grads.append((table.grad, lag_weights.grad))
    assert grads[1][0].is_sparse
    torch.testing.assert_close(grads[1][0].to_dense(), grads[0][0])
    torch.testing.assert_close(grads[1][1], grads[0][1])
