"""The engine's recurrences against autograd through the reference: every way to walk a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import linear

from fastgaum.nets.sequences import lstm
from fastgaum.ops import lstm as recurrence
from fastgaum.ops.lstm import NO_SOURCE, LstmLayer

OFFSETS = [0, 0, 3, 4, 12, 12, 17, 18, 18]
REGIMES: dict[str, dict[str, Any]] = {
    "narrow tiles": {"SEQUENCES_OF_TILE": 4},
    "wide tiles": {},
    "blocks": {"SMALL_PRODUCT": 0},
    "parts": {"SEQUENCES_OF_TILE": 4, "SECONDS_OF_PART": 1e-9, "MOST_PARTS": 3},
    "blocks and parts": {
        "SEQUENCES_OF_TILE": 4,
        "SECONDS_OF_PART": 1e-9,
        "SMALL_PRODUCT": 0,
        "OUTER_ROWS": 3,
    },
    "weights whole": {"SEQUENCES_OF_TILE": 4, "SMALL_PRODUCT": 0, "WIDE_WEIGHTS": 1},
}
"""ways to walk a batch that its size and the hidden units decide: tiles of four sequences or more,
weights whole or in blocks of four units, one part or several"""
SHAPES: dict[str, Any] = {
    "lengths": st.lists(st.integers(0, 9), max_size=12),
    "size": st.integers(1, 9),
    "regime": st.sampled_from(list(REGIMES)),
    "scale": st.sampled_from([1.0, 0.0, 1e4]),
}
SEED = 7


@contextmanager
def walked(regime: str) -> Iterator[None]:
    """Force one way to walk a batch, whatever its size."""
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in REGIMES[regime].items():
            patch.setattr(recurrence, constant, value)
        yield


def drawn(*shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(*shape, dtype=torch.float64)).requires_grad_()


def array(tensor: Tensor) -> Any:
    return tensor.detach().numpy().copy()


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *np.cumsum(lengths, dtype=int).tolist()], dtype=torch.int32)


def gradients(
    outputs: tuple[Tensor, ...], inputs: list[Tensor], grads: tuple[Tensor, ...]
) -> list[Tensor]:
    """Those of the inputs; zeros where no token reads them."""
    if len(outputs[0]) == 0:
        return [torch.zeros_like(part) for part in inputs]
    return list(torch.autograd.grad(outputs, inputs, grads))


def close(found: list[Any], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-10, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(projected=st.booleans(), **SHAPES)
def test_lstm(lengths: list[int], size: int, regime: str, scale: float, projected: bool) -> None:
    """States and gradients; the input projected or not."""
    torch.manual_seed(SEED)
    offsets, depth = offsets_of(lengths), 3 if projected else 4 * size
    n_tokens = int(offsets[-1])
    x, bias = drawn(n_tokens, depth, scale=scale), drawn(4 * size)
    w_hh, w_ih = drawn(4 * size, size), drawn(4 * size, 3)
    zeros = torch.zeros(len(lengths), size).double()
    gates = linear(x, w_ih, bias) if projected else x + bias
    h, c = lstm(gates, offsets, w_hh, zeros, zeros)
    grad = drawn(n_tokens, size)
    wanted = gradients((h,), [x, w_hh, bias, *[w_ih] * projected], (grad,))
    weight = np.hstack([array(w_hh), array(w_ih)]) if projected else array(w_hh)
    of_weight, of_bias = np.empty_like(weight), np.empty(4 * size)
    with walked(regime):
        layer = LstmLayer(size, np.float64)
        found = layer.forward(offsets.numpy(), weight, array(bias), array(x))
        close(list(found), [h, c])
        of_sums, of_x = layer.backward(array(grad), of_weight, of_bias, of_x=projected)
    parts = [of_x if projected else of_sums, of_weight[:, :size], of_bias]
    close([*parts, *[of_weight[:, size:]] * projected], wanted)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("regime", list(REGIMES))
def test_rows_of_a_table_are_gathered(regime: str, projected: bool) -> None:
    """The same numbers in the same order as with the rows written down: nothing may differ."""
    size, n_rows, rng = 5, 7, np.random.default_rng(0)
    offsets, n_tokens = np.array(OFFSETS, np.int32), OFFSETS[-1]
    source = rng.integers(0, n_rows, n_tokens).astype(np.int32)
    table = rng.standard_normal((n_rows, 3 if projected else 4 * size))
    weight = rng.standard_normal((4 * size, size + (3 if projected else 0)))
    bias, grad_h = rng.standard_normal(4 * size), rng.standard_normal((n_tokens, size))

    def run(x: Any, rows: Any) -> list[Any]:
        layer = LstmLayer(size, np.float64)
        of_weight, of_bias = np.empty_like(weight), np.empty_like(bias)
        states = layer.forward(offsets, weight, bias, x, rows)
        return [*states, *layer.backward(grad_h, of_weight, of_bias, of_x=projected), of_weight]

    with walked(regime):
        plain = run(np.ascontiguousarray(table[source]), NO_SOURCE)
        for one, two in zip(run(table, source), plain, strict=True):
            np.testing.assert_array_equal(one, two)


@settings(max_examples=30, deadline=None)
@given(**{name: SHAPES[name] for name in ("lengths", "size", "regime")})
def test_single_precision_is_near_double(lengths: list[int], size: int, regime: str) -> None:
    rng, offsets = np.random.default_rng(SEED), offsets_of(lengths).numpy()
    shapes = (4 * size, size), (4 * size,), (int(offsets[-1]), 4 * size)
    inputs = [rng.standard_normal(shape) for shape in shapes]
    with walked(regime):
        states = [
            [one.copy() for one in LstmLayer(size, dtype).forward(offsets, *cast)]
            for dtype in (np.float32, np.float64)
            for cast in [[one.astype(dtype) for one in inputs]]
        ]
    for single, double in zip(*states, strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, atol=1e-5)
