"""The design that this project replaces: dense one-hot items, sessions and display sets padded.

This is the student report's layout with our networks, objective and weights: an item is a one-hot
vector over the catalogue, the first layers are dense linear layers on it, the optimiser is a dense
Adam. It is kinder than the report, whose public code pads each display set to the widest of the
log."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.bench.rivals.padded import Padded, PaddedGame, Scorer, pad
from fastgaum.features.batches import Batch
from fastgaum.nets.histories import Recurrent


@dataclass(frozen=True)
class OneHot(Padded):
    """A padded batch and its dense one-hots."""

    candidates: Tensor
    """shape (B, T, K, n_ids)"""
    history: Tensor
    """choices, shape (B, T, n_ids); a session's last is never read"""


class PaddedOneHot(PaddedGame):
    """The padded one-hot design, padded no further than a batch needs."""

    def history(self, source: nn.Module) -> nn.Module:
        """nn.LSTM on one-hots."""
        assert isinstance(source, Recurrent)
        table, bias = source.input.table.detach(), source.input.bias
        assert bias is not None
        lstm = nn.LSTM(len(table), source.state_dim, batch_first=True)
        values = {"weight_ih": table.t(), "weight_hh": source.weight_hh[0], "bias_ih": bias}
        # our encoders have one bias per gate: the second is zero and not trained
        values["bias_hh"] = torch.zeros_like(bias)
        for name, value in values.items():
            getattr(lstm, f"{name}_l0").data.copy_(value.detach())
        lstm.bias_hh_l0.requires_grad_(False)
        return lstm

    def scorer(self, source: nn.Module) -> Scorer:
        """Dense layers on one-hots: the transposed tables of the networks' bags."""
        table = source.first.table.detach()
        first = nn.Linear(*table.shape)
        first.weight.data.copy_(table.t())
        first.bias.data.copy_(source.first.bias.detach())
        return Scorer(source, first, copy.deepcopy(source.act))

    def prepare(self, batch: Batch) -> OneHot:
        """Pad and build the one-hots: O(B · T · K · n_ids)."""
        padded = pad(batch, flat=False)
        candidates = torch.zeros(*padded.ids.shape, self.n_ids)
        candidates.scatter_(-1, padded.ids[..., None], padded.real[..., None].float())
        history = torch.zeros(*padded.tokens.shape, self.n_ids)
        history.scatter_(-1, padded.tokens[..., None], 1.0)
        return OneHot(**vars(padded), candidates=candidates, history=history)

    def states(self, batch: Padded) -> Tensor:
        """State before each event, (B, T, D): zeros, then the encoding of the choices before."""
        assert isinstance(batch, OneHot)
        lstm = self.reward.get_submodule("history")
        before = batch.history[:, :-1]
        if before.shape[1] == 0:
            return before.new_zeros(*batch.tokens.shape, lstm.hidden_size)
        return functional.pad(lstm(before)[0], (0, 0, 1, 0))

    def scores(self, scorer: nn.Module, batch: Padded, states: Tensor) -> Tensor:
        """W x on the one-hots plus W_s s, then the remaining layers, at every padded slot."""
        assert isinstance(batch, OneHot)
        assert isinstance(scorer, Scorer)
        first = scorer.first(batch.candidates) + scorer.from_state(states)[..., None, :]
        return scorer.after_first(first)

    def weights(self) -> dict[str, Tensor]:
        """Under the names of `Networks.state_dict`."""
        lstm = dict(self.reward.get_submodule("history").named_parameters())
        history = {
            "input.table": lstm["weight_ih_l0"].t(),
            "input.bias": lstm["bias_ih_l0"],
            "weight_hh.0": lstm["weight_hh_l0"],
        }
        found = {f"player.history.{name}": value for name, value in history.items()}
        scorer = self.reward.get_submodule("scorer")
        for prefix, module in (("player.reward", scorer), ("generator", self.generator)):
            parts = dict(module.named_parameters())
            parts["first.table"] = parts.pop("first.weight").t()
            found |= {f"{prefix}.{name}": value for name, value in parts.items()}
        return {name: value.detach() for name, value in found.items()}
