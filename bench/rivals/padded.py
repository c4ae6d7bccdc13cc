"""What the padded rivals share: batches padded to their longest session and widest display set, and
the game on them.

The game is `fastgaum.game.game.Game` with logged histories, as it is usually written: masked
softmax, dense AdamW, one autograd graph per step. A rival adds its own layers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.config import Config
from fastgaum.features.batches import Batch
from fastgaum.nets.networks import Networks


@dataclass(frozen=True)
class Padded:
    """A padded batch. Events are laid out (B sessions, T steps), or flat (E,) where a rival pads
    display sets only."""

    ids: Tensor
    """id of each candidate, int64, shape (B, T, K) or (E, K); 0 in empty slots"""
    real: Tensor
    """slots that hold a candidate, bool, same shape"""
    offered: Tensor
    """as `real`, but slot 0 of a step without an event counts as offered, so that no softmax is
    empty"""
    weight: Tensor
    """1 / n_events at events, 0 at padding: a weighted sum is the mean over events; shape (B, T) or
    (E,)"""
    choice: Tensor
    """slot of the choice, 0 for none, int64, same shape"""
    clicked: Tensor
    """events with a choice, bool, same shape"""
    tokens: Tensor
    """id chosen at each step, 0 for no click and for padding, int64, shape (B, T)"""
    row: Tensor
    """session of each event, int64, shape (n_events,)"""
    step: Tensor
    """position of each event in its session, int64, shape (n_events,)"""

    def at_choice(self, values: Tensor) -> Tensor:
        """Entry of the logged choice, 0 for no click."""
        return values.gather(-1, self.choice[..., None])[..., 0] * self.clicked


def pad(batch: Batch, flat: bool) -> Padded:
    """Pad a batch, display sets to the widest of it.

    `flat` keeps one row per event instead of (sessions, steps). Raises ValueError for wider bags.
    """
    if batch.ids.shape[1] != 1 or batch.numbers.shape[1]:
        raise ValueError(
            "the rivals race under the protocol identity: one id per candidate and no numbers"
        )
    lengths, sizes = np.diff(batch.session_offsets), np.diff(batch.display_offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(sizes)) - np.repeat(batch.session_offsets[:-1], lengths)
    event = np.repeat(np.arange(len(sizes)), sizes)
    slot = np.arange(len(event)) - np.repeat(batch.display_offsets[:-1], sizes)
    layout = (len(sizes),) if flat else (len(lengths), int(lengths.max()))
    at = (np.arange(len(sizes)),) if flat else (row, step)
    ids = np.zeros((*layout, int(sizes.max())), dtype=np.int64)
    real = np.zeros(ids.shape, dtype=bool)
    weight, choice, clicked = (np.zeros(layout, kind) for kind in (np.float32, np.int64, bool))
    tokens = np.zeros((len(lengths), int(lengths.max())), dtype=np.int64)
    where = (*(part[event] for part in at), slot)
    ids[where], real[where] = batch.ids[:, 0], True
    weight[at], clicked[at] = 1 / len(sizes), batch.choices >= 0
    choice[at] = np.maximum(batch.choices, 0)
    chosen = batch.ids[batch.display_offsets[:-1] + np.maximum(batch.choices, 0), 0]
    tokens[row, step] = np.where(batch.choices >= 0, chosen, 0)
    offered = real.copy()
    offered[..., 0] = True
    return Padded(
        *map(torch.from_numpy, (ids, real, offered, weight, choice, clicked, tokens, row, step))
    )


class PaddedGame(ABC):
    """The two players on padded batches; subclasses hold the layers and say how a batch is
    prepared."""

    def __init__(self, networks: Networks, config: Config, n_ids: int, outside: bool) -> None:
        check(config)
        self.config, self.n_ids, self.outside = config, n_ids, outside
        assert networks.generator is not None
        player = networks.player
        history, scorer = self.history(player.history), self.scorer(player.reward)
        self.reward = nn.ModuleDict({"history": history, "scorer": scorer})
        self.generator = self.scorer(networks.generator)
        self.reward_optimiser = _adamw(self.reward, config.lr, config.weight_decay)
        self.generator_optimiser = _adamw(self.generator, config.generator_lr, 0.0)

    @abstractmethod
    def history(self, source: nn.Module) -> nn.Module:
        """The history encoder, with the weights copied."""

    @abstractmethod
    def scorer(self, source: nn.Module) -> Scorer:
        """A player's scorer, with the weights copied."""

    @abstractmethod
    def prepare(self, batch: Batch) -> Padded:
        """Pad a batch."""

    @abstractmethod
    def states(self, batch: Padded) -> Tensor:
        """State before each event, laid out as the events."""

    @abstractmethod
    def scores(self, scorer: nn.Module, batch: Padded, states: Tensor) -> Tensor:
        """Score of each slot, shape of `batch.ids`."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Weights under the names and in the shapes of `Networks.state_dict`."""

    def round(self, batch: Padded) -> float:
        """Generator steps, then one reward step; returns the mean of ⟨φ, r⟩ − r(a_t) before the
        reward's update."""
        with torch.no_grad():
            utility, states = self.utility(batch)
            best = self._probs(self.config.eta * utility, batch)
        for _ in range(self.config.generator_steps):
            logits = self.scores(self.generator, batch, states)
            value = self._masked(logits, batch).logsumexp(-1) - (best * logits).sum(-1)
            self._update((value * batch.weight).sum(), self.generator, self.generator_optimiser)
        with torch.no_grad():
            probs = self._probs(self.scores(self.generator, batch, states), batch)
        utility = self.utility(batch)[0]
        loss = (((probs * utility).sum(-1) - batch.at_choice(utility)) * batch.weight).sum()
        return self._update(loss, self.reward, self.reward_optimiser)

    def utility(self, batch: Padded) -> tuple[Tensor, Tensor]:
        """Utilities of all slots, and the states they were read from."""
        states = self.states(batch)
        return self.scores(self.reward.get_submodule("scorer"), batch, states), states

    def _masked(self, scores: Tensor, batch: Padded) -> Tensor:
        """Scores of what is offered, with a last column of value 0 for no click where it is
        offered."""
        masked = scores.masked_fill(~batch.offered, -torch.inf)
        return nn.functional.pad(masked, (0, 1)) if self.outside else masked

    def _probs(self, scores: Tensor, batch: Padded) -> Tensor:
        return self._masked(scores, batch).softmax(-1)[..., : scores.shape[-1]]

    def _update(self, loss: Tensor, module: nn.Module, optimiser: torch.optim.Optimizer) -> float:
        module.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), self.config.clip)
        optimiser.step()
        return float(loss.detach())


def _adamw(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Dense and fused, over all that is trained."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True)


class Scorer(nn.Module):
    """The layers after the first, which each rival has in its own way as `first` and
    `from_state`."""

    def __init__(
        self, source: nn.Module, first: nn.Module, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.first = first
        self.from_state = copy.deepcopy(source.get_submodule("from_state"))
        self.rest = copy.deepcopy(source.get_submodule("rest"))
        self.act = activation

    def after_first(self, x: Tensor) -> Tensor:
        """Scores from the first layer's output, last axis dropped."""
        for layer in self.rest.children():
            x = layer(self.act(x))
        return x[..., 0]


def check(config: Config) -> None:
    """Refuse what the rivals do not have. Raises ValueError."""
    plain = config.item_dim == 0 and not config.wide and config.regulariser == "shannon"
    one_lstm = (config.history, config.history_layers, config.states) == ("lstm", 1, "logged")
    whole = config.dropout == config.id_dropout == 0 and config.players == "adversarial"
    if not (plain and one_lstm and whole):
        raise ValueError(
            "the rivals race three plain networks (item_dim 0, no wide path, one LSTM layer over "
            "logged histories, Shannon, players adversarial) without dropout"
        )
