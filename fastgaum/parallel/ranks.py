"""Ranks: the processes that train one model together, each with a number, its rank; 0 is the one
that writes.

They are torch.distributed's: gloo on the CPU, nccl on cards. What passes between them is numbers
and JSON, never objects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastgaum.errors import ConfigError, LostPeerError, NumericsError
from fastgaum.features.batches import Batch
from fastgaum.features.share import WHOLE, Share
from fastgaum.untrusted import parse_json

CPU = torch.device("cpu")


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


class Ranks:
    """The processes of one training. `Ranks()` is a process alone: nothing is exchanged.

    Attributes:
        traffic: what this process's steps have exchanged.
    """

    def __init__(self, share: Share = WHOLE, device: torch.device = CPU) -> None:
        """Take this process's place among all, and the device on which messages lie (a card for
        nccl)."""
        self.share, self.device = share, device
        self.traffic = Traffic()

    @classmethod
    def of_process_group(cls, device: torch.device = CPU) -> Ranks:
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

    def total(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum of every process's values, the same bits in all of them; float64."""
        if self.size == 1:
            return values
        everyone = self.gather(
            torch.from_numpy(np.ascontiguousarray(values, np.float64)).to(self.device)
        )
        total: npt.NDArray[np.float64] = everyone.cpu().numpy().sum(0)
        return total

    def gather(self, values: Tensor) -> Tensor:
        """Every process's tensor, in order of rank: (size, *values.shape); all have the same shape
        and type."""
        everyone = values.new_empty((self.size, *values.shape))
        everyone[self.rank] = values
        if values.numel():
            self.swap(list(everyone.view(self.size, -1).unbind()))
        return everyone

    def swap(self, messages: Sequence[Tensor]) -> None:
        """Send this process's message, the one of its rank, to all, and fill the others' with
        theirs; flat, of one type."""
        others = [rank for rank in range(self.size) if rank != self.rank and len(messages[rank])]
        own = messages[self.rank]
        with peers_needed():
            if self.device.type == "cuda":
                everyone = own.new_empty((self.size, max(map(len, messages))))
                dist.all_gather(
                    list(everyone.unbind()),
                    nn.functional.pad(own, (0, everyone.shape[1] - len(own))),
                )
                for rank in others:
                    messages[rank].copy_(everyone[rank, : len(messages[rank])])
                return
            # gloo's all_gather copies each message twice more, and takes two to four times as long
            going = [dist.irecv(messages[rank], rank) for rank in others]
            if len(own):
                going += [dist.isend(own, rank) for rank in range(self.size) if rank != self.rank]
            for work in going:
                assert work is not None
                work.wait()

    def gather_json(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank."""
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = self.gather(torch.tensor([len(text)], device=self.device)).reshape(-1).tolist()
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(text)] = text
        texts = self.gather(padded.to(self.device)).cpu().numpy()
        return [parse_json(bytes(one[:size])) for one, size in zip(texts, sizes, strict=True)]

    def json_of_first(self, value: Any = None) -> Any:
        """The first process's value; what the others pass is not looked at."""
        return self.gather_json(value if self.is_first else None)[0]

    def tensors_of_first(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The first process's tensors, by name, on the CPU; the others pass None."""
        own = dict(tensors or {})
        if self.size == 1:
            return own
        about = self.json_of_first(
            [[name, str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in own.items()]
        )
        received = {}
        for name, dtype, shape in about:
            value = own[name] if self.is_first else torch.empty(shape, dtype=getattr(torch, dtype))
            there = value.contiguous().to(self.device)
            with peers_needed():
                if there.numel():
                    dist.broadcast(there.view(-1).view(torch.uint8), src=0)
            received[name] = there.cpu()
        return received

    @torch.no_grad()
    def require_in_step(self, networks: nn.Module) -> None:
        """Raise NumericsError unless every process has the same weights, to the last bit of their
        sums."""
        if self.size > 1:
            sums = torch.stack([value.detach().double().sum() for value in networks.parameters()])
            everyone = self.gather(sums.to(self.device))
            if not (everyone == everyone[0]).all():
                raise NumericsError(
                    "the processes' weights have come apart: a fault of a machine or of a "
                    "library; go on from the last"
                    " checkpoint with --resume"
                )


def in_step(batches: Iterable[Batch], ranks: Ranks) -> Iterator[Batch]:
    """Each process's own batches, as many in all: who has none left looks on, with a filler, until
    nobody has.

    Raises:
        ConfigError: this process has none at all.
    """
    own, last = iter(batches), None
    while True:
        batch = next(own, None)
        if batch is None and last is None:
            raise ConfigError(
                f"process {ranks.rank} was given no shard with training sessions: give each at "
                "least one"
            )
        if not ranks.total(np.array([float(batch is not None)])).any():
            return
        if batch is None:
            assert last is not None
            batch = dataclasses.replace(last, is_filler=True)
        last = batch
        yield batch


@contextmanager
def peers_needed() -> Iterator[None]:
    """Name what torch.distributed raises where another process has gone."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LostPeerError(
            f"another process of this training is gone ({first}): torchrun --max-restarts begins "
            "all anew from the last"
            " checkpoint; by hand, give the same command with --resume"
        ) from error
