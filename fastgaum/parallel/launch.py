"""What torchrun has started: this process alone, or one of several that train together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from fastgaum.parallel.ranks import Ranks, peers_needed


def n_launched() -> int:
    """How many processes torchrun has started, this one among them; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1


def n_restarts() -> int:
    """How often torchrun has begun anew after a process's death."""
    return (
        int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        if dist.is_torchelastic_launched()
        else 0
    )


@contextmanager
def launched(device: torch.device) -> Iterator[Ranks]:
    """The processes that torchrun has started, met within: by nccl, a card each, or by gloo; or
    this process alone."""
    if n_launched() == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if device.type == "cuda" else "gloo"
    with peers_needed():
        store, rank, size = next(rendezvous("env://"))
        # torchrun hands the store on from a start to the next, with the addresses of the dead: each
        # start has names of its own
        named = dist.PrefixStore(f"start {n_restarts()}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=named, rank=rank, world_size=size)
    try:
        yield Ranks.of_process_group(device)
    finally:
        dist.destroy_process_group()
