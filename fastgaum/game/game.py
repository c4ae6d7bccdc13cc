"""The game: the players' losses, exact steps, and rounds of generator steps and one reward step.

    min_θ max_α  E_t [ Σ_a φ_α(a|s_t,A_t) r_θ(s_t,a) − Ω(φ_α)/η − r_θ(s_t,a_t) ]

(Chen et al., ICML 2019). Losses are functions of ragged display sets: utilities (n_candidates,),
display offsets (n_events + 1,), results (n_events,). No click has utility 0."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from fastgaum.config import Config
from fastgaum.errors import StepRefusedError
from fastgaum.game.optimisers import StockOptimiser
from fastgaum.nets.bags import IdDropout
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import (
    ChoiceDistribution,
    Regulariser,
    best_value,
)
from fastgaum.nets.segments import segment_sum
from fastgaum.nets.tensors import BatchTensors

AVERAGED_EPOCHS, AVERAGES = 3, 8
"""exact epochs that a moving average of weights reaches back, and how often an epoch enters it"""


def logged_utility(utility: Tensor, batch: BatchTensors) -> Tensor:
    """r(a_t): the utility of the logged choice, 0 for no click, (n_events,)."""
    zeros = utility.new_zeros(batch.n_events)
    return zeros.index_copy(0, batch.clicked, utility[batch.chosen])


def averaged_share(n_averaged: int, a_epoch: int) -> float:
    """The share of the newest weights in a moving average of weights that `a_epoch` enter an epoch,
    and `n_averaged` have entered (Polyak & Juditsky, SIAM J. Control Optim. 1992)."""
    return max(1 / n_averaged, 1 / (a_epoch * AVERAGED_EPOCHS))


def exact_loss(
    utility: Tensor, batch: BatchTensors, regulariser: Regulariser, eta: float, outside: bool
) -> Tensor:
    """max_φ [⟨φ, r⟩ − Ω(φ)/η] − r(a_t) per event: the reward's loss against the best response, with
    gradient φ* − onehot(a_t).

    A Fenchel–Young loss over eta, up to the constant Ω(onehot): 0 for Shannon, of which it is the
    conditional-logit NLL over eta, and Tsallis, ½ for L2."""
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
    mean_utility = segment_sum(dist.probs * utility, batch.display_offsets)
    return mean_utility - regulariser.omega(dist, batch.display_offsets) / eta


def mirror_loss(
    logits: Tensor,
    utility: Tensor,
    batch: BatchTensors,
    regulariser: Regulariser,
    eta: float,
    outside: bool,
) -> Tensor:
    """Ω*(g) − ⟨φ*, g⟩ per event, φ* the best response to the utilities: its gradient is φ_α − φ*,
    φ_α the link of the logits.

    The generator's ascent in the mirror geometry of Ω. Both distributions come from one function:
    where equal, the gradient is 0 to the last bit, which Adam would otherwise blow up to a whole
    step."""
    offsets = batch.display_offsets
    with torch.no_grad():
        best = regulariser.best_response(eta * utility, offsets, outside)
        own = regulariser.link(logits.detach(), offsets, outside)
        omega = regulariser.omega(own, offsets)
    return segment_sum((own.probs - best.probs) * logits, offsets) - omega


def reward_loss(probs: Tensor, utility: Tensor, batch: BatchTensors) -> Tensor:
    """⟨φ_α, r⟩ − r(a_t) per event, φ_α fixed."""
    mean_utility = segment_sum(probs * utility, batch.display_offsets)
    return mean_utility - logged_utility(utility, batch)


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


class Optimiser(Protocol):
    """One player's optimiser, as a training and its checkpoints see it."""

    lr: float

    @property
    def counters(self) -> tuple[float, float]:
        """Steps taken, and the logarithm of the weight decay of them all."""

    def set_counters(self, steps: float, log_decay: float) -> None:
        """Go on counting from here."""

    def state(self) -> dict[str, Tensor]:
        """Memory of a step beside the counters, by name; the optimiser's own."""

    def settle(self) -> None:
        """Give every table row the weight decay that it has waited for."""


class Game(ABC):
    """Two players over one set of networks, and the steps that train them: by autograd in
    `ReferenceGame`, by kernels in `engine.game.EngineGame`; `engine.dispatch.game_for` chooses."""

    def __init__(
        self, networks: Networks, config: Config, regulariser: Regulariser, outside: bool
    ) -> None:
        self.networks, self.config = networks, config
        self.regulariser, self.outside = regulariser, outside

    @abstractmethod
    def exact_step(self, batch: BatchTensors) -> float:
        """Take one reward step against the closed-form best response; return the mean Fenchel–Young
        loss (nats for Shannon).

        Raises StepRefusedError for a loss or a gradient that is not finite; nothing has moved."""

    @abstractmethod
    def round(self, batch: BatchTensors) -> float:
        """Take generator steps, then one reward step; return the mean of ⟨φ, r⟩ − r(a_t) before it,
        φ with nothing dropped. Raises StepRefusedError as `exact_step` does."""

    @abstractmethod
    def generator_turn(self, batch: BatchTensors, steps: int) -> None:
        """Take generator steps against the present reward, which stays fixed."""

    def outputs(self, batch: BatchTensors) -> tuple[Tensor, Tensor | None]:
        """As `Networks.outputs`, of settled networks."""
        return self.networks.outputs(batch)

    @abstractmethod
    def optimisers(self) -> Mapping[str, Optimiser]:
        """Every player's optimiser, by name: "reward" and "generator"."""

    def set_learning_rates(self, factor: float, reward_share: float = 1.0) -> None:
        """Set the learning rates to the configured ones times `factor`, the reward's also times its
        share."""
        for name, optimiser in self.optimisers().items():
            own = self.config.lr * reward_share
            optimiser.lr = factor * (self.config.generator_lr if name == "generator" else own)

    def settle(self) -> None:
        """Bring every table up to date."""
        for optimiser in self.optimisers().values():
            optimiser.settle()

    def release(self) -> None:
        """Settle, and leave the networks with parameters of their own."""
        self.settle()


class ReferenceGame(Game):
    """The steps by autograd: any device, any configuration."""

    def __init__(
        self,
        networks: Networks,
        config: Config,
        regulariser: Regulariser,
        unknown_of_id: Tensor,
        outside: bool,
    ) -> None:
        super().__init__(networks, config, regulariser, outside)
        self.drop_ids = IdDropout(unknown_of_id, config.id_dropout)
        shared = (config.clip, config.table_optimiser)
        # each player clips by its own gradient
        self.reward_optimiser = StockOptimiser(
            networks.player, config.lr, config.weight_decay, *shared
        )
        self.generator_optimiser: StockOptimiser | None = None
        if networks.generator is not None:
            self.generator_optimiser = StockOptimiser(
                networks.generator, config.generator_lr, 0.0, *shared
            )

    def optimisers(self) -> dict[str, StockOptimiser]:
        """As the base says."""
        generator = self.generator_optimiser
        own = {"reward": self.reward_optimiser}
        return own if generator is None else {**own, "generator": generator}

    def exact_step(self, batch: BatchTensors) -> float:
        """As the base says."""
        self.networks.train()
        utility, _ = self.networks.player(self._dropped(batch))
        loss = exact_loss(utility, batch, self.regulariser, self.config.eta, self.outside)
        return self._reward_update(batch.weighted(loss).mean())

    def round(self, batch: BatchTensors) -> float:
        """As the base says."""
        self.networks.train()
        player, dropped = self.networks.player, self._dropped(batch)
        states = player.states(dropped)
        draws = _random_state(states.device)
        utility = player.reward(dropped.candidates, states, dropped.display_offsets)
        self._generator_steps(dropped, states, utility, draws, self.config.generator_steps)
        loss = reward_loss(self._whole_choice(batch).probs, utility, batch)
        return self._reward_update(batch.weighted(loss).mean())

    def generator_turn(self, batch: BatchTensors, steps: int) -> None:
        """As the base says."""
        self.networks.train()
        player, dropped = self.networks.player, self._dropped(batch)
        with torch.no_grad():
            states = player.states(dropped)
            draws = _random_state(states.device)
            utility = player.reward(dropped.candidates, states, dropped.display_offsets)
        self._generator_steps(dropped, states, utility, draws, steps)

    def _generator_steps(
        self, dropped: BatchTensors, states: Tensor, utility: Tensor, draws: Tensor, steps: int
    ) -> None:
        states, utility = states.detach(), utility.detach()
        assert self.generator_optimiser is not None
        for _ in range(steps):
            _set_random_state(draws, states.device)
            losses = mirror_loss(
                self.networks.logits(dropped, states),
                utility,
                dropped,
                self.regulariser,
                self.config.eta,
                self.outside,
            )
            self.generator_optimiser.zero_grad()
            torch.autograd.backward(dropped.weighted(losses).mean())
            self.generator_optimiser.step()

    @torch.no_grad()
    def _whole_choice(self, batch: BatchTensors) -> ChoiceDistribution:
        self.networks.eval()
        logits = self.networks.logits(batch, self.networks.player.states(batch))
        return self.regulariser.link(logits, batch.display_offsets, self.outside)

    def _reward_update(self, loss: Tensor) -> float:
        self.reward_optimiser.zero_grad()
        torch.autograd.backward(loss)
        # read after the backward pass is under way: a card is waited for once
        found = float(loss.detach())
        if not math.isfinite(found):
            raise StepRefusedError(f"the loss is {found}")
        return self.reward_optimiser.step(found)

    def _dropped(self, batch: BatchTensors) -> BatchTensors:
        return dataclasses.replace(
            batch,
            candidates=self.drop_ids(batch.candidates),
            tokens=self.drop_ids(batch.tokens),
            context=self.drop_ids(batch.context),
        )


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
