"""Several processes that train one model, each on its part of every batch: local SGD (Stich, "Local
SGD converges fast and communicates little", ICLR 2019).

After every `local_steps` steps, and at an epoch's end, all go on from the mean of their weights; at
an epoch's end also of their optimisers' moments. torchrun starts the processes (`launched`), or a
scheduler that has made torch.distributed's default group, as Ray Train does."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from fastgaum.errors import LostPeerError, NumericsError
from fastgaum.game.game import Game
from fastgaum.ops.optimiser import TableRows
from fastgaum.untrusted import parse_json

_T = TypeVar("_T")
CPU = torch.device("cpu")
MOVED = 1e-6
"""a weight has moved by more than this share of itself, beside its decay"""


@contextmanager
def _lost_peer_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LostPeerError(
            f"another process of this training is gone ({first}): torchrun --max-restarts begins "
            "all anew from the last checkpoint; by hand, give the same command with --resume"
        ) from error


@dataclass(frozen=True)
class Processes:
    """The processes of one training. `Processes()` is one that trains alone."""

    rank: int = 0
    """0 writes and speaks"""
    size: int = 1
    device: torch.device = CPU
    """of messages: a card for nccl"""

    @classmethod
    def of_group(cls, device: torch.device = CPU) -> Processes:
        """The processes of torch.distributed's default group, or this one alone."""
        grouped = dist.is_available() and dist.is_initialized()
        return cls(dist.get_rank(), dist.get_world_size(), device) if grouped else cls()

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    @property
    def part(self) -> slice:
        """The sessions of a batch, or of a scored split, that are this process's."""
        return slice(self.rank, None, self.size)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each value over all processes; the same bits in all of them."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.add(total)
        return [float(one) for one in total]

    def agree(self, value: Any = None) -> list[Any]:
        """Every process's value, which JSON can hold, in order of rank."""
        text = json.dumps(value).encode()
        return [parse_json(self.bytes_of(rank, text)) for rank in range(self.size)]

    @_lost_peer_named()
    def bytes_of(self, rank: int, own: bytes) -> bytes:
        """The bytes of one process, in all of them."""
        if self.size == 1:
            return own
        data = torch.frombuffer(bytearray(own or b" "), dtype=torch.uint8).to(self.device)
        length = torch.tensor(len(data), device=self.device)
        dist.broadcast(length, rank)
        data = data if rank == self.rank else data.new_empty(int(length))
        dist.broadcast(data, rank)
        return data.cpu().numpy().tobytes()

    @_lost_peer_named()
    def gather(self, value: _T) -> list[_T]:
        """Every process's value, in order of rank; in all of them. torch.distributed sends it as a
        pickle: processes of one training trust each other."""
        if self.size == 1:
            return [value]
        found: list[_T] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    @_lost_peer_named()
    def add(self, values: Tensor) -> None:
        """Overwrite a tensor by its sum over all processes."""
        dist.all_reduce(values)


class _Former(NamedTuple):
    """A table's rows as all processes last had them."""

    rows: Tensor
    """(n_rows, width)"""
    decay: Tensor
    """logarithm of each row's weight decay until then, (n_rows,)"""


class Averaging:
    """Brings the weights of several processes to their mean, every so many steps: of a table the
    rows that any of them has moved.

    The mean of a row is over the processes that have moved it: Adam moves a row as far for few
    events as for many."""

    def __init__(self, game: Game, processes: Processes) -> None:
        self.game, self.processes, self.waiting = game, processes, 0
        """steps since the last mean"""
        modules = {"reward": game.networks.player, "generator": game.networks.generator}
        optimisers = game.optimisers()
        self.tables = [
            (one, rows)
            for one in optimisers.values()
            for rows in one.tables
            if rows.parameter.numel()
        ]
        of_tables = {id(rows.parameter) for _, rows in self.tables}
        self.weights = [
            (optimiser, parameter)
            for name, optimiser in optimisers.items()
            for parameter in (modules[name] or nn.Module()).parameters()
            if parameter.numel() and id(parameter) not in of_tables
        ]

    def remember(self) -> None:
        """Note the weights that all processes have now, and their decay so far."""
        if self.processes.size > 1:
            self.game.settle()
            self._remember_dense()
            self.former_rows = [
                _Former(rows.parameter.detach().clone(), rows.shrunk.clone())
                for _, rows in self.tables
            ]
            for _, rows in self.tables:
                rows.moved = torch.zeros_like(rows.shrunk, dtype=torch.bool)

    def _remember_dense(self) -> None:
        self.former = [
            (weight.detach().clone(), optimiser.counters[1]) for optimiser, weight in self.weights
        ]

    def after_step(self) -> None:
        """Take the mean if so many steps have been taken. Raises NumericsError."""
        self.waiting += 1
        if self.waiting == self.game.config.local_steps:
            self.meet()

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Let all processes hold the same weights and moments. Raises NumericsError."""
        self.meet()
        if self.processes.size > 1:
            self.game.settle()
        for optimiser in self.game.optimisers().values() if self.processes.size > 1 else ():
            for value in optimiser.state().values():
                if value.numel():
                    self.processes.add(value)
                    value.div_(self.processes.size)

    @torch.no_grad()
    def meet(self, failure: str = "") -> None:
        """Take the mean, or tell the others that this process has failed. Raises NumericsError
        where this process or another has stopped at a step."""
        self.waiting = 0
        if self.processes.size == 1:
            return
        failures = self.processes.agree(failure)
        if any(failures):
            raise NumericsError(next(filter(None, failures)))
        for (optimiser, weight), (former, decay) in zip(self.weights, self.former, strict=True):
            now, before = torch.atleast_1d(weight.detach()), torch.atleast_1d(former)
            before.mul_(math.exp(optimiser.counters[1] - decay))
            change = now - before
            rows = (change.abs() > MOVED * before.abs()).view(len(now), -1).any(1).float()
            rows = rows.view(-1, *[1] * (now.ndim - 1))
            change.mul_(rows)
            self.processes.add(change)
            self.processes.add(rows)
            now.copy_(before + change / rows.clamp(min=1))
        self._remember_dense()
        for (optimiser, of_table), known in zip(self.tables, self.former_rows, strict=True):
            self._meet_rows(of_table, known, optimiser.counters[1])

    def _meet_rows(self, table: TableRows, former: _Former, log_decay: float) -> None:
        """Take the mean of the rows that a process has moved; all others are the same in all."""
        assert table.moved is not None
        counts = table.moved.int()
        self.processes.add(counts)
        rows = counts.nonzero()[:, 0]
        if not len(rows):
            return
        table.settle_some(rows, log_decay)
        now = table.parameter.detach()
        keep = (log_decay - former.decay[rows]).exp()[:, None].to(now.dtype)
        before = former.rows[rows] * keep
        change = (now[rows] - before) * table.moved[rows][:, None]
        self.processes.add(change)
        now[rows] = before + change / counts[rows][:, None]
        former.rows[rows], former.decay[rows] = now[rows], log_decay
        table.moved.zero_()


def n_restarts() -> int:
    """How often torchrun has begun anew after a process's death."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def launched(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun has started, by nccl, a card each, or by gloo; or one alone."""
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if device.type == "cuda" else "gloo"
    with _lost_peer_named():
        store, rank, size = next(rendezvous("env://"))
        # torchrun hands the store on to the next start, with the addresses of the dead
        named = dist.PrefixStore(f"start {n_restarts()}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=named, rank=rank, world_size=size)
    try:
        yield Processes.of_group(device)
    finally:
        dist.destroy_process_group()
