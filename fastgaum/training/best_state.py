"""The best weights so far, kept in memory while they are small and in a temporary file above."""

from __future__ import annotations

import tempfile
from typing import IO

import torch
from torch import Tensor, nn

IN_MEMORY_BYTES = 1 << 28


class BestState:
    """A copy of a module's state that can be put back; a second copy of large tables would double a run's memory."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.file: IO[bytes] | None = None
        self.copies: list[Tensor] = []
        if sum(value.nbytes for value in self._values()) > IN_MEMORY_BYTES:
            self.file = tempfile.TemporaryFile(prefix="fastgaum-best-")  # noqa: SIM115  # `close` closes it
        self.keep()

    def keep(self) -> None:
        """Copy the module's present state."""
        if self.file is None:
            self.copies = [value.detach().clone() for value in self._values()]
            return
        self.file.seek(0)
        for value in self._values():
            self.file.write(_bytes(value.detach().cpu().contiguous()))

    @torch.no_grad()
    def restore(self) -> None:
        """Put the kept state back, in place."""
        if self.file is None:
            for value, copy in zip(self._values(), self.copies, strict=True):
                value.copy_(copy)
            return
        self.file.seek(0)
        for value in self._values():
            # on the CPU this is the parameter's own memory, and the copy back does nothing
            host = value.detach().cpu().contiguous()
            self.file.readinto(_bytes(host))  # type: ignore[attr-defined]
            value.copy_(host)

    def close(self) -> None:
        """Give the file back; nothing can be restored after."""
        if self.file is not None:
            self.file.close()

    def _values(self) -> list[Tensor]:
        return [value for value in self.module.state_dict().values() if value.numel()]


def _bytes(value: Tensor) -> memoryview:
    return value.numpy().reshape(-1).view("u1").data
