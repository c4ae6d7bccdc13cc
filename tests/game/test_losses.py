"""The objective's truths: Fenchel–Young losses, closed forms, the gap, gradients in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.game.losses import (
    exact_loss,
    generator_value,
    logged_utility,
    mirror_loss,
    optimality_gap,
)
from fastgaum.game.scoring import figures
from fastgaum.nets.batches import Batch, assemble
from fastgaum.nets.regularisers import L2, Custom, Regulariser, Shannon, Tsallis, sample_candidates
from fastgaum.nets.segments import segment_sum
from tests.builders import random_log

REGULARISERS: list[Regulariser] = [Shannon(), L2(), Tsallis()]


def _batch(no_click: float = 0.3, n_sessions: int = 16) -> Batch:
    log = random_log(11, n_sessions, no_click=no_click)
    encoded = Encoder(fit_space(log, "identity"), log).encode(log.sessions_in("all"))
    return assemble(encoded, np.arange(encoded.n_sessions, dtype=np.int32))


def _utility(batch: Batch, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(int(batch.display_offsets[-1]), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("eta", [1.0, 2.5])
def test_exact_shannon_is_the_conditional_logit(eta: float) -> None:
    """Truth 1: loss and gradient equal the conditional-logit NLL's (over eta), written out event by
    event in torch."""
    batch, total = _batch(), torch.zeros((), dtype=torch.float64)
    utility = _utility(batch)
    offsets = batch.display_offsets.tolist()
    for event, choice in enumerate(batch.choices.tolist()):
        scores = torch.cat(
            [
                eta * utility[offsets[event] : offsets[event + 1]],
                torch.zeros(1, dtype=torch.float64),
            ]
        )
        total = total - torch.log_softmax(scores, 0)[choice] / eta  # -1 is the last entry: no click
    loss = exact_loss(utility, batch, Shannon(), eta, True).sum()
    assert loss.item() == pytest.approx(total.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(value, utility)[0] for value in (loss, total))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("regulariser", REGULARISERS, ids=str)
@pytest.mark.parametrize("no_click", [True, False])
def test_exact_gradient_is_best_response_minus_choice(
    regulariser: Regulariser, no_click: bool
) -> None:
    batch = _batch(0.3 if no_click else 0.0)
    utility = _utility(batch)
    loss = exact_loss(utility, batch, regulariser, 1.7, no_click)
    omega_of_a_choice = 0.5 if isinstance(regulariser, L2) else 0.0
    assert (loss >= -omega_of_a_choice / 1.7 - 1e-9).all()
    (grad,) = torch.autograd.grad(loss.sum(), utility)
    onehot = torch.zeros_like(utility).index_fill(0, batch.chosen, 1.0)
    best = regulariser.best_response(1.7 * utility.detach(), batch.display_offsets, no_click)
    torch.testing.assert_close(grad, best.probs - onehot, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("regulariser", REGULARISERS, ids=str)
def test_losses_have_true_gradients(regulariser: Regulariser) -> None:
    batch = _batch(n_sessions=6)
    utility = _utility(batch).detach()
    logits = _utility(batch, 1)

    def value(g: torch.Tensor) -> torch.Tensor:
        return generator_value(
            regulariser.link(g, batch.display_offsets, True), utility, batch, regulariser, 1.3
        ).sum()

    def mirror(g: torch.Tensor) -> torch.Tensor:
        return mirror_loss(g, utility, batch, regulariser, 1.3, True).sum()

    def exact(u: torch.Tensor) -> torch.Tensor:
        return exact_loss(u, batch, regulariser, 1.3, True).sum()

    for function in (value, mirror, exact):
        assert torch.autograd.gradcheck(function, (logits,), atol=1e-5)


@pytest.mark.parametrize("regulariser", REGULARISERS, ids=str)
def test_the_gap_is_zero_at_the_best_response_and_positive_elsewhere(
    regulariser: Regulariser,
) -> None:
    batch, eta = _batch(), 1.4
    utility = _utility(batch).detach()
    best = regulariser.best_response(eta * utility, batch.display_offsets, True)
    assert optimality_gap(best, utility, batch, regulariser, eta, True).max() < 1e-6
    other = regulariser.best_response(_utility(batch, 5).detach(), batch.display_offsets, True)
    assert optimality_gap(other, utility, batch, regulariser, eta, True).mean() > 0.05


def test_at_the_best_response_the_reward_loss_has_the_exact_loss_gradient() -> None:
    """The two-player gradient is the one-player gradient when the generator answers perfectly
    (Danskin)."""
    batch = _batch()
    utility = _utility(batch)
    best = Shannon().best_response(utility.detach(), batch.display_offsets, True)
    expected = segment_sum(best.probs * utility, batch.display_offsets)
    (two,) = torch.autograd.grad((expected - logged_utility(utility, batch)).sum(), utility)
    (one,) = torch.autograd.grad(exact_loss(utility, batch, Shannon(), 1.0, True).sum(), utility)
    torch.testing.assert_close(two, one)


def test_a_custom_regulariser_finds_the_closed_form_of_l2_with_and_without_no_click() -> None:
    def half_square(
        probs: torch.Tensor, no_click_prob: torch.Tensor, offsets: torch.Tensor
    ) -> torch.Tensor:
        return 0.5 * (segment_sum(probs.square(), offsets) + no_click_prob.square())

    for no_click in (True, False):
        batch = _batch(0.3 if no_click else 0.0)
        scores = _utility(batch).detach()
        custom = Custom(half_square, steps=700)
        found = custom.best_response(scores, batch.display_offsets, no_click)
        exact = L2().best_response(scores, batch.display_offsets, no_click)
        torch.testing.assert_close(found.probs, exact.probs, atol=5e-3, rtol=0)


def test_draws_have_the_stated_frequencies() -> None:
    batch = _batch()
    dist = L2().best_response(2 * _utility(batch).detach(), batch.display_offsets, True)
    draws, n = torch.Generator().manual_seed(0), 3000
    counts = torch.zeros(int(batch.display_offsets[-1]))
    for _ in range(n):
        sample = sample_candidates(dist, batch.display_offsets, draws)
        counts[sample[sample >= 0]] += 1
    assert (counts[dist.probs == 0] == 0).all()
    assert (counts / n - dist.probs).abs().max() < 0.05


@pytest.mark.parametrize("regulariser", REGULARISERS, ids=str)
@pytest.mark.parametrize("too_sure", [0.2, 1.0, 5.0])
def test_the_calibrated_loss_is_the_loss_at_its_best_scale(
    too_sure: float, regulariser: Regulariser
) -> None:
    """Against a search over the scale, and the same however sure a network is of itself."""
    batch = _batch()
    utility = _utility(batch).detach()
    utility[batch.chosen] += 1.0

    def loss(log_scale: float) -> float:
        scale = float(np.exp(log_scale))
        return float(exact_loss(scale * utility, batch, regulariser, 2.0, True).mean())

    found = figures(
        lambda batch: (too_sure * utility, None), [batch], regulariser, 2.0, True, calibrated=True
    )
    best = minimize_scalar(loss, bounds=(-4, 2), method="bounded")
    assert found.calibrated_loss == pytest.approx(best.fun, abs=5e-4)
    assert too_sure * found.scale == pytest.approx(np.exp(best.x), rel=0.02)
    assert loss(np.log(too_sure * found.scale)) == pytest.approx(best.fun, abs=5e-4)
    assert np.isnan(
        figures(lambda batch: (utility, None), [batch], L2(), 2.0, True).calibrated_loss
    )
