"""Segment reductions against slow twins, at ±1e4 and with −inf members, whole sets of −inf among them:
forward and backward."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.errors import NumericsError
from fastgaum.nets import regularisers
from fastgaum.nets import segments as ops
from tests import naive_segments as naive

INF = float("inf")
VALUES = st.one_of(st.sampled_from([1e4, -1e4, 9999.5, -INF, 0.0]), st.floats(-3, 3, width=32))
ALPHAS = {"sparsemax": 2.0, "entmax-1.5": 1.5}
# event 1 is empty, event 2 has one candidate
OFFSETS = torch.tensor([0, 4, 4, 5, 12, 15], dtype=torch.int32)
quick = settings(max_examples=40, deadline=None)


@st.composite
def ragged(draw: st.DrawFn) -> tuple[Tensor, Tensor, bool]:
    """Values in float64, offsets, no_click; some sets of −inf alone."""
    sets = st.one_of(
        st.lists(VALUES, min_size=1, max_size=6), st.integers(1, 3).map(lambda n: [-INF] * n)
    )
    rows = draw(st.lists(sets, min_size=1, max_size=5))
    offsets = np.cumsum([0] + [len(row) for row in rows]).astype(np.int32)
    values = torch.tensor([value for row in rows for value in row], dtype=torch.float64)
    return values, torch.from_numpy(offsets), draw(st.booleans())


def softmax_of(values: Tensor, offsets: Tensor, no_click: bool) -> tuple[np.ndarray, np.ndarray]:
    return naive.per_event(naive.softmax, values.numpy(), offsets.numpy(), no_click)


@quick
@given(case=ragged())
def test_log_sum_exp_and_its_gradient(case: tuple[Tensor, Tensor, bool]) -> None:
    """−inf, with gradient 0, for a set of −inf alone; the gradient is the softmax elsewhere, and 0
    at a −inf."""
    values, offsets, no_click = case
    values.requires_grad_()
    found = ops.segment_logsumexp(values, offsets, no_click)
    rows = [[*values[a:b].tolist(), *[0.0] * no_click] for a, b in itertools.pairwise(offsets)]
    np.testing.assert_allclose(
        found.detach().numpy(), [naive.logsumexp(row) for row in rows], rtol=1e-12, atol=1e-12
    )
    grad = torch.linspace(1, 2, len(rows), dtype=torch.float64)
    expected = np.nan_to_num(softmax_of(values.detach(), offsets, no_click)[0], nan=0.0)
    of_candidate = np.repeat(grad.numpy(), np.diff(offsets.numpy()))
    (back,) = torch.autograd.grad(found, values, grad)
    np.testing.assert_allclose(back.numpy(), of_candidate * expected, rtol=1e-9, atol=1e-12)


def distribution(
    name: str, values: Tensor, offsets: Tensor, no_click: bool
) -> tuple[Tensor, Tensor]:
    if name == "log_softmax":
        return ops.segment_log_softmax(values, offsets, no_click)
    return regularisers.segment_entmax(values, offsets, no_click, ALPHAS[name])


@pytest.mark.parametrize("name", ["log_softmax", *ALPHAS])
@quick
@given(case=ragged())
def test_distributions_and_their_gradients(name: str, case: tuple[Tensor, Tensor, bool]) -> None:
    """Against the twins; a set of −inf alone is NaN without the no-click option, and damages no
    other set."""
    values, offsets, no_click = case
    alpha = ALPHAS.get(name, 1.0)
    twin: Callable[[list[float]], list[float]] = (
        naive.softmax if alpha == 1.0 else naive.entmax(alpha)
    )
    probs, no_click_prob = naive.per_event(twin, values.numpy(), offsets.numpy(), no_click)
    values.requires_grad_()
    outputs = distribution(name, values, offsets, no_click)
    for output, expected in zip(outputs, (probs, no_click_prob), strict=True):
        found = output.detach().exp() if name == "log_softmax" else output.detach()
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-9)
    grads = (
        torch.linspace(-1, 1, len(values)).double(),
        torch.linspace(1, 2, len(offsets) - 1).double(),
    )
    back = _pulled_back(outputs, grads, values)
    np.testing.assert_allclose(
        back.numpy(), gradient(name, outputs, grads, offsets, no_click), rtol=1e-6, atol=1e-9
    )
    # whatever a distribution is, its gradient is finite
    assert torch.isfinite(back[torch.from_numpy(np.isfinite(probs))]).all()


def _pulled_back(
    outputs: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor], values: Tensor
) -> Tensor:
    """The vector-Jacobian product; no click is a constant where it is not offered."""
    pairs = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
    found, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(found, values, weights)[0]


def gradient(
    name: str,
    outputs: tuple[Tensor, Tensor],
    grads: tuple[Tensor, Tensor],
    offsets: Tensor,
    no_click: bool,
) -> np.ndarray:
    """The vector-Jacobian product, one event at a time, from the full Jacobian."""
    inside, no_click_entry = (part.detach().numpy() for part in outputs)
    parts = []
    for event, (a, b) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        p, g = inside[a:b], grads[0][a:b].numpy()
        if no_click:
            p, g = np.append(p, no_click_entry[event]), np.append(g, grads[1][event])
        if name == "log_softmax":
            jacobian = np.eye(len(p)) - np.exp(p)[None, :]
            parts.append((g @ jacobian)[: b - a])
            continue
        s = np.where(p == 0, 0.0, np.where(p == 0, 1.0, p) ** (2 - ALPHAS[name]))
        jacobian = (
            np.diag(s) - np.outer(s, s) / s.sum()
            if np.isfinite(p).all()
            else np.full((len(p),) * 2, np.nan)
        )
        parts.append((jacobian @ g)[: b - a])
    return np.concatenate(parts)


@quick
@given(case=ragged())
def test_argmax(case: tuple[Tensor, Tensor, bool]) -> None:
    """The first of the greatest, the first of all for a set of −inf alone."""
    values, offsets, _ = case
    assert ops.segment_argmax(values, offsets).tolist() == naive.argmax(
        values.numpy(), offsets.numpy()
    )


@pytest.mark.parametrize(
    "regulariser", [regularisers.Shannon(), regularisers.L2(), regularisers.Tsallis()]
)
@quick
@given(case=ragged(), seed=st.integers(0, 99))
def test_sampling_draws_what_is_possible(
    regulariser: regularisers.Regulariser, case: tuple[Tensor, Tensor, bool], seed: int
) -> None:
    """An entry of probability 0 is never drawn; a set without a distribution is a named error,
    never a draw."""
    values, offsets, no_click = case
    dist = regulariser.best_response(values, offsets, no_click)
    draws = torch.Generator().manual_seed(seed)
    impossible = [
        bool((values[a:b] == -INF).all()) and not no_click for a, b in itertools.pairwise(offsets)
    ]
    if any(impossible):
        with pytest.raises(
            NumericsError, match=f"event {impossible.index(True)} of the batch has no distribution"
        ):
            regularisers.sample_candidates(dist, offsets, draws)
        return
    drawn = regularisers.sample_candidates(dist, offsets, draws)
    for event, candidate in enumerate(drawn.tolist()):
        if candidate < 0:
            assert no_click
            assert dist.no_click_prob[event] > 0
        else:
            assert offsets[event] <= candidate < offsets[event + 1]
            assert dist.probs[candidate] > 0


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_float32_at_ten_thousand(scale: float) -> None:
    """What training runs in."""
    offsets = torch.tensor([0, 3, 5, 6], dtype=torch.int32)
    values = torch.tensor([scale, -scale, -INF, scale, scale, -scale])
    for name in ("log_softmax", *ALPHAS):
        leaf = values.clone().requires_grad_()
        probs, _ = distribution(name, leaf, offsets, False)
        probs = probs.exp() if name == "log_softmax" else probs
        torch.testing.assert_close(
            probs.detach(), torch.tensor([1, 0, 0, 0.5, 0.5, 1]), atol=0.2, rtol=0
        )
        (probs * torch.arange(6.0)).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad[2] == 0


def test_gradients_of_sums() -> None:
    matrix = torch.randn(15, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ops.segment_sum(v, OFFSETS), matrix)
    for per_event in (matrix[:5], matrix[:5, 0]):
        leaf = per_event.detach().requires_grad_()
        assert torch.autograd.gradcheck(lambda v: ops.expand_to_candidates(v, OFFSETS), leaf)
        assert torch.autograd.gradgradcheck(
            lambda v: ops.expand_to_candidates(v, OFFSETS).square(), leaf
        )


def test_wrong_arguments_are_named() -> None:
    values = torch.zeros(15)
    with pytest.raises(ValueError, match="offsets end at 15, but there are 14 rows"):
        ops.segment_log_softmax(values[:14], OFFSETS, True)
    with pytest.raises(ValueError, match=r"shape \(15, 1\), a flat"):
        ops.segment_log_softmax(values[:, None], OFFSETS, True)
    with pytest.raises(ValueError, match="3 rows for 5 events"):
        ops.expand_to_candidates(values[:3], OFFSETS)
