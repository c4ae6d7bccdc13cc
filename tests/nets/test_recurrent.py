from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.nets.ops import _recurrent_stock, _tiles
from fastgaum.nets.ops.recurrent import gru, lstm
from tests import naive_recurrent as naive

OFFSETS = [0, 0, 3, 4, 12, 12, 17, 18, 18]
REGIMES = {
    "narrow tiles": {"ROWS": 4},
    "wide tiles": {},
    "blocks": {"SMALL_PRODUCT": 0},
    "parts": {"ROWS": 4, "PART": 1e-9, "MOST_PARTS": 3},
    "blocks and parts": {"ROWS": 4, "PART": 1e-9, "SMALL_PRODUCT": 0, "OUTER_ROWS": 3},
    "weights whole": {"ROWS": 4, "SMALL_PRODUCT": 0, "WIDE": 1},
}
"""ways to walk a batch that its size and the hidden units decide: tiles of four sequences or more,
weights whole or in blocks of four units, one part or several"""


@pytest.fixture(params=list(REGIMES))
def regime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one way to walk a batch, whatever its size."""
    name: str = request.param
    force(name, monkeypatch)
    return name


def force(regime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in REGIMES[regime].items():
        monkeypatch.setattr(_tiles, constant, value)


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


def _stock(kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return getattr(_recurrent_stock, f"{kind}_forward"), getattr(
        _recurrent_stock, f"{kind}_backward"
    )


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
    kind: str, size: int, dtype: torch.dtype, tolerance: float, regime: str
) -> None:
    inputs = _inputs(kind, OFFSETS, size, dtype)
    ours, theirs = _run(kind, inputs)[:1], _torch_module(kind, inputs)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        _gradients(ours, inputs), _gradients(theirs, inputs), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_large_size_takes_blocks_and_equals_torch(kind: str) -> None:
    inputs = _inputs(kind, OFFSETS, 125, torch.float32)
    blocks = _tiles.gate_blocks(
        inputs["weight_hh"].detach().numpy(), len(inputs["weight_hh"]) // 125, 125
    )
    assert blocks.shape == (2, 125, 64 * len(inputs["weight_hh"]) // 125)
    ours, theirs = _run(kind, inputs)[:1], _torch_module(kind, inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        _gradients(ours, inputs), _gradients(theirs, inputs), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("offsets", [OFFSETS, [0], [0, 0, 0], [0, 1], [0, 1, 2, 3]])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_equals_stock_torch(kind: str, offsets: list[int], regime: str) -> None:
    inputs = _inputs(kind, offsets, 4, torch.float64)
    outputs = _run(kind, inputs)
    forward, backward = _stock(kind)
    with torch.no_grad():
        found = forward(**inputs)
        torch.testing.assert_close(outputs, found[: len(outputs)], atol=1e-12, rtol=0.0)
        generator = torch.Generator().manual_seed(7)
        seeds = [
            torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in outputs
        ]
        rest = [inputs[name] for name in ("offsets", "weight_hh", "h0", "c0") if name in inputs]
        saved = [found[2], found[0], found[1]] if kind == "lstm" else [found[1], found[0]]
        expected = backward(*seeds, *rest, *saved)
    torch.testing.assert_close(_gradients(outputs, inputs), list(expected), atol=1e-12, rtol=0.0)


def test_time_major_miniature() -> None:
    order, running, tokens = _recurrent_stock.time_major(
        torch.tensor([0, 1, 4, 4, 6], dtype=torch.int32), 6
    )
    assert (order.tolist(), running, tokens.tolist()) == (
        [1, 3, 0, 2],
        [3, 2, 1],
        [1, 4, 0, 2, 5, 3],
    )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_sequence_alone_equals_itself_in_a_batch(kind: str, regime: str) -> None:
    inputs = _inputs(kind, OFFSETS, 9, torch.float32)
    whole = _run(kind, inputs)
    for sequence, (first, last) in enumerate(pairwise(OFFSETS)):
        alone = dict(inputs)
        alone["gates_x"] = inputs["gates_x"][first:last]
        alone["offsets"] = torch.tensor([0, last - first], dtype=torch.int32)
        for name in ("h0", "c0"):
            if name in inputs:
                alone[name] = inputs[name][sequence : sequence + 1]
        # BLAS may round a product of one row otherwise than of many
        for part, full in zip(_run(kind, alone), whole, strict=True):
            torch.testing.assert_close(part, full[first:last], atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("size", [20, 125])
def test_one_thread_and_two_give_the_same_bits(
    kind: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    force("parts", monkeypatch)
    lengths = np.random.default_rng(0).zipf(1.5, 60).clip(max=30) - 1
    offsets = [0, *np.cumsum(lengths).tolist()]
    inputs = _inputs(kind, offsets, size, torch.float32)
    before = torch.get_num_threads()
    found = []
    for n in (1, 2):
        torch.set_num_threads(n)
        outputs = _run(kind, inputs)
        found.append([*outputs, *_gradients(outputs, inputs)])
    torch.set_num_threads(before)
    assert len(_tiles.plan(inputs["offsets"].numpy(), size).parts) > 1
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=12),
    size=st.integers(1, 9),
    name=st.sampled_from(list(REGIMES)),
)
def test_any_shape_equals_the_naive_twin(
    kind: str, lengths: list[int], size: int, name: str
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        force(name, monkeypatch)
        inputs = _inputs(kind, [0, *np.cumsum(lengths, dtype=int).tolist()], size, torch.float64)
        outputs = _run(kind, inputs)
        found = [part.numpy() for part in _gradients(outputs, inputs)]
    twin = getattr(naive, kind)
    arrays = {name: part.detach().numpy() for name, part in inputs.items()}
    expected = twin(**arrays)
    for ours, theirs in zip(outputs, expected if kind == "lstm" else (expected,), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-12)
    _, backward = _stock(kind)
    generator = torch.Generator().manual_seed(7)
    seeds = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in outputs]
    rest = [
        inputs[name].detach() for name in ("offsets", "weight_hh", "h0", "c0") if name in inputs
    ]
    with torch.no_grad():
        saved = _stock(kind)[0](**inputs)
        reference = backward(
            *seeds, *rest, *([saved[2], *saved[:2]] if kind == "lstm" else [saved[1], saved[0]])
        )
    for ours, theirs in zip(found, reference, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-11)


def test_tiles_and_parts_hold_every_sequence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    force("parts", monkeypatch)
    lengths = np.random.default_rng(1).integers(0, 12, 50)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    order, parts = _tiles.plan(offsets, 8)
    assert sorted(order.tolist()) == list(range(50))
    starts = [start for tiles in parts for start in tiles[:-1].tolist()]
    assert starts == sorted(set(starts))
    assert parts[0][0] == 0
    assert parts[-1][-1] == 50
    assert all(first[-1] == second[0] for first, second in pairwise(parts))
    assert max(np.diff(tiles).max() for tiles in parts) <= 4


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_gradients_by_finite_differences(kind: str, regime: str) -> None:
    inputs = _inputs(kind, [0, 2, 2, 5, 6], 3, torch.float64)
    names = list(inputs)
    assert torch.autograd.gradcheck(
        lambda *values: _run(kind, dict(zip(names, values, strict=True))),
        tuple(inputs.values()),
        fast_mode=True,
    )


@pytest.mark.parametrize("output", [0, 1])
def test_lstm_gradient_of_one_output_alone(output: int, regime: str) -> None:
    inputs = _inputs("lstm", OFFSETS, 4, torch.float64)
    alone = _gradients((lstm(**inputs)[output],), inputs)
    used, unused = lstm(**inputs)[:: 1 if output == 0 else -1]
    torch.testing.assert_close(alone, _gradients((used, unused * 0), inputs))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_strided_inputs_and_gradients(kind: str, regime: str) -> None:
    inputs = _inputs(kind, OFFSETS, 4, torch.float64)
    expected = _run(kind, inputs)
    strided = {
        name: part.detach().t().contiguous().t().requires_grad_() if part.dim() == 2 else part
        for name, part in inputs.items()
    }
    found = _run(kind, strided)
    torch.testing.assert_close(found, expected)
    # the gradient of a sum is an expanded scalar
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.is_contiguous()
        grads = [
            torch.autograd.grad(
                part.sum(), [v for v in given.values() if v.requires_grad], retain_graph=True
            )
            for part, given in ((ours, strided), (theirs, inputs))
        ]
        torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_operator_registration(kind: str, regime: str) -> None:
    inputs = tuple(_inputs(kind, [0, 2, 2, 5], 3, torch.float32).values())
    torch.library.opcheck(getattr(torch.ops.fastgaum, kind).default, inputs)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_backward_operator_registration(kind: str) -> None:
    inputs = {
        name: part.detach() for name, part in _inputs(kind, [0, 2, 2, 5], 3, torch.float32).items()
    }
    outputs = getattr(torch.ops.fastgaum, kind).default(*inputs.values())
    rest = [inputs[name] for name in ("offsets", "weight_hh", "h0", "c0") if name in inputs]
    if kind == "lstm":
        arguments = (torch.ones(5, 3), None, *rest, outputs[2], outputs[0], outputs[1])
    else:
        arguments = (torch.ones(5, 3), *rest, outputs[1], outputs[0])
    torch.library.opcheck(getattr(torch.ops.fastgaum, f"{kind}_backward").default, arguments)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_nan_stays_in_its_own_sequence(kind: str, regime: str) -> None:
    inputs = {
        name: part.detach() for name, part in _inputs(kind, [0, 3, 5], 4, torch.float32).items()
    }
    inputs["gates_x"][1] = torch.nan
    h = _run(kind, inputs)[0]
    assert h.isnan().all(1).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"offsets": torch.tensor([0, 2, 5])}, TypeError, "int32"),
        (
            {"offsets": torch.tensor([0, 2, 4], dtype=torch.int32)},
            ValueError,
            "offsets end at 4, but there are 5 tokens",
        ),
        (
            {"h0": torch.zeros(3, 4)},
            ValueError,
            r"h0 is \(3, 4\), but 2 sequences of 4 hidden units need \(2, 4\)",
        ),
        (
            {"weight_hh": torch.zeros(16, 4).double()},
            TypeError,
            "weight_hh is torch.float64, but gates_x is torch.float32",
        ),
        ({"gates_x": torch.zeros(5, 15)}, ValueError, "4 hidden units need 16 columns"),
        ({"gates_x": torch.zeros(5, 16).half()}, TypeError, "torch.float16"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, Tensor], error: type[Exception], message: str
) -> None:
    inputs = _inputs("lstm", [0, 2, 5], 4, torch.float32) | change
    with pytest.raises(error, match=message):
        lstm(**inputs)
