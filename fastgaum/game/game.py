"""The game: exact steps, and rounds of generator steps and one reward step.

    min_θ max_α  E_t [ Σ_a φ_α(a|s_t,A_t) r_θ(s_t,a) − Ω(φ_α)/η − r_θ(s_t,a_t) ]

(Chen et al., ICML 2019); the losses stand in `game.losses`."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum import ops, threads
from fastgaum.arrays import FloatArray
from fastgaum.config import Config
from fastgaum.errors import StepRefusedError
from fastgaum.game.losses import exact_loss, mirror_loss
from fastgaum.kernels.choice import CHOICES, TARGETS, Loss, choice_probs
from fastgaum.nets.bags import BagLinear, IdDropout, random_key
from fastgaum.nets.batches import Batch
from fastgaum.nets.examination import Examination
from fastgaum.nets.histories import PositionWeight
from fastgaum.nets.networks import Networks, Scorer
from fastgaum.nets.regularisers import (
    Regulariser,
    Shannon,
)
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.signed import SignedNumbers
from fastgaum.ops.displays import parts_of
from fastgaum.ops.optimiser import LazyAdamW
from fastgaum.ops.scorer import ScorerKernels, ScorerPass, go_on, kernel_parameters, learn

SHARED_SCORES = 1 << 16
"""scores of a softmax that two threads share"""
NOTHING: FloatArray = np.empty(0, np.float32)
AVERAGED_EPOCHS, AVERAGES = 3, 8
"""exact epochs that a moving average of weights reaches back, and how often an epoch enters it"""


def averaged_share(n_averaged: int, a_epoch: int) -> float:
    """The share of the newest weights in a moving average of weights that `a_epoch` enter an epoch,
    and `n_averaged` have entered (Polyak & Juditsky, SIAM J. Control Optim. 1992)."""
    return max(1 / n_averaged, 1 / (a_epoch * AVERAGED_EPOCHS))


class Game:
    """Two players over one set of networks, and the steps that train them.

    Operators (`fastgaum.ops`) do what they take, one by one; where none does, torch does it."""

    def __init__(
        self,
        networks: Networks,
        config: Config,
        regulariser: Regulariser,
        unknown_of_id: Tensor,
        no_click: bool,
    ) -> None:
        """unknown_of_id: the id of each id's field for unknown values, int32, (n_ids,); no_click:
        whether no click is offered as a choice."""
        self.networks, self.config = networks, config
        self.regulariser, self.no_click = regulariser, no_click
        device = next(networks.parameters()).device
        self.drop_ids = IdDropout(unknown_of_id.to(device), config.id_dropout)
        player = networks.player
        # each player clips by its own gradient
        self.reward_optimiser = optimiser_of(
            player, player.reward, config.lr, config.weight_decay, config.clip
        )
        self.generator_optimiser: LazyAdamW | None = None
        if networks.generator is not None:
            self.generator_optimiser = optimiser_of(
                networks.generator, networks.generator, config.generator_lr, 0.0, config.clip
            )

    def optimisers(self) -> dict[str, LazyAdamW]:
        """Every player's optimiser, by name: "reward" and "generator"."""
        generator = self.generator_optimiser
        own = {"reward": self.reward_optimiser}
        return own if generator is None else {**own, "generator": generator}

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
        for optimiser in self.optimisers().values():
            optimiser.release()
        for module in self.networks.modules():
            if isinstance(module, BagLinear | PositionWeight):
                module.sparse_grad = False

    def outputs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """As `Networks.outputs`, of settled networks."""
        return self.networks.outputs(batch)

    def exact_step(self, batch: Batch) -> float:
        """Take one reward step against the closed-form best response; return the mean Fenchel–Young
        loss (nats for Shannon).

        Raises StepRefusedError for a loss or a gradient that is not finite; nothing has moved."""
        self._train()
        self.reward_optimiser.zero_grad()
        dropped, reward, eta = self._dropped(batch), self.networks.player.reward, self.config.eta
        states, way_back = self.networks.player.states_and_way_back(dropped)
        of = self._kernels(reward, dropped, states)
        if of is None:
            if way_back is not None:
                states = self.networks.player.states(dropped)
            key = self._key_of(reward, dropped, states)
            utility = reward(dropped.candidates, states, dropped.display_offsets, key)
            losses = exact_loss(utility, batch, self.regulariser, eta, self.no_click)
            return self._reward_update(batch.weighted(losses).mean())
        shown, vectors = reward.inputs(of, dropped.candidates, dropped.display_offsets)
        choices = batch.choices.numpy()
        rule = Loss(CHOICES, np.float32(eta), self.no_click, choices, NOTHING, _weights_of(batch))
        made = learn(of, shown, states, rule, self._key(reward), vectors, way_back)
        found = _mean_loss(made.log_totals, 1 / eta, made.scores, batch)
        return self.reward_optimiser.step(found)

    def round(self, batch: Batch) -> float:
        """Take generator steps, then one reward step; return the mean of ⟨φ, r⟩ − r(a_t) before it,
        φ with nothing dropped. Raises StepRefusedError as `exact_step` does."""
        self._train()
        self.reward_optimiser.zero_grad()
        player, dropped = self.networks.player, self._dropped(batch)
        states, way_back = player.states_and_way_back(dropped)
        of, offsets = player.reward.kernels_for(dropped.candidates, states), batch.display_offsets
        draws, key = _random_state(states.device) if of is None else None, None
        if of is None:
            if way_back is not None:
                states = player.states(dropped)
            utility = player.reward(dropped.candidates, states, offsets)
        else:
            key = self._key(player.reward)
            shown, vectors = player.reward.inputs(of, dropped.candidates, offsets)
            of_vectors = None if vectors is None else vectors.detach().numpy()
            scored = ScorerPass(of, of.room, shown, states.detach().numpy(), key, of_vectors)
            utility = torch.from_numpy(scored.forward())
        steps = self.config.generator_steps
        self._generator_steps(dropped, states, utility, draws, steps, key)
        n, probs = batch.n_events, self._whole_choice(batch, states)
        grad = probs / n
        grad.index_add_(0, batch.chosen, grad.new_full((), -1 / n).expand(len(batch.chosen)))
        if batch.weights is not None:
            grad *= expand_to_candidates(batch.weights, batch.display_offsets, len(grad))
        # numpy adds up in one order, whatever torch's threads
        loss = float((grad * utility.detach()).cpu().numpy().sum(dtype=np.float64))
        if not math.isfinite(loss):
            raise StepRefusedError(f"the loss is {loss}")
        if of is None:
            torch.autograd.backward(utility, grad)
        else:
            scored.backward(grad.numpy(), states.requires_grad or way_back is not None)
            go_on(scored, states, vectors, way_back)
        return self.reward_optimiser.step(loss)

    def generator_turn(self, batch: Batch, steps: int) -> None:
        """Take generator steps against the present reward, which stays fixed."""
        self._train()
        player, dropped = self.networks.player, self._dropped(batch)
        with torch.no_grad():
            states = player.states(dropped)
            draws, key = _random_state(states.device), self._key_of(player.reward, dropped, states)
            utility = player.reward(dropped.candidates, states, dropped.display_offsets, key)
        self._generator_steps(dropped, states, utility, draws, steps, key)

    def _generator_steps(
        self,
        dropped: Batch,
        states: Tensor,
        utility: Tensor,
        draws: Tensor | None,
        steps: int,
        key: int | None,
    ) -> None:
        generator, optimiser = self.networks.generator, self.generator_optimiser
        assert generator is not None
        assert optimiser is not None
        states, utility, eta = states.detach(), utility.detach(), self.config.eta
        of = self._kernels(generator, dropped, states)
        if of is not None:
            best, totals = self._softmax(utility, eta, dropped)
            _mean_loss(totals, 1 / eta, utility.numpy(), dropped)
            choices, weights = dropped.choices.numpy(), _weights_of(dropped)
            rule = Loss(TARGETS, np.float32(1), self.no_click, choices, best, weights)
        for _ in range(steps):
            optimiser.zero_grad()
            if of is not None:
                shown, vectors = generator.inputs(of, dropped.candidates, dropped.display_offsets)
                learn(of, shown, states, rule, key, vectors)
            else:
                if draws is not None:
                    _set_random_state(draws, states.device)
                logits = generator(dropped.candidates, states, dropped.display_offsets, key)
                losses = mirror_loss(logits, utility, dropped, self.regulariser, eta, self.no_click)
                torch.autograd.backward(dropped.weighted(losses).mean())
            optimiser.step()

    @torch.no_grad()
    def _whole_choice(self, batch: Batch, states: Tensor) -> Tensor:
        """Probabilities that the generator gives with nothing dropped, (n_candidates,)."""
        by_kernels = type(self.regulariser) is Shannon and ops.takes(states)
        if not by_kernels:
            self.networks.eval()
        if self.drop_ids.rate:
            states = self.networks.player.states(batch)
        logits = self.networks.logits(batch, states.detach())
        if by_kernels:
            return torch.from_numpy(self._softmax(logits, 1.0, batch)[0])
        return self.regulariser.link(logits, batch.display_offsets, self.no_click).probs

    def _softmax(self, scores: Tensor, eta: float, batch: Batch) -> tuple[FloatArray, FloatArray]:
        """softmax(eta · scores), (n_candidates,), and log Σ exp of each event, (n_events,)."""
        values, offsets = scores.numpy(), batch.display_offsets.numpy()
        probs, totals = np.empty_like(values), np.empty(batch.n_events, np.float32)
        # a second thread takes some 60 µs to wake: it is not worth that where the first needs a few
        # times as much
        parts = parts_of(offsets) if len(values) > SHARED_SCORES else [(0, batch.n_events)]
        fixed = values, np.float32(eta)
        calls = [(*fixed, offsets[a : b + 1], self.no_click, probs, totals[a:b]) for a, b in parts]
        threads.run(choice_probs, calls)
        return probs, totals

    def _kernels(self, scorer: Scorer, batch: Batch, states: Tensor) -> ScorerKernels | None:
        """The kernels of the fused loss, which is Shannon's."""
        if type(self.regulariser) is not Shannon:
            return None
        return scorer.kernels_for(batch.candidates, states)

    def _train(self) -> None:
        # the walk over all modules takes as long as a small step's kernels
        if not self.networks.training:
            self.networks.train()

    def _key_of(self, scorer: Scorer, batch: Batch, states: Tensor) -> int | None:
        """A key of dropout, drawn where kernels score."""
        return self._key(scorer) if scorer.kernels_for(batch.candidates, states) else None

    def _key(self, scorer: Scorer) -> int | None:
        return int(random_key()) if scorer.drops else None

    def _reward_update(self, loss: Tensor) -> float:
        torch.autograd.backward(loss)
        # read after the backward pass is under way: a card is waited for once
        found = float(loss.detach())
        if not math.isfinite(found):
            raise StepRefusedError(f"the loss is {found}")
        return self.reward_optimiser.step(found)

    def _dropped(self, batch: Batch) -> Batch:
        if not self.drop_ids.rate:
            return batch
        candidates, tokens = self.drop_ids(batch.candidates), self.drop_ids(batch.tokens)
        context = self.drop_ids(batch.context) if len(batch.context.ids) else batch.context
        return dataclasses.replace(batch, candidates=candidates, tokens=tokens, context=context)


def optimiser_of(
    player: nn.Module, scorer: Scorer, lr: float, weight_decay: float, clip: float
) -> LazyAdamW:
    """The optimiser of all parameters of a player; those of its scorer's kernels stand first."""
    tables: dict[int, nn.Parameter] = {}
    for module in player.modules():
        if isinstance(module, BagLinear | PositionWeight):
            module.sparse_grad = True
            tables[id(module.table)] = module.table
    free = [
        one
        for part in player.modules()
        if isinstance(part, Examination | SignedNumbers)
        for one in part.undecayed
    ]
    dense = kernel_parameters(scorer) if type(scorer.first) is BagLinear else []
    known = {*tables, *map(id, [*free, *dense])}
    dense += [one for one in player.parameters() if id(one) not in known]
    return LazyAdamW(dense, tables.values(), lr, weight_decay, clip, free)


def _weights_of(batch: Batch) -> FloatArray:
    """Weights of the events as kernels read them, (n_events,), or (0,) without any."""
    return NOTHING if batch.weights is None else batch.weights.numpy()


@np.errstate(all="ignore")
def _mean_loss(values: FloatArray, factor: float, utility: FloatArray, batch: Batch) -> float:
    """The mean over events of values, (n_events,), times a factor, less the logged choices'
    utility, by the events' weights. Raises StepRefusedError where it is not finite."""
    terms, chosen = values * factor, utility[batch.chosen.numpy()]
    if batch.weights is not None:
        weights = batch.weights.numpy()
        terms, chosen = terms * weights, chosen * weights[batch.clicked.numpy()]
    total = terms.sum(dtype=np.float64)
    loss = float(total - chosen.sum(dtype=np.float64)) / batch.n_events
    if not math.isfinite(loss):
        raise StepRefusedError(f"the loss is {loss}")
    return loss


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
