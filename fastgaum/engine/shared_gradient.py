"""The gradient of a whole batch, from those of several processes' parts of it: a player's own,
brought to the exchange."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastgaum.engine.scratch import Scratch
from fastgaum.kernels import rows as kernels
from fastgaum.parallel.exchange import Block, Exchange

if TYPE_CHECKING:
    from fastgaum.engine.optimiser import PlayerOptimiser, SparseTable


class SharedGradient:
    """Overwrites what stands in a player's gradient buffers by the mean over all processes."""

    def __init__(self, exchange: Exchange, slot_of: Any, scratch: Scratch, name: str) -> None:
        """`slot_of` (n_ids,) is the game's, −1 throughout."""
        self.exchange, self.slot_of, self.scratch, self.name = exchange, slot_of, scratch, name

    def __call__(self, optimiser: PlayerOptimiser, loss: float) -> float:
        """Exchange; returns the loss of the whole batch. Raises RefusedByAllError where a process
        cannot take the step."""
        # a gradient left as thin factors grows with the batch: games that have such are autograd's
        # here
        assert not optimiser.products
        groups = _groups(optimiser)
        blocks = [_block(group) for group in groups]
        loss, parts = self.exchange.mean(loss, torch.from_numpy(optimiser.grad), blocks)
        for number, group in enumerate(groups):
            self._put(
                group,
                [(part.weight, part.blocks[number]) for part in parts],
                f"{self.name}.{number}",
            )
        return loss

    def _put(self, group: list[SparseTable], parts: list[tuple[float, Block]], name: str) -> None:
        """Sum the processes' rows into the tables' buffers, one process after the other."""
        from fastgaum.engine.optimiser import Named

        ids = np.concatenate([block.ids.numpy() for _, block in parts])
        if not len(ids):
            for table in group:
                table.named = None
            return
        named = Named(
            ids, np.arange(len(ids) + 1, dtype=np.int32), self.slot_of, self.scratch, name
        )
        for i, table in enumerate(group):
            total, count, first = table.buffer(named), 0, 0
            for weight, block in parts:
                last = first + len(block.ids)
                rows, slots = block.rows[i].numpy(), named.slots[first:last]
                count, first = (
                    kernels.merge_rows(rows, slots, np.float32(weight), count, total),
                    last,
                )


def _groups(optimiser: PlayerOptimiser) -> list[list[SparseTable]]:
    """Tables by the part they are of: a scorer's wide and deep tables name the same rows, whose ids
    go out once."""
    return [
        list(group)
        for _, group in groupby(optimiser.tables, key=lambda table: table.name.rpartition(".")[0])
    ]


def _block(group: list[SparseTable]) -> Block:
    named = group[0].named
    if named is None:
        return Block(
            torch.empty(0, dtype=torch.int32), [torch.empty(0, table.width) for table in group]
        )
    return Block(
        torch.from_numpy(named.rows[: named.count]),
        [torch.from_numpy(table.grad) for table in group],
    )
