"""The best weights so far, kept in memory while they are small and in a temporary file above."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.errors import OutputError
from fastgaum.tensor_writer import bytes_of

IN_MEMORY_BYTES = 1 << 28


class BestState:
    """A copy of a module's state that can be put back; a second copy of large tables would double a
    run's memory."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.file: IO[bytes] | None = None
        self.copies: list[Tensor] = []
        if sum(value.nbytes for value in self._values()) > IN_MEMORY_BYTES:
            self.file = tempfile.TemporaryFile(prefix="fastgaum-best-")  # noqa: SIM115  # `close` closes it
        self.keep()

    def keep(self) -> None:
        """Copy the module's present state.

        Raises:
            OutputError: the folder of temporary files is full.
        """
        if self.file is None:
            self.copies = [value.detach().clone() for value in self._values()]
            return
        try:
            self.file.seek(0)
            for value in self._values():
                self.file.write(bytes_of(value))
            self.file.flush()
        except OSError as error:
            raise OutputError(
                f"cannot keep the best weights in '{tempfile.gettempdir()}': {error.strerror}; "
                "free space or set TMPDIR"
            ) from error

    def tensors(self) -> dict[str, Tensor]:
        """The kept state, by name; not copies: read them before the next `keep`."""
        state = self.module.state_dict()
        names = [name for name, value in state.items() if value.numel()]
        if self.file is None:
            kept = dict(zip(names, self.copies, strict=True))
        else:
            kept, at = {}, 0
            for name in names:
                value = state[name]
                # mapped, not read: a second copy in memory is what the file is there to avoid; "c"
                # never writes to it
                raw = np.memmap(self.file, np.uint8, "c", at, (value.nbytes,))
                kept[name] = torch.from_numpy(raw).view(value.dtype).view(value.shape)
                at += value.nbytes
        return {name: kept.get(name, value) for name, value in state.items()}

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
            self.file.readinto(bytes_of(host))  # type: ignore[attr-defined]
            value.copy_(host)

    def close(self) -> None:
        """Give the file back; nothing can be restored after."""
        if self.file is not None:
            self.file.close()

    def _values(self) -> list[Tensor]:
        return [value for value in self.module.state_dict().values() if value.numel()]
