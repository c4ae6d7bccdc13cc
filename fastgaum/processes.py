"""Processes: the processes that train one model together, and what they tell each other.

Each has a number, its rank; rank 0 writes and speaks. Each takes its share of a batch's sessions,
and all take the very same step, with the gradient of the mean over all events of the batch. The
training loop uses three methods:

    step     a step that all processes take, or none
    sum      numbers, summed over all processes
    agree    a value of every process, in order of rank

and a player's optimiser a fourth, `mean`. It sends gradients of dense parameters, and those of the
table rows that a share names, never a table: a step's traffic follows the batch and the dense
parameters, not the catalogue.

With local steps, each process takes steps of its own (`step_alone`), and after every so many the
processes take the mean of their weights (`average`).

torch.distributed carries all this: gloo on the CPU, nccl on cards. What passes is numbers and JSON,
never objects."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from fastgaum.checkpoint import State, join_state, split_state
from fastgaum.errors import LostPeerError, RefusedByAllError, StepRefusedError
from fastgaum.features.batches import WHOLE, Share
from fastgaum.interrupts import Stop
from fastgaum.threads import seeded
from fastgaum.untrusted import parse_json

CPU = torch.device("cpu")
_SPREAD = 0x9E3779B97F4A7C15
"""odd, so that ranks' random keys differ; 2⁶⁴ / golden ratio"""
PIECE = 1 << 18
"""numbers of a table that are averaged at once: 1 MB"""
T = TypeVar("T")


@dataclass(frozen=True)
class RowGradient:
    """Gradients of some rows, in the tables that have the same ids."""

    ids: Tensor
    """int32, shape (n,)"""
    rows: Sequence[Tensor]
    """float32, shape (n, width) for each table"""


@dataclass(frozen=True)
class MovedRows:
    """Rows of a table that local steps have moved."""

    ids: Tensor
    """int64, ascending, shape (n,)"""
    arrays: Sequence[Tensor]
    """what holds the rows of all ids: the table, or what an optimiser remembers of each row;
    float32, shape (n_rows, width) or (n_rows,)"""


@dataclass
class Traffic:
    """What one process's messages have held so far, in bytes, and in how many steps of players."""

    gathered: int = 0
    summed: int = 0
    steps: int = 0

    def sent_per_step(self, size: int) -> float:
        """Bytes that this process sends in a step, of `size` processes: a sum goes round a ring
        twice, a gather once."""
        return (2 * self.summed / size + self.gathered) * (size - 1) / max(self.steps, 1)


class Processes:
    """The processes of one training. `Processes()` is a process alone: nothing is exchanged.

    Attributes:
        share: which part of a batch, or of an array, is this process's.
        device: where messages are made: a card for nccl.
        stop: whether a signal has asked this process to end.
        agreed: whether a signal has asked some process to end, as all know it after the same step.
        n_events: events of the last step's batch, over all processes.
        traffic: what this process's steps have exchanged.
    """

    def __init__(
        self,
        share: Share = WHOLE,
        device: torch.device = CPU,
        stop: Stop | None = None,
    ) -> None:
        self.share, self.device = share, device
        self.stop, self._agreed = stop or Stop(), Stop()
        self.n_events = self._own_events = 0
        self.traffic = Traffic()

    @classmethod
    def of_process_group(cls, device: torch.device = CPU) -> Processes:
        """The processes of torch.distributed's default group, which must be initialised."""
        return cls(Share(dist.get_rank(), dist.get_world_size()), device)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.share.size

    @property
    def rank(self) -> int:
        """Which of them this is."""
        return self.share.rank

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    @property
    def agreed(self) -> Stop:
        """What ends the training: see the class."""
        return self.stop if self.size == 1 else self._agreed

    def step(self, step: Callable[[T], float], batch: T, n_events: int) -> float:
        """Take a step on this process's part of a batch, of which `n_events` events count; all
        processes take it, or none. Returns its loss.

        Random draws within are each process's own, and leave all with the same random state.

        Raises:
            StepRefusedError: this process could not take it, and is alone.
            RefusedByAllError: some process could not take it.
        """
        self.n_events = self._own_events = n_events
        if self.size == 1:
            return step(batch)
        try:
            return self.step_alone(step, batch)
        except RefusedByAllError:
            raise
        except StepRefusedError as error:
            # the others wait for this process's header
            self._headers(math.nan, 0, why=str(error))
            raise AssertionError("a refused step is refused by all") from error

    def step_alone(self, step: Callable[[T], float], batch: T) -> float:
        """Take a step of this process's own, with its own random draws; all processes have the same
        random state afterwards. Returns its loss. Raises StepRefusedError as the step does."""
        key = int(torch.randint(2**31, ())) ^ ((self.rank * _SPREAD) & (2**62 - 1))
        with seeded(key, self.device):
            return step(batch)

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum of every process's values, the same bits in all of them; float64."""
        if self.size == 1:
            return values
        own = torch.from_numpy(np.ascontiguousarray(values, np.float64))
        total: npt.NDArray[np.float64] = self._gathered(own).cpu().numpy().sum(0)
        return total

    def agree(self, value: Any = None) -> list[Any]:
        """Every process's value, which JSON can hold, in order of rank."""
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = self._gathered(torch.tensor([len(text)])).reshape(-1).tolist()
        texts = self._swapped(text.to(self.device), sizes)
        return [parse_json(bytes(one.cpu().numpy())) for one in texts]

    def state_of_first(self, state: State) -> State:
        """The first process's state, in all of them; what the others pass is not looked at."""
        if self.size == 1:
            return state
        tree, arrays = split_state(state)
        about = [[name, str(array.dtype), array.shape] for name, array in arrays.items()]
        tree, about = self.agree([tree, about] if self.is_first else None)[0]
        received = {}
        for name, dtype, shape in about:
            own = arrays[name] if self.is_first else np.empty(shape, dtype)
            there = torch.from_numpy(own.reshape(-1).view(np.uint8)).to(self.device)
            with _lost_peer_named():
                if there.numel():
                    dist.broadcast(there, src=0)
            received[name] = there.cpu().numpy().view(dtype).reshape(shape)
        return state if self.is_first else join_state(tree, received)

    def mean(
        self, loss: float, dense: Tensor, rows: Sequence[RowGradient]
    ) -> tuple[float, list[RowGradient]]:
        """The loss and gradients of the whole batch, from those of this process's part.

        `dense` (n,) float32 becomes the whole batch's. Rows come back as those of all processes,
        in order of rank: an id may come once for each, and its rows are to be added up.

        Raises:
            RefusedByAllError: some process cannot take this step.
        """
        own = rows if self._own_events else [RowGradient(r.ids[:0], r.rows) for r in rows]
        message = _packed(own, self.device)
        headers = self._headers(loss, len(message))
        events, losses, lengths = (column.tolist() for column in headers.T)
        self.n_events = int(sum(events))
        weights = [n / self.n_events for n in events]
        mean = sum(weight * one for weight, one in zip(weights, losses, strict=True) if weight)
        self.traffic.steps += 1
        # a part without events may hold anything
        dense.mul_(weights[self.rank]) if self._own_events else dense.zero_()
        with _lost_peer_named():
            dist.all_reduce(dense)
        self.traffic.summed += dense.nbytes
        widths = [[table.shape[1] for table in one.rows] for one in rows]
        messages = self._swapped(message, [int(n) for n in lengths])
        parts = [_unpacked(*part, widths) for part in zip(messages, weights, strict=True)]
        return mean, [
            RowGradient(
                torch.cat([part[i].ids for part in parts]),
                [torch.cat([part[i].rows[j] for part in parts]) for j in range(len(width))],
            )
            for i, width in enumerate(widths)
        ]

    def average(
        self, weights: Sequence[float], dense: Sequence[Tensor], tables: Sequence[MovedRows]
    ) -> None:
        """Overwrite what each process has by the mean over all processes, `weights` (size,) of
        them, which sum to 1.

        The mean of a row is over the processes that have moved it. Adam moves a row as far for few
        events as for many, so a row that one process alone has named stays where that one has
        brought it."""
        flat = torch.cat([one.reshape(-1) for one in dense]).mul_(weights[self.rank])
        with _lost_peer_named():
            dist.all_reduce(flat)
        self.traffic.summed += flat.nbytes
        for one, mean in zip(dense, flat.split([one.numel() for one in dense]), strict=True):
            one.copy_(mean.view_as(one))
        counts = self._gathered(torch.tensor([len(one.ids) for one in tables])).tolist()
        for table, n_rows in zip(tables, zip(*counts, strict=True), strict=True):
            self._average_rows(weights, table, n_rows)

    def _average_rows(
        self, weights: Sequence[float], table: MovedRows, n_rows: Sequence[int]
    ) -> None:
        """Overwrite the rows that any process has moved; `n_rows` (size,) have been."""
        found = self._swapped(table.ids.int(), n_rows)
        ids, slots = torch.unique(torch.cat(found), return_inverse=True)
        ids, of_process = ids.long(), slots.split(list(n_rows))
        total = torch.zeros(len(ids), device=ids.device)
        for own, weight in zip(of_process, weights, strict=True):
            total[own] += weight
        shares = [weight / total for weight in weights]
        for array in table.arrays:
            width = math.prod(array.shape[1:])
            matrix = array.view(len(array), width)
            # in pieces that stay in cache: copies of a whole table would be fresh memory
            starts = torch.arange(0, len(ids), max(1, PIECE // width), device=ids.device)
            cuts = [[*torch.searchsorted(own, starts).tolist(), len(own)] for own in of_process]
            for piece, (first, last) in enumerate(pairwise([*starts.tolist(), len(ids)])):
                spans = [slice(cut[piece], cut[piece + 1]) for cut in cuts]
                own = matrix[table.ids[spans[self.rank]]]
                lengths = [(span.stop - span.start) * width for span in spans]
                rows = self._swapped(own.reshape(-1), lengths)
                mean = own.new_zeros(last - first, width)
                # in order of rank, so that all have the same bits
                for one, span, slot, share in zip(rows, spans, of_process, shares, strict=True):
                    at = slot[span]
                    mean.index_add_(0, at - first, one.view(-1, width).mul_(share[at][:, None]))
                matrix[ids[first:last]] = mean

    def heard(self, signal: int) -> None:
        """Note the number of a signal to any of the processes, 0 for none."""
        self._agreed.signum = signal or self._agreed.signum

    def _headers(self, loss: float, length: int, why: str = "") -> Tensor:
        """Every process's events, loss and length of its message to come, (size, 3), float64.

        `why`: this process cannot take the step. Notes a signal to any of them."""
        own = [float(bool(why)), self.stop.signum or 0, self._own_events, loss, length]
        headers = self._gathered(torch.tensor(own, dtype=torch.float64)).cpu()
        self.heard(int(headers[:, 1].max()))
        if headers[:, 0].any():
            raise RefusedByAllError(next(reason for reason in self.agree(why) if reason))
        return headers[:, 2:]

    def _gathered(self, values: Tensor) -> Tensor:
        """Every process's tensor of one axis, all of one length and type: (size, n)."""
        return torch.stack(self._swapped(values.to(self.device), [len(values)] * self.size))

    def _swapped(self, message: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """Every process's message, flat and of one type, of lengths that all know."""
        self.traffic.gathered += message.nbytes
        found = [message.new_empty(length) for length in lengths]
        found[self.rank] = message
        with _lost_peer_named():
            if self.device.type == "cuda":
                longest = max(lengths)
                everyone = message.new_empty((self.size, longest))
                padded = nn.functional.pad(message, (0, longest - len(message)))
                dist.all_gather(list(everyone.unbind()), padded)
                return [one[:length] for one, length in zip(everyone, lengths, strict=True)]
            # gloo's all_gather copies each message twice more, and takes two to four times as long
            others = [rank for rank in range(self.size) if rank != self.rank]
            going = [dist.irecv(found[rank], rank) for rank in others if lengths[rank]]
            if len(message):
                going += [dist.isend(message, rank) for rank in others]
            for work in going:
                assert work is not None
                work.wait()
        return found


def _packed(gradients: Sequence[RowGradient], device: torch.device) -> Tensor:
    """Row gradients as one message of float32: how many ids each has, then ids and rows. The bits
    of an integer travel as those of a float."""
    counts = torch.tensor([len(one.ids) for one in gradients], dtype=torch.int32)
    parts = [counts.view(torch.float32)]
    for one in gradients:
        parts.append(one.ids.view(torch.float32))
        parts += [table[: len(one.ids)].reshape(-1) for table in one.rows]
    return torch.cat([part.to(device) for part in parts])


def _unpacked(message: Tensor, weight: float, widths: list[list[int]]) -> list[RowGradient]:
    """Row gradients of a message, times a weight; `widths`: of the tables of each."""
    counts, at = message[: len(widths)].cpu().view(torch.int32).tolist(), len(widths)
    found = []
    for n, width in zip(counts, widths, strict=True):
        end = at + n * (1 + sum(width))
        ids, *rows = torch.split(message[at:end], [n, *(n * w for w in width)])
        at = end
        found.append(
            RowGradient(
                ids.view(torch.int32),
                [part.view(n, w) * weight for part, w in zip(rows, width, strict=True)],
            )
        )
    return found


def n_launched() -> int:
    """How many processes torchrun has started, this one among them; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1


def n_restarts() -> int:
    """How often torchrun has begun anew after a process's death."""
    launched = dist.is_torchelastic_launched()
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if launched else 0


@contextmanager
def launched(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun has started, met within: by nccl, a card each, or by gloo; or
    this process alone."""
    if n_launched() == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if device.type == "cuda" else "gloo"
    with _lost_peer_named():
        store, rank, size = next(rendezvous("env://"))
        # torchrun hands the store on from a start to the next, with the addresses of the dead: each
        # start has names of its own
        named = dist.PrefixStore(f"start {n_restarts()}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=named, rank=rank, world_size=size)
    try:
        yield Processes.of_process_group(device)
    finally:
        dist.destroy_process_group()


@contextmanager
def _lost_peer_named() -> Iterator[None]:
    """Name what torch.distributed raises where another process has gone."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LostPeerError(
            f"another process of this training is gone ({first}): torchrun --max-restarts begins "
            "all anew from the last checkpoint; by hand, give the same command with --resume"
        ) from error
