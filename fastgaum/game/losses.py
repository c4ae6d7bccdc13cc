"""The players' losses, as pure functions of utilities and probabilities over ragged display sets.

    min_θ max_α  E_t [ Σ_a φ_α(a) r_θ(a) − Ω(φ_α)/η − r_θ(a_t) ]

Shapes: utilities (n_candidates,), display offsets (n_events + 1,), results (n_events,). No click
has utility 0."""

from __future__ import annotations

from torch import Tensor

from fastgaum.nets.regularisers import ChoiceDistribution, Regulariser, best_value
from fastgaum.nets.segments import segment_sum
from fastgaum.nets.tensors import BatchTensors


def logged_utility(utility: Tensor, batch: BatchTensors) -> Tensor:
    """r(a_t): the utility of the logged choice, 0 for no click, shape (n_events,)."""
    zeros = utility.new_zeros(batch.n_events)
    return zeros.index_copy(0, batch.clicked, utility[batch.chosen])


def exact_loss(
    utility: Tensor, batch: BatchTensors, regulariser: Regulariser, eta: float, outside: bool
) -> Tensor:
    """The reward's loss against the best response, max_φ [⟨φ, r⟩ − Ω(φ)/η] − r(a_t), per event.

    A Fenchel–Young loss over eta, up to the constant Ω(onehot): 0 for Shannon and Tsallis, ½ for
    L2. For Shannon it is the conditional-logit NLL over eta. Its gradient is φ* − onehot(a_t). Low
    when the logged choice has the best regularised value."""
    return best_value(
        regulariser, eta * utility, batch.display_offsets, outside
    ) / eta - logged_utility(utility, batch)


def generator_value(
    dist: ChoiceDistribution,
    utility: Tensor,
    batch: BatchTensors,
    regulariser: Regulariser,
    eta: float,
) -> Tensor:
    """⟨φ_α, r⟩ − Ω(φ_α)/η per event: what the generator maximises."""
    generated_utility = segment_sum(dist.probs * utility, batch.display_offsets)
    return generated_utility - regulariser.omega(dist, batch.display_offsets) / eta


def mirror_loss(
    logits: Tensor,
    utility: Tensor,
    batch: BatchTensors,
    regulariser: Regulariser,
    eta: float,
    outside: bool,
) -> Tensor:
    """Ω*(g) − ⟨φ*, g⟩ per event, φ* the best response to the utilities: its gradient is φ_α − φ*.

    The generator's ascent in the mirror geometry of Ω: the same maximiser as `generator_value`,
    convex in the logits, and without the flat regions that a sparse link has outside its support.
    """
    best = regulariser.best_response(eta * utility, batch.display_offsets, outside)
    return best_value(regulariser, logits, batch.display_offsets, outside) - segment_sum(
        best.probs * logits, batch.display_offsets
    )


def reward_loss(
    generated_probs: Tensor, generated_states_utility: Tensor, utility: Tensor, batch: BatchTensors
) -> Tensor:
    """⟨φ_α, r⟩ − r(a_t) per event, φ_α fixed: low when logged choices are worth more than generated
    ones.

    `generated_states_utility` is `utility` itself for logged histories.
    """
    return segment_sum(
        generated_probs * generated_states_utility, batch.display_offsets
    ) - logged_utility(utility, batch)


def optimality_gap(
    dist: ChoiceDistribution,
    utility: Tensor,
    batch: BatchTensors,
    regulariser: Regulariser,
    eta: float,
    outside: bool,
) -> Tensor:
    """max_φ [⟨φ, r⟩ − Ω(φ)/η] − [⟨φ_α, r⟩ − Ω(φ_α)/η] ≥ 0 per event, in nats for Shannon with eta
    1."""
    best = best_value(regulariser, eta * utility, batch.display_offsets, outside) / eta
    return (best - generator_value(dist, utility, batch, regulariser, eta)).clamp(min=0)
