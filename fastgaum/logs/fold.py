"""From rows (one per displayed candidate) to a packed SessionLog, and back: duplicates are folded,
order is dropped, views are counted, and all is checked. Packed logs are cut and joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.columns import Vocabulary, Where, encode_fields, first_true, show
from fastgaum.logs.context import context_of_events
from fastgaum.logs.log import (
    FRACTIONS,
    NO_CLICK,
    SPLITS,
    FieldArray,
    IntArray,
    SessionLog,
    split_parts,
)
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions

MAX_ROWS = 2**31 - 1
"""offsets are int32, so a log holds at most this many candidates"""

MAX_VIEWS = 2**16 - 1
"""view counts are uint16 and stop here"""


@dataclass(frozen=True)
class Rows:
    """A log of either layout, one row per displayed candidate, every column already of its final
    type."""

    frame: pl.DataFrame
    """session (text), key (what tells the session's events apart), order (sortable, no null), label
    (what messages and `event_ids` call the event), item (text), chosen (bool), views (how many
    views the row stands for), and, where the log has them, user (text) and split (Int8)"""
    fields: Mapping[str, pl.Series]
    """candidate columns by name, each of frame.height rows"""
    untyped: bool = False
    """whether fields come from a format without types (csv)"""
    context: Mapping[str, pl.Series] = field(default_factory=dict)
    """columns of the events by name, text or numbers; each of frame.height rows, or where there is
    `event_of_row` of one value per event"""
    event_of_row: pl.Series | None = None
    """where each row's context is; None: in the row itself"""
    logs_views: bool = True
    """whether the view counts mean anything"""
    has_times: bool = True
    """whether order compares events of different sessions (a number or a time, not the order of
    rows)"""


@dataclass(frozen=True)
class Packed:
    """A packed log and what only the reader still needs."""

    log: SessionLog
    """its split is all train unless the rows carry one"""
    first_order: pl.Series
    """order (time) of each session's first event, length n_sessions"""


def pack_rows(rows: Rows, options: ReadOptions = DEFAULT_OPTIONS) -> Packed:
    """Pack a log's rows.

    Rows of one item in one event fold into one candidate: chosen if any of them is, viewed max(sum
    of views, 1) times, fields from its first row. The context is the same in all rows of an event.
    Sessions keep their order of appearance, events are sorted by order (ties by appearance). Item
    codes follow the sorted item ids, and unless `ordered` so do the candidates of a display set:
    neither says anything about the order of rows. With `choices="first"` the first chosen row of an
    event wins.

    Raises LogFormatError for two choices or two contexts in one event, a session with two users or
    splits, and for non-finite fields."""
    frame = rows.frame
    check_size(frame.height)
    session_ids = frame["session"].unique(maintain_order=True)
    session_of_row = Vocabulary(session_ids).codes(frame["session"])
    items = Vocabulary.of(frame["item"])
    events, candidates = _fold(frame, session_of_row, items.codes(frame["item"]), options.ordered)

    labels = frame["label"].gather(events["row"])
    display_offsets = offsets_of(candidates["event"].to_numpy(), events.height)
    session_of_event = events["session"].to_numpy()

    def name_event(event: int) -> str:
        session = session_ids[int(session_of_event[event])]
        return f"event {show(labels[event])} of session {show(session)}"

    event_of_candidate = candidates["event"].to_numpy()
    fields, categories = encode_fields(
        {name: column.gather(candidates["row"]) for name, column in rows.fields.items()},
        rows.untyped,
        lambda i: name_event(int(event_of_candidate[i])),
    )
    context = context_of_events(
        rows, frame.select(pl.Series("session", session_of_row), "key"), events, name_event
    )
    event_fields, of_context = encode_fields(context, False, name_event)
    users, split = _per_session(frame, session_ids, session_of_row)
    views = candidates["views"].clip(1, MAX_VIEWS).cast(pl.UInt16).to_numpy()
    log = SessionLog(
        session_offsets=offsets_of(session_of_event, len(session_ids)),
        display_offsets=display_offsets,
        items=candidates["item"].to_numpy(),
        choices=_choices(candidates, display_offsets, options.choices, name_event),
        split=split,
        users=users,
        session_ids=session_ids.rename("session"),
        event_ids=labels.rename("event"),
        item_ids=items.texts.rename("item"),
        views=views if rows.logs_views else None,
        candidate_fields=fields,
        event_fields=event_fields,
        categories=categories | of_context,
        ordered=options.ordered,
        name=options.name or "log",
    )
    return Packed(
        log, events.group_by("session").agg(pl.col("order").first()).sort("session")["order"]
    )


def check_size(n_rows: int) -> None:
    """Raise LogFormatError if offsets of `n_rows` candidates do not fit int32."""
    if n_rows > MAX_ROWS:
        raise LogFormatError(
            f"the log has {n_rows} rows, at most {MAX_ROWS} fit 32-bit offsets: split it into "
            "several logs"
        )


def offsets_of(sorted_codes: npt.NDArray[np.integer], n_segments: int) -> IntArray:
    """Start of each segment in sorted segment codes, shape (n_segments + 1,).

    >>> offsets_of(np.array([0, 0, 0, 1, 1]), 2).tolist()
    [0, 3, 5]
    """
    counts = np.bincount(sorted_codes, minlength=n_segments)
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int32)


def _fold(
    frame: pl.DataFrame, session_of_row: IntArray, item_of_row: IntArray, ordered: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events (session, key, order, row, event) and candidates (event, item, row, chosen_row,
    views), both sorted."""
    coded = frame.select(
        pl.Series("session", session_of_row),
        pl.Series("item", item_of_row),
        pl.col("key"),
        pl.col("order"),
        pl.col("views").cast(pl.Int64),
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
        pl.when(pl.col("chosen")).then(pl.int_range(pl.len(), dtype=pl.UInt32)).alias("chosen_row"),
    )
    events = (
        coded.group_by("session", "key")
        .agg(pl.col("order").min(), pl.col("row").min())
        .sort("session", "order", "row")
        .with_columns(pl.int_range(pl.len(), dtype=pl.Int32).alias("event"))
    )
    candidates = (
        coded.join(events.select("session", "key", "event"), on=["session", "key"])
        .group_by("event", "item")
        .agg(pl.col("row").min(), pl.col("chosen_row").min(), pl.col("views").sum())
        .sort("event", "row" if ordered else "item")
    )
    return events, candidates


def _choices(
    candidates: pl.DataFrame, display_offsets: IntArray, rule: str, name_event: Where
) -> IntArray:
    """Position of each event's chosen candidate, -1 for none."""
    chosen = candidates.select(
        "event", "chosen_row", pl.int_range(pl.len(), dtype=pl.Int32).alias("candidate")
    )
    chosen = chosen.filter(pl.col("chosen_row").is_not_null()).sort("event", "chosen_row")
    counts = np.bincount(chosen["event"].to_numpy(), minlength=len(display_offsets) - 1)
    event = first_true(counts > 1)
    if event is not None and rule == "error":
        raise LogFormatError(two_choices(name_event(event), int(counts[event])))
    chosen = chosen.unique("event", keep="first", maintain_order=True)
    events = chosen["event"].to_numpy()
    choices = np.full(len(display_offsets) - 1, NO_CLICK, dtype=np.int32)
    choices[events] = chosen["candidate"].to_numpy() - display_offsets[events]
    return choices


def two_choices(event: str, n: int) -> str:
    """Text of the error for an event with several choices."""
    return f"{event} has {n} choices, one is required: pass choices='first' or split the event"


def _per_session(
    frame: pl.DataFrame, session_ids: pl.Series, session_of_row: IntArray
) -> tuple[IntArray, npt.NDArray[np.int8]]:
    """User code (by appearance) and split of each session; a session that has two of either is
    refused."""
    n_sessions = len(session_ids)
    first_row = np.empty(n_sessions, dtype=np.int64)
    # Written backwards, so that the first row of each session is the one that stays.
    first_row[session_of_row[::-1]] = np.arange(frame.height - 1, -1, -1)

    def constant(column: str) -> pl.Series:
        values = frame[column]
        first = values.gather(first_row)
        row = first_true(values != first.gather(session_of_row))
        if row is not None:
            session = int(session_of_row[row])
            raise LogFormatError(
                f"session {show(session_ids[session])} has the {column}s {show(first[session])} and"
                f" {show(values[row])}, one is required: give each {column}'s part its own session "
                "id"
            )
        return first

    users = np.arange(n_sessions, dtype=np.int32)
    if "user" in frame.columns:
        user = constant("user")
        users = Vocabulary(user.unique(maintain_order=True)).codes(user)
    split = (
        constant("split").to_numpy()
        if "split" in frame.columns
        else np.zeros(n_sessions, dtype=np.int8)
    )
    return users, split


def to_frame(log: SessionLog) -> pl.DataFrame:
    """Return the log in the long layout, one row per candidate; `read_log` reads it back into the
    same log.

    Columns: session, event (0, 1, … within the session), event_label (only if it tells a session's
    events apart), item, chosen (0/1), user (its code), split (its name), views (if logged), the
    candidate fields and the context under their names. In the long layout an event without a click
    is one whose rows all have chosen = 0."""
    event_of_candidate = log.event_of_candidate()
    session_of_event = log.session_of_event
    session_of_candidate = session_of_event[event_of_candidate]
    chosen = np.zeros(log.n_candidates, dtype=np.int8)
    chosen[log.chosen_candidates] = 1
    columns: dict[str, pl.Series | npt.NDArray[np.generic]] = {
        "session": log.session_ids.gather(session_of_candidate),
        "event": log.event_number[event_of_candidate],
        "item": log.item_ids.gather(log.items),
        "chosen": chosen,
        "user": log.users[session_of_candidate],
        "split": pl.Series(SPLITS).gather(log.split[session_of_candidate]),
    }
    labelled = pl.DataFrame([pl.Series("session", session_of_event), log.event_ids.alias("label")])
    if log.n_events == labelled.n_unique():
        columns["event_label"] = log.event_ids.gather(event_of_candidate)
    if log.views is not None:
        columns["views"] = log.views
    for name, values in log.candidate_fields.items():
        columns[name] = _decoded(values, log.categories.get(name))
    for name, values in log.event_fields.items():
        columns[name] = _decoded(values, log.categories.get(name)).gather(event_of_candidate)
    return pl.DataFrame(columns)


def _decoded(values: FieldArray, categories: pl.Series | None) -> pl.Series:
    """Field values as they were read: numbers, or the text of each code (null for -1)."""
    if categories is None:
        return pl.Series(values)
    return Vocabulary(categories).decode(values.astype(np.int32))


def split_by_time(
    first_order: pl.Series, fractions: Sequence[float] = FRACTIONS
) -> npt.NDArray[np.int8]:
    """Split of each session, shape (n_sessions,), by the time of its first event: the earliest
    sessions train.

    Sessions of one time keep their order in the log. Raises LogFormatError if all sessions start at
    the same value: the event column then counts events within a session and is no time."""
    if len(first_order) > 1 and first_order.n_unique() == 1:
        raise LogFormatError(
            "split='time' needs times that differ between sessions, every session starts at "
            f"{show(first_order[0])}:"
            " name a time column (columns={'event': 'NAME'}) or use split='user'"
        )
    split = np.empty(len(first_order), dtype=np.int8)
    split[np.argsort(first_order.to_physical().to_numpy(), kind="stable")] = split_parts(
        len(first_order), fractions
    )
    return split


def pick_rows(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return the picked rows' own offsets, shape (n_rows + 1,), and the flat positions of their
    entries.

    >>> offsets, rows = np.array([0, 2, 3, 6], np.int32), np.array([2, 0], np.int32)
    >>> [part.tolist() for part in pick_rows(offsets, rows)]
    [[0, 3, 5], [3, 4, 5, 0, 1]]

    Raises:
        IndexError: a row does not exist.
    """
    # numba takes half a second to import, and most logs that are read are not cut
    from fastgaum.kernels.batching import picked_size, ragged_index

    offsets, rows = np.asarray(offsets), np.asarray(rows, dtype=np.int32)
    n = picked_size(offsets, rows)
    if n < 0:
        raise IndexError(f"a row outside 0 … {len(offsets) - 2} was asked for")
    picked, index = np.empty(len(rows) + 1, dtype=np.int32), np.empty(n, dtype=np.int32)
    ragged_index(offsets, rows, picked, index)
    return picked, index


def slice_sessions(log: SessionLog, rows: npt.ArrayLike) -> SessionLog:
    """Return the log of the given sessions, in the given order; items, users and categories keep
    their codes.

    `rows` are rows of `log`, shape (n_rows,). Raises IndexError for a row that is not in the log.
    """
    picked = np.asarray(rows)
    if len(picked) and picked.dtype.kind not in "iu":
        raise IndexError(
            f"rows are {picked.dtype}, session numbers are required: np.flatnonzero makes them of "
            "a mask"
        )
    if len(picked) and (picked.min() < 0 or picked.max() >= log.n_sessions):
        raise IndexError(
            f"rows go from {picked.min()} to {picked.max()}, the log has sessions 0 to "
            f"{log.n_sessions - 1}"
        )
    picked = picked.astype(np.int32)
    session_offsets, events = pick_rows(log.session_offsets, picked)
    display_offsets, candidates = pick_rows(log.display_offsets, events)
    return dataclasses.replace(
        log,
        session_offsets=session_offsets,
        display_offsets=display_offsets,
        items=log.items[candidates],
        choices=log.choices[events],
        split=log.split[picked],
        users=log.users[picked],
        session_ids=log.session_ids.gather(picked),
        event_ids=log.event_ids.gather(events),
        views=None if log.views is None else log.views[candidates],
        candidate_fields={
            name: values[candidates] for name, values in log.candidate_fields.items()
        },
        event_fields={name: values[events] for name, values in log.event_fields.items()},
    )


def join_logs(parts: Sequence[SessionLog]) -> SessionLog:
    """Return the sessions of all parts as one log; at least one part, all of the same items, fields
    and categories.

    Users of different parts are different users.
    """
    if len(parts) == 1:
        return parts[0]

    def offsets(each: Sequence[IntArray]) -> IntArray:
        lengths = np.concatenate([np.diff(one) for one in each])
        return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int32)

    def values(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    def fields(of: str) -> dict[str, FieldArray]:
        names = getattr(parts[0], of)
        return {name: np.concatenate([getattr(part, of)[name] for part in parts]) for name in names}

    first = parts[0]
    users = np.cumsum([0, *(int(part.users.max(initial=-1)) + 1 for part in parts[:-1])])
    return dataclasses.replace(
        first,
        session_offsets=offsets([part.session_offsets for part in parts]),
        display_offsets=offsets([part.display_offsets for part in parts]),
        users=np.concatenate(
            [part.users + start for part, start in zip(parts, users, strict=True)]
        ).astype(np.int32),
        session_ids=pl.concat([part.session_ids for part in parts]),
        event_ids=pl.concat([part.event_ids for part in parts]),
        views=None if first.views is None else values("views"),
        candidate_fields=fields("candidate_fields"),
        event_fields=fields("event_fields"),
        items=values("items"),
        choices=values("choices"),
        split=values("split"),
    )
