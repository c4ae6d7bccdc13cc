"""How a log of any size becomes a saved log in parts: rows are dealt out by a hash of their user,
then read, checked and saved part by part."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, require_path
from fastgaum.logs.clicks import ClickFacts
from fastgaum.logs.columns import show
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.datasets import Located, resolve
from fastgaum.logs.hashes import Hashes, find_shared
from fastgaum.logs.log import Column, SessionLog
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions
from fastgaum.logs.read import (
    finished_log,
    log_of_rows,
    open_log,
    read_with_rows,
    sampled,
    with_reading,
)
from fastgaum.logs.store import check_store_output, is_saved_log, load_log, save_log, save_parts
from fastgaum.logs.tables import naming, stem_of
from fastgaum.logs.vocabulary import Vocabulary

MOST_PARTS = 4096
Progress = Callable[[int, int], None]
"""receives parts done and parts in all"""


def save_in_parts(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    n_parts: int = 0,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Read a log that need not fit in memory, and save it in parts of whole users.

    Args:
        source: a registry name, a file, a folder of files, or a saved log.
        folder: of the saved log.
        n_parts: parts to make; 0: each file of a folder is one, and holds all rows of its users.
        data_dir: where names are looked up first, as in `read.load`.
        options: how to read it.
        overwrite: whether a saved log that is there is replaced.
        progress: told of each part.

    Raises:
        DatasetError: there is no such log.
        ConfigError: an option needs the whole log at once, or the number of parts is none.
        LogFormatError: the log breaks a rule, or two files hold the same user.
        OutputError: as `save_log`.
    """
    if not 0 <= n_parts <= MOST_PARTS:
        raise ConfigError(f"parts is {n_parts}, a number from 1 to {MOST_PARTS} is required")
    require_path("the folder to save a log in", folder)
    folder, found = Path(folder), resolve(source, data_dir)
    check_store_output(folder, overwrite)
    found.verify()
    options = options.over(found.options)
    with tempfile.TemporaryDirectory(dir=_above(folder), prefix=".parts-") as spare:
        if n_parts and (found.simulated or is_saved_log(found.source)):
            log = read_with_rows(found, options=options)[0]
            return save_parts(slices_by_user(log, n_parts), folder, overwrite=overwrite)
        made = _Parts(found, options, Path(spare))
        made.read(n_parts, progress or (lambda done, every: None))
        return save_parts(made.alike(), folder, overwrite=overwrite)


def _above(folder: Path) -> Path:
    """The nearest folder above one that exists: what is written there is on the same disk."""
    return next(one for one in folder.absolute().parents if one.is_dir())


def slices_by_user(log: SessionLog, n_parts: int) -> Iterator[SessionLog]:
    """A log in memory, cut by the hash of the user."""
    part = log.user_hashes % np.uint64(n_parts)
    for number in range(n_parts):
        yield slice_sessions(log, np.flatnonzero(part == number))
        # what was counted as the log was read is told once
        log = dataclasses.replace(log, clicks=ClickFacts(log.clicks.clicks, log.clicks.outside))


class _Parts:
    """The parts of a log while they are made, each a saved log of its own in `spare`."""

    def __init__(self, found: Located, options: ReadOptions, spare: Path) -> None:
        self.spare, self.given, self.path = spare, options, found.path
        with naming(found.path):
            self.opened = sampled(open_log(found.path, options))
        self.name = options.name or stem_of(found.path)
        if self.opened.options.actions is not None:
            raise _whole("actions", "an action may be of a user in any part")
        if self.opened.options.split == "time":
            raise _whole("a split by time", "it is cut at a time of the whole log")
        self.logs: list[Path] = []
        self.items = _Texts()
        self.texts = defaultdict[str, _Texts](_Texts)
        self.columns: dict[str, str] = {}
        self.means = dict(options.means)
        self.users: list[Hashes] = []

    def read(self, n_parts: int, progress: Progress) -> None:
        """Read part by part, and save each with the codes of its own items and categories."""
        parts = self._dealt(n_parts) if n_parts else self.opened.table.parts
        self.named = [path.name for path, _ in parts]
        for number, (path, rows) in enumerate(parts):
            progress(number, len(parts))
            with naming(path if not n_parts else self.path):
                frame = dataclasses.replace(self.opened.table, parts=((path, rows),)).read(
                    self.opened.columns
                )
                if not frame.height:
                    continue
                log = log_of_rows(frame, self.opened, self.means)[0]
                self._note(log, path.name)
            self.logs.append(save_log(log, self.spare / f"log-{number}"))
        progress(len(parts), len(parts))
        self._require_whole_users()

    def _dealt(self, n_parts: int) -> list[tuple[Path, pl.LazyFrame]]:
        """Write each row to the file of its user's part; polars streams."""
        user, folder = self.opened.schema.user or self.opened.schema.session, self.spare / "rows"
        part = (pl.col(user).cast(pl.String).hash() % n_parts).cast(pl.Int32).alias(_PART)
        for number, (path, rows) in enumerate(self.opened.table.parts):
            with naming(path):
                rows.select(*self.opened.columns, part).sink_parquet(
                    pl.PartitionBy(folder / str(number), key=_PART, include_key=False),
                    mkdir=True,
                    compression_level=1,
                )
        dealt = []
        for number in range(n_parts):
            files = sorted(folder.glob(f"*/{_PART}={number}/*.parquet"), key=_in_order)
            if files:
                dealt.append((files[0], pl.scan_parquet(files, hive_partitioning=False)))
        return dealt

    def _note(self, log: SessionLog, part: str) -> None:
        """Add a part's items and categories to those of all. Raises LogFormatError where a column
        holds numbers in one part and categories in another."""
        for name, column in log.columns.items():
            holds = self.columns.setdefault(name, column.holds)
            if holds != column.holds:
                raise LogFormatError(
                    f"column '{name}' holds {column.holds} values in part '{part}', {holds} values "
                    "in the parts before it: write its type in the file, as parquet does"
                )
            if column.texts is not None:
                self.texts[name].add(column.texts)
        self.items.add(log.item_ids)
        self.users.append(np.unique(log.user_hashes))

    def _require_whole_users(self) -> None:
        if (shared := find_shared(self.users)) is None:
            return
        first, second = (load_log(self.logs[number]) for number in shared[:2])
        at = int(np.flatnonzero(first.user_hashes == shared[2])[0])
        user = first.users[at] if first.user_ids is None else first.user_ids[at]
        numbers = (int(self.logs[number].name.split("-")[1]) for number in shared[:2])
        names = " and ".join(self.named[number] for number in numbers)
        raise LogFormatError(
            f"user {show(user)} is in two parts, {names} ({second.name}): a part holds all rows of "
            "its users; deal the rows out by a hash of the user, or let --parts N do it"
        )

    def alike(self) -> Iterator[SessionLog]:
        """The parts with the same codes of items, categories and users."""
        items = self.items.vocabulary()
        texts = {name: one.vocabulary() for name, one in self.texts.items()}
        of_items: Mapping[str, Column] | None = None
        n_users = grid = 0
        for path in self.logs:
            log = _recoded(load_log(path), items, texts, n_users)
            n_users = int(log.users.max(initial=n_users - 1)) + 1
            if of_items is None:
                # the table of items is read once, for the items of all parts
                log = finished_log(log, self.opened.options, self.means)
                of_items = {name: one for name, one in log.columns.items() if one.of == "item"}
                grid = log.grid
            columns = {**log.columns, **of_items}
            log = dataclasses.replace(log, name=self.name, grid=grid, columns=columns)
            yield with_reading(log, self.given, self.means)


def _recoded(
    log: SessionLog, items: Vocabulary, texts: Mapping[str, Vocabulary], n_users: int
) -> SessionLog:
    """A part with the codes that all parts have; its users are numbered from `n_users`."""
    columns = {}
    for name, column in log.columns.items():
        if column.texts is not None:
            codes = texts[name].codes_from(Vocabulary(column.texts))
            codes[-1] = -1
            column = Column(column.of, codes[column.values], texts[name].texts)
        columns[name] = column
    codes, actions = items.codes(log.item_ids), log.actions
    if actions is not None:
        actions = dataclasses.replace(actions, items=codes[actions.items])
    return dataclasses.replace(
        log,
        items=codes[log.items],
        item_ids=items.texts,
        actions=actions,
        users=log.users + np.int32(n_users),
        columns=columns,
    )


class _Texts:
    """The distinct texts of a column of all parts."""

    def __init__(self) -> None:
        self._found = [pl.Series("text", [], pl.String)]

    def add(self, texts: pl.Series) -> None:
        """Note the texts of a part."""
        self._found.append(texts.alias("text"))
        # what waits is at most as much as is known
        if sum(map(len, self._found[1:])) > len(self._found[0]):
            self._found = [pl.concat(self._found).unique()]

    def vocabulary(self) -> Vocabulary:
        """Their numbering."""
        return Vocabulary.of(pl.concat(self._found))


def _whole(option: str, why: str) -> ConfigError:
    return ConfigError(
        f"{option} cannot be read part by part, for {why}: leave it out, or read the log without "
        "parts"
    )


_PART = "__part"


def _in_order(path: Path) -> tuple[int, str]:
    return int(path.parent.parent.name), path.name
