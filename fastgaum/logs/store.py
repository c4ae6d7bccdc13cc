"""A log on disk: a folder of parquet tables and one json, in one part or in many.

    LOG/log.json                    name, order, grid, clicks, categories, how it was read; of each
                                    part the counts and of each table the sha256
    LOG/items.MARK.parquet          an item, in the order of the codes: id, and columns
    LOG/sessions-0.MARK.parquet     a session of part 0: id, user, split, number of events;
                                    `user.age`
    LOG/events-0.MARK.parquet       an event of part 0: label, choice, actions before it; lists of
                                    items and of what else candidates have, `candidate.price`;
                                    `event.query`

A part holds all sessions of its users, so that parts are read and trained on one by one. Each save
draws a mark. log.json is written last, so the folder always holds one log, whole."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.errors import LogFormatError, OutputError, require_path
from fastgaum.files import atomic, read_whole, sync_file
from fastgaum.locks import name_lock
from fastgaum.logs.actions import Actions
from fastgaum.logs.addresses import Address, is_address
from fastgaum.logs.clicks import ClickFacts, total_of
from fastgaum.logs.cut import check_size, join_sessions, slice_sessions
from fastgaum.logs.hashes import Hashes, mixed_bits, sampling_numbers
from fastgaum.logs.log import (
    ROLES,
    SPLITS,
    Column,
    Counted,
    SessionLog,
    SplitName,
    check_displays,
    require_log,
)
from fastgaum.logs.successive import check_successive
from fastgaum.row_files import READ_ERRORS, one_line

ABOUT = "log.json"
WAYS_OUT = "convert the log again, or copy the folder anew"
_FORMER = "shards.json"
"""log.json of an earlier version"""
_LEFT_BY_A_KILL = re.compile(
    r"((sessions|events)-\d+|items)\.[0-9a-f]{16}\.parquet|\.log\.json\.[0-9a-f]+\.part"
)
TableOfLog = Literal["sessions", "events", "items"]
_TABLE_OF: dict[str, TableOfLog] = {
    "session": "sessions",
    "user": "sessions",
    "event": "events",
    "outcome": "events",
    "candidate": "events",
    "item": "items",
}


class StoredTable(msgspec.Struct, frozen=True):
    """One table's file."""

    file: str
    sha256: str


_OfSplits = tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


class PartCounts(msgspec.Struct, frozen=True):
    """`SessionLog.counts` of a part, of each split."""

    sessions: _OfSplits
    events: _OfSplits
    choices: _OfSplits
    candidates: _OfSplits
    actions: _OfSplits


class StoredPart(msgspec.Struct, frozen=True):
    """The sessions of some users."""

    sessions: StoredTable
    events: StoredTable
    counts: PartCounts
    fingerprint: str
    """of the part as a log of its own"""


class About(msgspec.Struct, frozen=True):
    """The content of log.json."""

    name: str
    ordered: bool
    grid: int
    clicks: ClickFacts
    categories: dict[str, list[str]]
    """values of each categorical field, by code"""
    kinds_of_actions: list[str] | None
    actions_left_out: int
    items: StoredTable
    parts: Annotated[list[StoredPart], msgspec.Meta(min_length=1)]
    weighted_by: str = ""
    format: Literal["fastgaum-log"] = "fastgaum-log"
    version: Literal[4] = 4


def is_saved_log(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a saved log, of this version or of an earlier one; an address names
    nothing else."""
    return is_address(path) or any((Path(path) / name).is_file() for name in (ABOUT, _FORMER))


def _place_of(folder: str | os.PathLike[str]) -> Path | Address:
    """Raises ConfigError for what is no name of a folder."""
    if is_address(folder):
        return Address(folder)
    require_path("the folder of a log", folder)
    return Path(folder)


def save_log(log: SessionLog, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Save a log in a folder, which `load_log` loads; return the folder. With `overwrite` a saved
    log is replaced in one step. Raises ConfigError for no log and no name of a folder, OutputError
    where something is there, or the folder cannot be written."""
    require_log(log)
    require_path("the folder to save a log in", folder)
    return save_parts([log], Path(folder), overwrite=overwrite)


def save_parts(parts: Iterable[SessionLog], target: Path, *, overwrite: bool = False) -> Path:
    """Save a log part by part, each with all sessions of its users; return the folder. All parts
    have the same items, categories and kinds of actions. Raises OutputError as `save_log`."""
    check_store_output(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with name_lock(target):
            # another process may have written it meanwhile
            check_store_output(target, overwrite)
            target.mkdir(exist_ok=True)
            try:
                _write(parts, target)
            finally:
                _remove_unnamed(target)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise OutputError(
            f"cannot write the log '{target}': {one_line(error)}; free space or choose another "
            "folder"
        ) from None
    return target


def check_store_output(folder: Path, overwrite: bool) -> None:
    """Raise OutputError if something is there that is not to be replaced."""
    if (folder / ABOUT).is_file():
        if not overwrite:
            raise OutputError(
                f"'{folder}' holds a saved log already: choose another folder, or pass --overwrite "
                "(overwrite=True) to replace it"
            )
        return
    there = list(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
    if not all(_LEFT_BY_A_KILL.fullmatch(path.name) for path in there):
        raise OutputError(
            f"'{folder}' exists and is no saved log: choose another folder or remove it"
        )


def load_log(folder: str | os.PathLike[str]) -> SessionLog:
    """Load a saved log into memory; each table's sha256 and each array's bounds are checked.

    Args:
        folder: a path, or an address (https://…, s3://…, gs://…).

    Raises:
        LogFormatError: the folder is no saved log, or a file is damaged.
    """
    place = _place_of(folder)

    def load() -> SessionLog:
        stored = StoredLog(folder)
        return stored.read(range(stored.n_parts))

    return load() if isinstance(place, Address) else read_whole(place / ABOUT, load)


class StoredLog:
    """A saved log of which nothing but log.json and the items has been read: `read` reads parts."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a folder, by a path or an address. Raises LogFormatError as `load_log`."""
        self.folder = _place_of(folder)
        self.about = _read_about(self.folder)
        self.name, self.ordered = self.about.name, self.about.ordered
        self.n_parts = len(self.about.parts)

    @cached_property
    def fingerprint(self) -> str:
        """That of the log if it has one part, else a sha256 over its parts'."""
        parts = [part.fingerprint for part in self.about.parts]
        whole = hashlib.sha256("\n".join(parts).encode())
        return parts[0] if len(parts) == 1 else whole.hexdigest()

    def count(self, what: Counted, split: SplitName = "all") -> int:
        """Number of sessions, events, choices, candidates or actions of a split."""
        of_splits = np.sum([getattr(part.counts, what) for part in self.about.parts], axis=0)
        return int(of_splits.sum() if split == "all" else of_splits[SPLITS.index(split)])

    @property
    def n_events(self) -> int:
        """Number of events (display sets)."""
        return self.count("events")

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return self.count("actions")

    @cached_property
    def first(self) -> SessionLog:
        """The first part, which has the items and the columns of all."""
        return self.read([0])

    @property
    def has_no_click(self) -> bool:
        """Whether any event ends without a choice."""
        return self.count("choices") < self.n_events

    @cached_property
    def _items(self) -> pl.DataFrame:
        return self._table(self.about.items)

    def read(self, numbers: Sequence[int]) -> SessionLog:
        """The log of some of the parts, in this order; items and categories have the codes that
        they have in all parts. Raises LogFormatError for a damaged file."""
        picked = [self.about.parts[number] for number in numbers]
        try:
            frames: dict[TableOfLog, pl.DataFrame] = {"items": self._items}
            for name in ("sessions", "events"):
                tables = [self._table(getattr(part, name)) for part in picked]
                frames[name] = pl.concat(tables, rechunk=True) if len(tables) > 1 else tables[0]
                if name == "sessions":
                    _require_whole_users([table["users"] for table in tables])
            check_size(int(frames["events"]["items"].list.len().sum()))
            log = _log_of(self.about, frames)
            check_displays(log)
            check_successive(log)
            if len(picked) == 1 and PartCounts(**log.counts()) != picked[0].counts:
                raise ValueError(f"{ABOUT} counts other events than the part holds")
        except (TypeError, *READ_ERRORS, LogFormatError) as error:
            if isinstance(error, _DamagedFileError):
                raise LogFormatError(str(error)) from None
            raise LogFormatError(
                f"'{self.folder}' is damaged ({one_line(error.__cause__ or error)}): {WAYS_OUT}"
            ) from None
        known = picked[0].fingerprint if len(picked) == 1 else self.fingerprint
        if len(picked) in (1, self.n_parts):
            log.__dict__["fingerprint"] = known
        return log

    def read_split(self, split: SplitName, most_events: int | None = None) -> SessionLog:
        """The sessions of a split; where they have more than `most_events` events, those of users
        drawn by their hashes, about so many. Raises LogFormatError as `read`."""
        n_events = max(self.count("events", split), 1)
        share = 1.0 if most_events is None else most_events / n_events
        # the log may be a sample of users itself, whose own numbers lie below its share
        return self._read_users(lambda hashes: sampling_numbers(mixed_bits(hashes)), share, split)

    def read_sample(self, share: float) -> SessionLog:
        """The sessions of the users whose `sampling_numbers` lie below a share; one part is in
        memory at a time. Raises LogFormatError as `read`."""
        return self._read_users(sampling_numbers, share, "all")

    def _read_users(
        self, number_of: Callable[[Hashes], Float64Array], share: float, split: SplitName
    ) -> SessionLog:
        kept = []
        for number in range(self.n_parts):
            part = self.read([number])
            rows = part.sessions_in(split)
            if share < 1:
                rows = rows[number_of(part.user_hashes[rows]) < share]
            kept.append(slice_sessions(part, rows))
        return join_sessions(kept)

    def _table(self, table: StoredTable) -> pl.DataFrame:
        return pl.read_parquet(
            _checked_file(self.folder, table), glob=False, hive_partitioning=False
        )


def _require_whole_users(of_parts: Sequence[pl.Series]) -> None:
    """Raises ValueError."""
    each = [users.unique() for users in of_parts]
    if pl.concat(each).n_unique() < sum(map(len, each)):
        raise ValueError("a user is in two parts")


class _DamagedFileError(LogFormatError):
    """Says which file is damaged."""


def item_columns(folder: str | os.PathLike[str]) -> set[str]:
    """Names of a saved log's columns of items; none of a damaged one, which `load_log` refuses."""
    with suppress(KeyError, LogFormatError, *READ_ERRORS):
        place = _place_of(folder)
        names = pl.read_parquet_schema(_checked_file(place, _read_about(place).items))
        return {name.removeprefix("item.") for name in names if name != "item_ids"}
    return set()


def _write(logs: Iterable[SessionLog], folder: Path) -> None:
    mark = secrets.token_hex(8)
    parts, kinds_of_clicks, left_out = list[StoredPart](), list[ClickFacts](), 0
    for number, log in enumerate(logs):
        columns: dict[TableOfLog, dict[str, Any]] = {
            "sessions": {"n_events": np.diff(log.session_offsets)},
            "events": {},
            "items": {},
        }
        for name, (of, values) in log.arrays().items():
            listed = _to_lists(values, log.display_offsets) if of == "candidate" else values
            columns[_TABLE_OF[of]][name] = listed
        if log.actions is not None:
            left_out += log.actions.left_out
            for name in ("items", "kinds"):
                acted = getattr(log.actions, name)
                columns["events"][f"action.{name}"] = _to_lists(acted, log.actions.offsets)
        of_items = columns.pop("items")
        written = {
            name: _write_table(folder / f"{name}-{number}.{mark}.parquet", pl.DataFrame(of_table))
            for name, of_table in columns.items()
        }
        parts.append(
            StoredPart(**written, counts=PartCounts(**log.counts()), fingerprint=log.fingerprint)
        )
        kinds_of_clicks.append(log.clicks)
    about = About(
        name=log.name,
        ordered=log.ordered,
        grid=log.grid,
        clicks=total_of(kinds_of_clicks),
        categories={
            name: column.texts.to_list()
            for name, column in log.columns.items()
            if column.texts is not None
        },
        kinds_of_actions=None if log.actions is None else log.actions.kind_names.to_list(),
        actions_left_out=left_out,
        weighted_by=log.weighted_by,
        items=_write_table(folder / f"items.{mark}.parquet", pl.DataFrame(of_items)),
        parts=parts,
    )
    with atomic(folder / ABOUT) as beside:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=1) + b"\n")


def _write_table(path: Path, frame: pl.DataFrame) -> StoredTable:
    frame.write_parquet(path, compression="zstd", compression_level=1, statistics=False)
    with open(path, "rb") as file:
        sync_file(file)
        return StoredTable(path.name, hashlib.file_digest(file, "sha256").hexdigest())


def _remove_unnamed(folder: Path) -> None:
    with suppress(OSError, LogFormatError):
        named = set()
        if (folder / ABOUT).is_file():
            about = _read_about(folder)
            named = {about.items.file}
            named |= {table.file for part in about.parts for table in (part.sessions, part.events)}
        for path in folder.iterdir():
            if _LEFT_BY_A_KILL.fullmatch(path.name) and path.name not in named:
                path.unlink()
        if not named:
            folder.rmdir()


def _to_lists(values: npt.NDArray[np.generic], offsets: IntArray) -> pl.Series:
    """The values of each event as a list, null where it has none."""
    sizes = np.diff(offsets)
    event = pl.Series("event", np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)).set_sorted()
    grouped = pl.DataFrame([event, pl.Series("value", values)]).group_by(
        "event", maintain_order=True
    )
    lists = grouped.agg("value")
    if lists.height < len(sizes):
        every = pl.DataFrame({"event": np.arange(len(sizes), dtype=np.int32)})
        lists = every.join(lists, on="event", how="left", maintain_order="left")
    return lists["value"]


def _read_about(path: Path | Address) -> About:
    file = path / ABOUT
    if isinstance(path, Path) and not (path / ABOUT).is_file():
        if (path / _FORMER).is_file():
            raise LogFormatError(
                f"'{path}' was written by an earlier version: convert it anew from its source"
            )
        raise LogFormatError(
            f"'{path}' is no saved log ({ABOUT} is missing): name a folder made by save_log or "
            "`fastgaum data convert`"
        )
    try:
        return msgspec.json.decode(_bytes_of(file), type=About)
    except RecursionError:
        found = "its values are nested too deeply"
    except (OSError, ValueError) as error:
        found = one_line(error)
    raise LogFormatError(f"'{file}' is damaged, or of another version ({found}): {WAYS_OUT}")


def _checked_file(folder: Path | Address, table: StoredTable) -> Path | BytesIO:
    """A table's file, of an address its bytes, which are those that were written."""
    if Path(table.file).name != table.file:
        raise _DamagedFileError(
            f"'{folder / ABOUT}' names the file '{table.file}', a plain name is required: "
            f"{WAYS_OUT}"
        )
    path = folder / table.file
    if isinstance(path, Address):
        source: Path | BytesIO = BytesIO(content := _bytes_of(path))
        found = hashlib.sha256(content).hexdigest()
    else:
        source = path
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _DamagedFileError(
                f"'{path}' cannot be read ({one_line(error)}): {WAYS_OUT}"
            ) from None
    if found != table.sha256:
        raise _DamagedFileError(
            f"'{path}' has the sha256 {found[:12]} …, {ABOUT} says {table.sha256[:12]} …: it was "
            f"changed; {WAYS_OUT}"
        )
    return source


def _bytes_of(file: Path | Address) -> bytes:
    """Raises LogFormatError for an address that cannot be read."""
    if isinstance(file, Path):
        return file.read_bytes()
    try:
        return file.read_bytes()
    except OSError as error:
        raise _DamagedFileError(
            f"'{file}' cannot be read ({one_line(error)}): an address is that of a folder which "
            "`fastgaum data convert` wrote; check it, and your access"
        ) from None


def _log_of(about: About, frames: Mapping[TableOfLog, pl.DataFrame]) -> SessionLog:
    """Raises ValueError, naming what kernels could not trust."""
    events, items = frames["events"], frames["items"]
    offsets, _ = _from_lists(events["items"])
    arrays: dict[str, Any] = {}
    columns: dict[str, Column] = {}
    for table, frame in frames.items():
        for column in frame.drop("n_events", "action.items", "action.kinds", strict=False):
            kind, dot, name = column.name.partition(".")
            of: Any = kind if dot else ROLES.get(kind)
            values: Any = column
            _require(_TABLE_OF.get(of) == table, f"{column.name} is no column of {table}")
            if of == "candidate":
                starts, values = _from_lists(column)
                said = f"{column.name} has not one value per candidate"
                _require(np.array_equal(starts, offsets), said)
            elif not column.name.endswith("_ids"):
                values = column.rechunk().to_numpy()
            elif column.name != "event_ids":
                _require_texts(column.name, column)
            if not dot:
                arrays[column.name] = values
                continue
            _require(name not in columns, f"two columns are called {name}")
            texts = None
            if name in about.categories:
                texts = pl.Series(name, about.categories[name], pl.String)
            columns[name] = Column(of, values, texts)
    actions = None
    if about.kinds_of_actions is not None:
        kinds = pl.Series("kind", about.kinds_of_actions, pl.String)
        starts, acted = _from_lists(events["action.items"])
        own_starts, codes = _from_lists(events["action.kinds"])
        _require(np.array_equal(own_starts, starts), "action.kinds has not one value per action")
        actions = Actions(starts, acted, codes, kinds, about.actions_left_out)
    _require(about.categories.keys() <= columns.keys(), "categories are of no column")
    texts_of = {name: one.texts for name, one in columns.items() if one.texts is not None}
    for name, distinct in {"item_ids": items["item_ids"], **texts_of}.items():
        _require_texts(name, distinct)
        _require(not distinct.is_duplicated().any(), f"{name} holds a value twice")
    return SessionLog(
        session_offsets=_offsets(frames["sessions"]["n_events"]),
        display_offsets=offsets,
        columns=columns,
        ordered=about.ordered,
        grid=about.grid,
        name=about.name,
        clicks=about.clicks,
        weighted_by=about.weighted_by,
        actions=actions,
        **arrays,
    )


def _offsets(lengths: pl.Series) -> IntArray:
    return np.concatenate(([0], lengths.cast(pl.Int64).fill_null(0).cum_sum())).astype(np.int32)


def _from_lists(lists: pl.Series) -> tuple[IntArray, npt.NDArray[Any]]:
    values = lists.drop_nulls().explode().to_numpy()
    return _offsets(lists.list.len()), values


def _require_texts(name: str, column: pl.Series) -> None:
    _require(column.dtype == pl.String, f"{name} holds {column.dtype}")
    _require(not column.null_count(), f"{name} holds gaps")


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)
