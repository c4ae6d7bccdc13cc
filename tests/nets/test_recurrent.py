"""The recurrences of the reference against torch's own modules and the naive twins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.nets.sequences import lstm, time_major
from tests import naive_recurrent as naive

OFFSETS = [0, 0, 3, 4, 12, 12, 17, 18, 18]


def _inputs(offsets: list[int], size: int, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Arguments of `lstm`, those of floating type requiring gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.to(dtype).requires_grad_()

    n = len(offsets) - 1
    return {
        "gates_x": draw(offsets[-1], 4 * size),
        "offsets": torch.tensor(offsets, dtype=torch.int32),
        "weight_hh": (draw(4 * size, size) / size**0.5).detach().requires_grad_(),
        "h0": draw(n, size),
        "c0": draw(n, size),
    }


def _gradients(output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    seed = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    wanted = [part for part in inputs.values() if part.requires_grad]
    return list(torch.autograd.grad(output, wanted, seed))


def _torch_module(inputs: dict[str, Tensor]) -> Tensor:
    """h of each token by torch's own module, sequence by sequence; an identity input projection
    feeds it gates_x."""
    size, dtype = inputs["h0"].shape[1], inputs["h0"].dtype
    module, zeros = torch.nn.LSTM(4 * size, size).to(dtype), torch.zeros(4 * size, dtype=dtype)
    parameters = {
        "weight_ih_l0": torch.eye(4 * size, dtype=dtype),
        "weight_hh_l0": inputs["weight_hh"],
        "bias_ih_l0": zeros,
        "bias_hh_l0": zeros,
    }
    outputs = []
    for sequence, (first, last) in enumerate(pairwise(inputs["offsets"].tolist())):
        if last > first:
            state = tuple(inputs[name][sequence][None] for name in ("h0", "c0"))
            arguments = inputs["gates_x"][first:last], state
            outputs.append(torch.func.functional_call(module, parameters, arguments)[0])
    return torch.cat(outputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("size", [3, 20])
def test_equals_torch_in_values_and_gradients(
    size: int, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = _inputs(OFFSETS, size, dtype)
    ours, theirs = lstm(**inputs)[0], _torch_module(inputs)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        _gradients(ours, inputs), _gradients(theirs, inputs), atol=tolerance, rtol=tolerance
    )


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=12), size=st.integers(1, 9))
def test_any_shape_equals_the_naive_twin(lengths: list[int], size: int) -> None:
    inputs = _inputs([0, *np.cumsum(lengths, dtype=int).tolist()], size, torch.float64)
    expected = naive.lstm(**{name: part.detach().numpy() for name, part in inputs.items()})
    for ours, theirs in zip(lstm(**inputs), expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-12)


def test_time_major_miniature() -> None:
    order, running, tokens = time_major(torch.tensor([0, 1, 4, 4, 6], dtype=torch.int32), 6)
    assert (order.tolist(), running, tokens.tolist()) == (
        [1, 3, 0, 2],
        [3, 2, 1],
        [1, 4, 0, 2, 5, 3],
    )


def test_nan_stays_in_its_own_sequence() -> None:
    inputs = {name: part.detach() for name, part in _inputs([0, 3, 5], 4, torch.float32).items()}
    inputs["gates_x"][1] = torch.nan
    h = lstm(**inputs)[0]
    assert h.isnan().all(1).tolist() == [False, True, True, False, False]
