"""What a competent torch user writes: embedding bags, a padded nn.LSTM (oneDNN on the CPU), masked
softmax, fused dense AdamW, one autograd graph per step.

Our LSTM has one-hot input: its input projection is a row of 4H gates per item. nn.LSTM is given the
gathered gates and a fixed identity as W_ih, which for H = 20 is 4 times the recurrence's products.
A Python loop, a packed nn.LSTM and SparseAdam were slower."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.config import Config
from fastgaum.features.batches import Batch
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import Networks


@dataclass(frozen=True)
class Padded:
    """A padded batch of E events in B sessions of at most T events, with at most K candidates."""

    ids: Tensor
    """id of each candidate, int64, shape (E, K); 0 in empty slots"""
    real: Tensor
    """slots that hold a candidate, bool, shape (E, K)"""
    choice: Tensor
    """slot of the choice, 0 for none, int64, shape (E,)"""
    clicked: Tensor
    """events with a choice, bool, shape (E,)"""
    tokens: Tensor
    """id chosen at each step, 0 for no click and for padding, int64, shape (B, T)"""
    row: Tensor
    """session of each event, int64, shape (E,)"""
    step: Tensor
    """position of each event in its session, int64, shape (E,)"""


def pad(batch: Batch) -> Padded:
    """Pad a batch. Raises ValueError for bags of more than one id."""
    if batch.ids.shape[1] != 1 or batch.numbers.shape[1]:
        raise ValueError(
            "the rival races under the protocol identity: one id per candidate and no numbers"
        )
    lengths, sizes = np.diff(batch.session_offsets), np.diff(batch.display_offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(sizes)) - np.repeat(batch.session_offsets[:-1], lengths)
    real = np.arange(int(sizes.max())) < sizes[:, None]
    ids = np.zeros(real.shape, dtype=np.int64)
    ids[real] = batch.ids[:, 0]
    clicked, choice = batch.choices >= 0, np.maximum(batch.choices, 0).astype(np.int64)
    tokens = np.zeros((len(lengths), int(lengths.max())), dtype=np.int64)
    tokens[row, step] = np.where(clicked, ids[np.arange(len(ids)), choice], 0)
    return Padded(*map(torch.from_numpy, (ids, real, choice, clicked, tokens, row, step)))


class StockTorch:
    """The game of `fastgaum.game.game.Game` with logged histories, from the weights of networks."""

    def __init__(self, networks: Networks, config: Config, no_click: bool) -> None:
        """Copy the weights. Raises ValueError for networks that the rival does not have."""
        _check(config)
        self.config, self.no_click = config, no_click
        player, generator = networks.player, networks.generator
        assert isinstance(player.history, Recurrent)
        assert generator is not None
        history, scorer = GatheredLstm(player.history), Scorer(player.reward)
        self.reward = nn.ModuleDict({"history": history, "scorer": scorer})
        self.generator = Scorer(generator)
        self.reward_optimiser = _adamw(self.reward, config.lr, config.weight_decay)
        self.generator_optimiser = _adamw(self.generator, config.generator_lr, 0.0)

    def prepare(self, batch: Batch) -> Padded:
        return pad(batch)

    def round(self, batch: Padded) -> float:
        """Generator steps, then one reward step; returns the mean of ⟨φ, r⟩ − r(a_t) before the
        reward's update."""
        with torch.no_grad():
            utility, states = self.utility(batch)
            best = self._probs(self.config.eta * utility, batch)
        for _ in range(self.config.generator_steps):
            logits = self.generator(batch.ids, states)
            value = self._masked(logits, batch).logsumexp(-1) - (best * logits).sum(-1)
            self._update(value.mean(), self.generator, self.generator_optimiser)
        with torch.no_grad():
            probs = self._probs(self.generator(batch.ids, states), batch)
        utility = self.utility(batch)[0]
        chosen = utility.gather(-1, batch.choice[:, None])[:, 0] * batch.clicked
        loss = ((probs * utility).sum(-1) - chosen).mean()
        return self._update(loss, self.reward, self.reward_optimiser)

    def utility(self, batch: Padded) -> tuple[Tensor, Tensor]:
        """Utilities of all slots, (E, K), and the states before the events, (E, D)."""
        after: Tensor = self.reward.get_submodule("history")(batch.tokens)
        states = functional.pad(after, (0, 0, 1, 0))[batch.row, batch.step]
        return self.reward.get_submodule("scorer")(batch.ids, states), states

    def weights(self) -> dict[str, Tensor]:
        """Weights under the names and in the shapes of `Networks.state_dict`."""
        modules = {
            "player.history": self.reward.get_submodule("history"),
            "player.reward": self.reward.get_submodule("scorer"),
            "generator": self.generator,
        }
        return {
            f"{prefix}.{name}".replace("lstm.weight_hh_l0", "weight_hh.0"): value.detach()
            for prefix, module in modules.items()
            for name, value in module.named_parameters()
            if value.requires_grad
        }

    def _masked(self, scores: Tensor, batch: Padded) -> Tensor:
        """Scores of the candidates, with a last column of value 0 for no click where it is
        offered."""
        masked = scores.masked_fill(~batch.real, -torch.inf)
        return functional.pad(masked, (0, 1)) if self.no_click else masked

    def _probs(self, scores: Tensor, batch: Padded) -> Tensor:
        return self._masked(scores, batch).softmax(-1)[..., : scores.shape[-1]]

    def _update(self, loss: Tensor, module: nn.Module, optimiser: torch.optim.Optimizer) -> float:
        module.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), self.config.clip)
        optimiser.step()
        return float(loss.detach())


def _adamw(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True)


class Gathered(nn.Module):
    """A linear layer on one-hots as an embedding bag of one id."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.table, self.bias = copy.deepcopy(source.table), copy.deepcopy(source.bias)

    def forward(self, ids: Tensor) -> Tensor:
        bags = functional.embedding_bag(ids.reshape(-1, 1), self.table, mode="sum")
        return (bags + self.bias).view(*ids.shape, self.table.shape[1])


class GatheredLstm(nn.Module):
    """A padded nn.LSTM over gathered gates."""

    def __init__(self, source: Recurrent) -> None:
        super().__init__()
        self.input = Gathered(source.input)
        dim = source.state_dim
        self.lstm = nn.LSTM(4 * dim, dim, batch_first=True)
        fixed = {
            "weight_ih_l0": torch.eye(4 * dim),
            "bias_ih_l0": torch.zeros(4 * dim),
            "bias_hh_l0": torch.zeros(4 * dim),
        }
        for name, value in fixed.items():
            getattr(self.lstm, name).data.copy_(value)
            getattr(self.lstm, name).requires_grad_(False)
        self.lstm.weight_hh_l0.data.copy_(source.weight_hh[0].detach())

    def forward(self, tokens: Tensor) -> Tensor:
        """States after each step but the longest session's last, (B, T - 1, D)."""
        ids = tokens[:, :-1]
        if ids.shape[1] == 0:
            return torch.zeros(*ids.shape, self.lstm.hidden_size)
        after: Tensor = self.lstm(self.input(ids))[0]
        return after


class Scorer(nn.Module):
    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.first = Gathered(source.get_submodule("first"))
        self.from_state = copy.deepcopy(source.get_submodule("from_state"))
        self.rest = copy.deepcopy(source.get_submodule("rest"))
        self.act = copy.deepcopy(source.act)

    def forward(self, ids: Tensor, states: Tensor) -> Tensor:
        x = self.first(ids) + self.from_state(states)[:, None]
        for layer in self.rest.children():
            x = layer(self.act(x))
        return x[..., 0]


def _check(config: Config) -> None:
    plain = not config.wide and config.regulariser == "shannon"
    one_lstm = (config.history, config.history_layers) == ("lstm", 1)
    whole = config.dropout == config.id_dropout == 0 and config.players == "adversarial"
    if not (plain and one_lstm and whole):
        raise ValueError(
            "the rival races three plain networks (no wide path, one LSTM layer, Shannon, players "
            "adversarial) without dropout"
        )
