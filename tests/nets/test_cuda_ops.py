"""The operators of a CUDA device against plain torch: values and gradients, in float64, on drawn
shapes.

They run in Triton's interpreter where there is no card: `make cuda-test`."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

# read when Triton is imported, and when a kernel is defined
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed: pip install 'fastgaum[cuda]'")

from fastgaum.nets import cuda_ops as ops
from fastgaum.nets import segments
from fastgaum.nets.bags import bag_sum
from fastgaum.nets.sequences import lstm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=5)
FEW = settings(max_examples=8, deadline=None)


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=DEVICE)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, device=DEVICE)


def agree(found: Tensor, expected: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> None:
    """Values, and the gradients of the inputs."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    both = [
        torch.autograd.grad(one, inputs, grad, materialize_grads=True) for one in (found, expected)
    ]
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours.to_dense(), theirs, rtol=1e-9, atol=1e-9)


@FEW
@given(lengths=LENGTHS, no_click=st.booleans(), scale=st.sampled_from([1.0, 0.0, 1e4]))
def test_log_sum_exp(lengths: list[int], no_click: bool, scale: float) -> None:
    torch.manual_seed(0)
    offsets, scores = offsets_of(lengths), (scale * drawn(sum(lengths))).requires_grad_()
    found = ops.log_sum_exp(scores, offsets, no_click)
    expected = segments.segment_logsumexp(scores.cpu(), offsets.cpu(), no_click).to(DEVICE)
    agree(found, expected, (scores,), drawn(len(lengths)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_a_score_damages_its_own_event_alone(bad: float) -> None:
    scores, offsets = torch.tensor([bad, 1.0, 2.0], device=DEVICE), offsets_of([1, 2])
    found = ops.log_sum_exp(scores, offsets, False)
    expected = segments.segment_logsumexp(scores.cpu(), offsets.cpu(), False)
    torch.testing.assert_close(found.cpu(), expected, equal_nan=True)


@FEW
@given(lengths=LENGTHS, width=st.sampled_from([1, 3, 130]), sparse=st.booleans())
def test_bag_sum(lengths: list[int], width: int, sparse: bool) -> None:
    torch.manual_seed(0)
    offsets, table = offsets_of(lengths), drawn(6, width).requires_grad_()
    ids = torch.randint(0, 6, (sum(lengths),), dtype=torch.int32, device=DEVICE)
    found = ops.sum_bags(table, ids, offsets, sparse)
    expected = bag_sum(table.cpu(), ids.cpu(), offsets.cpu()).to(DEVICE)
    agree(found, expected, (table,), drawn(len(lengths), width))


@FEW
@given(lengths=LENGTHS, size=st.sampled_from([1, 3, 33]), more=st.booleans())
def test_lstm(lengths: list[int], size: int, more: bool) -> None:
    """With `more`, sequences for two programs."""
    torch.manual_seed(0)
    lengths = [*lengths, 1, *([1, 2] * 8 if more else [])]
    offsets, n = offsets_of(lengths), sum(lengths)
    x, weight = drawn(n, 4 * size).requires_grad_(), drawn(4 * size, size).requires_grad_()
    zeros = drawn(len(lengths), size) * 0
    expected, _ = lstm(x, offsets, weight, zeros, zeros)
    agree(ops.lstm_states(x, offsets, weight), expected, (x, weight), drawn(n, size))
