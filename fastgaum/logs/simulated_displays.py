"""Logs whose display sets were never recorded: choices in, displays by a named rule, a packed
SessionLog out.

A session is a user's whole history, in time order; equal times are shuffled by the seed. Every
split is one of users. What a model scores on such a log depends on the rule as much as on the
users: audit it first."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, DatasetError, LogFormatError
from fastgaum.logs.cut import MAX_ROWS
from fastgaum.logs.display_rules import ChoiceTable, DisplayRule, Events, display_sets, read_choices
from fastgaum.logs.fields import require_column
from fastgaum.logs.fold import Rows, offsets_of, split_by_time, to_frame
from fastgaum.logs.layouts import ItemKind, Source, find_choices
from fastgaum.logs.log import IntArray, SessionLog, resplit
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadKeywords, ReadOptions
from fastgaum.logs.registry import Located, dataset, names, resolve, verify
from fastgaum.logs.rows import candidate_rows
from fastgaum.logs.schema import resolve_schema
from fastgaum.logs.side_tables import UserTable, attach_item_table

NEAREST = DisplayRule()
RELEASE_TIME = "release_time"
"""the candidate field that says when an item was released: the year, months as twelfths of it"""
IN_MEMORY = 1 << 26
"""candidates up to which a log is built in memory; a larger one stands in a temporary file, mapped
"""

Progress = Callable[[int, int], None]
"""called with the events that are done and all of them"""


@dataclass(frozen=True)
class Built:
    """A log with simulated displays, and what its reader must know."""

    log: SessionLog
    """candidates by item code, as in any unordered log; `as_rows` shuffles them"""
    rule: DisplayRule
    """how its displays were made up"""
    notes: tuple[str, ...]
    """one line each"""


def build_log(
    path: str | os.PathLike[str] | Source,
    rule: DisplayRule = NEAREST,
    *,
    item: ItemKind = "artist",
    options: ReadOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
    **given: Unpack[ReadKeywords],
) -> Built:
    """Build a log from choices without display sets: the folder or file of MovieLens or LastFM-1K
    (`layouts`).

    Args:
        path: the file or folder of choices.
        rule: `nearest` (the chosen item and those that other users chose nearest in time),
            `nearest-unseen` (without items that the user chose before), or `released-before` (items
            released in the calendar month before the choice, by year where only years are known).
            **Under `released-before` "oldest release first" finds the choice without learning**:
            its logs carry the field `release_time`, so that an audit can say so.
        item: what an item is in LastFM-1K, an artist or a track.
        options: `candidate_fields` may name `release_time`, which adds the release to logs of the
            other rules; `item_table` and `user_table` are as in `read_log` (MovieLens: its own
            movies.csv); `split` is "user" or "auto" (whole users 50/25/25 by `split_seed`), or
            "time" (by each user's first choice); `name` is what tables and messages call the log.
        progress: called with the events that are done and all of them.
        given: single options by name. They come first.

    Choices of items without a known release are left out where the release is needed.

    Raises:
        DatasetError: there are no choices, or no releases.
        LogFormatError: a file is damaged.
        ConfigError: an option is impossible, or says how to read displays that were recorded.
    """
    options = ReadOptions.of(**given).over(options)
    for field in options.candidate_fields:
        require_column(field, [RELEASE_TIME], "a candidate field")
    if options.split not in ("auto", "user", "time"):
        raise ConfigError(
            f"split is '{options.split}', the choices have none of their own: use 'user' or 'time'"
        )
    source = path if isinstance(path, Source) else find_choices(Path(path))
    of_displays = (
        "columns",
        "context_fields",
        "time_fields",
        "past",
        "actions",
        "clicks",
        "outside",
    )
    for option in (*of_displays, "ordered"):
        if getattr(options, option) != getattr(DEFAULT_OPTIONS, option):
            raise ConfigError(
                f"'{options.name or source.name}' has no recorded display sets, {option} says how "
                "to read some: leave the option out"
            )
    with_release = _needs_releases(rule, options)
    table = read_choices(source, item=item, releases=with_release)
    notes: list[str] = []
    if with_release:
        table, notes = _dated(table, source.path.name)
    log = _pack(table, rule, options.name or source.name, with_release, progress)
    if options.item_table is not None:
        log = attach_item_table(log, options.item_table)
    if options.user_table is not None:
        # a session is a user's whole history, under the user's name
        log = UserTable.read(options.user_table, has_users=True).attach(log, log.session_ids)
    log = (
        log.with_split(split_by_time(log, _first_times(log)))
        if options.split == "time"
        else resplit(log, options.split_seed)
    )
    return Built(log, rule, (*notes, *_warnings(log, rule)))


def build_named(
    name_or_path: str | os.PathLike[str],
    *,
    changes: Mapping[str, Any] = MappingProxyType({}),
    data_dir: str | os.PathLike[str] | None = None,
    item: ItemKind = "artist",
    options: ReadOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
) -> Built:
    """Build a log from choices that a registry name or a path names, as `build_log` does.

    Args:
        name_or_path: a registry name, or the file or folder of choices.
        changes: fields of `DisplayRule` that replace those of the registry's rule, or of the
            default.
        data_dir: where registry names are looked up first.
        item, options, progress: as in `build_log`.

    Raises:
        DatasetError: the name does not exist, or names a log that has display sets of its own.
        LogFormatError, ConfigError: as `build_log`.
    """
    if (
        isinstance(name_or_path, str)
        and name_or_path in names()
        and not dataset(name_or_path).simulated
    ):
        raise DatasetError(
            f"'{name_or_path}' has display sets of its own: read it as it is, by its name"
        )
    found = resolve(name_or_path, data_dir)
    rule = dataclasses.replace(registered_rule(found), **changes)
    if found.dataset is None:
        return build_log(found.path, rule, item=item, options=options, progress=progress)
    return build_registered(found, rule, item=item, options=options, progress=progress)


def build_registered(
    found: Located,
    rule: DisplayRule | None = None,
    *,
    item: ItemKind = "artist",
    options: ReadOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
) -> Built:
    """Build a registry's log that was found, by its own rule if none is given, as `build_log` does.

    Raises:
        DatasetError: a file has not the registry's sha256.
        LogFormatError, ConfigError: as `build_log`.
    """
    entry = found.dataset
    assert entry is not None
    rule, options = rule or registered_rule(found), options.over(found.options)
    for file in entry.files if _needs_releases(rule, options) else entry.files[:1]:
        path = found.path.with_name(Path(file.path).name)
        if path.is_file():
            verify(file, path)
    return build_log(found.path, rule, item=item, options=options, progress=progress)


def registered_rule(found: Located) -> DisplayRule:
    """The rule by which the registry makes up a log's displays; the default for a path."""
    return NEAREST if found.dataset is None else msgspec.convert(found.dataset.build, DisplayRule)


def shown_rows(log: SessionLog, seed: int) -> Rows:
    """The rows of a log with simulated displays as they would be written, for an audit
    (`read.raw_rows`)."""
    frame = to_frame(as_rows(log, seed))
    return candidate_rows(frame, resolve_schema(dict(frame.schema)), DEFAULT_OPTIONS)


def as_rows(log: SessionLog, seed: int) -> SessionLog:
    """Return the log with each display set's candidates shuffled by the seed: the order in which
    its rows are written."""
    rng = np.random.default_rng([seed, 2])
    event = log.event_of_candidate()
    order = np.lexsort((rng.random(log.n_candidates), event))
    place = np.empty(log.n_candidates, dtype=np.int32)
    place[order] = np.arange(log.n_candidates, dtype=np.int32)
    starts = log.display_offsets[:-1]
    return dataclasses.replace(
        log,
        items=log.items[order],
        choices=place[starts + log.choices] - starts,
        candidate_fields={field: values[order] for field, values in log.candidate_fields.items()},
    )


def _needs_releases(rule: DisplayRule, options: ReadOptions) -> bool:
    return rule.name == "released-before" or RELEASE_TIME in options.candidate_fields


def _dated(table: ChoiceTable, file: str) -> tuple[ChoiceTable, list[str]]:
    kept = table.with_known_release()
    if kept.n_choices == 0:
        raise LogFormatError(
            f"'{file}': no chosen item has a known release, at least one is required: check the "
            "items' ids"
        )
    notes = []
    if kept.n_choices < table.n_choices:
        notes.append(
            f"{table.n_choices - kept.n_choices} of {table.n_choices} choices left out: the "
            f"release of {len(table.item_ids) - len(kept.item_ids)} items is not known"
        )
    if table.period == "year":
        notes.append(
            "releases are known by year only: 'before' is the calendar year before the choice"
        )
    return kept, notes


def _pack(
    table: ChoiceTable, rule: DisplayRule, name: str, with_release: bool, progress: Progress | None
) -> SessionLog:
    n_events = table.n_choices
    if n_events * rule.displayed > MAX_ROWS:
        raise LogFormatError(
            f"{n_events} choices of {rule.displayed} candidates make {n_events * rule.displayed} "
            f"rows, at most {MAX_ROWS} fit 32-bit offsets: display fewer"
        )
    events = Events.of(table, rule.seed)
    items = _room_for(n_events * rule.displayed)
    sizes, choices = np.empty(n_events, dtype=np.int32), np.empty(n_events, dtype=np.int32)
    done = filled = 0
    for displays in display_sets(events, rule):
        part = slice(done, done + len(displays))
        is_candidate = displays >= 0
        sizes[part] = is_candidate.sum(axis=1)
        choices[part] = (is_candidate & (displays < displays[:, :1])).sum(axis=1)
        # Stored by item code, as in any unordered log: the place says nothing of the choice.
        displays.sort(axis=1)
        flat = displays[displays >= 0]
        items[filled : filled + len(flat)] = flat
        done, filled = part.stop, filled + len(flat)
        if progress is not None:
            progress(done, n_events)
    items = items[:filled]
    return SessionLog(
        session_offsets=offsets_of(table.users, len(table.user_ids)),
        display_offsets=np.concatenate(([0], np.cumsum(sizes))).astype(np.int32),
        items=items,
        choices=choices,
        split=np.zeros(len(table.user_ids), dtype=np.int8),
        users=np.arange(len(table.user_ids), dtype=np.int32),
        session_ids=table.user_ids.rename("session"),
        user_ids=table.user_ids.rename("user"),
        event_ids=pl.Series("event", events.table.times[events.rows]),
        item_ids=table.item_ids.rename("item"),
        candidate_fields={RELEASE_TIME: _release_times(table)[items]} if with_release else {},
        name=name,
    )


def _room_for(n_candidates: int) -> IntArray:
    if n_candidates <= IN_MEMORY:
        return np.empty(n_candidates, dtype=np.int32)
    # The file has no name and goes with the array.
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=np.int32, mode="w+", shape=(n_candidates,))


def _release_times(table: ChoiceTable) -> npt.NDArray[np.float32]:
    assert table.released is not None
    return (table.released / (12 if table.period == "month" else 1)).astype(np.float32)


def _first_times(log: SessionLog) -> pl.Series:
    return log.event_ids.gather(log.session_offsets[:-1])


def _warnings(log: SessionLog, rule: DisplayRule) -> list[str]:
    notes = []
    short = int((np.diff(log.display_offsets) < rule.displayed).sum())
    if short:
        notes.append(
            f"{short} of {log.n_events} displays have fewer than {rule.displayed} candidates: no "
            "more exist"
        )
    if rule.name == "released-before":
        found, floor = _oldest_first(log)
        notes.append(
            f"'oldest release first' finds the choice in {found:.1f} % of the events without "
            f"learning, a random order in {floor:.1f} %: this is the rule, not the user"
        )
    return notes


def _oldest_first(log: SessionLog) -> tuple[float, float]:
    """prec@1 in percent of the oldest candidate (ties by exact expectation) and of a random order,
    over all events."""
    released = log.candidate_fields[RELEASE_TIME]
    starts, sizes = log.display_offsets[:-1], np.diff(log.display_offsets)
    oldest = np.minimum.reduceat(released, starts)
    is_oldest = released == np.repeat(oldest, sizes)
    ties = np.add.reduceat(is_oldest, starts, dtype=np.int64)
    return 100 * float((is_oldest[starts + log.choices] / ties).mean()), 100 * float(
        (1 / sizes).mean()
    )
