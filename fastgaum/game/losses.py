"""The players' losses.

    min_θ max_α  E_t [ Σ_a φ_α(a|s_t,A_t) r_θ(s_t,a) − Ω(φ_α)/η − r_θ(s_t,a_t) ]

(Chen et al., ICML 2019). Functions of ragged display sets: utilities (n_candidates,), offsets
(n_events + 1,), results (n_events,). No click has utility 0."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgaum.nets.batches import Batch
from fastgaum.nets.regularisers import ChoiceDistribution, Regulariser, best_value
from fastgaum.nets.segments import segment_sum


def logged_utility(utility: Tensor, batch: Batch) -> Tensor:
    """r(a_t): the utility of the logged choice, 0 for no click, (n_events,)."""
    zeros = utility.new_zeros(batch.n_events)
    return zeros.index_copy(0, batch.clicked, utility[batch.chosen])


def exact_loss(
    utility: Tensor, batch: Batch, regulariser: Regulariser, eta: float, no_click: bool
) -> Tensor:
    """max_φ [⟨φ, r⟩ − Ω(φ)/η] − r(a_t) per event: the reward's loss against the best response, with
    gradient φ* − onehot(a_t).

    A Fenchel–Young loss over eta, up to the constant Ω(onehot): 0 for Shannon, of which it is the
    conditional-logit NLL over eta, and Tsallis, ½ for L2."""
    return best_value(
        regulariser, eta * utility, batch.display_offsets, no_click
    ) / eta - logged_utility(utility, batch)


def generator_value(
    dist: ChoiceDistribution,
    utility: Tensor,
    batch: Batch,
    regulariser: Regulariser,
    eta: float,
) -> Tensor:
    """⟨φ_α, r⟩ − Ω(φ_α)/η per event: what the generator maximises."""
    mean_utility = segment_sum(dist.probs * utility, batch.display_offsets)
    return mean_utility - regulariser.omega(dist, batch.display_offsets) / eta


def mirror_loss(
    logits: Tensor,
    utility: Tensor,
    batch: Batch,
    regulariser: Regulariser,
    eta: float,
    no_click: bool,
) -> Tensor:
    """Ω*(g) − ⟨φ*, g⟩ per event, φ* the best response to the utilities: its gradient is φ_α − φ*,
    φ_α the link of the logits.

    The generator's ascent in the mirror geometry of Ω. Both distributions come from one function:
    where equal, the gradient is 0 to the last bit, which Adam would otherwise blow up to a whole
    step."""
    offsets = batch.display_offsets
    with torch.no_grad():
        best = regulariser.best_response(eta * utility, offsets, no_click)
        own = regulariser.link(logits.detach(), offsets, no_click)
        omega = regulariser.omega(own, offsets)
    return segment_sum((own.probs - best.probs) * logits, offsets) - omega


def optimality_gap(
    dist: ChoiceDistribution,
    utility: Tensor,
    batch: Batch,
    regulariser: Regulariser,
    eta: float,
    no_click: bool,
) -> Tensor:
    """max_φ [⟨φ, r⟩ − Ω(φ)/η] − [⟨φ_α, r⟩ − Ω(φ_α)/η] ≥ 0 per event, in nats for Shannon with eta
    1."""
    best = best_value(regulariser, eta * utility, batch.display_offsets, no_click) / eta
    return (best - generator_value(dist, utility, batch, regulariser, eta)).clamp(min=0)
