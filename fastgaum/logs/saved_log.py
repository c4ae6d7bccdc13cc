"""A packed log on disk: a folder of .npy arrays and arrow ids, described by log.json, loaded
without copying.

    LOG/log.json                  format, version, name, and every array's file, dtype and shape
    LOG/items.npy …               the packed arrays
    LOG/item_ids.arrow …          the ids, uncompressed

Field names are free text, so fields are stored under numbers and log.json holds their names.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError, OutputError
from fastgaum.files import atomic, sync_file, sync_folder
from fastgaum.locks import name_lock
from fastgaum.logs.checks import check_log
from fastgaum.logs.file_headers import check_declared
from fastgaum.logs.log import SessionLog
from fastgaum.logs.tables import READ_ERRORS, one_line
from fastgaum.untrusted import parse_json, read_text

MANIFEST = "log.json"
FORMAT = "fastgaum-log"
VERSION = 1

ARRAYS = ("session_offsets", "display_offsets", "items", "choices", "split", "users")
IDS = ("session_ids", "event_ids", "item_ids")
_MOST_MANIFEST = 1 << 22
_FILE_NAME = re.compile(r"[a-z0-9_]{1,64}(\.[0-9a-f]{12})?\.(npy|arrow)")
_KINDS = {
    "arrays": dict,
    "ids": dict,
    "candidate_fields": dict,
    "item_fields": dict,
    "categories": dict,
    "ordered": bool,
    "name": str,
}
"""what a manifest holds beside format and version"""


def is_saved_log(path: str | os.PathLike[str]) -> bool:
    """Whether a folder was made by `save_log` (it holds a log.json)."""
    return (Path(path) / MANIFEST).is_file()


def save_log(log: SessionLog, folder: str | os.PathLike[str]) -> Path:
    """Write a log to a folder, beside it first and then renamed into place; a saved log that is
    there is replaced.

    At any moment the folder holds the former log or the new one, whole: the files of a replacement
    have names of their own, and a new log.json makes them the log's. Former files are removed then;
    whoever has them open keeps them.

    Raises OutputError if the folder holds something else or cannot be written; what was there then
    stays."""
    target = Path(folder)
    if target.exists() and not is_saved_log(target) and not _is_empty(target):
        raise OutputError(
            f"'{target}' exists and is no saved log: choose another folder or remove it"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # two processes that save under one name at once: the later one replaces what the earlier
        # one wrote
        with name_lock(target):
            if is_saved_log(target):
                _replace(log, target)
            else:
                _write_new(log, target)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise OutputError(
            f"cannot write the log '{target}': {one_line(error)}; free space or choose another "
            "folder"
        ) from None
    return target


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _write_new(log: SessionLog, target: Path) -> None:
    # hidden; unlike tempfile's it is as readable as any other folder
    beside = target.parent / f".{target.name}.new-{secrets.token_hex(6)}"
    beside.mkdir()
    try:
        _write_manifest(_write_arrays(log, beside, ""), beside)
        sync_folder(beside)
        beside.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _replace(log: SessionLog, target: Path) -> None:
    mark = f".{secrets.token_hex(6)}"
    # those of the log that is there, and of a replacement that was killed
    former = [path for path in target.iterdir() if path.suffix in (".npy", ".arrow", ".part")]
    try:
        _write_manifest(_write_arrays(log, target, mark), target)
    except BaseException:
        former = list(target.glob(f"*{mark}.*"))
        raise
    finally:
        for path in former:
            path.unlink(missing_ok=True)


def load_log(folder: str | os.PathLike[str], mmap: bool = True) -> SessionLog:
    """Load a saved log; with `mmap` its arrays are pages of the files, read when touched.

    Mapped arrays may be written to: writes stay in memory and never reach the files (numba and
    torch want writable arrays). Each array is read once for its bounds, since kernels trust them.
    Raises LogFormatError if the folder, a file, a value or the format version is not what
    `save_log` writes."""
    path = Path(folder)
    manifest = _manifest(path)
    while True:
        try:
            return _load(path, manifest, mmap)
        except LogFormatError:
            former, manifest = manifest, _manifest(path)
            # replaced while it was read: its files are gone, those of the new log.json are there
            if manifest == former:
                raise


def _load(path: Path, manifest: dict[str, Any], mmap: bool) -> SessionLog:
    try:
        arrays = {
            name: _load_array(path, entry, mmap) for name, entry in manifest["arrays"].items()
        }
        ids = {name: _load_ids(path, entry) for name, entry in manifest["ids"].items()}
        fields = {
            kind: {name: _load_array(path, e, mmap) for name, e in manifest[kind].items()}
            for kind in _FIELD_KINDS
        }
        categories = {
            name: _load_ids(path, entry) for name, entry in manifest["categories"].items()
        }
        log = SessionLog(
            session_offsets=arrays["session_offsets"],
            display_offsets=arrays["display_offsets"],
            items=arrays["items"],
            choices=arrays["choices"],
            split=arrays["split"],
            users=arrays["users"],
            session_ids=ids["session_ids"],
            event_ids=ids["event_ids"],
            item_ids=ids["item_ids"],
            views=arrays.get("views"),
            candidate_fields=fields["candidate_fields"],
            item_fields=fields["item_fields"],
            categories=categories,
            ordered=manifest["ordered"],
            name=manifest["name"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise LogFormatError(
            f"'{path / MANIFEST}' is damaged ({type(error).__name__}: {one_line(error)}): save the "
            "log again"
        ) from None
    try:
        check_log(log)
    except ValueError as error:
        raise LogFormatError(f"'{path}' is damaged: {error}; save the log again") from None
    return log


_FIELD_KINDS = ("candidate_fields", "item_fields")


def _write_arrays(log: SessionLog, folder: Path, mark: str) -> dict[str, Any]:
    """Write everything but log.json, under names that hold the mark; returns what log.json says."""
    arrays = {name: getattr(log, name) for name in ARRAYS}
    if log.views is not None:
        arrays["views"] = log.views
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": log.name,
        "ordered": log.ordered,
        "arrays": {name: _save_array(folder, name + mark, array) for name, array in arrays.items()},
        "ids": {name: _save_ids(folder, name + mark, getattr(log, name)) for name in IDS},
        "categories": {
            name: _save_ids(folder, f"categories_{i}{mark}", values)
            for i, (name, values) in enumerate(log.categories.items())
        },
    }
    for kind in _FIELD_KINDS:
        fields = getattr(log, kind)
        manifest[kind] = {
            name: _save_array(folder, f"{kind}_{i}{mark}", values)
            for i, (name, values) in enumerate(fields.items())
        }
    return manifest


def _write_manifest(manifest: dict[str, Any], folder: Path) -> None:
    with atomic(folder / MANIFEST) as beside:
        beside.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _save_array(folder: Path, stem: str, array: npt.NDArray[Any]) -> dict[str, Any]:
    array = np.ascontiguousarray(array)
    with open(folder / f"{stem}.npy", "wb") as file:
        np.save(file, array, allow_pickle=False)
        sync_file(file)
    return {"file": f"{stem}.npy", "dtype": str(array.dtype), "shape": list(array.shape)}


def _save_ids(folder: Path, stem: str, ids: pl.Series) -> dict[str, Any]:
    with open(folder / f"{stem}.arrow", "wb") as file:
        pl.DataFrame([ids.alias("id")]).write_ipc(file, compression="uncompressed")
        sync_file(file)
    return {"file": f"{stem}.arrow", "dtype": str(ids.dtype), "shape": [len(ids)]}


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise LogFormatError(
            f"'{path}' is no saved log ({MANIFEST} is missing): name a folder made by save_log"
        )
    try:
        manifest = parse_json(read_text(file, _MOST_MANIFEST))
    except (OSError, ValueError) as error:
        raise LogFormatError(
            f"'{file}' is damaged ({one_line(error)}): save the log again"
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise LogFormatError(
            f"'{file}' does not describe a {FORMAT}: name a folder made by save_log"
        )
    if manifest.get("version") != VERSION:
        raise LogFormatError(
            f"'{path}' has format version {manifest.get('version')}, this FastGAUM reads version "
            f"{VERSION}:"
            " read the original log again and save it"
        )
    for name, kind in _KINDS.items():
        if not isinstance(manifest.get(name), kind):
            raise LogFormatError(
                f"'{file}' is damaged ({name} is no {kind.__name__}): save the log again"
            )
    return manifest


def _file_of(path: Path, entry: Any) -> Path:
    """The file that an entry names, which lies in the log's folder: a name, no path and no link."""
    name = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        raise LogFormatError(
            f"'{path / MANIFEST}' is damaged (it names the file {name!r}, a plain name is "
            "required): save the log again"
        )
    if (path / name).is_symlink():
        raise LogFormatError(
            f"'{path / name}' is a link, a log's files lie in its folder: save the log again"
        )
    return path / name


def _load_array(path: Path, entry: dict[str, Any], mmap: bool) -> npt.NDArray[Any]:
    file = _file_of(path, entry)
    try:
        n_bytes = _declared_bytes(file)
        # An empty array has no page to map.
        mode: Literal["c"] | None = "c" if mmap and n_bytes else None
        array = np.asarray(np.load(file, mmap_mode=mode, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise LogFormatError(
            f"'{file}' is missing or damaged: {one_line(error)}; save the log again"
        ) from None
    _check_entry(file, entry, str(array.dtype), list(array.shape))
    return array


def _declared_bytes(file: Path) -> int:
    """Size of the array that a file's header declares. Raises ValueError unless the file holds just
    so many bytes."""
    with file.open("rb") as data:
        version = np.lib.format.read_magic(data)
        if version != (1, 0):
            raise ValueError(f"an npy file of version {version}")
        try:
            shape, _, dtype = np.lib.format.read_array_header_1_0(data)
        except (TokenError, SyntaxError) as error:
            raise ValueError(f"its header is no dictionary ({one_line(error)})") from None
        n_bytes = math.prod(shape) * dtype.itemsize
        held = file.stat().st_size - data.tell()
    if dtype.hasobject or n_bytes != held or min(shape, default=0) < 0:
        raise ValueError(
            f"its header declares {dtype} of shape {list(shape)}, and {held} bytes follow"
        )
    return n_bytes


def _load_ids(path: Path, entry: dict[str, Any]) -> pl.Series:
    file = _file_of(path, entry)
    try:
        check_declared(file, "arrow")
        frame = pl.read_ipc(file)
        ids = frame.to_series().alias("") if frame.width == 1 else pl.Series(dtype=pl.Null)
    except READ_ERRORS as error:
        raise LogFormatError(
            f"'{file}' is missing or damaged: {one_line(error)}; save the log again"
        ) from None
    _check_entry(file, entry, str(ids.dtype), [len(ids)])
    return ids


def _check_entry(file: Path, entry: dict[str, Any], dtype: str, shape: list[int]) -> None:
    if dtype != entry.get("dtype") or shape != entry.get("shape"):
        raise LogFormatError(
            f"'{file}' holds {dtype} of shape {shape}, {MANIFEST} says {entry.get('dtype')} of "
            "shape"
            f" {entry.get('shape')}: save the log again"
        )
