"""History encoders on dense one-hots: nn.LSTM (over prefixes when bidirectional) and the paper's
dense position weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.bench.rivals.padded import clone_parameter
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.histories import PositionWeight, PrefixBiLstm, Recurrent


class DenseLstm(nn.Module):
    """nn.LSTM on one-hots; over prefixes when bidirectional."""

    def __init__(self, source: Recurrent | PrefixBiLstm) -> None:
        super().__init__()
        both = isinstance(source, PrefixBiLstm)
        inputs = list(source.inputs) if isinstance(source, PrefixBiLstm) else [source.input]
        dim, n_ids = source.weight_hh[0].shape[1], inputs[0].table.shape[0]
        self.lstm = nn.LSTM(n_ids, dim, source.layers, batch_first=True, bidirectional=both)
        copy_lstm(self.lstm, inputs, source)

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:
        """States after the steps of x (B, T, n_ids), (B, T, D); `last_only`: after the last
        alone."""
        dim, directions = self.lstm.hidden_size, 2 if self.lstm.bidirectional else 1
        if x.shape[1] == 0:
            return x.new_zeros(x.shape[0], 0, dim * directions)
        if directions == 1:
            return self.lstm(x)[0]
        first = x.shape[1] if last_only else 1
        outputs = [self.lstm(x[:, :t])[0] for t in range(first, x.shape[1] + 1)]
        return torch.stack(
            [torch.cat([o[:, -1, :dim], o[:, 0, dim:]], dim=1) for o in outputs], dim=1
        )

    def weights(self) -> dict[str, Tensor]:
        """As the history encoder names them."""
        return lstm_weights(self.lstm)


def copy_lstm(lstm: nn.LSTM, inputs: list[BagLinear], source: Recurrent | PrefixBiLstm) -> None:
    """Copy weights. Our encoders have one bias per gate: the second is zero and not trained."""
    n = len(inputs)
    for layer in range(source.layers):
        for d in range(n):
            at, suffix = layer * n + d, f"_l{layer}" + "_reverse" * d
            w_ih = inputs[d].table.t() if layer == 0 else source.weight_ih[at - n]
            bias = inputs[d].bias if layer == 0 else source.bias_ih[at - n]
            assert bias is not None
            values = {"weight_ih": w_ih, "weight_hh": source.weight_hh[at], "bias_ih": bias}
            values["bias_hh"] = torch.zeros_like(bias)
            for name, value in values.items():
                getattr(lstm, name + suffix).data.copy_(value.detach())
            getattr(lstm, "bias_hh" + suffix).requires_grad_(False)


def lstm_weights(lstm: nn.LSTM) -> dict[str, Tensor]:
    """An nn.LSTM's trained weights under our encoders' names."""
    found, n = {}, 2 if lstm.bidirectional else 1
    for at in range(lstm.num_layers * n):
        suffix = f"_l{at // n}" + "_reverse" * (at % n)
        parts = {
            name: getattr(lstm, name + suffix).detach()
            for name in ("weight_ih", "weight_hh", "bias_ih")
        }
        first = f"inputs.{at}" if n == 2 else "input"
        found[f"weight_hh.{at}"] = parts["weight_hh"]
        found[f"{first}.table" if at < n else f"weight_ih.{at - n}"] = (
            parts["weight_ih"].t() if at < n else parts["weight_ih"]
        )
        found[f"{first}.bias" if at < n else f"bias_ih.{at - n}"] = parts["bias_ih"]
    return found


class DensePositionWeight(nn.Module):
    """The paper's dense state vec[σ(F W + B)] over the catalogue, and its readout."""

    def __init__(self, source: PositionWeight) -> None:
        super().__init__()
        self.lag_weights, self.bias = (
            clone_parameter(source.lag_weights),
            clone_parameter(source.bias),
        )
        columns = source.lag_weights.shape[1]
        self.readout = nn.Linear(source.table.shape[0], source.state_dim, bias=False)
        self.readout.weight.data.copy_(source.table.detach().t())
        self.window, self.columns = source.window, columns

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:
        """States after the steps of x (B, T, n_ids)."""
        if x.shape[1] == 0:
            return x.new_zeros(*x.shape[:2], self.readout.out_features)
        mixed = x.new_zeros(*x.shape, self.columns)
        for lag in range(min(self.window, x.shape[1])):
            shifted = functional.pad(x, (0, 0, lag, 0))[:, : x.shape[1]]
            mixed = mixed + shifted[..., None] * self.lag_weights[lag]
        # σ(B) of absent items is a constant: our encoder leaves it to the readout's bias
        dense = (mixed + self.bias).tanh() - self.bias.tanh()
        after: Tensor = self.readout(dense.flatten(2))
        return after[:, -1:] if last_only else after

    def weights(self) -> dict[str, Tensor]:
        """As the history encoder names them."""
        table = self.readout.weight.detach().t()
        return {
            "lag_weights": self.lag_weights.detach(),
            "bias": self.bias.detach(),
            "table": table,
        }


def dense_history(source: nn.Module) -> nn.Module:
    if isinstance(source, PositionWeight):
        return DensePositionWeight(source)
    if isinstance(source, PrefixBiLstm) or (
        isinstance(source, Recurrent) and source.kind == "lstm"
    ):
        return DenseLstm(source)
    raise ValueError("the padded one-hot rival has the histories lstm, bilstm and pw")
