"""Writing a log in shards, one after the other: beside its place first, then renamed."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, OutputError, no_log, require_path
from fastgaum.files import atomic, sync_file, sync_folder
from fastgaum.locks import name_lock
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.digests import Digests
from fastgaum.logs.log import ItemCounts, SessionLog
from fastgaum.logs.shard_files import (
    MANIFEST,
    FieldKind,
    Manifest,
    Shard,
    StoredFile,
    Tables,
    field_columns,
)
from fastgaum.logs.shards import ShardedLog, is_saved_log, open_shards, totals_of_splits
from fastgaum.logs.synthetic import world
from fastgaum.untrusted_parquet import one_line

MOST_SHARDS = 99_999
SHARD_CANDIDATES = 1 << 25
"""candidates of a shard of `save_log`: writing takes some 30 bytes for each"""
GROUP_ROWS = 131_072
"""rows of a parquet row group"""


class ShardWriter:
    """The shards of one log so far; `write_shards` makes it."""

    def __init__(self, folder: Path, head: SessionLog, mark: str = "") -> None:
        self.folder, self.head, self.mark = folder, head, mark
        self.shards: list[Shard] = []
        self.counts = ItemCounts.zeros(head.n_items)
        self._digests = Digests()
        self._n_users = 0

    def add(self, part: SessionLog) -> None:
        """Write the next shard: sessions of users whom no other shard holds, coded from 0, with the
        items of the head."""
        stored = self._write(f"shard-{len(self.shards):05}", _rows(part))
        self.shards.append(Shard.of(part, stored))
        self._digests.add(part, self._n_users)
        self._n_users += self.shards[-1].users
        self.counts.add(part)

    def finish(self) -> None:
        """Write what is not a shard."""
        head = self.head
        fields = {f"item_fields_{i}": values for i, values in enumerate(head.item_fields.values())}
        vectors = {f"item_vectors_{i}": rows for i, rows in enumerate(head.item_vectors.values())}
        counts = dataclasses.asdict(self.counts)
        columns = {"item": head.item_ids, **fields, **vectors, **counts}
        items = self._write("items", pl.DataFrame(columns))
        texts = list(head.categories.values())
        if head.actions is not None:
            texts.append(head.actions.kind_names)
        named = [
            pl.DataFrame(
                {
                    "field": pl.repeat(i, len(values), dtype=pl.Int32, eager=True),
                    "value": values.alias("value"),
                }
            )
            for i, values in enumerate(texts)
        ]
        empty = pl.DataFrame(schema={"field": pl.Int32, "value": pl.String})
        categories = self._write("categories", pl.concat([empty, *named]))
        about = Manifest(
            name=head.name,
            ordered=head.ordered,
            grid=head.grid,
            views=head.views is not None,
            candidate_fields=_kinds(head, head.candidate_fields),
            event_fields=_kinds(head, head.event_fields),
            user_fields=_kinds(head, head.user_fields),
            clicks=head.clicks,
            actions_left_out=None if head.actions is None else head.actions.left_out,
            item_fields=list(head.item_fields),
            item_vectors=list(head.item_vectors),
            categories=list(head.categories),
            totals=totals_of_splits(self.shards),
            tables=Tables(items, categories),
            digests=self._digests.values(),
            shards=tuple(self.shards),
        )
        with atomic(self.folder / MANIFEST) as beside:
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=1) + b"\n")

    def _write(self, stem: str, frame: pl.DataFrame) -> StoredFile:
        name = f"{stem}{self.mark}.parquet"
        path = self.folder / name
        frame.write_parquet(
            path,
            compression="zstd",
            compression_level=1,
            row_group_size=GROUP_ROWS,
            statistics=False,
        )
        with open(path, "rb") as file:
            sync_file(file)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return StoredFile(name, path.stat().st_size, sha256)


@contextmanager
def write_shards(
    folder: str | os.PathLike[str], head: SessionLog, overwrite: bool = False
) -> Iterator[ShardWriter]:
    """Yield a writer to `add` shards to; on success the folder holds them. With `overwrite` a saved
    log that was there is replaced.

    At any moment the folder holds the former log or the new one, whole: the files of a replacement
    have names of their own, and a new shards.json makes them the log's.
    head: items, item fields, categories, the names and types of the other fields; its sessions are
        not looked at.

    Raises:
        OutputError: the folder holds a log and `overwrite` is False, or something else, or cannot
            be written; what was there then stays.
    """
    target = Path(folder)
    check_shards_output(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with name_lock(target):
            # another process may have written it meanwhile
            check_shards_output(target, overwrite)
            way = _replaced if is_saved_log(target) else _new
            with way(target, slice_sessions(head, np.zeros(0, np.int32))) as writer:
                yield writer
    except (OSError, pl.exceptions.PolarsError) as error:
        raise OutputError(
            f"cannot write the log '{target}': {one_line(error)}; free space or choose another "
            "folder"
        ) from None


@contextmanager
def _new(target: Path, head: SessionLog) -> Iterator[ShardWriter]:
    beside = target.parent / f".{target.name}.new-{secrets.token_hex(8)}"
    beside.mkdir()
    try:
        writer = ShardWriter(beside, head)
        yield writer
        writer.finish()
        beside.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _replaced(target: Path, head: SessionLog) -> Iterator[ShardWriter]:
    # those of the log that is there, and of a replacement that was killed
    former, mark = list(target.glob("*.parquet")), f".{secrets.token_hex(8)}"
    try:
        writer = ShardWriter(target, head, mark)
        yield writer
        writer.finish()
    except BaseException:
        former = list(target.glob(f"*{mark}.parquet"))
        raise
    finally:
        for path in former:
            path.unlink(missing_ok=True)


def save_log(log: SessionLog, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Save a log in a folder, which `load_log` loads; return the folder. With `overwrite` a saved
    log that is there is replaced in one step.

    The log is one shard; one of more than 33 million candidates, whose users come in order, is
    written as several, so that it need not be in memory whole.

    Raises:
        OutputError: as `write_shards`.
    """
    if not isinstance(log, SessionLog):
        raise no_log(log)
    require_path("the folder to save a log in", folder)
    in_order = bool((np.diff(log.users) >= 0).all())
    n_shards = 1 + log.n_candidates // SHARD_CANDIDATES if in_order else 1
    _write_log(log, folder, n_shards, overwrite)
    return Path(folder)


def check_shards_output(folder: Path, overwrite: bool) -> None:
    """Raise OutputError if something is there that is not to be replaced: a saved log, unless
    `overwrite`, or anything else. An empty folder is as good as none."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_saved_log(folder):
        raise OutputError(
            f"'{folder}' exists and is no saved log: choose another folder or remove it"
        )
    if not overwrite:
        raise OutputError(
            f"'{folder}' holds a saved log already: choose another folder, or pass --overwrite "
            "(overwrite=True) to replace it"
        )


def require_shards(n_shards: int) -> None:
    """Raise ConfigError unless a log can be cut into so many."""
    if not 1 <= n_shards <= MOST_SHARDS:
        raise ConfigError(
            f"shards is {n_shards}, a whole number from 1 to {MOST_SHARDS} is required"
        )


def shard_log(
    log: SessionLog, folder: str | os.PathLike[str], n_shards: int, *, overwrite: bool = False
) -> ShardedLog:
    """Write a log that is in memory as at most `n_shards` shards of about as many users each;
    return it opened.

    In one shard the log keeps its order; else users come in the order of their codes.

    Raises:
        ConfigError: n_shards is below 1.
        OutputError: as `write_shards`.
    """
    require_shards(n_shards)
    _write_log(log, folder, n_shards, overwrite)
    return open_shards(folder)


def _write_log(
    log: SessionLog, folder: str | os.PathLike[str], n_shards: int, overwrite: bool
) -> None:
    if log.user_ids is None and n_shards > 1:
        # codes are a shard's own
        log = dataclasses.replace(log, user_ids=pl.Series(log.users).cast(pl.String))
    distinct, user = np.unique(log.users, return_inverse=True)
    n_users = max(len(distinct), 1)
    bucket = user.astype(np.int64) * min(n_shards, n_users) // n_users
    with write_shards(folder, log, overwrite) as writer:
        if n_shards == 1:
            writer.add(log)
        for number in range(int(bucket.max(initial=-1)) + 1) if n_shards > 1 else ():
            part = slice_sessions(log, np.flatnonzero(bucket == number))
            codes = np.unique(part.users, return_inverse=True)[1].astype(np.int32)
            writer.add(dataclasses.replace(part, users=codes))


def synthesise_shards(
    n_events: int,
    folder: str | os.PathLike[str],
    n_shards: int,
    *,
    preset: str = "default",
    overwrite: bool = False,
    **changes: object,
) -> ShardedLog:
    """Draw a log as `synthetic.synthesise` does, part by part, each a shard; return it opened.
    Raises ConfigError for an impossible world or number of shards; OutputError."""
    require_shards(n_shards)
    drawn = world(preset, **changes)
    bounds = np.linspace(0, n_events, n_shards + 1).astype(np.int64).tolist()
    with write_shards(folder, drawn.draw_part(1, n_shards), overwrite) as writer:
        for part, (start, stop) in enumerate(itertools.pairwise(bounds)):
            writer.add(drawn.draw_part(stop - start, part))
    return open_shards(folder)


def _rows(part: SessionLog) -> pl.DataFrame:
    """One row per event."""
    of_session = part.session_of_event
    start = np.zeros(part.n_events, dtype=np.bool_)
    start[part.session_offsets[:-1]] = True
    sizes = pl.Series("n", np.diff(part.display_offsets))
    columns: dict[str, pl.Series | npt.NDArray[np.generic]] = {
        "start": start,
        "session": part.session_ids.gather(of_session),
        "user": np.asarray(part.users)[of_session],
        **({} if part.user_ids is None else {"user_id": part.user_ids.gather(of_session)}),
        "split": np.asarray(part.split)[of_session],
        "label": part.event_ids,
        "items": _lists(part.items, sizes),
        "choice": part.choices,
    }
    if part.views is not None:
        columns["views"] = _lists(part.views, sizes)
    for name, column in field_columns(part, "candidate_fields").items():
        columns[column] = _lists(part.candidate_fields[name], sizes)
    for name, column in field_columns(part, "event_fields").items():
        columns[column] = part.event_fields[name]
    for name, column in field_columns(part, "user_fields").items():
        columns[column] = np.asarray(part.user_fields[name])[of_session]
    if part.actions is not None:
        before = pl.Series(np.diff(part.actions.offsets))
        columns["acted_items"] = _lists(part.actions.items, before)
        columns["acted_kinds"] = _lists(part.actions.kinds, before)
    return pl.DataFrame(columns)


def _kinds(head: SessionLog, names: Iterable[str]) -> dict[str, FieldKind]:
    return {name: "int32" if name in head.categories else "float32" for name in names}


def _lists(values: npt.NDArray[np.generic], sizes: pl.Series) -> pl.Series:
    """Values of each event as a list, null where it has none."""
    event = pl.Series(
        "event", np.repeat(np.arange(len(sizes), dtype=np.int32), sizes.to_numpy())
    ).set_sorted()
    grouped = pl.DataFrame([event, pl.Series("value", np.asarray(values))]).group_by(
        "event", maintain_order=True
    )
    lists = grouped.agg("value")
    if lists.height < len(sizes):
        every = pl.DataFrame({"event": np.arange(len(sizes), dtype=np.int32)})
        lists = every.join(lists, on="event", how="left", maintain_order="left")
    return lists["value"]
