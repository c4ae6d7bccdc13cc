"""The rivals that this project replaces: dense one-hot items, sessions and display sets padded,
loops over users and steps.

Both are the student report's layout with our networks, objective and weights: an item is a one-hot
vector over the catalogue, the first layers are dense linear layers on it, the optimiser is a dense
Adam.

`ReportOneHot` pads and loops as the report does; what is known of that comes from its public code
(the repository from which the released logs come) and from the figures measured on it (2 to 31 s
for the generated histories of one batch):
- a display set has as many slots as the widest of the training log, because the report's networks
  take the whole set as one input of fixed width; a session as many steps as the longest of the
  batch;
- generated histories re-encode the prefix for each user and each padded step, a call of the encoder
each, O(T²). In four things it is kinder than the report: generated states are scored in one call
after the loop, not one by one with all display sets before them; prefixes are encoded once per
reading of the reward, where the report does so again for the generator; one-hots are filled in one
scatter, not from lists; and the state is not copied beside each one-hot (W_s s and W x are two
products).

`PaddedOneHot` is kinder still, the same design with some care: display sets have the batch's widest
size, and the loop knows each user's length.

Histories: `lstm` (one padded nn.LSTM on one-hots), `bilstm` over prefixes (one padded call per
step: O(T²)) and `pw` (the paper's dense state vec[σ(F W + B)], n_ids · n columns wide)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.bench.rivals.dense_history import dense_history
from fastgaum.bench.rivals.padded import PaddedGame, Scorer, clone
from fastgaum.bench.rivals.padding import Padded, pad
from fastgaum.config import Config
from fastgaum.features.batches import Batch
from fastgaum.nets.networks import Networks


@dataclass(frozen=True)
class OneHot(Padded):
    """A padded batch and its dense one-hots."""

    candidates: Tensor
    """shape (B, T, K, n_ids)"""
    history: Tensor
    """choices, shape (B, T, n_ids); a session's last is never read"""


class PaddedOneHot(PaddedGame):
    """The padded one-hot design, padded no further than a batch needs."""

    widest: int | None = None
    """slots of a display set; None for the batch's widest"""
    loop_over_padding = False
    """whether generated histories are also encoded at steps that a session does not have"""

    def build(self, networks: Networks) -> tuple[nn.Module, nn.Module]:
        """Dense layers on one-hots: the transposed tables of the networks' bags."""
        assert networks.generator is not None
        player = networks.player
        reward = nn.ModuleDict(
            {"history": dense_history(player.history), "scorer": _scorer(player.reward)}
        )
        return reward, _scorer(networks.generator)

    def prepare(self, batch: Batch) -> OneHot:
        """Pad and build the one-hots: O(B · T · K · n_ids)."""
        padded = pad(batch, flat=False, widest=self.widest)
        candidates = torch.zeros(*padded.ids.shape, self.n_ids)
        candidates.scatter_(-1, padded.ids[..., None], padded.real[..., None].float())
        return OneHot(
            **vars(padded), candidates=candidates, history=one_hot(padded.tokens, self.n_ids)
        )

    def states(self, batch: Padded, generated: Tensor | None = None) -> Tensor:
        """State before each event, (B, T, D): zeros, then the encoding of the choices before."""
        assert isinstance(batch, OneHot)
        history = self.reward.get_submodule("history")
        if generated is not None:
            steps = torch.bincount(batch.row)
            if self.loop_over_padding:
                steps = torch.full_like(steps, int(steps.max()))
            return generated_states(
                history, batch.history, one_hot(generated, self.n_ids), steps.tolist()
            )
        after: Tensor = history(batch.history[:, :-1])
        return functional.pad(after, (0, 0, 1, 0))

    def scores(self, scorer: nn.Module, batch: Padded, states: Tensor) -> Tensor:
        """W x on the one-hots plus W_s s, then the remaining layers, at every padded slot."""
        assert isinstance(batch, OneHot)
        assert isinstance(scorer, Scorer)
        return scorer.after_first(
            scorer.first(batch.candidates) + scorer.from_state(states)[..., None, :]
        )

    def weights(self) -> dict[str, Tensor]:
        """Under the names of `Networks.state_dict`."""
        history, scorer = self.reward.get_submodule("history"), self.reward.get_submodule("scorer")
        found = {f"player.history.{name}": value for name, value in history.weights().items()}
        for prefix, module in (("player.reward", scorer), ("generator", self.generator)):
            parts = {name: value.detach() for name, value in module.named_parameters()}
            parts["first.table"] = parts.pop("first.weight").t()
            found |= {f"{prefix}.{name}": value for name, value in parts.items()}
        return found


class ReportOneHot(PaddedOneHot):
    """The padded one-hot design as the report has it; `widest` is that of the training log's
    display sets."""

    loop_over_padding = True

    def __init__(
        self, networks: Networks, config: Config, n_ids: int, outside: bool, widest: int
    ) -> None:
        super().__init__(networks, config, n_ids, outside)
        self.widest = widest


def generated_states(
    history: nn.Module, logged: Tensor, generated: Tensor, steps: list[int]
) -> Tensor:
    """Each user's each prefix encoded anew, its last choice replaced by the generated one: O(T²)
    per session.

    logged and generated (B, T, n_ids); `steps` says how many of each user's states are wanted.
    """
    users = []
    width = history(logged[:1, :0]).shape[-1]
    for user, length in enumerate(steps):
        states = [logged.new_zeros(width)]
        for step in range(1, length):
            prefix = torch.cat([logged[user, : step - 1], generated[user, step - 1 : step]])
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
