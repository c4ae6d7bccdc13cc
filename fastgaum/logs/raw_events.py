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
from fastgaum.kernels.candidate_counts import number_candidates
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.cut import stable_order
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


RAW_COLUMNS = {"session", "key", "item", "views", "chosen"}
"""columns of raw rows that rules read"""


def fold_rows(raw: pl.DataFrame, log: SessionLog) -> RawEvents:
    """Fold the raw rows (see `raw_rows`) of a log. Raises LogFormatError if `log` was not made of
    them."""
    if not isinstance(raw, pl.DataFrame) or not set(raw.columns) >= RAW_COLUMNS:
        raise LogFormatError(
            f"the raw rows of a log are what fastgaum.logs.read.raw_rows gives, got {as_given(raw)}"
        )
    event, first_rows = _events_of_rows(raw)
    session = Vocabulary(log.session_ids).codes(raw["session"].gather(first_rows))
    item = Vocabulary(log.item_ids).codes(raw["item"])
    by_event = stable_order(event)
    row_offsets = np.append(0, np.cumsum(np.bincount(event)))
    candidate = np.empty(raw.height, np.int32)
    n_candidates = number_candidates(row_offsets, by_event, item, log.n_items, candidate)
    first = log.first_choices
    found = (len(session), n_candidates)
    displays = (int(first.sum()), int(np.diff(log.display_offsets)[first].sum()))
    if found != displays or session.min(initial=0) < 0:
        raise LogFormatError(
            f"the raw rows hold {found[0]} events and {found[1]} candidates, the log {displays[0]} "
            f"and {displays[1]}: pass the rows that the log was read from"
        )
    row = np.arange(raw.height, dtype=np.int32)
    # Of several rows the one written last stays.
    first_row, last_row = np.empty(n_candidates, np.int32), np.empty(n_candidates, np.int32)
    first_row[candidate[::-1]] = row[::-1]
    last_row[candidate] = row
    appearance = np.empty(log.n_items + 1, np.int32)
    appearance[item[::-1]] = row[::-1]
    event_of_candidate = event[first_row]
    offsets = np.searchsorted(event_of_candidate, np.arange(len(session) + 1)).astype(np.int32)
    chosen, choices = _clicks(raw, candidate, event_of_candidate, offsets)
    return RawEvents(
        sets=DisplaySets(offsets, choices, log.users[session], log.split[session] == TEST),
        first_row=first_row,
        last_row=last_row,
        rows=np.bincount(candidate, minlength=n_candidates).astype(np.int32),
        views=_sums(raw["views"], candidate, n_candidates),
        chosen=chosen,
        appearance=appearance[item[first_row]],
    )


def _events_of_rows(raw: pl.DataFrame) -> tuple[IntArray, npt.NDArray[np.int64]]:
    """Event of each row, in the order of the events' first rows, shape (n_rows,), and those rows,
    shape (n_events,)."""
    same = pl.lit(value=True)
    for name in ("session", "key"):
        same &= pl.col(name).eq_missing(pl.col(name).shift(1))
    same &= pl.int_range(pl.len()) > 0
    starts = np.flatnonzero(~raw.select(same=same)["same"].to_numpy())
    # An event is known by the first of its runs of rows.
    runs = raw.select("session", "key")[starts].with_row_index("run")
    first = runs.select(pl.col("run").min().over("session", "key"))["run"].to_numpy()
    known, event = np.unique(first, return_inverse=True)
    lengths = np.diff(np.append(starts, raw.height))
    return np.repeat(event.astype(np.int32), lengths), starts[known]


def _sums(views: pl.Series, candidate: IntArray, n_candidates: int) -> IntArray:
    """Sum of the rows' views of each candidate, shape (n_candidates,)."""
    sums = np.bincount(candidate, weights=views.to_numpy(), minlength=n_candidates)
    return np.clip(sums, 0, 2**31 - 1).astype(np.int32)


def _clicks(
    raw: pl.DataFrame, candidate: IntArray, event: IntArray, offsets: IntArray
) -> tuple[BoolArray, IntArray]:
    """Whether each candidate was chosen, shape (n_candidates,), and the position of the one that
    its event chose first, -1 for none, shape (n_events,). event: of each candidate."""
    flags = raw["chosen"].to_numpy()
    order = raw["click_order"] if "click_order" in raw.columns else None
    rows = np.flatnonzero(flags)
    clicks, clicked = click_numbers(flags, order)[rows], candidate[rows]
    chosen = np.zeros(len(event), np.bool_)
    chosen[clicked] = True
    choices = np.full(len(offsets) - 1, NO_CLICK, np.int32)
    # Of an event's clicks the first is written last; of clicks without a place in the order, the
    # candidate that comes last.
    written = clicked[np.lexsort((clicked, -clicks))]
    choices[event[written]] = written - offsets[event[written]]
    return chosen, choices
