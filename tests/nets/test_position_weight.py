"""Position weights against the paper's dense state, in values and gradients."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.nets.histories import PositionWeight
from fastgaum.nets.tensors import Bags

N_IDS, WINDOW, N = 6, 3, 2
SESSIONS = st.lists(
    st.lists(st.lists(st.integers(0, N_IDS - 1), max_size=3), max_size=5), max_size=4
)
"""bags of the tokens of each sequence"""
SOME = [[], [[0, 4], [3], [1, 1, 2]], [[]], [[2, 0, 0, 5], [1], [4], [3, 0]]]


def tokens_of(sessions: list[list[list[int]]]) -> tuple[Bags, Tensor]:
    bags = [bag for session in sessions for bag in session]
    ids = [one for bag in bags for one in bag]
    offsets = (np.cumsum([0, *map(len, parts)]).tolist() for parts in (bags, sessions))
    of_bags, of_sessions, ids_ = (torch.tensor(one, dtype=torch.int32) for one in (*offsets, ids))
    return Bags(ids_, of_bags, torch.zeros(len(bags), 0)), of_sessions


def made() -> PositionWeight:
    torch.manual_seed(1)
    encoder = PositionWeight(N_IDS, WINDOW, N, 5).double()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    return encoder


def dense_position_weight(
    offsets: list[int],
    bags: list[list[int]],
    n_ids: int,
    lag_weights: np.ndarray,
    bias: np.ndarray,
) -> np.ndarray:
    """The paper's dense state tanh(F W + B) after each token, (n_tokens, n_ids, n)."""
    window = len(lag_weights)
    states = []
    for first, last in pairwise(offsets):
        for row in range(first, last):
            F = np.zeros((n_ids, window))
            for lag in range(1, window + 1):
                if row - lag + 1 >= first:
                    for feature in bags[row - lag + 1]:
                        F[feature, lag - 1] += 1
            states.append(np.tanh(F @ lag_weights + bias))
    return np.array(states).reshape(-1, n_ids, len(bias))


@settings(max_examples=40, deadline=None)
@given(sessions=SESSIONS)
def test_the_readout_is_that_of_the_dense_state_less_its_constant(
    sessions: list[list[list[int]]],
) -> None:
    encoder = made()
    found = encoder.after_tokens(*tokens_of(sessions))
    bags = [bag for session in sessions for bag in session]
    offsets = np.cumsum([0, *map(len, sessions)]).tolist()
    lag_weights, bias, table = (
        one.detach().numpy() for one in (encoder.lag_weights, encoder.bias, encoder.table)
    )
    dense = dense_position_weight(offsets, bags, N_IDS, lag_weights, bias)
    dense = (dense - np.tanh(bias)).reshape(len(bags), N_IDS * N)
    np.testing.assert_allclose(found.detach().numpy(), dense @ table, atol=1e-12)


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients(sparse: bool) -> None:
    encoder, (tokens, offsets) = made(), tokens_of(SOME)
    encoder.sparse_grad = sparse
    names = [name for name, _ in encoder.named_parameters()]

    def states(*values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        found: Tensor = torch.func.functional_call(encoder, parameters, (tokens, offsets))
        return found

    encoder.forward = encoder.after_tokens  # type: ignore[method-assign, assignment]
    if not sparse:
        assert torch.autograd.gradcheck(states, tuple(encoder.parameters()))
        return
    found = encoder.after_tokens(tokens, offsets)
    grad = torch.arange(float(found.numel()), dtype=found.dtype).view(found.shape)
    (of_table,) = torch.autograd.grad(found, encoder.table, grad)
    assert of_table.is_sparse
    encoder.sparse_grad = False
    found = encoder.after_tokens(tokens, offsets)
    (dense,) = torch.autograd.grad(found, encoder.table, grad)
    torch.testing.assert_close(of_table.to_dense(), dense)
