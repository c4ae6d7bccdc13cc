"""The files of a log in shards: what each holds, how it is read, and how a wrong one is known.

Format and folder are described in `logs.shards`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.actions import Actions
from fastgaum.logs.clicks import ClickFacts
from fastgaum.logs.log import (
    FieldArray,
    FloatArray,
    IntArray,
    ItemCounts,
    SessionLog,
)
from fastgaum.logs.successive import check_successive
from fastgaum.untrusted import read_text
from fastgaum.untrusted_parquet import one_line

MANIFEST = "shards.json"
MOST_MANIFEST = 1 << 26
"""bytes of a manifest that are read: some hundred thousand shards"""
FORMAT = "fastgaum-shards"
OLDEST, VERSION = 1, 6
"""versions that are read, and the one that is written; 1 has no context of events, 1 and 2 no
fields of users, 1 to 3 no vectors of items, 1 to 4 no actions, 1 to 5 no ids of users"""
HASHED_AT_ONCE = 1_000_000_000
"""bytes up to which all files are hashed when a log is opened; those of a larger log when they are
first read"""
WAYS_OUT = "convert the log again, or copy the folder anew"

_Count = Annotated[int, msgspec.Meta(ge=0)]
FieldKind = Literal["float32", "int32"]
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
    """candidates, and actions, of the session that has most"""
    sessions: _OfSplits
    events: _OfSplits
    choices: _OfSplits
    candidates: _OfSplits
    actions: _OfSplits = (0, 0, 0)

    @classmethod
    def of(cls, part: SessionLog, stored: StoredFile) -> Shard:
        """The entry of a file that holds `part`."""
        users = int(part.users.max(initial=-1)) + 1
        work = part.display_offsets + (0 if part.actions is None else part.actions.offsets)
        largest = int(np.diff(work[part.session_offsets]).max(initial=0))
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

    name: str
    ordered: bool
    views: bool
    candidate_fields: dict[str, FieldKind]
    item_fields: list[str]
    categories: list[str]
    """names of the categorical fields"""
    totals: dict[str, tuple[int, ...]]
    """sums over the shards, for a reader of the file"""
    tables: Tables
    digests: dict[str, str]
    """sha256 of each array of the whole log, see `logs.digests.Digests`"""
    shards: tuple[Shard, ...]
    event_fields: dict[str, FieldKind] = msgspec.field(default_factory=dict)
    user_fields: dict[str, FieldKind] = msgspec.field(default_factory=dict)
    item_vectors: list[str] = msgspec.field(default_factory=list)
    grid: _Count = 0
    clicks: ClickFacts = msgspec.field(default_factory=ClickFacts)
    actions_left_out: _Count | None = None
    """actions that were read and that no event follows; null: the log has no actions. Their kinds
    are in the file of categories, behind the fields"""
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
        if not OLDEST <= header.version <= VERSION:
            raise LogFormatError(
                f"'{path}' has format version {header.version}, this FastGAUM reads versions "
                f"{OLDEST} to {VERSION}: convert the original log again"
            )
        return msgspec.json.decode(text, type=Manifest)
    except RecursionError:
        found = "its values are nested too deeply"
    except (OSError, ValueError) as error:
        found = one_line(error)
    raise LogFormatError(f"'{file}' is damaged ({found}): {WAYS_OUT}")


def check_files(folder: Path, files: Iterable[StoredFile]) -> None:
    """Raise LogFormatError unless every listed file is in the folder and has its size."""
    for one in files:
        path = folder / one.file
        if Path(one.file).name != one.file:
            raise LogFormatError(
                f"'{folder / MANIFEST}' names the file '{one.file}', a plain name is required: "
                f"{WAYS_OUT}"
            )
        if not path.is_file():
            raise LogFormatError(f"shard '{path}' is missing: {WAYS_OUT}")
        if path.stat().st_size != one.bytes:
            raise LogFormatError(
                f"shard '{path}' has {path.stat().st_size} bytes, {MANIFEST} says {one.bytes}: it "
                f"is cut short or another file; {WAYS_OUT}"
            )


def read_head(path: Path, about: Manifest) -> tuple[SessionLog, ItemCounts]:
    """All the items and categories as a log without sessions, and the items' counts.

    Raises:
        ValueError: naming what kernels could not trust.
    """
    items, values = (
        pl.read_parquet(path / stored.file, glob=False)
        for stored in (about.tables.items, about.tables.categories)
    )
    n_texts = len(about.categories) + (about.actions_left_out is not None)
    texts = [values.filter(pl.col("field") == i)["value"].rename("") for i in range(n_texts)]
    head = dataclasses.replace(
        SessionLog.empty(items["item"]),
        views=np.zeros(0, np.uint16) if about.views else None,
        candidate_fields=_no_values(about.candidate_fields),
        event_fields=_no_values(about.event_fields),
        user_fields=_no_values(about.user_fields),
        item_fields={
            name: items[f"item_fields_{i}"].to_numpy() for i, name in enumerate(about.item_fields)
        },
        item_vectors={
            name: _matrix(items[f"item_vectors_{i}"], name)
            for i, name in enumerate(about.item_vectors)
        },
        categories=dict(zip(about.categories, texts, strict=False)),
        ordered=about.ordered,
        grid=about.grid,
        name=about.name,
        clicks=about.clicks,
        actions=(
            None
            if about.actions_left_out is None
            else Actions.empty(texts[-1], about.actions_left_out)
        ),
    )
    named = {"item_ids": head.item_ids, **head.categories}
    if head.actions is not None:
        named["kinds of actions"] = head.actions.kind_names
    for name, column in named.items():
        _require(column.dtype == pl.String and not column.null_count(), f"{name} holds gaps")
        _require(not column.is_duplicated().any(), f"{name} holds a value twice")
    fields = [
        *head.candidate_fields,
        *head.event_fields,
        *head.user_fields,
        *head.item_fields,
        *head.item_vectors,
    ]
    _require(
        len(set(fields)) == len(fields) and head.categories.keys() <= set(fields),
        "fields and categories do not have the same names",
    )
    counts = (items[name].to_numpy() for name in ("displays", "choices", "expected"))
    return head, ItemCounts(*counts)


def _matrix(column: pl.Series, name: str) -> FloatArray:
    """A column of arrays as a matrix. Raises ValueError unless its numbers are float32."""
    of_one_length = isinstance(column.dtype, pl.Array) and column.dtype.inner == pl.Float32
    _require(of_one_length and not column.null_count(), f"{name} holds no vectors")
    matrix: FloatArray = column.rechunk().to_numpy()
    return matrix


def _no_values(kinds: Mapping[str, FieldKind]) -> dict[str, FieldArray]:
    return {name: np.zeros(0, np.dtype(kind)) for name, kind in kinds.items()}


def read_rows(path: Path, head: SessionLog, ids: bool) -> SessionLog:
    """A shard as a log of the items of `head`; without `ids` its sessions and events are nameless.

    One column is decoded at a time: all of them together take as much memory again."""

    def column(name: str) -> pl.Series:
        return pl.read_parquet(path, columns=[name], glob=False)[name]

    def lists(name: str) -> npt.NDArray[Any]:
        values = column(name)
        _require(values.list.len().equals(lengths), f"{name} has not one value per candidate")
        return values.explode().to_numpy(writable=True)

    start, items = column("start"), column("items")
    lengths, n_events = items.list.len(), len(start)
    starts = np.flatnonzero(start.to_numpy())
    _require(
        n_events == 0 or (len(starts) > 0 and starts[0] == 0), "its first row starts no session"
    )
    nameless = pl.repeat(None, n_events, dtype=pl.String, eager=True)
    session_ids, labels = (column("session"), column("label")) if ids else (nameless, nameless)
    has_users = ids and "user_id" in pl.read_parquet_schema(path)
    texts = {"session_ids": session_ids} | ({"user_ids": column("user_id")} if has_users else {})
    for name, values in texts.items():
        _require(values.dtype == pl.String, f"{name} holds {values.dtype}")
        _require(not (ids and values.null_count()), f"{name} holds gaps")
    fields = field_columns(head, "candidate_fields")
    return dataclasses.replace(
        head,
        session_offsets=np.append(starts, n_events).astype(np.int32),
        display_offsets=np.concatenate(([0], lengths.cast(pl.Int64).cum_sum())).astype(np.int32),
        items=items.explode().to_numpy(writable=True),
        choices=column("choice").to_numpy(writable=True),
        split=column("split").to_numpy()[starts],
        users=column("user").to_numpy()[starts],
        session_ids=session_ids.gather(starts).alias("session"),
        user_ids=texts["user_ids"].gather(starts).alias("user") if has_users else None,
        event_ids=labels.alias("event"),
        views=None if head.views is None else lists("views"),
        candidate_fields={name: lists(stored) for name, stored in fields.items()},
        event_fields={
            name: column(stored).to_numpy(writable=True)
            for name, stored in field_columns(head, "event_fields").items()
        },
        user_fields={
            name: column(stored).to_numpy()[starts]
            for name, stored in field_columns(head, "user_fields").items()
        },
        actions=head.actions
        and head.actions.of_lists(column("acted_items"), column("acted_kinds")),
    )


def check_part(log: SessionLog) -> None:
    """Raise ValueError unless a shard holds what no log that was read does not: each display set's
    items are distinct, and successive choices are what the clicks before have left."""
    _check_displays(log)
    check_successive(log)


def _check_displays(log: SessionLog) -> None:
    """The candidates of a display set are distinct; most are stored by item, which shows it without
    sorting them."""
    starts = log.display_offsets[1:-1]

    def falls(items: IntArray, compare: np.ufunc) -> bool:
        found = compare(items[1:], items[:-1])
        found[starts - 1] = False
        return bool(found.any())

    if falls(log.items, np.less_equal):
        order = np.lexsort((log.items, log.event_of_candidate()))
        _require(not falls(log.items[order], np.equal), "a display set holds an item twice")


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)


def check_counts(part: SessionLog, shard: Shard, path: Path) -> None:
    """Raise LogFormatError unless a shard holds as much as the manifest counts."""
    right = (
        (part.n_sessions, part.n_events) == (shard.n_sessions, sum(shard.events))
        and part.n_candidates == sum(shard.candidates)
        and part.n_actions == sum(shard.actions)
        and part.users.max(initial=-1) < shard.users
    )
    if not right:
        raise LogFormatError(f"shard '{path}' does not hold what {MANIFEST} says of it: {WAYS_OUT}")
