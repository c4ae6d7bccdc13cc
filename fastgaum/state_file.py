"""A dataclass in one safetensors file, and back; no pickle.

    save_state(path, "fastgaum-run-9", state)
    state = load_state(path, "fastgaum-run-9", "train again", RunState)

A state is made of dataclasses, dicts with names as keys, lists, numbers, text, None, and arrays:
torch tensors, numpy arrays, polars series of text. Arrays are the file's tensors, named by their
path (`networks/player.first.weight`); all else is one JSON text, with a sha256 of the whole. The
same state gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.files import atomic
from fastgaum.untrusted import parse_json

State = dict[str, Any]
ArraysByName = dict[str, npt.NDArray[Any]]
_T = TypeVar("_T")
MOST_HEADER = 1 << 22
"""bytes of names, shapes and JSON"""
_KEY = "fastgaum"
"""the library writes several keys in an order that differs each time"""
_SHA = "sha256"
_TENSOR, _ARRAY, _TEXTS = "$tensor", "$array", "$texts"
"""marks of the places of arrays in the JSON text, by their type"""


def save_state(path: Path, format: str, state: object) -> None:
    """Write a state to one file, atomically. Contiguous arrays on the CPU are not copied.

    Raises:
        OutputError: the file cannot be written.
        TypeError, ValueError: the state holds what no file can hold.
    """
    tree, arrays = split_state(state)
    about = {"format": format, "state": tree}
    text = _json_of({**about, _SHA: content_sha256(about, arrays)})
    with atomic(path) as beside:
        try:
            save_file(arrays, beside, {_KEY: text})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def load_state(path: Path, format: str, cure: str, kind: type[_T], what: str = "training") -> _T:
    """Read a state that `save_state` wrote.

    Args:
        path: the file.
        format: the format that this version reads.
        cure: what a user can do about a file of another format.
        kind: the dataclass of the state, or `State`, which takes all values as they are.
        what: what the file should hold, for an error.

    Raises:
        CheckpointError: the file is missing, damaged, changed or of another format, or a value
            has another type than its field, or is not finite.
    """
    with damage_named(path, what):
        # the size of the opened file: `atomic` may rename another over the path meanwhile
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            most = min(MOST_HEADER, max(os.fstat(file.fileno()).st_size - 8, 0))
        # the header is parsed at once
        if length > most:
            raise ValueError(f"its header declares {length} bytes, at most {most} are possible")
        with safe_open(path, framework="numpy") as opened:
            about = parse_json((opened.metadata() or {}).get(_KEY, "{}"))
            found = about.get("format") if isinstance(about, dict) else None
            if found != format:
                raise CheckpointError(
                    f"'{path}' has format {found or 'unknown'!r}, this version reads {format!r}: "
                    f"{cure}"
                )
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        written = about.pop(_SHA, None)
        read = content_sha256(about, arrays)
        if written != read:
            raise ValueError(
                f"its content has the sha256 {read[:12]}, {str(written)[:12]!r} was written: bytes "
                "have changed since; take a copy of the file that is whole, or train again"
            )
        return state_of(join_state(about["state"], arrays), kind)


def state_of(tree: object, kind: type[_T]) -> _T:
    """The dataclass of a joined state. Raises ValueError where a value has another type."""
    return msgspec.convert(tree, kind, dec_hook=_checked)


def _checked(kind: Any, found: object) -> object:
    origin = typing.get_origin(kind) or kind
    if not isinstance(found, origin):
        raise ValueError(f"{type(found).__name__} found, {origin.__name__} is required")
    if isinstance(found, np.ndarray) and origin is not kind:
        (dtype,) = typing.get_args(typing.get_args(kind)[1])
        if found.dtype != dtype:
            raise ValueError(f"an array of {found.dtype} found, {np.dtype(dtype)} is required")
    return found


def content_sha256(about: Mapping[str, object], arrays: ArraysByName) -> str:
    """A sha256 of JSON values and arrays. Raises ValueError for values nested too deeply."""
    try:
        digest = hashlib.sha256(_json_of(about).encode())
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _json_of(values: Mapping[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def split_state(state: object) -> tuple[State, ArraysByName]:
    """A state as JSON values, and its arrays by name.

    >>> split_state({"steps": 3, "moments": {"m": np.zeros(2)}})[0]
    {'steps': 3, 'moments': {'m': {'$array': 'moments/m'}}}
    """
    arrays: ArraysByName = {}

    def place(value: npt.NDArray[Any], mark: str, name: str) -> State:
        if name in arrays:
            raise ValueError(f"two arrays of a state have the name '{name}'")
        arrays[name] = np.require(value, requirements="C")
        return {mark: name}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            return place(value.detach().cpu().numpy(), _TENSOR, name)
        if isinstance(value, np.ndarray):
            return place(value, _ARRAY, name)
        if isinstance(value, pl.Series):
            # the texts of a large catalogue stay out of the JSON header
            texts = np.frombuffer(msgspec.json.encode(value.to_list()), np.uint8)
            return place(texts, _TEXTS, name)
        if isinstance(value, list | tuple):
            return [plain(one, f"{name}/{i}") for i, one in enumerate(value)]
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str) or key.startswith("$"):
                    raise TypeError(f"{key!r} in '{name}' is no name: keys of a state are names")
            return {key: plain(one, f"{name}/{key}" if name else key) for key, one in value.items()}
        return value

    kept = (Tensor, nn.Parameter, np.ndarray, pl.Series)
    return plain(msgspec.to_builtins(state, builtin_types=kept, enc_hook=_number), ""), arrays


def _number(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a state holds a {type(value).__name__}, which no file can hold")


def join_state(tree: object, arrays: ArraysByName) -> State:
    """The state that `split_state` has split. Raises ValueError for anything else."""
    left = dict(arrays)

    def joined(value: object) -> object:
        if isinstance(value, list):
            return [joined(one) for one in value]
        if not isinstance(value, dict):
            return value
        mark = next(iter(value), "")
        if mark not in (_TENSOR, _ARRAY, _TEXTS):
            return {key: joined(one) for key, one in value.items()}
        array = left.pop(value[mark], None) if isinstance(value[mark], str) else None
        if array is None:
            raise ValueError(f"the array {str(value[mark])[:60]!r} is missing")
        if mark == _TEXTS:
            texts = msgspec.json.decode(array.tobytes(), type=list[str])
            return pl.Series(texts, dtype=pl.String)
        check_finite(f"'{value[mark]}'", array)
        return torch.from_numpy(array) if mark == _TENSOR else array

    if not isinstance(tree, dict):
        raise ValueError(f"its state is a {type(tree).__name__}, values by name are required")
    try:
        state = {key: joined(value) for key, value in tree.items()}
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    if left:
        raise ValueError(f"the array '{min(left)[:60]}' has no place in it")
    return state


@contextmanager
def damage_named(file: Path, what: str = "model") -> Iterator[None]:
    """Turn every error of a damaged file into one CheckpointError that names it."""
    try:
        yield
    except (
        SafetensorError,
        LookupError,
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
    """Raise ValueError unless a file's weights are those of a module, which may be on `meta`."""
    own = wanted.state_dict()
    if own.keys() != weights.keys():
        name = min(own.keys() ^ weights.keys())
        raise ValueError(
            f"the weight '{name}' is "
            f"{'missing' if name in own else 'not one of this configuration'}"
        )
    for name, value in weights.items():
        check_like(f"the configuration asks for other weights: '{name}'", value, own[name])


def check_like(what: str, found: Any, own: Tensor | npt.NDArray[Any]) -> None:
    """Raise ValueError unless a value has the class, shape and dtype of another."""
    if type(found) is not type(own) or found.shape != own.shape or found.dtype != own.dtype:
        got = f"{found.dtype} of shape {list(found.shape)}" if hasattr(found, "dtype") else "none"
        raise ValueError(f"{what} is {got}, {own.dtype} of shape {list(own.shape)} is required")


def check_finite(what: str, values: npt.NDArray[Any]) -> None:
    """Raise ValueError, naming the first, if a value is NaN or infinite."""
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        at = int(finite.reshape(-1).argmin())
        raise ValueError(
            f"{what} holds {values.reshape(-1)[at]} at {at}, finite numbers are required"
        )
