"""Layers of the stock torch rival: gathers, nn.LSTM padded and packed, the recurrence in a loop,
position weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastgaum.bench.rivals.padded import clone_parameter
from fastgaum.bench.rivals.padding import Padded
from fastgaum.nets.histories import PositionWeight, Recurrent


class Gathered(nn.Module):
    """A linear layer on one-hots as an embedding bag of one id."""

    def __init__(self, source: nn.Module, sparse: bool) -> None:
        super().__init__()
        self.table, self.bias = clone_parameter(source.table), clone_parameter(source.bias)
        self.sparse = sparse

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows plus bias, shape (*ids, out)."""
        bags = functional.embedding_bag(
            ids.reshape(-1, 1), self.table, mode="sum", sparse=self.sparse
        )
        return (bags + self.bias).view(*ids.shape, self.table.shape[1])


class StockLstm(nn.Module):
    """nn.LSTM over gathered gates, padded or packed."""

    def __init__(self, source: Recurrent, packed: bool, sparse: bool) -> None:
        super().__init__()
        self.input = Gathered(source.input, sparse)
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
        self.packed = packed

    def forward(self, batch: Padded) -> Tensor:
        """States after each step but the longest session's last, (B, T - 1, D)."""
        ids = batch.tokens[:, :-1]
        states = torch.zeros(*ids.shape, self.lstm.hidden_size)
        if ids.shape[1] == 0:
            return states
        if not self.packed:
            after: Tensor = self.lstm(self.input(ids))[0]
            return after
        lengths = torch.bincount(batch.row) - 1
        # nn.LSTM refuses sequences of no token
        longer = lengths.nonzero()[:, 0]
        packed = pack_padded_sequence(
            self.input(ids[longer]), lengths[longer], batch_first=True, enforce_sorted=False
        )
        after, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return states.index_copy(0, longer, after)


class LoopLstm(nn.Module):
    """The recurrence in a Python loop over padded steps, gates gathered."""

    def __init__(self, source: Recurrent, sparse: bool) -> None:
        super().__init__()
        self.input = Gathered(source.input, sparse)
        self.weight_hh = clone_parameter(source.weight_hh[0])

    def forward(self, batch: Padded) -> Tensor:
        """States after each step but the longest session's last, (B, T - 1, D)."""
        ids = batch.tokens[:, :-1]
        if ids.shape[1] == 0:
            return torch.zeros(*ids.shape, self.weight_hh.shape[1])
        gates = self.input(ids)
        h = c = gates.new_zeros(len(gates), self.weight_hh.shape[1])
        states: list[Tensor] = []
        for step in range(gates.shape[1]):
            i, f, g, o = torch.addmm(gates[:, step], h, self.weight_hh.t()).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, dim=1)


class WindowedPositionWeight(nn.Module):
    """Position weights over each step's window of ids, (B, T, m): repeats are merged, then one
    einsum over embeddings."""

    def __init__(self, source: PositionWeight, sparse: bool) -> None:
        super().__init__()
        self.lag_weights, self.bias = (
            clone_parameter(source.lag_weights),
            clone_parameter(source.bias),
        )
        self.columns, self.sparse = source.lag_weights.shape[1], sparse
        self.column = torch.arange(self.columns)
        self.table = clone_parameter(source.table)

    def forward(self, batch: Padded) -> Tensor:
        """States after each step but the longest session's last, (B, T - 1, D)."""
        ids = batch.tokens[:, :-1]
        window = min(len(self.lag_weights), ids.shape[1])
        if window == 0:
            return torch.zeros(*ids.shape, self.table.shape[1])
        # -1 stands before the session's start; lag 1, the newest, is last
        windows = functional.pad(ids, (window - 1, 0), value=-1).unfold(1, window, 1)
        same = (windows[..., :, None] == windows[..., None, :]) & (windows >= 0)[..., None]
        newest = ~(same.triu(1).any(-1)) & (windows >= 0)
        mixed = same.float() @ self.lag_weights[:window].flip(0)
        weights = ((mixed + self.bias).tanh() - self.bias.tanh()) * newest[..., None]
        rows = functional.embedding(
            ids[..., None] * self.columns + self.column, self.table, sparse=self.sparse
        )
        rows = functional.pad(rows, (0, 0, 0, 0, window - 1, 0)).unfold(1, window, 1)
        return torch.einsum("btmn,btndm->btd", weights, rows)
