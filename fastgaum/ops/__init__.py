"""Operators of the networks over kernels, with their gradients. Each has a twin in torch, which
runs where no kernel takes the arrays: on another device, in another dtype, or within `plain`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_plain = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Within, on this thread, every operator is its twin in torch."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def takes(value: Tensor) -> bool:
    """Whether kernels take arrays like this one: float32, on the CPU, not within `plain`."""
    return value.dtype is torch.float32 and value.device.type == "cpu" and not _plain.get()
