"""Several clicks on one display, each a choice of what is left (`clicks="each"`).

A display of clicks c1, …, cm becomes m events; event j displays the rest without c1 … cj−1, and
chooses cj. If the log has displays without a click, one more says that the rest was not clicked.
The context `clicks_so_far` numbers a display's events from 0."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.clicks import CLICKS_SO_FAR, ClickFacts, is_successive, without_order
from fastgaum.logs.columns import Where, first_true
from fastgaum.logs.cut import check_size, pick_rows
from fastgaum.logs.log import NO_CLICK, Column, SessionLog
from fastgaum.logs.options import ReadOptions


def choices_of(
    clicks: pl.DataFrame,
    n_rows: int,
    display_offsets: IntArray,
    options: ReadOptions,
    name_event: Where,
) -> tuple[IntArray, ClickFacts]:
    """Position of each event's first click, -1 for none, and facts of clicks; clicks: event,
    candidate (ascending) and click, which sorts an event's, n_rows without a place. Raises
    LogFormatError where an event may not have several, or their order is not known."""
    counts = np.bincount(clicks["event"], minlength=len(display_offsets) - 1)
    several = counts > 1
    wrong = first_true(several)
    if wrong is not None and options.clicks == "error":
        raise LogFormatError(
            f"{name_event(wrong)} has {counts[wrong]} clicks, one is required: pass --clicks first "
            "(clicks='first'), which keeps the first, or --clicks each, by which each is a choice "
            "of what is left"
        )
    lost = clicks.filter(pl.Series(several[clicks["event"]]) & (pl.col("click") == n_rows))
    if lost.height:
        column = options.columns.get("click_order", "click_order")
        raise LogFormatError(without_order(name_event(int(lost["event"][0])), column))
    first = clicks.sort("click", maintain_order=True).unique("event", keep="first")
    events = first["event"].to_numpy()
    choices = np.full(len(counts), NO_CLICK, dtype=np.int32)
    choices[events] = first["candidate"].to_numpy() - display_offsets[events]
    more = int((counts[several] - 1).sum()) if options.clicks == "first" else 0
    return choices, ClickFacts(displays=len(counts), several=int(several.sum()), ignored=more)


def with_each_click(log: SessionLog, clicks: pl.DataFrame, options: ReadOptions) -> SessionLog:
    """A packed log as the option `clicks` wants it; clicks: as in `choices_of`. Raises
    LogFormatError."""
    if options.clicks != "each":
        check_successive(log)
        return log
    if CLICKS_SO_FAR in log.columns:
        kind = "candidate" if log.columns[CLICKS_SO_FAR].of == "candidate" else "context"
        raise LogFormatError(
            f"the {kind} field '{CLICKS_SO_FAR}' is what --clicks each adds: rename the column, or "
            "leave out --clicks each if the log has successive choices already"
        )
    # the number of each candidate's click in its display, -1 for none
    in_turn = clicks.sort("event", "click", maintain_order=True)
    turns = in_turn.select("candidate", number=pl.int_range(pl.len()).over("event"))
    numbers = np.full(log.n_candidates, -1, np.int32)
    numbers[turns["candidate"]] = turns["number"]
    sizes, display = np.diff(log.display_offsets).astype(np.int64), log.event_of_candidate()
    n_clicks = np.bincount(display[numbers >= 0], minlength=log.n_events)
    # what is left at the end is an event of its own
    n_events = n_clicks + ((n_clicks == 0) | ((n_clicks < sizes) & log.has_no_click))
    check_size(int((n_events * sizes - n_events * (n_events - 1) // 2).sum()))
    display_of_event = np.repeat(np.arange(log.n_events, dtype=np.int32), n_events)
    ends = np.cumsum(n_events)
    so_far = np.arange(len(display_of_event)) - np.repeat(ends - n_events, n_events)
    offsets, candidates = pick_rows(log.display_offsets, display_of_event)
    event = np.repeat(np.arange(len(so_far)), np.diff(offsets))
    number = numbers[candidates]
    left = (number < 0) | (number >= so_far[event])
    candidates, event, number = candidates[left], event[left], number[left]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(event)))).astype(np.int32)
    chosen = np.flatnonzero(number == so_far[event])
    choices = np.full(len(so_far), -1, np.int32)
    choices[event[chosen]] = chosen - offsets[event[chosen]]
    taken = log.picked(event=display_of_event, candidate=candidates)
    if "gap" in options.time_fields:
        gap = taken["columns"]["gap"]
        # further clicks are on the display that is there
        taken["columns"]["gap"] = gap.with_values(gap.values * (so_far == 0))
    taken["columns"][CLICKS_SO_FAR] = Column("event", so_far.astype(np.float32))
    return dataclasses.replace(
        log,
        **taken | {"choices": choices},
        session_offsets=np.concatenate(([0], ends))[log.session_offsets].astype(np.int32),
        display_offsets=offsets,
        # those before a display are before its first choice
        actions=log.actions and log.actions.before(np.flatnonzero(so_far == 0), len(so_far)),
    )


def check_successive(log: SessionLog) -> None:
    """Raise LogFormatError unless a field `clicks_so_far` counts the earlier clicks on the same
    display."""
    if not is_successive(log.context):
        return
    so_far = log.columns[CLICKS_SO_FAR].values
    cure = (
        "rename the column if it means something else, or read the log of displays with --clicks "
        "each, which makes the field"
    )
    if log.columns[CLICKS_SO_FAR].texts is not None:
        raise LogFormatError(
            f"the context field '{CLICKS_SO_FAR}' holds categories, numbers are required: write "
            f"them as decimals (1.0); {cure}"
        )
    before = np.concatenate(([-1], so_far[:-1]))
    right = (so_far == 0) | ((so_far == before + 1) & _displays_what_is_left(log))
    if not right.all():
        event = int(right.argmin())
        raise LogFormatError(
            f"event {log.event_number[event]} of session "
            f"{log.session_ids[int(log.session_of_event[event])]!r} has {CLICKS_SO_FAR} = "
            f"{so_far[event]:g}: 0 is required, or 1 more than in the event before, whose click is "
            f"the one item that this event no longer displays; {cure}"
        )


def _displays_what_is_left(log: SessionLog) -> npt.NDArray[np.bool_]:
    """Whether each event displays its session's last display less the click, shape (n_events,)."""
    sizes, events = np.diff(log.display_offsets), np.arange(1, log.n_events, dtype=np.int32)
    fits = (log.event_number[1:] > 0) & (log.choices[:-1] >= 0) & (sizes[1:] == sizes[:-1] - 1)
    events = events[fits]
    offsets, before = pick_rows(log.display_offsets, events - 1)
    left = np.delete(before, offsets[:-1] + log.choices[events - 1])
    now = pick_rows(log.display_offsets, events)[1]
    differs = np.bincount(
        np.repeat(np.arange(len(events)), sizes[events]), log.items[left] != log.items[now]
    )
    holds = np.zeros(log.n_events, np.bool_)
    holds[events] = differs == 0
    return holds
