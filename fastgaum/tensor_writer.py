"""Writing safetensors files: the same tensors and metadata give the same bytes, and a full disk is
an OSError.

`safetensors.torch.save_file` writes the metadata's keys in an order that differs from process to
process. Reading is the library's: `safetensors.safe_open`."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fastgaum.files import atomic

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file, atomically; tensors are copied one at a time at most.

    Raises:
        OutputError: the file cannot be written.
    """
    # widest types first, so that each tensor starts at a multiple of its items' size
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for name in names:
        value = tensors[name]
        header[name] = {
            "dtype": DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [at, at + value.nbytes],
        }
        at += value.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with atomic(path) as beside, open(beside, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(bytes_of(tensors[name]))


def bytes_of(value: Tensor) -> memoryview:
    """A tensor's bytes, in order; its own memory where it is contiguous and on the CPU."""
    return value.detach().cpu().contiguous().numpy().reshape(-1).view("u1").data
