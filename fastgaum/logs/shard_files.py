"""The files of a log in shards: what each holds, how it is read, and how a wrong one is known.

Format and folder are described in `sessions.shards`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.item_counts import ItemCounts
from fastgaum.logs.log import SessionLog
from fastgaum.logs.tables import READ_ERRORS, one_line
from fastgaum.untrusted import parse_json, read_text

MANIFEST = "shards.json"
MOST_MANIFEST = 1 << 26
"""bytes of a manifest that are read: some hundred thousand shards"""
FORMAT = "fastgaum-shards"
VERSION = 1
ITEMS, CATEGORIES = "items", "categories"
FOOTER = "fastgaum"
"""key in each file's footer; its value is the log's own key and the file's name: a file of another
log or place is known"""
HASHED_AT_ONCE = 1_000_000_000
"""bytes up to which all files are hashed when a log is opened; those of a larger log when they are
first read"""
_OF_A_REPLACEMENT = re.compile(r".+\.[0-9a-f]{16}\.parquet")
WAYS_OUT = "convert the log again, or copy the folder anew"


@dataclass(frozen=True)
class Shard:
    """One file of the log and what it counts; lists have an entry per split."""

    file: str
    bytes: int
    sha256: str
    users: int
    largest: int
    """candidates of the session that has most"""
    sessions: tuple[int, ...]
    events: tuple[int, ...]
    choices: tuple[int, ...]
    candidates: tuple[int, ...]

    @classmethod
    def of(cls, part: SessionLog, **file: Any) -> Shard:
        """The entry of a file that holds `part`; `file`: its name, bytes and sha256."""
        users = int(part.users.max(initial=-1)) + 1
        largest = int(np.diff(part.display_offsets[part.session_offsets]).max(initial=0))
        counts: dict[str, Any] = part.counts()
        return cls(**file, users=users, largest=largest, **counts)

    @classmethod
    def of_mapping(cls, values: dict[str, Any]) -> Shard:
        """The entry as the manifest has it."""
        fields: dict[str, Any] = {
            k: tuple(value) if isinstance(value, list) else value for k, value in values.items()
        }
        return cls(**fields)

    @property
    def n_sessions(self) -> int:
        """Sessions of all splits."""
        return sum(self.sessions)


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


def read_manifest(path: Path) -> dict[str, Any]:
    """What shards.json says. Raises LogFormatError if it is missing, damaged or of another
    version."""
    file = path / MANIFEST
    try:
        about = parse_json(read_text(file, MOST_MANIFEST))
    except (OSError, ValueError) as error:
        raise LogFormatError(
            f"'{file}' is missing or damaged ({one_line(error)}): {WAYS_OUT}"
        ) from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise LogFormatError(
            f"'{file}' does not describe a log in shards: name a folder made by `fastgaum data "
            "convert`"
        )
    if about.get("version") != VERSION:
        raise LogFormatError(
            f"'{path}' has format version {about.get('version')}, this FastGAUM reads version "
            f"{VERSION}: convert the"
            " original log again"
        )
    return about


def check_files(folder: Path, files: dict[str, tuple[int, str]], key: str) -> None:
    """Every listed file is there with its size, and says in its footer that it is that file of this
    log; no other is."""
    found = [
        p.name for p in folder.glob("*.parquet") if p.name not in files and p.name[0] not in "._"
    ]
    # a file of a replacement that is under way, or was killed, is no file of the log that is there
    extra = sorted(name for name in found if not _OF_A_REPLACEMENT.fullmatch(name))
    if extra:
        raise LogFormatError(
            f"'{folder}' holds '{extra[0]}', which {MANIFEST} does not list: remove it, or "
            f"{WAYS_OUT}"
        )
    for name, (n_bytes, _) in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise LogFormatError(f"shard '{path}' is missing: {WAYS_OUT}")
        if path.stat().st_size != n_bytes:
            raise LogFormatError(
                f"shard '{path}' has {path.stat().st_size} bytes, {MANIFEST} says {n_bytes}: it is "
                "cut short or another"
                f" file; {WAYS_OUT}"
            )
        try:
            footer = pl.read_parquet_metadata(path).get(FOOTER, "")
        except READ_ERRORS as error:
            raise LogFormatError(
                f"shard '{path}' is damaged ({one_line(error)}): {WAYS_OUT}"
            ) from None
        if footer != footer_of(key, name)[FOOTER]:
            log, _, file = footer.partition(" ")
            whose = f"'{file}' of this log" if log == key else "a file of another log"
            raise LogFormatError(
                f"shard '{path}' is {whose}: shards were swapped or doubled; {WAYS_OUT}"
            )


def read_head(path: Path, about: dict[str, Any]) -> tuple[SessionLog, ItemCounts]:
    """All the items and categories as a log without sessions, and the items' counts."""
    items, values = (
        pl.read_parquet(path / about["tables"][name]["file"], glob=False)
        for name in (ITEMS, CATEGORIES)
    )
    none = np.zeros(0, np.int32)
    kinds = {name: np.dtype(kind) for name, kind in about["candidate_fields"].items()}
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
        views=np.zeros(0, np.uint16) if about["views"] else None,
        candidate_fields={name: np.zeros(0, kind) for name, kind in kinds.items()},
        item_fields={
            name: items[f"item_fields_{i}"].to_numpy()
            for i, name in enumerate(about["item_fields"])
        },
        categories={
            name: values.filter(pl.col("field") == i)["value"].rename("")
            for i, name in enumerate(about["categories"])
        },
        ordered=about["ordered"],
        name=about["name"],
    )
    return head, ItemCounts(
        *(items[name].to_numpy() for name in ("displays", "choices", "expected"))
    )


def _columns(head: SessionLog, ids: bool) -> list[str]:
    views = ["views"] if head.views is not None else []
    named = ["session", "label"] if ids else []
    return [
        "start",
        "user",
        "split",
        "items",
        "choice",
        *views,
        *named,
        *field_columns(head, "candidate_fields").values(),
    ]


def read_rows(path: Path, head: SessionLog, ids: bool) -> SessionLog:
    """A shard as a log of the items of `head`; without `ids` its sessions and events are
    nameless."""
    return _unpacked(pl.read_parquet(path, columns=_columns(head, ids), glob=False), head, ids)


def _unpacked(frame: pl.DataFrame, head: SessionLog, ids: bool) -> SessionLog:
    """A shard's rows as a log; list columns are offsets and values already."""
    starts = np.flatnonzero(frame["start"].to_numpy())
    sizes = frame["items"].list.len().to_numpy()
    at = starts.tolist() if ids else []
    nameless = pl.repeat(None, len(starts), dtype=pl.String, eager=True)

    def values(column: str) -> npt.NDArray[Any]:
        return frame[column].explode().to_numpy(writable=True)

    fields = field_columns(head, "candidate_fields")
    return dataclasses.replace(
        head,
        session_offsets=np.append(starts, frame.height).astype(np.int32),
        display_offsets=np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int32),
        items=values("items"),
        choices=frame["choice"].to_numpy(writable=True),
        split=frame["split"].to_numpy()[starts],
        users=frame["user"].to_numpy()[starts],
        session_ids=frame["session"].gather(at) if ids else nameless.rename("session"),
        event_ids=(
            frame["label"] if ids else pl.repeat(None, frame.height, dtype=pl.String, eager=True)
        ).rename("event"),
        views=None if head.views is None else values("views"),
        candidate_fields={name: values(column) for name, column in fields.items()},
    )


def check_values(part: SessionLog, shard: Shard, path: Path) -> None:
    """What loops rely on, and what the manifest counts."""
    sizes = np.diff(part.display_offsets)
    widths = [len(values) for values in part.candidate_fields.values()] + (
        [len(part.views)] if part.views is not None else []
    )
    right = (
        part.session_offsets[0] == 0
        and sizes.min(initial=1) > 0
        and part.split.min(initial=0) >= 0 <= part.users.min(initial=0)
        and part.split.max(initial=0) < 3
        and part.users.max(initial=-1) < shard.users
        and part.items.min(initial=0) >= 0
        and part.items.max(initial=-1) < part.n_items
        and part.choices.min(initial=-1) >= -1
        and bool((part.choices < sizes).all())
        and (part.n_sessions, part.n_events) == (shard.n_sessions, sum(shard.events))
        and part.n_candidates == sum(shard.candidates)
        and all(n == part.n_candidates for n in widths)
    )
    if not right:
        raise LogFormatError(f"shard '{path}' does not hold what {MANIFEST} says of it: {WAYS_OUT}")


def cut_of(shards: Sequence[Shard]) -> str:
    """A line about the cut: how many shards, and the least and the most events of one."""
    events = [sum(shard.events) for shard in shards]
    return (
        f"{len(shards)} shards of {min(events)} to {max(events)} events" if events else "no shard"
    )
