"""What a competent torch user writes: embedding bags, a padded nn.LSTM (oneDNN on the CPU), masked
softmax, fused AdamW.

Events are flat rows, so only display sets are padded; sessions are padded for nn.LSTM alone.

Our LSTM has one-hot input: its input projection is a row of 4H gates per item. nn.LSTM insists on a
product there: it is given the gathered gates and a fixed identity as W_ih. For H = 20 that is 4
times the recurrence's products. The recurrence written out in a Python loop is spared them, and was
3 times slower all the same; a packed nn.LSTM was slower too, and so was SparseAdam."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.bench.rivals.padded import Padded, PaddedGame, Scorer, pad
from fastgaum.features.batches import Batch
from fastgaum.nets.histories import Recurrent


class StockTorch(PaddedGame):
    """Stock torch, without this project's operators."""

    def history(self, source: nn.Module) -> nn.Module:
        """nn.LSTM over gathered gates."""
        assert isinstance(source, Recurrent)
        return GatheredLstm(source)

    def scorer(self, source: nn.Module) -> Scorer:
        """Embedding bags over the networks' tables."""
        return Scorer(source, Gathered(source.first), copy.deepcopy(source.act))

    def prepare(self, batch: Batch) -> Padded:
        """Pad display sets, and sessions for nn.LSTM."""
        return pad(batch, flat=True)

    def states(self, batch: Padded) -> Tensor:
        """State before each event, (E, D)."""
        after: Tensor = self.reward.get_submodule("history")(batch)
        return functional.pad(after, (0, 0, 1, 0))[batch.row, batch.step]

    def scores(self, scorer: nn.Module, batch: Padded, states: Tensor) -> Tensor:
        """(E, K); empty slots hold id 0, whose gradient is zero."""
        assert isinstance(scorer, Scorer)
        return scorer.after_first(scorer.first(batch.ids) + scorer.from_state(states)[:, None])

    def weights(self) -> dict[str, Tensor]:
        """Under the names of `Networks.state_dict`."""
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


class Gathered(nn.Module):
    """A linear layer on one-hots as an embedding bag of one id."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.table, self.bias = copy.deepcopy(source.table), copy.deepcopy(source.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows plus bias, shape (*ids, out)."""
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

    def forward(self, batch: Padded) -> Tensor:
        """States after each step but the longest session's last, (B, T - 1, D)."""
        ids = batch.tokens[:, :-1]
        if ids.shape[1] == 0:
            return torch.zeros(*ids.shape, self.lstm.hidden_size)
        after: Tensor = self.lstm(self.input(ids))[0]
        return after
