"""The game on a card: what `engine.game.EngineGame` does on the processor, over Triton's kernels.

A step reads its batch and its rates from arrays and leaves one array of figures; nothing on the way
asks the card for a number. So one CUDA graph per sizes of a batch repeats a whole step
(`StepGraphs`), and the processor waits once: for the figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NoReturn

import torch
from torch import Tensor, nn

from fastgaum.config import Config
from fastgaum.engine.card_batches import CardBatch, CardStep, Sizes, StepGraphs
from fastgaum.engine.card_kernels import SortedEntries
from fastgaum.engine.card_layers import (
    NO_DROPS,
    CardScorerLayer,
    CardStates,
    CardTowerScorerLayer,
    Drops,
    logged_choice_gradient,
    ragged_softmax,
)
from fastgaum.engine.card_tables import CardTable, candidate_entries
from fastgaum.engine.optimiser import CountedSteps
from fastgaum.errors import ConfigError, StepRefusedError
from fastgaum.game.game import Game
from fastgaum.nets.examination import Examination
from fastgaum.nets.networks import Networks, Scorer, TowerScorer
from fastgaum.nets.regularisers import Regulariser
from fastgaum.nets.tensors import BatchTensors
from fastgaum.processes import Processes

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class CardOptimiser(CountedSteps):
    """A player's dense parameters in one flat array, and its tables by named rows: the rules of
    `engine.optimiser.PlayerOptimiser`."""

    def __init__(
        self,
        dense: Iterable[nn.Parameter],
        tables: list[CardTable],
        undecayed: list[nn.Parameter],
        lr: float,
        weight_decay: float,
        clip: float,
    ) -> None:
        self.parameters = [*dense, *undecayed]
        self.tables: list[CardTable] = tables
        self.lr, self.weight_decay, self.clip = lr, weight_decay, clip
        self.step_number, self.log_decay, self.frozen = 0, 0.0, False
        self.values = torch.cat([one.detach().reshape(-1) for one in self.parameters])
        self.grad, self.m, self.v = (torch.zeros_like(self.values) for _ in range(3))
        self.decayed = torch.ones_like(self.values)
        self.decayed[len(self.values) - sum(one.numel() for one in undecayed) :] = 0
        self.start: dict[int, int] = {}
        at = 0
        for parameter in self.parameters:
            self.start[id(parameter)] = at
            parameter.data = self._view(self.values, parameter)
            at += parameter.numel()

    def grad_of(self, parameter: Tensor) -> Tensor:
        """Where a dense parameter's gradient is written, a view."""
        return self._view(self.grad, parameter)

    def rates(self, ahead: int) -> list[float]:
        """The numbers of the step so many ahead: whether to move, a place for the clipping, lr, log
        of all decay so far, Adam's two corrections, and lr · weight decay."""
        number, decay = self.step_number + ahead, self.lr * self.weight_decay
        corrections = 1 - BETA1**number, math.sqrt(1 - BETA2**number)
        log_decay = self.log_decay + ahead * math.log1p(-decay)
        return [float(not self.frozen), 1.0, self.lr, log_decay, *corrections, decay]

    def step(self, rates: Tensor, fine: Tensor) -> Tensor:
        """One step with the gradients that are there. Returns whether it was `fine` so far and the
        gradient is finite, (), float64; nothing moves otherwise.

        rates: as `rates` gives them, float64."""
        squares = self.grad.double().square().sum()
        for table in self.tables:
            squares = squares + table.squares()
        norm = squares.sqrt()
        fine = fine * norm.isfinite()
        shrink = (self.clip / (norm + 1e-6)).clamp(max=1)
        rates = torch.cat([(rates[0] * fine)[None], shrink[None], rates[2:]])
        _, _, lr, _, correction1, correction2, decay = rates.to(self.values.dtype).unbind()
        g = self.grad * shrink.to(self.values.dtype)
        m = BETA1 * self.m + (1 - BETA1) * g
        v = BETA2 * self.v + (1 - BETA2) * g * g
        moved = self.values * (1 - decay * self.decayed)
        moved = moved - lr / correction1 * m / (v.sqrt() / correction2 + EPS)
        for held, new in ((self.m, m), (self.v, v), (self.values, moved)):
            held.copy_(torch.where(rates[0] > 0, new, held))
        for table in self.tables:
            table.update(rates)
        return fine

    def took(self, steps: int) -> None:
        """Count steps that were fine."""
        if not self.frozen:
            self.step_number += steps
            self.log_decay += steps * math.log1p(-self.lr * self.weight_decay)

    def state(self) -> dict[str, Tensor]:
        """What a step remembers beside the counters, by name, in the optimiser's own memory."""
        found = {"m": self.m, "v": self.v}
        for i, table in enumerate(self.tables):
            found |= {f"table.{i}.{name}": value for name, value in table.moments().items()}
        return found

    def release(self) -> None:
        """Give each parameter an array of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()

    def _view(self, flat: Tensor, parameter: Tensor) -> Tensor:
        at = self.start[id(parameter)]
        return flat[at : at + parameter.numel()].view(parameter.shape)


class CardScores:
    """A scorer's scores with what places add."""

    def __init__(self, scorer: Scorer | TowerScorer) -> None:
        self.layer: CardScorerLayer | CardTowerScorerLayer = (
            CardTowerScorerLayer(scorer)
            if isinstance(scorer, TowerScorer)
            else CardScorerLayer(scorer)
        )
        self.examination: Examination | None = scorer.examination

    def forward(self, batch: CardBatch, states: Tensor, drops: Drops) -> Tensor:
        """Scores of the candidates, (n_candidates,)."""
        scores = self.layer.forward(batch, states, drops)
        if self.examination is None:
            return scores
        by_place = self.examination.by_place.detach()
        self.places = batch.places.clamp(max=len(by_place) - 1)
        return scores + by_place[self.places]

    def backward(self, grad: Tensor, entries: SortedEntries, optimiser: CardOptimiser) -> Tensor:
        """Leave all gradients; returns that of the states."""
        if self.examination is not None:
            later = self.examination.later
            numbers = torch.arange(1, 1 + later.numel(), device=grad.device)
            # a product: sums by index would be added in any order
            optimiser.grad_of(later).copy_(grad @ (self.places[:, None] == numbers).to(grad.dtype))
        return self.layer.backward(grad, entries, optimiser.grad_of)


class CardNetworks:
    """Both players' passes; `Networks` by hand."""

    def __init__(self, networks: Networks) -> None:
        self.states, self.reward = CardStates(networks.player), CardScores(networks.player.reward)
        generator = networks.generator
        self.generator = None if generator is None else CardScores(generator)

    @torch.no_grad()
    def outputs(self, batch: BatchTensors) -> tuple[Tensor, Tensor | None]:
        """As `Networks.outputs`."""
        padded, n = CardBatch.of(batch, Sizes.of(batch).rounded()), batch.candidates.n_bags
        states = self.states.forward(padded)
        utility = self.reward.forward(padded, states, NO_DROPS)[:n]
        if self.generator is None:
            return utility, None
        return utility, self.generator.forward(padded, states, NO_DROPS)[:n]


class CardGame(Game):
    """The steps by hand on a card, of what `dispatch.runs_on_card` takes."""

    def __init__(
        self,
        networks: Networks,
        config: Config,
        regulariser: Regulariser,
        unknown_of_id: Tensor,
        outside: bool,
    ) -> None:
        super().__init__(networks, config, regulariser, outside)
        self.unknown_of_id, self.by_hand = unknown_of_id, CardNetworks(networks)
        self.rate = config.dropout
        self.graphs = StepGraphs(unknown_of_id.device)
        rule, n_ids = config.table_optimiser, len(unknown_of_id)
        layer, states = self.by_hand.reward.layer, self.by_hand.states
        self.reward_optimiser = CardOptimiser(
            [*layer.dense_parameters(), *states.dense_parameters()],
            [*layer.own_tables(n_ids, rule), *states.own_tables(n_ids, rule)],
            _later(networks.player.reward),
            config.lr,
            config.weight_decay,
            config.clip,
        )
        self.generator_optimiser: CardOptimiser | None = None
        if networks.generator is not None and self.by_hand.generator is not None:
            own = self.by_hand.generator.layer
            self.generator_optimiser = CardOptimiser(
                own.dense_parameters(),
                own.own_tables(n_ids, rule),
                _later(networks.generator),
                config.generator_lr,
                0.0,
                config.clip,
            )

    def optimisers(self) -> dict[str, CardOptimiser]:
        """As the base says."""
        own = {"reward": self.reward_optimiser}
        generator = self.generator_optimiser
        return own if generator is None else {**own, "generator": generator}

    def share(self, processes: Processes) -> None:
        """As the base says. Raises ConfigError: several processes train by autograd on cards."""
        raise _one_card(f"{processes.size} processes were")

    def part(self) -> NoReturn:
        """As the base says. Raises ConfigError, as `share`."""
        raise _one_card("local steps are for several processes, which were")

    def outputs(self, batch: BatchTensors) -> tuple[Tensor, Tensor | None]:
        """As the base says."""
        return self.by_hand.outputs(batch)

    def release(self) -> None:
        """As the base says."""
        self.settle()
        for optimiser in self.optimisers().values():
            optimiser.release()

    def exact_step(self, batch: BatchTensors) -> float:
        """As the base says."""
        return self._taken(self._exact, batch, 0, True)

    def round(self, batch: BatchTensors) -> float:
        """As the base says."""
        return self._taken(self._round, batch, self.config.generator_steps, True)

    def generator_turn(self, batch: BatchTensors, steps: int) -> None:
        """As the base says."""
        self._taken(self._turn, batch, steps, False)

    def _taken(self, step: CardStep, batch: BatchTensors, turns: int, reward: bool) -> float:
        """Take so many generator steps, and the reward's if asked for; returns the loss."""
        generator = self.generator_optimiser
        rates = [] if generator is None else [generator.rates(1 + i) for i in range(turns)]
        rates += [self.reward_optimiser.rates(1)] if reward else []
        device = batch.display_offsets.device
        padded = CardBatch.of(batch, Sizes.of(batch).rounded())
        figures = self.graphs(step, padded, torch.tensor(rates, dtype=torch.float64, device=device))
        loss, *fine = figures.tolist()
        if generator is not None:
            generator.took(int(sum(fine[:turns])))
        self.reward_optimiser.took(int(sum(fine[turns:])))
        if not all(fine):
            what = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
            raise StepRefusedError(what)
        return float(loss)

    @torch.no_grad()
    def _exact(self, batch: CardBatch, rates: Tensor) -> Tensor:
        """The loss, and whether the step was fine, (2,)."""
        dropped, drops = self._dropped(batch), Drops(self.rate)
        utility = self._utility(dropped, drops)
        probs, loss = self._best_response(utility, dropped)
        entries = candidate_entries(dropped)
        fine = self._reward_step(probs, loss.isfinite().double(), entries, rates[0])
        return torch.stack([loss, fine])

    @torch.no_grad()
    def _round(self, batch: CardBatch, rates: Tensor) -> Tensor:
        """The loss, and of each step whether it was fine, (2 + generator steps,)."""
        played = self.by_hand.generator
        assert played is not None
        states = self.by_hand.states.forward(batch) if self.config.id_dropout else None
        dropped, drops = self._dropped(batch), Drops(self.rate)
        utility, entries = self._utility(dropped, drops), candidate_entries(dropped)
        fine = self._generator_steps(dropped, drops, utility, entries, rates[:-1])
        # what it plays is its choice with nothing dropped
        logits = played.forward(batch, self.given if states is None else states, NO_DROPS)
        probs, _ = ragged_softmax(logits, batch.display_offsets, self.outside)
        worth = ((probs * utility).sum() - _logged(utility, batch).sum()).double()
        loss = worth * batch.share[0].double()
        fine.append(self._reward_step(probs, fine[-1] * loss.isfinite(), entries, rates[-1]))
        return torch.stack([loss, *fine])

    @torch.no_grad()
    def _turn(self, batch: CardBatch, rates: Tensor) -> Tensor:
        """0, and of each generator step whether it was fine, (1 + steps,)."""
        dropped, drops = self._dropped(batch), Drops(self.rate)
        utility, entries = self._utility(dropped, drops), candidate_entries(dropped)
        fine = self._generator_steps(dropped, drops, utility, entries, rates)
        return torch.stack([rates.new_zeros(()), *fine])

    def _dropped(self, batch: CardBatch) -> CardBatch:
        return batch.dropped(self.unknown_of_id, self.config.id_dropout)

    def _utility(self, batch: CardBatch, drops: Drops) -> Tensor:
        self.batch, self.given = batch, self.by_hand.states.forward(batch)
        return self.by_hand.reward.forward(batch, self.given, drops)

    def _best_response(self, utility: Tensor, batch: CardBatch) -> tuple[Tensor, Tensor]:
        """softmax(eta · utility), (n_candidates,), and the mean negative log-likelihood over eta,
        float64."""
        eta = self.config.eta
        probs, log_totals = ragged_softmax(eta * utility, batch.display_offsets, self.outside)
        losses = log_totals / eta - _logged(utility, batch)
        return probs, losses.double().sum() * batch.share[0].double()

    def _generator_steps(
        self,
        batch: CardBatch,
        drops: Drops,
        utility: Tensor,
        entries: SortedEntries,
        rates: Tensor,
    ) -> list[Tensor]:
        """Generator steps under the draws of the reward's pass; whether each was fine."""
        player, optimiser = self.by_hand.generator, self.generator_optimiser
        assert player is not None
        assert optimiser is not None
        best, loss = self._best_response(utility, batch)
        fine, found = loss.isfinite().double(), list[Tensor]()
        for own in rates.unbind():
            logits = player.forward(batch, self.given, drops)
            probs, _ = ragged_softmax(logits, batch.display_offsets, self.outside)
            player.backward((probs - best) * batch.share, entries, optimiser)
            fine = optimiser.step(own, fine)
            found.append(fine)
        return found

    def _reward_step(
        self, probs: Tensor, fine: Tensor, entries: SortedEntries, rates: Tensor
    ) -> Tensor:
        """One reward step against these choices, if all was `fine` so far."""
        by_hand, optimiser = self.by_hand, self.reward_optimiser
        grad = logged_choice_gradient(probs, self.batch)
        grad_states = by_hand.reward.backward(grad, entries, optimiser)
        layer = by_hand.reward.layer
        tower = layer.tower if isinstance(layer, CardTowerScorerLayer) else None
        by_hand.states.backward(grad_states, tower, optimiser.grad_of)
        return optimiser.step(rates, fine)


def _one_card(what: str) -> ConfigError:
    return ConfigError(
        f"{what} given to a game that is one card's: engine.dispatch.game_for takes the reference "
        "for them"
    )


def _logged(utility: Tensor, batch: CardBatch) -> Tensor:
    """The utility of the logged choice, 0 for no click, (n_events,)."""
    chosen = batch.display_offsets[:-1] + batch.choices.clamp(min=0)
    values = utility.index_select(0, chosen.clamp(max=len(utility) - 1))
    return torch.where(batch.choices >= 0, values, 0)


def _later(scorer: Scorer | TowerScorer) -> list[nn.Parameter]:
    """What has no weight decay."""
    return [] if scorer.examination is None else [scorer.examination.later]
