"""From rows (one per displayed candidate) to a packed SessionLog, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import selectors as cs

from fastgaum.arrays import BoolArray, IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.action_tables import ActionTable, pack_actions, with_acted_items
from fastgaum.logs.clicks import ClickFacts
from fastgaum.logs.columns import CodedIds, encode_column, first_true, read_numbers, show
from fastgaum.logs.context import time_columns
from fastgaum.logs.cut import check_size, stable_order
from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions
from fastgaum.logs.outcomes import encode_outcomes, with_outcomes
from fastgaum.logs.successive import choices_of, with_each_click
from fastgaum.logs.vocabulary import Vocabulary

LONG_COLUMNS = ("session", "event", "event_label", "item", "chosen", "user", "split", "views")
"""columns of `to_frame` that are no field's"""
MAX_VIEWS = 2**16 - 1
"""view counts are uint16 and stop here"""


@dataclass(frozen=True)
class Rows:
    """A log of either layout, one row per displayed candidate, every column of its final type."""

    events: pl.DataFrame
    """a line per event, in the order of their first rows: session (text), order (sortable, no
    null), label and, where the log has them, written (the text of times), clock (the same without
    offsets), user (text), split (Int8) and past (lists of items as text)"""
    event_of_row: IntArray
    """line of each row in `events`, shape (n_rows,)"""
    item: CodedIds
    chosen: BoolArray
    """whether the row is its event's choice, shape (n_rows,)"""
    fields: Mapping[str, pl.Series]
    """candidate columns by name, each of n_rows rows"""
    outcomes: Mapping[str, pl.Series] = field(default_factory=dict)
    """likewise what followed the choice of a row, read where it is chosen"""
    views: npt.NDArray[np.integer] | None = None
    """views of each row, shape (n_rows,); None: one, which counts only where an event repeats an
    item"""
    context: Mapping[str, pl.Series] = field(default_factory=dict)
    has_times: bool = True
    """whether order is a number or a time, not the order of rows"""
    click_order: pl.Series | None = None
    """sorts the clicks of an event, null where there is none; None: the order of rows"""
    clicks: ClickFacts = field(default_factory=ClickFacts)
    not_read: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    """columns of a wide table that are not there, in whose place is 0"""
    by_session: bool = False
    """whether each session is one display, since no column tells its displays apart"""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.item.codes)


def event_text(events: pl.DataFrame, line: int) -> str:
    """The event of a line of `Rows.events` in words, a time as its file has it."""
    label, session = events["label"][line], events["session"][line]
    said = events["written"][line] if "written" in events.columns else show(label)
    return f"event {said} of session {show(session)}"


def pack_rows(
    rows: Rows, options: ReadOptions = DEFAULT_OPTIONS, actions: ActionTable | None = None
) -> tuple[SessionLog, pl.Series]:
    """Pack a log's rows: the log, its split all train unless the rows carry one, and the order
    (time) of each session's first event, length n_sessions.

    Rows of one item in one event, whose fields are alike, fold into one candidate: chosen if any
    is, viewed max(sum of views, 1) times. Sessions keep their order of appearance, events are
    sorted by order, and candidates, unless `ordered`, by item id. Raises LogFormatError for values
    that contradict one another or are not finite."""
    check_size(rows.n_rows)
    pasts = rows.events["past"] if "past" in rows.events.columns else None
    rows = dataclasses.replace(rows, item=with_acted_items(rows.item, pasts, actions))
    session_ids = rows.events["session"].unique(maintain_order=True)
    sessions = Vocabulary(session_ids).codes(rows.events["session"])
    events, event_of_line = _in_order(rows, sessions)
    in_order = (event_of_line[1:] > event_of_line[:-1]).all()
    of_rows = rows.event_of_row if in_order else event_of_line[rows.event_of_row]
    candidates = fold_rows(rows, of_rows, by_item=not options.ordered)
    if candidates.height < rows.n_rows:
        _refuse_unlike(rows, of_rows)
    clicks = candidates.with_row_index("candidate").filter(pl.col("click") <= rows.n_rows)

    labels = rows.events["label"].gather(events["row"])
    display_offsets = offsets_of(candidates["event"].to_numpy(), events.height)
    session_of_event = events["session"].to_numpy()

    def name_event(event: int) -> str:
        return event_text(rows.events, int(events["row"][event]))

    def of_candidate(candidate: int) -> str:
        return name_event(candidates["event"][candidate])

    # a run judged its training log: a display of its model may have any part of that log's range
    judged = not options.recorded
    columns = {
        name: encode_column(
            read_numbers(column.gather(candidates["first_row"]), of_candidate, options.categories),
            "candidate",
            where=of_candidate,
            judged=judged,
        )
        for name, column in rows.fields.items()
    }
    if rows.outcomes:
        of_candidates = _outcomes_of(rows, of_rows, candidates)
        columns |= encode_outcomes(of_candidates, of_candidate, options.categories)
    for name, column in rows.context.items():
        column = column.gather(events["row"])
        columns[name] = encode_column(
            column,
            "event",
            where=name_event,
            judged=judged,
        )
    weights = columns.pop(options.weight).values if options.weight else None
    if "clock" in rows.events.columns:
        events = events.with_columns(rows.events["clock"].gather(events["row"]))
    columns |= time_columns(options.time_fields, events, rows.has_times, columns)
    users, split, owners = _per_session(rows.events, session_ids)
    choices, facts = choices_of(clicks, rows.n_rows, display_offsets, options, name_event)
    facts = dataclasses.replace(
        facts,
        clicks=options.clicks,
        outside=options.outside,
        displays=facts.displays + rows.clicks.displays,
        outside_displays=rows.clicks.outside_displays,
        outside_clicks=rows.clicks.outside_clicks,
    )
    order = events.select(
        "order",
        "row",
        session=session_ids.gather(events["session"]),
        user=owners.gather(events["session"]),
    )
    log = SessionLog(
        session_offsets=offsets_of(session_of_event, len(session_ids)),
        display_offsets=display_offsets,
        items=candidates["item"].to_numpy(),
        choices=choices,
        split=split,
        users=users,
        session_ids=session_ids.rename("session"),
        event_ids=labels.rename("event"),
        item_ids=rows.item.texts.rename("item"),
        views=(
            candidates["views"].clip(1, MAX_VIEWS).cast(pl.UInt16).to_numpy()
            if rows.views is not None or candidates.height < rows.n_rows
            else None
        ),
        weights=weights,
        weighted_by=options.weight or "",
        columns=columns,
        ordered=options.ordered,
        name=options.name or "log",
        clicks=facts,
        actions=pack_actions(order, rows.item.texts, pasts, actions, rows.has_times),
        user_ids=owners.rename("user"),
    )
    orders = events.group_by("session").agg(pl.col("order").first()).sort("session")["order"]
    log = with_each_click(log, clicks, options)
    return with_outcomes(log, tuple(rows.outcomes)), orders


def _outcomes_of(
    rows: Rows, event: npt.NDArray[np.integer], candidates: pl.DataFrame
) -> dict[str, pl.Series]:
    """What followed each candidate: the first outcome that is known among its chosen rows."""
    frame = pl.DataFrame({"event": event, "item": rows.item.codes, **rows.outcomes})
    first = (pl.col(name).drop_nulls().first() for name in rows.outcomes)
    found = frame.filter(pl.Series(rows.chosen)).group_by("event", "item").agg(first)
    kinds = {name: found.schema[name] for name in ("event", "item")}
    keys = candidates.select(pl.col(name).cast(kind) for name, kind in kinds.items())
    joined = keys.join(found, on=("event", "item"), how="left", maintain_order="left")
    return {name: joined[name] for name in rows.outcomes}


def _in_order(rows: Rows, sessions: IntArray) -> tuple[pl.DataFrame, IntArray]:
    """Order, session and line (row) of each event of the log, and the event of each line; given the
    session of each line."""
    events = rows.events.select("order", session=pl.Series(sessions)).with_row_index("row")
    events = events.sort("session", "order", "row").with_row_index("event")
    return events, np.argsort(events["row"].to_numpy()).astype(np.int32)


def candidate_of_rows(rows: Rows, log: SessionLog) -> IntArray:
    """The candidate that each row became in the log of `pack_rows`, of which no event has several
    clicks, shape (n_rows,)."""
    sessions = Vocabulary(log.session_ids).codes(rows.events["session"])
    events = _in_order(rows, sessions)[1][rows.event_of_row].astype(np.int64)
    items = Vocabulary(log.item_ids).codes(rows.item.texts)[rows.item.codes]
    keys = log.event_of_candidate().astype(np.int64) * log.n_items + log.items
    order = np.argsort(keys)
    return order[np.searchsorted(keys[order], events * log.n_items + items)].astype(np.int32)


def offsets_of(sorted_codes: npt.NDArray[np.integer], n_segments: int) -> IntArray:
    """Start of each segment in sorted segment codes, shape (n_segments + 1,)."""
    counts = np.bincount(sorted_codes, minlength=n_segments)
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int32)


def fold_rows(
    rows: Rows, event: npt.NDArray[np.integer], *, by_item: bool, distinct: bool = False
) -> pl.DataFrame:
    """Fold the rows of one item in one event (`event`: of each row) to a candidate; those of an
    event by items or first rows. distinct: whether no event repeats an item.

    Returns event, item, first_row, last_row, rows, views and click of each, the first of its
    clicks, which sorts an event's: n_rows without a place, n_rows + 1 if not chosen."""
    n, item = rows.n_rows, rows.item.codes
    clicked = np.flatnonzero(rows.chosen)
    clicks = np.full(n, n + 1)
    clicks[clicked] = clicked
    if rows.click_order is not None:
        ranks = rows.click_order.gather(clicked).rank("ordinal").cast(pl.Int64) - 1
        clicks[clicked] = ranks.fill_null(n).to_numpy()
    frame = pl.DataFrame({"event": event, "item": item, "click": clicks})
    frame = frame.with_row_index("first_row").with_columns(
        views=1 if rows.views is None else rows.views
    )
    same, later = event[1:] == event[:-1], event[1:] > event[:-1]
    in_order = same | later if distinct and not by_item else later | (item[1:] > item[:-1]) & same
    if in_order.all():
        return frame.with_columns(last_row="first_row", rows=1)
    # numpy sorts one number of a row several times as fast as polars groups two
    keys = event.astype(np.int64) * max(len(rows.item.texts), 1) + item
    order = stable_order(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    frame = frame[order]
    if len(starts) == n:
        frame = frame.with_columns(last_row="first_row", rows=1)
    else:
        ends = np.append(starts[1:], n)
        frame = frame[starts].with_columns(
            click=np.minimum.reduceat(frame["click"].to_numpy(), starts),
            views=np.add.reduceat(frame["views"].to_numpy(), starts, dtype=np.int64),
            last_row=frame["first_row"].gather(ends - 1),
            rows=ends - starts,
        )
    return frame if by_item else frame.sort("event", "first_row")


def _refuse_unlike(rows: Rows, event: npt.NDArray[np.integer]) -> None:
    """Raise LogFormatError for a field that differs among the rows of one item in one event."""
    if not rows.fields:
        return
    frame = pl.DataFrame({"event": event, "item": rows.item.codes}).with_row_index("row")
    first = frame.select(pl.col("row").min().over("event", "item"))["row"]
    for name, column in rows.fields.items():
        row = first_true(~column.eq_missing(column.gather(first)))
        if row is not None:
            item = show(rows.item.texts[int(rows.item.codes[row])])
            values = f"{show(column[int(first[row])])} and {show(column[row])}"
            raise LogFormatError(
                f"item {item} has rows of one event with '{name}' = {values}, one value is "
                "required, since an item is displayed once in an event: name what differs as items "
                "of their own (a rate of a room, a seat of a flight), or leave the field out"
            )


def _per_session(
    frame: pl.DataFrame, session_ids: pl.Series
) -> tuple[IntArray, npt.NDArray[np.int8], pl.Series]:
    """User code (by appearance), split and user of each session."""
    firsts = frame.select(~cs.list()).unique("session", keep="first", maintain_order=True)
    users, owners = np.arange(len(session_ids), dtype=np.int32), session_ids
    if "user" in frame.columns:
        owners = firsts["user"]
        users = Vocabulary(owners.unique(maintain_order=True)).codes(owners)
    split = np.zeros(len(session_ids), np.int8)
    if "split" in frame.columns:
        split = firsts["split"].to_numpy()
    return users, split, owners


def to_frame(log: SessionLog) -> pl.DataFrame:
    """Return the log in the long layout, one row per candidate, which `read_log` reads back.

    Columns: session, event (0, 1, … within the session), event_label (only if it tells a session's
    events apart), item, chosen (0/1), user, split (its name), views (if logged), weight (likewise;
    event_weight where a field is called so), the candidate fields and the context."""
    user_ids = pl.Series(log.users) if log.user_ids is None else log.user_ids
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
        "user": user_ids.gather(session_of_candidate),
        "split": pl.Series(SPLITS).gather(log.split[session_of_candidate]),
    }
    labelled = pl.DataFrame([pl.Series("session", session_of_event), log.event_ids.alias("label")])
    if log.n_events == labelled.n_unique():
        columns["event_label"] = log.event_ids.gather(event_of_candidate)
    if log.views is not None:
        columns["views"] = log.views
    if log.weights is not None:
        name = "weight"
        while name in log.columns:
            name = f"event_{name}"
        columns[name] = log.weights[event_of_candidate]
    of_candidate = {"event": event_of_candidate, "user": session_of_candidate}
    is_chosen = pl.Series(chosen == 1)
    for name, column in log.columns_of("candidate", "event", "user", "outcome").items():
        values = pl.Series(column.values)
        if column.texts is not None:
            # categories stay so, where all of them are numbers
            values = Vocabulary(column.texts).decode(column.values).cast(pl.Categorical)
        if column.of == "outcome":
            values = values.fill_nan(None) if column.texts is None else values
            values = values.gather(event_of_candidate).zip_with(is_chosen, pl.Series([None]))
        at = of_candidate.get(column.of)
        columns[name] = values if at is None else values.gather(at)
    return pl.DataFrame(columns)
