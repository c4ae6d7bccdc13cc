"""Position weights against the paper's dense state, in values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.nets.sequences import LagStructure, lag_readout, lag_structure, lag_weighted
from tests import naive_recurrent as naive

N_IDS, WINDOW, N = 6, 3, 2
SESSIONS = st.lists(
    st.lists(st.lists(st.integers(0, N_IDS - 1), max_size=3), max_size=5), max_size=4
)
"""bags of the tokens of each sequence"""
SOME = [[], [[0, 4], [3], [1, 1, 2]], [[]], [[2, 0, 0, 5], [1], [4], [3, 0]]]


def structure_of(sessions: list[list[list[int]]], window: int = WINDOW) -> LagStructure:
    bags = [bag for session in sessions for bag in session]
    ids = [one for bag in bags for one in bag]
    offsets = [np.cumsum([0, *map(len, parts)]).tolist() for parts in (sessions, bags)]
    packed = (torch.tensor(one, dtype=torch.int32) for one in (offsets[0], ids, offsets[1]))
    return lag_structure(*packed, window)


def parameters(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """lag_weights, bias and table."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((WINDOW, N), (N,), (N_IDS * N, 5))
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    weights, bias, table = (one.to(dtype).requires_grad_() for one in drawn)
    return weights, bias, table


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@settings(max_examples=40, deadline=None)
@given(sessions=SESSIONS)
def test_readout_equals_the_dense_state_less_its_constant(
    dtype: torch.dtype, tolerance: float, sessions: list[list[list[int]]]
) -> None:
    (lag_weights, bias, table), structure = parameters(dtype), structure_of(sessions)
    found = lag_readout(table, structure, lag_weighted(structure, lag_weights, bias))
    bags = [bag for session in sessions for bag in session]
    offsets = np.cumsum([0, *map(len, sessions)]).tolist()
    of_bias = bias.detach().numpy()
    dense = naive.dense_position_weight(offsets, bags, N_IDS, lag_weights.detach().numpy(), of_bias)
    dense = (dense - np.tanh(of_bias)).reshape(len(bags), N_IDS * N)
    expected = dense @ table.detach().numpy()
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=tolerance)


def test_gradients_by_finite_differences_dense_and_sparse() -> None:
    structure = structure_of(SOME)

    def readout(lag_weights: Tensor, bias: Tensor, table: Tensor) -> Tensor:
        return lag_readout(table, structure, lag_weighted(structure, lag_weights, bias))

    assert torch.autograd.gradcheck(readout, parameters())
    grads = []
    for sparse in (False, True):
        lag_weights, bias, table = parameters()
        states = lag_readout(table, structure, lag_weighted(structure, lag_weights, bias), sparse)
        states.backward(torch.arange(float(states.numel()), dtype=states.dtype).view(states.shape))
        assert table.grad is not None
        assert table.grad.is_sparse == sparse
        grads.append((table.grad.to_dense(), lag_weights.grad))
    torch.testing.assert_close(grads[1], grads[0])
