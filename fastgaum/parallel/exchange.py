"""Exchange: what the processes of one training tell each other in each step of each player.

Every process has its share of the batch's sessions and takes the very same step, with the gradient of the mean over all
events of the batch:

    header   gathered: whether it can take the step, whether it was asked to stop, events, loss, how many rows follow
    dense    summed (all-reduce): gradients of dense parameters, each process's weighted by its share of the events
    rows     gathered: the table rows that its share names, ids beside them; never a table

So a step's traffic follows the batch and the dense parameters, not the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastgaum.errors import RefusedByAllError, StepRefusedError
from fastgaum.interrupts import Stop
from fastgaum.parallel.ranks import Ranks, peers_needed

MOST_BLOCKS = 124
"""tables of a player at most: a header has a fixed length, so that who refuses a step need not know which one it is"""
_STATUS, _SIGNAL, _EVENTS, _LOSS, _COUNTS = range(5)
_HEADER = _COUNTS + MOST_BLOCKS
_SPREAD = 0x9E3779B97F4A7C15
"""odd, so that ranks' random keys differ; 2⁶⁴ / golden ratio"""


@dataclass(frozen=True)
class Block:
    """Gradients of the rows of a table that a part of a batch names, or of all parts; an id may come more than once."""

    ids: Tensor
    """int32, shape (n,)"""
    rows: Tensor
    """float32, shape (n, width)"""

    @property
    def width(self) -> int:
        """Floats of a row."""
        return self.rows.shape[1]


class Exchange:
    """One process's side of the exchange.

    Attributes:
        agreed: whether some process was asked to stop, as all processes know it after the same step.
        total_events: events of the batch at hand, over all processes.
    """

    def __init__(self, ranks: Ranks, stop: Stop) -> None:
        self.ranks, self.stop, self.agreed = ranks, stop, Stop()
        self.events = self.total_events = 0

    def together(self, step: Callable[[Any], float]) -> Callable[[Any, int], float]:
        """A step on this process's part of a batch, with how many of its events count, that all take or none takes.

        Random draws within are each process's own, and leave all with the same random state.

        Raises:
            RefusedByAllError: some process could not take it.
        """

        def shared(batch: Any, events: int) -> float:
            self.events = events
            key = int(torch.randint(2**31, ())) ^ ((self.ranks.rank * _SPREAD) & (2**62 - 1))
            cards = [self.ranks.device] if self.ranks.device.type == "cuda" else []
            with torch.random.fork_rng(devices=cards):
                torch.manual_seed(key)
                try:
                    return step(batch)
                except RefusedByAllError:
                    raise
                except StepRefusedError as error:
                    # the others wait for this process's header
                    self._header(False, math.nan, [], str(error))
                    raise AssertionError("a refused header is refused") from error

        return shared

    def mean(self, loss: float, dense: Tensor, blocks: Sequence[Block]) -> tuple[float, list[Block]]:
        """The loss and gradients of the whole batch, from those of this process's part.

        `dense` (n,) float32 is overwritten. Blocks come back with every process's rows, one process after the other.

        Raises:
            RefusedByAllError: some process cannot take this step.
        """
        counts = [len(block.rows) if self.events else 0 for block in blocks]
        table = self._header(True, loss, counts)
        events = table[:, _EVENTS]
        self.total_events = int(events.sum())
        weight = self.events / self.total_events
        self.ranks.traffic.steps += 1
        if weight:
            dense.mul_(weight)
        else:
            dense.zero_()
        with peers_needed():
            dist.all_reduce(dense)
        self.ranks.traffic.dense += dense.nbytes
        taking_part = events > 0
        mean = float((table[taking_part, _LOSS] * events[taking_part]).sum()) / self.total_events
        return mean, self._gathered(blocks, counts, weight, table[:, _COUNTS : _COUNTS + len(blocks)].int().tolist())

    def _header(self, can: bool, loss: float, counts: list[int], why: str = "") -> Tensor:
        """Every process's header, (size, ·), float64 on the CPU."""
        if len(counts) > MOST_BLOCKS:
            raise ValueError(f"a player has {len(counts)} tables, an exchange takes {MOST_BLOCKS}")
        own = torch.zeros(_HEADER, dtype=torch.float64)
        own[:_COUNTS] = torch.tensor([0.0 if can else 1.0, self.stop.signum or 0, self.events, loss])
        own[_COUNTS : _COUNTS + len(counts)] = torch.tensor(counts, dtype=torch.float64)
        table = self.ranks.gather(own.to(self.ranks.device)).cpu()
        self.ranks.traffic.header += own.nbytes
        signum = int(table[:, _SIGNAL].max())
        if signum:
            self.agreed.signum = signum
        if table[:, _STATUS].any():
            reasons = self.ranks.gather_json(why)
            raise RefusedByAllError(next(reason for reason in reasons if reason))
        return table

    def _gathered(
        self, blocks: Sequence[Block], counts: list[int], weight: float, everyone: list[list[int]]
    ) -> list[Block]:
        """Every process's rows, weighted: one message each, as long as the longest."""
        longest = max(
            sum(n * (1 + block.width) for n, block in zip(theirs, blocks, strict=True)) for theirs in everyone
        )
        if not longest:
            return list(blocks)
        message = torch.zeros(longest, dtype=torch.float32, device=self.ranks.device)
        at = 0
        for block, n in zip(blocks, counts, strict=True):
            # the bits of an id travel as those of a float
            message[at : at + n] = block.ids[:n].view(torch.float32)
            torch.mul(block.rows[:n].reshape(-1), weight, out=message[at + n : at + n * (1 + block.width)])
            at += n * (1 + block.width)
        messages = self.ranks.gather(message)
        self.ranks.traffic.rows += message.nbytes
        ends = [0] * self.ranks.size
        gathered = []
        for i, block in enumerate(blocks):
            ids, rows = [], []
            for rank, theirs in enumerate(everyone):
                n, at = theirs[i], ends[rank]
                ids.append(messages[rank, at : at + n].view(torch.int32))
                rows.append(messages[rank, at + n : at + n * (1 + block.width)].view(n, block.width))
                ends[rank] = at + n * (1 + block.width)
            gathered.append(Block(torch.cat(ids), torch.cat(rows)))
        return gathered
