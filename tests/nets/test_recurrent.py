"""The recurrences of the reference against torch's own modules and the naive twins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.nets.sequences import gru, lstm, lstm_states, time_major
from tests import naive_recurrent as naive

OFFSETS = [0, 0, 3, 4, 12, 12, 17, 18, 18]


def _inputs(
    kind: str, offsets: list[int], size: int, dtype: torch.dtype, seed: int = 0
) -> dict[str, Tensor]:
    """Arguments of `lstm` or `gru`, those of floating type requiring gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (
            torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        )

    gates = 4 if kind == "lstm" else 3
    found = {
        "gates_x": draw(offsets[-1], gates * size),
        "offsets": torch.tensor(offsets, dtype=torch.int32),
    }
    found["weight_hh"] = (draw(gates * size, size) / size**0.5).detach().requires_grad_()
    if kind == "gru":
        found["bias_hh"] = draw(gates * size)
    found["h0"] = draw(len(offsets) - 1, size)
    if kind == "lstm":
        found["c0"] = draw(len(offsets) - 1, size)
    return found


def _run(kind: str, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return lstm(**inputs) if kind == "lstm" else (gru(**inputs),)


def _gradients(outputs: tuple[Tensor, ...], inputs: dict[str, Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    seeds = [
        torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part.dtype)
        for part in outputs
    ]
    return list(
        torch.autograd.grad(
            outputs, [part for part in inputs.values() if part.requires_grad], seeds
        )
    )


def _torch_module(kind: str, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """h of each token by torch's own module, sequence by sequence; an identity input projection
    feeds it gates_x."""
    size, width = inputs["h0"].shape[1], inputs["gates_x"].shape[1]
    module = (torch.nn.LSTM if kind == "lstm" else torch.nn.GRU)(width, size).to(inputs["h0"].dtype)
    zeros = torch.zeros(width, dtype=inputs["h0"].dtype)
    parameters = {
        "weight_ih_l0": torch.eye(width, dtype=inputs["h0"].dtype),
        "weight_hh_l0": inputs["weight_hh"],
        "bias_ih_l0": zeros,
        "bias_hh_l0": inputs.get("bias_hh", zeros),
    }
    outputs = []
    offsets = inputs["offsets"].tolist()
    for sequence, (first, last) in enumerate(pairwise(offsets)):
        if last > first:
            carry = [inputs[name][sequence][None] for name in ("h0", "c0") if name in inputs]
            state = tuple(carry) if kind == "lstm" else carry[0]
            outputs.append(
                torch.func.functional_call(
                    module, parameters, (inputs["gates_x"][first:last], state)
                )[0]
            )
    return (torch.cat(outputs),)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("size", [3, 20])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_equals_torch_in_values_and_gradients(
    kind: str, size: int, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = _inputs(kind, OFFSETS, size, dtype)
    ours, theirs = _run(kind, inputs)[:1], _torch_module(kind, inputs)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        _gradients(ours, inputs), _gradients(theirs, inputs), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=12), size=st.integers(1, 9))
def test_any_shape_equals_the_naive_twin(kind: str, lengths: list[int], size: int) -> None:
    inputs = _inputs(kind, [0, *np.cumsum(lengths, dtype=int).tolist()], size, torch.float64)
    expected = getattr(naive, kind)(
        **{name: part.detach().numpy() for name, part in inputs.items()}
    )
    outputs = _run(kind, inputs)
    for ours, theirs in zip(outputs, expected if kind == "lstm" else (expected,), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize("offsets", [OFFSETS, [0, 2, 4], [0, 0], [0]])
def test_states_by_equal_lengths_are_those_of_the_loop(offsets: list[int]) -> None:
    inputs = _inputs("lstm", offsets, 5, torch.float64)
    gates, weight = inputs["gates_x"], inputs["weight_hh"]
    cut, zeros = inputs["offsets"], torch.zeros(len(offsets) - 1, 5, dtype=torch.float64)
    results = []
    for states in (lstm(gates, cut, weight, zeros, zeros)[0], lstm_states(gates, cut, weight)):
        grads = torch.autograd.grad(states.sum(), (gates, weight)) if len(states) else ()
        results.append((states, *grads))
    torch.testing.assert_close(*results)


def test_time_major_miniature() -> None:
    order, running, tokens = time_major(torch.tensor([0, 1, 4, 4, 6], dtype=torch.int32), 6)
    assert (order.tolist(), running, tokens.tolist()) == (
        [1, 3, 0, 2],
        [3, 2, 1],
        [1, 4, 0, 2, 5, 3],
    )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_nan_stays_in_its_own_sequence(kind: str) -> None:
    inputs = {
        name: part.detach() for name, part in _inputs(kind, [0, 3, 5], 4, torch.float32).items()
    }
    inputs["gates_x"][1] = torch.nan
    h = _run(kind, inputs)[0]
    assert h.isnan().all(1).tolist() == [False, True, True, False, False]
