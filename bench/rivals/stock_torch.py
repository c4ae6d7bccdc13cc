"""What a competent torch user writes: embedding bags, a padded nn.LSTM (oneDNN on the CPU), masked
softmax, fused AdamW.

Events are flat rows, so only display sets are padded; sessions are padded for nn.LSTM alone. Three
switches:

- `packed`: nn.LSTM reads a PackedSequence instead;
- `sparse`: tables have sparse gradients and torch.optim.SparseAdam (lazy, without weight decay: its
  results are its own and match ours only where every row of a table is in every batch), the rest
  keeps AdamW;
- `loop`: the recurrence written out over padded steps, gates gathered, instead of nn.LSTM.

Our LSTM has one-hot input: its input projection is a row of 4H gates per item. nn.LSTM insists on a
product there: it is given the gathered gates and a fixed identity as W_ih (for H = 20 that is 4
times the recurrence's products, which `loop` is spared)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.bench.rivals.padded import Optimisers, PaddedGame, Scorer, clone
from fastgaum.bench.rivals.padding import Padded, pad
from fastgaum.bench.rivals.stock_layers import Gathered, LoopLstm, StockLstm, WindowedPositionWeight
from fastgaum.config import Config
from fastgaum.features.batches import Batch
from fastgaum.nets.histories import PositionWeight, Recurrent
from fastgaum.nets.networks import Networks


class StockTorch(PaddedGame):
    """Stock torch, without this project's operators. Histories `lstm` and `pw`, logged states."""

    def __init__(
        self,
        networks: Networks,
        config: Config,
        n_ids: int,
        outside: bool,
        packed: bool = False,
        sparse: bool = False,
        loop: bool = False,
    ) -> None:
        if config.states == "generated":
            raise ValueError(
                "nn.LSTM keeps no cell state per step, so stock torch races logged histories only"
            )
        self.packed, self.sparse, self.loop = packed, sparse, loop
        super().__init__(networks, config, n_ids, outside)

    def build(self, networks: Networks) -> tuple[nn.Module, nn.Module]:
        """Embedding bags over the networks' tables."""
        assert networks.generator is not None
        player = networks.player
        reward = nn.ModuleDict(
            {"history": self._history(player.history), "scorer": self._scorer(player.reward)}
        )
        return reward, self._scorer(networks.generator)

    def optimisers(self, module: nn.Module, lr: float, weight_decay: float) -> Optimisers:
        """Fused AdamW; SparseAdam for sparse tables."""
        tables = [
            p for name, p in module.named_parameters() if self.sparse and name.endswith("table")
        ]
        rest = [
            p
            for p in module.parameters()
            if p.requires_grad and all(p is not table for table in tables)
        ]
        adam: Optimisers = [torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, fused=True)]
        return [*adam, torch.optim.SparseAdam(tables, lr=lr)] if tables else adam

    def clip(self, module: nn.Module) -> None:
        """As stock torch; sparse gradients are summed per row first and enter the norm by their
        values."""
        if not self.sparse:
            return super().clip(module)
        gradients = []
        for parameter in module.parameters():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            if parameter.grad is not None:
                gradients.append(
                    parameter.grad.values() if parameter.grad.is_sparse else parameter.grad
                )
        norm = nn.utils.get_total_norm(gradients)
        for gradient in gradients:
            gradient.mul_((self.config.clip / (norm + 1e-6)).clamp(max=1.0))
        return None

    def prepare(self, batch: Batch) -> Padded:
        """Pad display sets, and sessions for nn.LSTM."""
        return pad(batch, flat=True)

    def states(self, batch: Padded, generated: Tensor | None = None) -> Tensor:
        """State before each event, (E, D)."""
        assert generated is None
        after: Tensor = self.reward.get_submodule("history")(batch)
        return functional.pad(after, (0, 0, 1, 0))[batch.row, batch.step]

    def scores(self, scorer: nn.Module, batch: Padded, states: Tensor) -> Tensor:
        """(E, K); empty slots hold id 0, whose gradient is zero."""
        assert isinstance(scorer, Scorer)
        return scorer.after_first(scorer.first(batch.ids) + scorer.from_state(states)[:, None])

    def weights(self) -> dict[str, Tensor]:
        """Under the names of `Networks.state_dict`."""
        modules = {"player.history": self.reward.get_submodule("history")}
        modules |= {
            "player.reward": self.reward.get_submodule("scorer"),
            "generator": self.generator,
        }
        found = {}
        for prefix, module in modules.items():
            for name, value in module.named_parameters():
                if value.requires_grad:
                    found[f"{prefix}.{RENAMED.get(name, name)}"] = value.detach()
        return found

    def _history(self, source: nn.Module) -> nn.Module:
        if isinstance(source, PositionWeight):
            return WindowedPositionWeight(source, self.sparse)
        if not isinstance(source, Recurrent) or source.kind != "lstm" or source.layers != 1:
            raise ValueError("the stock torch rival has the histories lstm (one layer) and pw")
        return (
            LoopLstm(source, self.sparse)
            if self.loop
            else StockLstm(source, self.packed, self.sparse)
        )

    def _scorer(self, source: nn.Module) -> Scorer:
        return Scorer(source, Gathered(source.first, self.sparse), clone(source.act))


RENAMED = {"lstm.weight_hh_l0": "weight_hh.0", "weight_hh": "weight_hh.0"}
"""our names of what nn.LSTM and the loop call otherwise"""


padded = StockTorch
packed = partial(StockTorch, packed=True)
sparse_adam = partial(StockTorch, sparse=True)
looped = partial(StockTorch, loop=True)
