"""The gradient of a whole batch, from those of several processes' parts of it: a player's own, brought to the exchange."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastgaum.engine.memory import Scratch
from fastgaum.parallel.exchange import Block, Exchange

if TYPE_CHECKING:
    from fastgaum.engine.optimiser import PlayerOptimiser, SparseTable


class SharedGradient:
    """Overwrites what stands in a player's gradient buffers by the mean over all processes."""

    def __init__(self, exchange: Exchange, slot_of: Any, scratch: Scratch, name: str) -> None:
        """`slot_of` (n_ids,) is the game's, −1 throughout."""
        self.exchange, self.slot_of, self.scratch, self.name = exchange, slot_of, scratch, name

    def __call__(self, optimiser: PlayerOptimiser, loss: float) -> float:
        """Exchange; returns the loss of the whole batch. Raises RefusedByAllError where a process cannot take the step."""
        # a gradient left as thin factors grows with the batch: games that have such are autograd's here
        assert not optimiser.products
        groups = _groups(optimiser)
        blocks = [_rows(group) for group in groups]
        loss, gathered = self.exchange.mean(loss, torch.from_numpy(optimiser.grad), blocks)
        for number, group in enumerate(groups):
            self._put(group, gathered[number], f"{self.name}.{number}")
        return loss

    def _put(self, group: list[SparseTable], block: Block, name: str) -> None:
        from fastgaum.engine.optimiser import Named

        if not len(block.ids):
            for table in group:
                table.named = None
            return
        named = Named(
            block.ids.numpy(), np.arange(len(block.ids) + 1, dtype=np.int32), self.slot_of, self.scratch, name
        )
        at = 0
        for table in group:
            table.add(named, np.ascontiguousarray(block.rows[:, at : at + table.width].numpy()))
            at += table.width


def _groups(optimiser: PlayerOptimiser) -> list[list[SparseTable]]:
    """Tables by the part they are of: a scorer's wide and deep tables name the same rows, whose ids go out once."""
    return [list(group) for _, group in groupby(optimiser.tables, key=lambda table: table.name.rpartition(".")[0])]


def _rows(group: list[SparseTable]) -> Block:
    named = group[0].named
    if named is None:
        width = sum(table.width for table in group)
        return Block(torch.empty(0, dtype=torch.int32), torch.empty(0, width))
    ids = torch.from_numpy(named.rows[: named.count])
    rows = [torch.from_numpy(table.grad) for table in group]
    return Block(ids, rows[0] if len(rows) == 1 else torch.cat(rows, dim=1))
