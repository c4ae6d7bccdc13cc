"""Exchange: what the processes of one training tell each other in each step of each player.

Every process has its share of the batch's sessions and takes the very same step, with the gradient
of the mean over all events of the batch. Each sends all others one message:

    header   whether it can take the step, whether it was asked to stop, events, loss, the message's
    length counts   how many rows of each block follow dense    gradients of dense parameters; from
    three processes on they are summed in a ring (all-reduce) instead rows     gradients of the
    table rows that its share names, ids before them; never a table

So a step's traffic follows the batch and the dense parameters, not the catalogue. A message's
length is known to its sender alone; as much of it as the same step sent last time travels at once,
what is longer in a second message."""

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

_REFUSED, _SIGNAL, _EVENTS, _LOSS, _LENGTH = range(5)
_HEADER = 2 * 5
"""float32 numbers that the header's float64 ones are"""
_SPREAD = 0x9E3779B97F4A7C15
"""odd, so that ranks' random keys differ; 2⁶⁴ / golden ratio"""


@dataclass(frozen=True)
class Block:
    """Gradients of the rows that a part of a batch names, in the tables that have the same ids; an
    id comes once."""

    ids: Tensor
    """int32, shape (n,)"""
    rows: Sequence[Tensor]
    """float32, shape (n, width) for each table"""

    def first(self, n: int) -> Block:
        """The first n rows."""
        return Block(self.ids[:n], [rows[:n] for rows in self.rows])

    def laid_in(self, message: Tensor, at: int, n: int) -> tuple[Block, int]:
        """A block like this one, of n rows, that lies in a message from `at` on, and its end.

        The bits of an id travel as those of a float.
        """
        ids, at, found = message[at : at + n].view(torch.int32), at + n, []
        for rows in self.rows:
            last = at + n * rows.shape[1]
            found.append(message[at:last].view(n, rows.shape[1]))
            at = last
        return Block(ids, found), at


@dataclass(frozen=True)
class Part:
    """One process's part of a gradient, which counts with its weight; read before the next step,
    which writes there."""

    weight: float
    blocks: list[Block]


class Exchange:
    """One process's side of the exchange.

    Attributes:
        agreed: whether some process was asked to stop, as all processes know it after the same
            step.
        total_events: events of the batch at hand, over all processes.
    """

    def __init__(self, ranks: Ranks, stop: Stop) -> None:
        self.ranks, self.stop, self.agreed = ranks, stop, Stop()
        self.events = self.total_events = 0
        self._at = "", 0
        """the step that is under way, and how many players of it have moved: the same in all
        processes"""
        self._expected: dict[tuple[str, int], int] = {}
        """numbers that travel at once, by step and player"""
        self._messages = [
            torch.empty(0, dtype=torch.float32, device=ranks.device) for _ in range(ranks.size)
        ]

    def together(self, step: Callable[[Any], float]) -> Callable[[Any, int], float]:
        """A step on this process's part of a batch, with how many of its events count, that all
        take or none takes.

        Random draws within are each process's own, and leave all with the same random state.

        Raises:
            RefusedByAllError: some process could not take it.
        """

        def shared(batch: Any, events: int) -> float:
            self.events, self._at = events, (step.__name__, 0)
            key = int(torch.randint(2**31, ())) ^ ((self.ranks.rank * _SPREAD) & (2**62 - 1))
            cards = [self.ranks.device] if self.ranks.device.type == "cuda" else []
            with torch.random.fork_rng(devices=cards):
                torch.manual_seed(key)
                try:
                    return step(batch)
                except RefusedByAllError:
                    raise
                except StepRefusedError as error:
                    # the others wait for this process's message
                    self._swap(_HEADER, math.nan, why=str(error))
                    raise AssertionError("a refused step is refused by all") from error

        return shared

    def mean(self, loss: float, dense: Tensor, blocks: Sequence[Block]) -> tuple[float, list[Part]]:
        """The loss and gradients of the whole batch, from those of this process's part.

        `dense` (n,) float32 becomes the whole batch's. Rows come back as every process's, to be
        added up in that order.

        Raises:
            RefusedByAllError: some process cannot take this step.
        """
        own = [block.first(len(block.ids) if self.events else 0) for block in blocks]
        # two processes' sum in a ring is as many bytes
        joined = dense if self.ranks.size == 2 else dense[:0]
        start = _HEADER + len(blocks)
        length = (
            start
            + len(joined)
            + sum(len(b.ids) + sum(rows.numel() for rows in b.rows) for b in own)
        )
        message = self._room(length)
        counts = torch.tensor([len(block.ids) for block in own], dtype=torch.int32)
        message[_HEADER:start] = counts.view(torch.float32)
        message[start : start + len(joined)] = joined
        at = start + len(joined)
        for block in own:
            laid, at = block.laid_in(message, at, len(block.ids))
            laid.ids.copy_(block.ids)
            for rows, there in zip(block.rows, laid.rows, strict=True):
                there.copy_(rows)
        headers = self._swap(length, loss)
        events, losses = headers[:, _EVENTS].tolist(), headers[:, _LOSS].tolist()
        self.total_events = int(sum(events))
        weights = [n / self.total_events for n in events]
        mean = sum(weight * one for weight, one in zip(weights, losses, strict=True) if weight)
        self.ranks.traffic.steps += 1
        self._sum(dense, weights, start if len(joined) else None)
        everyone = (
            torch.stack([one[_HEADER:start] for one in self._messages])
            .cpu()
            .view(torch.int32)
            .tolist()
        )
        parts = []
        for weight, one, n_rows in zip(weights, self._messages, everyone, strict=True):
            at, theirs = start + len(joined), []
            for block, n in zip(blocks, n_rows, strict=True):
                laid, at = block.laid_in(one, at, n)
                theirs.append(laid)
            parts.append(Part(weight, theirs))
        return mean, parts

    def _sum(self, dense: Tensor, weights: list[float], start: int | None) -> None:
        """The weighted sum of all processes' dense gradients, which lie in the messages from
        `start` on, or are sent now."""
        if start is not None:
            dense.zero_()
            for weight, message in zip(weights, self._messages, strict=True):
                if weight:
                    dense.add_(message[start : start + len(dense)], alpha=weight)
            return
        weight = weights[self.ranks.rank]
        if weight:
            dense.mul_(weight)
        else:
            dense.zero_()
        with peers_needed():
            dist.all_reduce(dense)
        self.ranks.traffic.summed += dense.nbytes

    def _swap(self, length: int, loss: float, why: str = "") -> Tensor:
        """Send this process's message, whose header is not written yet, and receive the others'.

        Returns every process's header, (size, ·), float64 on the CPU. `why`: this process cannot
        take the step."""
        ranks = self.ranks
        expected = self._expected.get(self._at, _HEADER)
        header = [1.0 if why else 0.0, self.stop.signum or 0, self.events, loss, length]
        self._room(max(length, expected))[:_HEADER] = torch.tensor(
            header, dtype=torch.float64
        ).view(torch.float32)
        ranks.swap([message[:expected] for message in self._messages])
        headers = (
            torch.stack([message[:_HEADER] for message in self._messages]).cpu().view(torch.float64)
        )
        signum = int(headers[:, _SIGNAL].max())
        if signum:
            self.agreed.signum = signum
        if headers[:, _REFUSED].any():
            raise RefusedByAllError(next(reason for reason in ranks.gather_json(why) if reason))
        lengths = [int(n) for n in headers[:, _LENGTH].tolist()]
        longest = max(lengths)
        self._room(longest)
        if longest > expected:
            ranks.swap(
                [
                    one[expected : max(n, expected)]
                    for one, n in zip(self._messages, lengths, strict=True)
                ]
            )
        ranks.traffic.gathered += 4 * max(length, expected)
        # batches of a size name about as many rows
        self._expected[self._at] = longest + longest // 32
        self._at = self._at[0], self._at[1] + 1
        return headers

    def _room(self, length: int) -> Tensor:
        """This process's message, with room for so many numbers in it and in the others'; what they
        hold stays."""
        if len(self._messages[0]) < length:
            longer = [message.new_empty(length * 5 // 4) for message in self._messages]
            for message, room in zip(self._messages, longer, strict=True):
                room[: len(message)] = message
            self._messages = longer
        return self._messages[self.ranks.rank]
