"""The raw rows of a log, for an audit: rows of one item in one event are folded to a candidate, and
what folding loses is kept.

The folded rows are arrays in the order of the file: no row is sorted where an event's rows stand
together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError, as_given
from fastgaum.kernels.candidate_counts import FoldedRows, fold_candidates
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.cut import MAX_ROWS, stable_order
from fastgaum.logs.fold import Rows
from fastgaum.logs.log import NO_CLICK, TEST, IntArray, SessionLog
from fastgaum.logs.successive import click_numbers

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DisplaySets:
    """Display sets that rules are scored on, in the order of their own candidates."""

    offsets: IntArray
    """start of each display set in candidates, shape (n_events + 1,)"""
    choices: IntArray
    """position of the chosen candidate, or -1 for no click, shape (n_events,)"""
    users: IntArray
    """user of each event, shape (n_events,)"""
    is_test: BoolArray
    """whether the event is in the test split, shape (n_events,)"""


@dataclass(frozen=True)
class RawEvents:
    """The raw rows of a log, folded to candidates, with what folding loses. Arrays have the shape
    (n_candidates,)."""

    sets: DisplaySets
    """candidates are in the order of their first rows"""
    first_row: IntArray
    """row of the file in which the candidate first stands in its display set"""
    last_row: IntArray
    rows: IntArray
    """number of its rows, the click's own included"""
    views: IntArray
    """rows without a click, or the sum of the log's own view counts"""
    chosen: BoolArray
    appearance: IntArray
    """the item's number in order of its first appearance in the file"""

    @property
    def counts_views(self) -> bool:
        """Whether view counts say anything: in a log of one row per candidate the chosen one never
        has a view row."""
        return bool((self.rows > 1).any() or (self.views > 1).any())


def fold_rows(raw: Rows, log: SessionLog) -> RawEvents:
    """Fold the raw rows (see `raw_rows`) of a log. Raises LogFormatError if `log` was not made of
    them."""
    if not isinstance(raw, Rows):
        raise LogFormatError(
            f"the raw rows of a log are what fastgaum.logs.read.raw_rows gives, got {as_given(raw)}"
        )
    event, lines = _events_of_rows(raw)
    session = Vocabulary(log.session_ids).codes(raw.events["session"].gather(lines))
    item = raw.item.codes
    if not raw.item.texts.equals(log.item_ids):
        item = Vocabulary(log.item_ids).codes_from(Vocabulary(raw.item.texts))[item]
    n_rows, views = raw.n_rows, np.zeros(0, np.int32)
    if raw.views is not None:
        views = np.clip(raw.views, 0, MAX_ROWS).astype(np.int32)
    candidate, first_row, last_row, rows, summed = (np.empty(n_rows, np.int32) for _ in range(5))
    appearance = np.full(log.n_items + 1, n_rows, np.int32)
    offsets = np.empty(len(session) + 1, np.int32)
    folded = FoldedRows(offsets, candidate, first_row, last_row, rows, summed, appearance)
    in_order = bool((event[1:] >= event[:-1]).all())
    by_event = np.arange(n_rows, dtype=np.int32) if in_order else stable_order(event)
    row_offsets = np.append(0, np.cumsum(np.bincount(event, minlength=len(session))))
    n = fold_candidates(row_offsets, by_event.astype(np.int32, copy=False), item, views, folded)
    first = log.first_choices
    found = (len(session), n)
    displays = (int(first.sum()), int(np.diff(log.display_offsets)[first].sum()))
    if found != displays or session.min(initial=0) < 0:
        raise LogFormatError(
            f"the raw rows hold {found[0]} events and {found[1]} candidates, the log {displays[0]} "
            f"and {displays[1]}: pass the rows that the log was read from"
        )
    chosen, choices = _clicks(raw, event, folded)
    return RawEvents(
        sets=DisplaySets(folded.offsets, choices, log.users[session], log.split[session] == TEST),
        first_row=folded.first_row[:n],
        last_row=folded.last_row[:n],
        rows=folded.rows[:n],
        views=folded.views[:n],
        chosen=chosen,
        appearance=folded.appearance[item[folded.first_row[:n]]],
    )


def _events_of_rows(raw: Rows) -> tuple[IntArray, npt.NDArray[np.int64]]:
    """Event of each row, in the order of the events' first rows, shape (n_rows,), and the line of
    each event in `raw.events`, shape (n_events,)."""
    if raw.event_of_row is not None:
        return raw.event_of_row, np.arange(raw.events.height)
    same = pl.lit(value=True)
    for name in ("session", "key"):
        same &= pl.col(name).eq_missing(pl.col(name).shift(1))
    same &= pl.int_range(pl.len()) > 0
    starts = np.flatnonzero(~raw.events.select(same=same)["same"].to_numpy())
    # An event is known by the first of its runs of rows.
    runs = raw.events.select("session", "key")[starts].with_row_index("run")
    first = runs.select(pl.col("run").min().over("session", "key"))["run"].to_numpy()
    known, event = np.unique(first, return_inverse=True)
    lengths = np.diff(np.append(starts, raw.n_rows))
    return np.repeat(event.astype(np.int32), lengths), starts[known]


def _clicks(raw: Rows, event: IntArray, folded: FoldedRows) -> tuple[BoolArray, IntArray]:
    """Whether each candidate was chosen, shape (n_candidates,), and the position of the one that
    its event chose first, -1 for none, shape (n_events,). event: of each row."""
    rows, clicks = click_numbers(raw.chosen, raw.click_order)
    clicked = folded.candidate[rows].astype(np.int64)
    chosen = np.zeros(folded.offsets[-1], np.bool_)
    chosen[clicked] = True
    choices = np.full(len(folded.offsets) - 1, NO_CLICK, np.int32)
    # Of an event's clicks the first is written last; of clicks without a place in the order, the
    # candidate that comes last.
    latest_first = np.lexsort((clicked, -clicks))
    written, events = clicked[latest_first], event[rows][latest_first]
    choices[events] = written - folded.offsets[events]
    return chosen, choices
