"""The recurrence of the reference against torch's own module, sequence by sequence."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.nets.sequences import lstm


def inputs_of(lengths: list[int], size: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Arguments of `lstm`, those of floating type requiring gradients."""
    torch.manual_seed(0)
    n, n_tokens = len(lengths), sum(lengths)
    shapes = {
        **{"gates_x": (n_tokens, 4 * size), "weight_hh": (4 * size, size)},
        **{"h0": (n, size), "c0": (n, size)},
    }
    drawn = {
        name: torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }
    return {
        **drawn,
        "offsets": torch.tensor([0, *np.cumsum(lengths, dtype=int)], dtype=torch.int32),
    }


def by_torch(inputs: dict[str, Tensor]) -> Tensor:
    """h of each token; an identity input projection feeds the module gates_x."""
    size, dtype = inputs["h0"].shape[1], inputs["h0"].dtype
    module, zeros = torch.nn.LSTM(4 * size, size).to(dtype), torch.zeros(4 * size, dtype=dtype)
    parameters = {
        "weight_ih_l0": torch.eye(4 * size, dtype=dtype),
        "weight_hh_l0": inputs["weight_hh"],
        "bias_ih_l0": zeros,
        "bias_hh_l0": zeros,
    }
    outputs = [inputs["gates_x"].new_zeros(0, size)]
    for sequence, (first, last) in enumerate(pairwise(inputs["offsets"].tolist())):
        if last > first:
            state = tuple(inputs[name][sequence][None] for name in ("h0", "c0"))
            arguments = inputs["gates_x"][first:last], state
            outputs.append(torch.func.functional_call(module, parameters, arguments)[0])
    return torch.cat(outputs)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=12), size=st.sampled_from([1, 3, 20]))
def test_equals_torch_in_values_and_gradients(lengths: list[int], size: int) -> None:
    inputs, tolerance = inputs_of(lengths, size, torch.float64), 1e-10
    ours, theirs = lstm(**inputs)[0], by_torch(inputs)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    if sum(lengths):
        grad, leaves = torch.randn_like(ours), [one for one in inputs.values() if one.requires_grad]
        found, wanted = (torch.autograd.grad(one, leaves, grad) for one in (ours, theirs))
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def test_nan_stays_in_its_own_sequence() -> None:
    inputs = {name: part.detach() for name, part in inputs_of([3, 2], 4, torch.float32).items()}
    inputs["gates_x"][1] = torch.nan
    h = lstm(**inputs)[0]
    assert h.isnan().all(1).tolist() == [False, True, True, False, False]
