"""Reading a safetensors file that somebody else wrote: its header bounded, each tensor finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.files import read_whole

MOST_HEADER = 1 << 22
"""bytes of names, shapes and metadata; ours have a few thousand, tables of text are tensors"""


def read_tensors(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, of one version where another is renamed into its
    place meanwhile.

    Memory is bounded by the file's own size, which its offsets must add up to. Raises
    SafetensorError, ValueError or OSError for a damaged one."""
    return read_whole(file, lambda: _read_tensors(file))


def _read_tensors(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    size = file.stat().st_size
    with file.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if size < 8 or length > min(MOST_HEADER, size - 8):
        raise ValueError(
            f"its header declares {length} bytes, at most {min(MOST_HEADER, max(size - 8, 0))} are "
            "possible"
        )
    with safe_open(file, framework="pt") as reader:
        return reader.metadata() or {}, {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118


def require_format(file: Path, found: Any, known: str, cure: str) -> None:
    """Raise CheckpointError unless a file is of the format that this version reads; `cure` says
    what to do then."""
    if found != known:
        raise CheckpointError(
            f"'{file}' has format {found or 'unknown'!r}, this version reads {known!r}: {cure}"
        )


@contextmanager
def damage_named(file: Path, what: str = "model") -> Iterator[None]:
    """Whatever a crafted or damaged file makes fail becomes one CheckpointError that names it."""
    try:
        yield
    except (
        SafetensorError,
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        OSError,
        ConfigError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"'{file}' is damaged or not a {what} of this version: {reason}"
        ) from error


def check_weights(wanted: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless a file's weights are those of the module `wanted`, which may lie on
    the device `meta`.

    So a configuration that asks for a network larger than its file is refused before any memory is
    taken for it."""
    own = wanted.state_dict()
    if own.keys() != weights.keys():
        name = min(own.keys() ^ weights.keys())
        raise ValueError(
            f"the weight '{name}' is "
            f"{'missing' if name in own else 'not one of this configuration'}"
        )
    for name, value in weights.items():
        if value.shape != own[name].shape or value.dtype is not own[name].dtype:
            raise ValueError(
                f"the weight '{name}' is {value.dtype} of shape {list(value.shape)}, the "
                "configuration asks for"
                f" {own[name].dtype} of shape {list(own[name].shape)}"
            )
        check_finite(f"the weight '{name}'", value)


def check_finite(what: str, values: Tensor) -> None:
    """Raise ValueError, naming the first, if a value is NaN or infinite."""
    if values.is_floating_point() and not torch.isfinite(values).all():
        at = int((~torch.isfinite(values)).flatten().to(torch.uint8).argmax())
        raise ValueError(
            f"{what} holds {float(values.flatten()[at])} at {at}, finite numbers are required"
        )
