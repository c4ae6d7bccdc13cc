"""The LSTM with its input inside the kernel: a dense projection, or rows gathered out of a
table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import linear

from fastgaum.nets.ops import _recurrent_cpu, _recurrent_stock, _tiles
from fastgaum.nets.ops.recurrent import lstm, lstm_layer
from tests.nets.test_recurrent import OFFSETS, REGIMES, force


def _inputs(
    offsets: list[int], size: int, depth: int, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64) / size**0.5
        return values.to(dtype).requires_grad_()

    n = len(offsets) - 1
    return {
        "x": draw(offsets[-1], depth),
        "offsets": torch.tensor(offsets, dtype=torch.int32),
        "weight_ih": draw(4 * size, depth),
        "weight_hh": draw(4 * size, size),
        "bias": draw(4 * size),
        "h0": draw(n, size),
        "c0": draw(n, size),
    }


def _by_parts(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    gates = linear(inputs["x"], inputs["weight_ih"], inputs["bias"])
    return lstm(gates, inputs["offsets"], inputs["weight_hh"], inputs["h0"], inputs["c0"])


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


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=12),
    size=st.integers(1, 9),
    depth=st.integers(1, 9),
    name=st.sampled_from(list(REGIMES)),
)
def test_equals_a_projection_and_a_recurrence(
    lengths: list[int], size: int, depth: int, name: str
) -> None:
    inputs = _inputs([0, *np.cumsum(lengths, dtype=int).tolist()], size, depth)
    expected = _by_parts(inputs)
    wanted = _gradients(expected, inputs)
    with pytest.MonkeyPatch.context() as monkeypatch:
        force(name, monkeypatch)
        found = lstm_layer(**inputs)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(_gradients(found, inputs), wanted, atol=1e-10, rtol=1e-10)


def test_large_sizes_equal_a_projection_and_a_recurrence() -> None:
    inputs = _inputs(OFFSETS, 125, 70, torch.float32)
    found, expected = lstm_layer(**inputs), _by_parts(inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        _gradients(found, inputs), _gradients(expected, inputs), atol=3e-5, rtol=1e-4
    )


def test_stock_torch_agrees() -> None:
    inputs = {name: part.detach() for name, part in _inputs(OFFSETS, 4, 3).items()}
    ours, theirs = (
        module.lstm_layer_forward(**inputs) for module in (_recurrent_cpu, _recurrent_stock)
    )
    torch.testing.assert_close(ours, theirs)
    rest = [inputs[name] for name in ("x", "offsets", "weight_ih", "weight_hh", "h0", "c0")]
    h, c, gates = ours
    for wanted in (True, False):
        grads = [
            module.lstm_layer_backward(torch.ones_like(h), None, *rest, gates, h, c, wanted)
            for module in (_recurrent_cpu, _recurrent_stock)
        ]
        torch.testing.assert_close(*grads)


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    inputs = _inputs(OFFSETS, 4, 3)
    inputs["x"] = inputs["x"].detach()
    assert len(_gradients(lstm_layer(**inputs), inputs)) == 5
    torch.testing.assert_close(
        _gradients(lstm_layer(**inputs), inputs), _gradients(_by_parts(inputs), inputs)
    )


def test_gradients_by_finite_differences() -> None:
    inputs = _inputs([0, 2, 2, 5, 6], 3, 2)
    names = list(inputs)
    assert torch.autograd.gradcheck(
        lambda *values: lstm_layer(**dict(zip(names, values, strict=True))),
        tuple(inputs.values()),
        fast_mode=True,
    )


def test_operator_registration() -> None:
    torch.library.opcheck(
        torch.ops.fastgaum.lstm_layer.default,
        tuple(_inputs([0, 2, 5], 3, 2, torch.float32).values()),
    )


@pytest.mark.parametrize("size", [8, 125])
def test_one_thread_and_two_give_the_same_bits(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    force("parts", monkeypatch)
    inputs = _inputs([0, *np.cumsum(np.arange(40) % 7).tolist()], size, 6, torch.float32)
    before, found = torch.get_num_threads(), []
    for n in (1, 2):
        torch.set_num_threads(n)
        outputs = lstm_layer(**inputs)
        found.append([*outputs, *_gradients(outputs, inputs)])
    torch.set_num_threads(before)
    assert len(_tiles.plan(inputs["offsets"].numpy(), size).parts) > 1
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight_ih": torch.zeros(16, 2)}, ValueError, r"weight_ih is \(16, 2\)"),
        ({"bias": torch.zeros(15)}, ValueError, r"bias is \(15,\)"),
        (
            {"bias": torch.zeros(16).double()},
            TypeError,
            "bias is torch.float64, but x is torch.float32",
        ),
        ({"offsets": torch.tensor([0, 2, 4], dtype=torch.int32)}, ValueError, "offsets end at 4"),
        ({"c0": torch.zeros(1, 4)}, ValueError, r"c0 is \(1, 4\)"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lstm_layer(**_inputs([0, 2, 5], 4, 3, torch.float32) | change)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("name", list(REGIMES))
def test_rows_of_a_table_are_gathered(
    name: str, projected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(name, monkeypatch)
    size, n_rows, rng = 5, 7, np.random.default_rng(0)
    offsets = np.array(OFFSETS, np.int32)
    n, n_tokens = len(offsets) - 1, OFFSETS[-1]
    source = rng.integers(0, n_rows, n_tokens).astype(np.int32)
    table = rng.standard_normal((n_rows, 3 if projected else 4 * size))
    weight = rng.standard_normal((4 * size, size + (3 if projected else 0)))
    bias, grad_h = rng.standard_normal(4 * size), rng.standard_normal((n_tokens, size))
    h0, c0 = rng.standard_normal((2, n, size))
    cut = _tiles.plan(offsets, size)

    def run(x: Any, rows: Any, in_place: bool) -> list[Any]:
        gates, h, c = (
            np.empty((n_tokens, 4 * size)),
            np.empty((n_tokens, size)),
            np.empty((n_tokens, size)),
        )
        _recurrent_cpu.lstm_run(cut, offsets, weight, bias, x, rows, h0, c0, gates, h, c)
        of_gates = gates if in_place else np.empty_like(gates)
        of_x = np.empty((n_tokens if projected else 0, x.shape[1]))
        rest = [np.empty_like(weight), np.empty_like(bias), np.empty_like(h0), np.empty_like(c0)]
        states = grad_h, grad_h[:0], h0, c0, gates, h, c
        _recurrent_cpu.lstm_back(cut, offsets, weight, x, rows, *states, of_gates, of_x, *rest)
        return [h, c, of_gates, of_x, *rest]

    plain = run(np.ascontiguousarray(table[source]), np.empty(0, np.int32), in_place=False)
    # the same numbers in the same order: nothing may differ, whether the gates' memory takes their
    # gradients or not
    for found in (run(table, source, in_place=False), run(table, source, in_place=True)):
        for one, two in zip(found, plain, strict=True):
            np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(plain[5], plain[2].sum(0), atol=1e-12)
