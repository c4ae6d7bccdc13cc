"""The files of a log in shards: what each holds, how it is read, and how a wrong one is known.

Format and folder are described in `logs.shards`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.decoder import READ_ERRORS, one_line
from fastgaum.logs.log import ItemCounts, SessionLog
from fastgaum.untrusted import read_text

MANIFEST = "shards.json"
MOST_MANIFEST = 1 << 26
"""bytes of a manifest that are read: some hundred thousand shards"""
FORMAT = "fastgaum-shards"
VERSION = 1
FOOTER = "fastgaum"
"""key in each file's footer; its value is the log's own key and the file's name: a file of another
log or place is known"""
HASHED_AT_ONCE = 1_000_000_000
"""bytes up to which all files are hashed when a log is opened; those of a larger log when they are
first read"""
_OF_A_REPLACEMENT = re.compile(r".+\.[0-9a-f]{16}\.parquet")
WAYS_OUT = "convert the log again, or copy the folder anew"


_Count = Annotated[int, msgspec.Meta(ge=0)]
_OfSplits = tuple[_Count, _Count, _Count]
"""train, validation, test"""


class StoredFile(msgspec.Struct, frozen=True):
    """One file of the log."""

    file: str
    bytes: _Count
    sha256: str


class Shard(StoredFile, frozen=True):
    """One file of whole sessions and what it counts."""

    users: _Count
    largest: _Count
    """candidates of the session that has most"""
    sessions: _OfSplits
    events: _OfSplits
    choices: _OfSplits
    candidates: _OfSplits

    @classmethod
    def of(cls, part: SessionLog, stored: StoredFile) -> Shard:
        """The entry of a file that holds `part`."""
        users = int(part.users.max(initial=-1)) + 1
        largest = int(np.diff(part.display_offsets[part.session_offsets]).max(initial=0))
        return msgspec.convert(
            msgspec.to_builtins(stored) | {"users": users, "largest": largest} | part.counts(), cls
        )

    @property
    def n_sessions(self) -> int:
        """Sessions of all splits."""
        return sum(self.sessions)


class Tables(msgspec.Struct, frozen=True):
    """The files that hold no session."""

    items: StoredFile
    categories: StoredFile


class Manifest(msgspec.Struct, frozen=True):
    """What shards.json says of the log."""

    key: str
    """drawn when the log was written; each file's footer repeats it"""
    name: str
    ordered: bool
    views: bool
    candidate_fields: dict[str, Literal["float32", "int32"]]
    item_fields: list[str]
    categories: list[str]
    """names of the categorical fields"""
    totals: dict[str, list[int]]
    """sums over the shards, for a reader of the file"""
    tables: Tables
    digests: dict[str, str]
    """sha256 of each array of the whole log, see `logs.log.Digests`"""
    shards: tuple[Shard, ...]
    format: str = FORMAT
    version: int = VERSION


class _Header(msgspec.Struct):
    format: str = ""
    version: int = 0


def check_hash(path: Path, sha256: str) -> None:
    """Raise LogFormatError unless a file has the sha256."""
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LogFormatError(
            f"shard '{path}' cannot be read ({one_line(error)}): {WAYS_OUT}"
        ) from None
    if found != sha256:
        raise LogFormatError(
            f"shard '{path}' has the sha256 {found[:12]} …, {MANIFEST} says {sha256[:12]} …: it "
            f"was changed; {WAYS_OUT}"
        )


def footer_of(key: str, file: str) -> dict[str, str]:
    """What a file of the log says of itself in its footer."""
    return {FOOTER: f"{key} {file}"}


def field_columns(head: SessionLog, kind: str) -> dict[str, str]:
    """Column of each field: names are free text, so columns have numbers."""
    return {name: f"{kind}_{i}" for i, name in enumerate(getattr(head, kind))}


def read_manifest(path: Path) -> Manifest:
    """What shards.json says. Raises LogFormatError if it is missing, damaged or of another
    version."""
    file = path / MANIFEST
    if not file.is_file():
        raise LogFormatError(
            f"'{path}' is no saved log ({MANIFEST} is missing): name a folder made by save_log or "
            "`fastgaum data convert`"
        )
    try:
        text = read_text(file, MOST_MANIFEST)
        header = msgspec.json.decode(text, type=_Header)
        if header.format != FORMAT:
            raise LogFormatError(
                f"'{file}' does not describe a saved log: name a folder made by save_log or "
                "`fastgaum data convert`"
            )
        if header.version != VERSION:
            raise LogFormatError(
                f"'{path}' has format version {header.version}, this FastGAUM reads version "
                f"{VERSION}: convert the original log again"
            )
        return msgspec.json.decode(text, type=Manifest)
    except RecursionError:
        found = "its values are nested too deeply"
    except (OSError, ValueError) as error:
        found = one_line(error)
    raise LogFormatError(f"'{file}' is damaged ({found}): {WAYS_OUT}")


def check_files(folder: Path, files: Iterable[StoredFile], key: str) -> None:
    """Raise LogFormatError unless every listed file is there with its size, and says in its footer
    that it is that file of this log, and no other shard is there."""
    sizes = {one.file: one.bytes for one in files}
    for name in sizes:
        if Path(name).name != name:
            raise LogFormatError(
                f"'{folder / MANIFEST}' names the file '{name}', a plain name is required: "
                f"{WAYS_OUT}"
            )
    extra = sorted(
        p.name
        for p in folder.glob("shard-*.parquet")
        if p.name not in sizes and not _of_another_log(p, key)
    )
    if extra:
        raise LogFormatError(
            f"'{folder}' holds '{extra[0]}', which {MANIFEST} does not list: remove it, or "
            f"{WAYS_OUT}"
        )
    for name, n_bytes in sizes.items():
        _check_file(folder / name, n_bytes, key)


def _of_another_log(path: Path, key: str) -> bool:
    """Whether a file is of the log that was here before, or that is being written: a replacement
    leaves both for a moment, and for longer if it is killed."""
    if _OF_A_REPLACEMENT.fullmatch(path.name):
        return True
    try:
        found = pl.read_parquet_metadata(path).get(FOOTER, "").partition(" ")[0]
    except READ_ERRORS:
        # removed since it was listed, or no parquet file
        return not path.exists()
    return found not in ("", key)


def _check_file(path: Path, n_bytes: int, key: str) -> None:
    if path.is_symlink():
        raise LogFormatError(
            f"shard '{path}' is a link, the files of a log are in its folder: {WAYS_OUT}"
        )
    if not path.is_file():
        raise LogFormatError(f"shard '{path}' is missing: {WAYS_OUT}")
    if path.stat().st_size != n_bytes:
        raise LogFormatError(
            f"shard '{path}' has {path.stat().st_size} bytes, {MANIFEST} says {n_bytes}: it is "
            f"cut short or another file; {WAYS_OUT}"
        )
    try:
        footer = pl.read_parquet_metadata(path).get(FOOTER, "")
    except READ_ERRORS as error:
        raise LogFormatError(f"shard '{path}' is damaged ({one_line(error)}): {WAYS_OUT}") from None
    if footer != footer_of(key, path.name)[FOOTER]:
        log, _, file = footer.partition(" ")
        whose = f"'{file}' of this log" if log == key else "a file of another log"
        raise LogFormatError(
            f"shard '{path}' is {whose}: shards were swapped or doubled; {WAYS_OUT}"
        )


def read_head(path: Path, about: Manifest) -> tuple[SessionLog, ItemCounts]:
    """All the items and categories as a log without sessions, and the items' counts."""
    items, values = (
        pl.read_parquet(path / stored.file, glob=False)
        for stored in (about.tables.items, about.tables.categories)
    )
    none = np.zeros(0, np.int32)
    head = SessionLog(
        session_offsets=np.zeros(1, np.int32),
        display_offsets=np.zeros(1, np.int32),
        items=none,
        choices=none,
        split=np.zeros(0, np.int8),
        users=none,
        session_ids=pl.Series("session", [], dtype=pl.String),
        event_ids=pl.Series("event", []),
        item_ids=items["item"],
        views=np.zeros(0, np.uint16) if about.views else None,
        candidate_fields={
            name: np.zeros(0, np.dtype(kind)) for name, kind in about.candidate_fields.items()
        },
        item_fields={
            name: items[f"item_fields_{i}"].to_numpy() for i, name in enumerate(about.item_fields)
        },
        categories={
            name: values.filter(pl.col("field") == i)["value"].rename("")
            for i, name in enumerate(about.categories)
        },
        ordered=about.ordered,
        name=about.name,
    )
    return head, ItemCounts(
        *(items[name].to_numpy() for name in ("displays", "choices", "expected"))
    )


def read_rows(path: Path, head: SessionLog, ids: bool) -> SessionLog:
    """A shard as a log of the items of `head`; without `ids` its sessions and events are nameless.

    One column is decoded at a time: all of them together take as much memory again."""

    def column(name: str) -> pl.Series:
        return pl.read_parquet(path, columns=[name], glob=False)[name]

    def lists(name: str) -> npt.NDArray[Any]:
        return column(name).explode().to_numpy(writable=True)

    start, items = column("start"), column("items")
    sizes, n_events = items.list.len().to_numpy(), len(start)
    starts = np.flatnonzero(start.to_numpy())
    first_rows = starts.tolist() if ids else []
    nameless = pl.repeat(None, n_events, dtype=pl.String, eager=True).alias("session")
    fields = field_columns(head, "candidate_fields")
    return dataclasses.replace(
        head,
        session_offsets=np.append(starts, n_events).astype(np.int32),
        display_offsets=np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int32),
        items=items.explode().to_numpy(writable=True),
        choices=column("choice").to_numpy(writable=True),
        split=column("split").to_numpy()[starts],
        users=column("user").to_numpy()[starts],
        session_ids=column("session").gather(first_rows) if ids else nameless.head(len(starts)),
        event_ids=(column("label") if ids else nameless).alias("event"),
        views=None if head.views is None else lists("views"),
        candidate_fields={name: lists(stored) for name, stored in fields.items()},
    )


def check_counts(part: SessionLog, shard: Shard, path: Path) -> None:
    """Raise LogFormatError unless a shard holds as much as the manifest counts."""
    right = (
        (part.n_sessions, part.n_events) == (shard.n_sessions, sum(shard.events))
        and part.n_candidates == sum(shard.candidates)
        and part.users.max(initial=-1) < shard.users
    )
    if not right:
        raise LogFormatError(f"shard '{path}' does not hold what {MANIFEST} says of it: {WAYS_OUT}")


def cut_of(shards: Sequence[Shard]) -> str:
    """A line about the cut: how many shards, and the least and the most events of one."""
    events = [sum(shard.events) for shard in shards]
    return (
        f"{len(shards)} shards of {min(events)} to {max(events)} events" if events else "no shard"
    )
