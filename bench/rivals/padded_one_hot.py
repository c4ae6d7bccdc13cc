"""The rival that this project replaces: dense one-hot items, sessions and display sets padded, loops over users and steps.

The layout of the student report (docs: its figure 9 and code): an item is a one-hot vector over the catalogue, the first
layers are dense linear layers on it, sessions are padded to the batch's longest and display sets to its widest, the
optimiser is a dense Adam. The networks, the objective and the weights are ours. Two things are kinder than the report:
the state is not copied beside each one-hot (W_s s and W x are two products), and one-hots are filled in one scatter.

Histories: `lstm` (one padded nn.LSTM on one-hots), `bilstm` over prefixes (one padded call per step: O(T²)) and `pw`
(the paper's dense state vec[σ(F W + B)], n_ids · n columns wide). Generated histories re-encode the prefix for each user
and step, O(T²) calls in a Python loop, as the report does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.bench.rivals.dense_history import dense_history
from fastgaum.bench.rivals.padded import PaddedGame, Scorer, clone
from fastgaum.bench.rivals.padding import Padded, pad
from fastgaum.models.networks import Networks
from fastgaum.sessions.batches import Batch


@dataclass(frozen=True)
class OneHot(Padded):
    """A padded batch and its dense one-hots."""

    candidates: Tensor
    """shape (B, T, K, n_ids)"""
    history: Tensor
    """choices, shape (B, T, n_ids); a session's last is never read"""


class PaddedOneHot(PaddedGame):
    """The padded one-hot design."""

    def build(self, networks: Networks) -> tuple[nn.Module, nn.Module]:
        """Dense layers on one-hots: the transposed tables of the networks' bags."""
        assert networks.generator is not None
        player = next(iter(networks.players))
        reward = nn.ModuleDict({"history": dense_history(player.history), "scorer": _scorer(player.reward)})
        return reward, _scorer(networks.generator)

    def prepare(self, batch: Batch) -> OneHot:
        """Pad and build the one-hots: O(B · T · K · n_ids)."""
        padded = pad(batch, flat=False)
        candidates = torch.zeros(*padded.ids.shape, self.n_ids)
        candidates.scatter_(-1, padded.ids[..., None], padded.real[..., None].float())
        return OneHot(**vars(padded), candidates=candidates, history=one_hot(padded.tokens, self.n_ids))

    def states(self, batch: Padded, generated: Tensor | None = None) -> Tensor:
        """State before each event, (B, T, D): zeros, then the encoding of the choices before."""
        assert isinstance(batch, OneHot)
        history = self.reward.get_submodule("history")
        if generated is not None:
            return generated_states(history, batch, one_hot(generated, self.n_ids))
        after: Tensor = history(batch.history[:, :-1])
        return functional.pad(after, (0, 0, 1, 0))

    def scores(self, scorer: nn.Module, batch: Padded, states: Tensor) -> Tensor:
        """W x on the one-hots plus W_s s, then the remaining layers, at every padded slot."""
        assert isinstance(batch, OneHot)
        assert isinstance(scorer, Scorer)
        return scorer.after_first(scorer.first(batch.candidates) + scorer.from_state(states)[..., None, :])

    def weights(self) -> dict[str, Tensor]:
        """Under the names of `Networks.state_dict`."""
        history, scorer = self.reward.get_submodule("history"), self.reward.get_submodule("scorer")
        found = {f"players.0.history.{name}": value for name, value in history.weights().items()}
        for prefix, module in (("players.0.reward", scorer), ("generator", self.generator)):
            parts = {name: value.detach() for name, value in module.named_parameters()}
            parts["first.table"] = parts.pop("first.weight").t()
            found |= {f"{prefix}.{name}": value for name, value in parts.items()}
        return found


def generated_states(history: nn.Module, batch: OneHot, generated: Tensor) -> Tensor:
    """Each user's each prefix encoded anew, its last choice replaced by the generated one: O(T²) per session."""
    users = []
    steps = torch.bincount(batch.row).tolist()
    width = history(batch.history[:1, :0]).shape[-1]
    for user, length in enumerate(steps):
        states = [batch.history.new_zeros(width)]
        for step in range(1, length):
            prefix = torch.cat([batch.history[user, : step - 1], generated[user, step - 1 : step]])
            states.append(history(prefix[None], last_only=True)[0, -1])
        users.append(torch.stack(states))
    return nn.utils.rnn.pad_sequence(users, batch_first=True)


def one_hot(ids: Tensor, n_ids: int) -> Tensor:
    """One-hot vectors in a new last axis."""
    return torch.zeros(*ids.shape, n_ids).scatter_(-1, ids[..., None], 1.0)


def _scorer(source: nn.Module) -> Scorer:
    table, bias = source.first.table.detach(), source.first.bias.detach()
    first = nn.Linear(*table.shape)
    first.weight.data.copy_(table.t())
    first.bias.data.copy_(bias)
    return Scorer(source, first, clone(source.act))
