"""The simple rules that an audit tries on a log: each ranks candidates without looking at the
choice.

Order, repeated rows and the numbering of items are gone from a packed log on purpose, so the rules
about them need the raw rows, in file order (`read.raw_rows`). Rules about ids, earlier displays and
fields need only the packed log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.kernels.context import counts_before
from fastgaum.logs.columns import parse_numbers
from fastgaum.logs.log import NO_CLICK, TEST, IntArray, SessionLog
from fastgaum.logs.vocabulary import Vocabulary

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

ORDER_DROPPED = "the order of rows is dropped, and ties are never broken by index"
ORDER_KEPT = (
    "the order was declared real and is kept as a field: compare every model with position alone"
)
IDS = "ids are categories, never numbers"
ROWS = "the click adds a row, so repeated rows are folded and views = max(rows without a click, 1)"
ONE_VIEW = "views are floored at 1, so that no candidate stands out by having none"
FIELD = (
    "kept, because it is declared as a field: make sure that it is known before the choice, or "
    "leave it out"
)
EARLIER_DISPLAYS = "fewest displays earlier in the session"
"""the rule that finds the trace of displays made up around a choice"""
SHOWN = (
    "known before the choice, bags count it: in displays that were simulated it is the trace of "
    "their rule"
)


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
class Rule:
    """Pick the candidate with the highest score."""

    name: str
    scores: Float64Array
    """shape (n_candidates,); ties are counted by their exact expectation"""
    sets: DisplaySets
    action: str
    """what the loader does about a log in which the rule works"""
    says: bool = True
    """whether it tells candidates apart anywhere in these display sets"""


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


def fold_rows(raw: pl.DataFrame, log: SessionLog) -> RawEvents:
    """Fold the raw rows (see `raw_rows`) of a log. Raises LogFormatError if `log` was not made of
    them."""
    row = pl.int_range(pl.len(), dtype=pl.Int32)
    candidates = (
        raw.select(
            pl.Series("session", Vocabulary(log.session_ids).codes(raw["session"])),
            pl.Series("item", Vocabulary(log.item_ids).codes(raw["item"])),
            pl.col("key"),
            pl.col("views").cast(pl.Int64),
            row.alias("row"),
            pl.when(pl.col("chosen")).then(row).alias("chosen_row"),
        )
        # An event is known by its first row.
        .with_columns(
            pl.col("row").min().over("session", "key").alias("event"),
            pl.col("row").min().over("item").alias("seen"),
        )
        .group_by("event", "item")
        .agg(
            pl.col("session", "seen", "chosen_row").min(),
            pl.col("row").min().alias("first_row"),
            pl.col("row").max().alias("last_row"),
            pl.len().cast(pl.Int32).alias("rows"),
            pl.col("views").sum().clip(0, 2**31 - 1).cast(pl.Int32),
        )
        .sort("event", "first_row")
    )
    event = candidates["event"].to_numpy()
    starts = np.flatnonzero(np.diff(event, prepend=-1))
    session = candidates["session"].to_numpy()[starts]
    if len(starts) != log.n_events or len(event) != log.n_candidates or session.min(initial=0) < 0:
        raise LogFormatError(
            f"the raw rows hold {len(starts)} events and {len(event)} candidates, the log "
            f"{log.n_events} and"
            f" {log.n_candidates}: pass the rows that the log was read from"
        )
    offsets = np.append(starts, len(event)).astype(np.int32)
    return RawEvents(
        sets=DisplaySets(
            offsets, _choices(candidates, offsets), log.users[session], log.split[session] == TEST
        ),
        **{
            name: candidates[name].to_numpy() for name in ("first_row", "last_row", "rows", "views")
        },
        chosen=candidates["chosen_row"].is_not_null().to_numpy(),
        appearance=candidates["seen"].to_numpy(),
    )


def _choices(candidates: pl.DataFrame, offsets: IntArray) -> IntArray:
    """Position of the candidate with the event's first chosen row; -1 where no row is chosen."""
    rows = candidates["chosen_row"].fill_null(2**31 - 1).to_numpy()
    sizes = np.diff(offsets)
    first = np.minimum.reduceat(rows, offsets[:-1])
    position = np.arange(len(rows)) - np.repeat(offsets[:-1], sizes)
    position[rows != np.repeat(first, sizes)] = -1
    best = np.maximum.reduceat(position, offsets[:-1])
    return np.where(first == 2**31 - 1, NO_CLICK, best).astype(np.int32)


def rules_of_rows(raw: RawEvents, *, ordered: bool) -> Iterator[Rule]:
    """Rules about the order of rows, their number, and the numbering of items by appearance."""
    order = ORDER_KEPT if ordered else ORDER_DROPPED

    def rule(name: str, scores: npt.NDArray[Any], action: str) -> Rule:
        return Rule(name, scores.astype(np.float64), raw.sets, action)

    yield rule("first position", -raw.first_row, order)
    yield rule("last position", raw.first_row, order)
    if raw.counts_views:
        yield rule("last row, repeats kept", raw.last_row, order)
    yield rule("largest item number in order of appearance", raw.appearance, IDS)
    yield rule("smallest item number in order of appearance", -raw.appearance, IDS)
    yield rule("most rows", raw.rows, ROWS)
    yield rule("fewest rows", -raw.rows, ROWS)
    if raw.counts_views:
        yield rule("zero view rows", raw.views == 0, ONE_VIEW)


def ranks_of_ids(item_ids: pl.Series) -> Float64Array:
    """Rank of each item's id, as a number where all are; shape (n_items,)."""
    numbers = parse_numbers(item_ids)
    # Ids of one value each ("7" and "07") keep the order of their text: rank both alike and they
    # simply tie.
    return (item_ids if numbers is None else numbers).rank("dense").to_numpy().astype(np.float64)


def rules_of_log(log: SessionLog, ranks: Float64Array | None = None) -> Iterator[Rule]:
    """Rules about item ids and each declared field alone, in both directions, and displays earlier
    in the session.

    ranks: of the log's ids, where they are known already (see `ranks_of_ids`).
    """
    sessions = log.session_of_event
    sets = DisplaySets(
        log.display_offsets, log.choices, log.users[sessions], log.split[sessions] == TEST
    )
    ids = (ranks_of_ids(log.item_ids) if ranks is None else ranks)[log.items]
    yield Rule("largest item id", ids, sets, IDS)
    yield Rule("smallest item id", -ids, sets, IDS)
    # Made-up displays repeat around the choice. The other direction is popularity, and each rule
    # costs the rest power.
    yield Rule(EARLIER_DISPLAYS, -_displays_before(log).astype(np.float64), sets, SHOWN)
    columns = dict(log.candidate_fields) | {
        name: values[log.items] for name, values in log.item_fields.items()
    }
    for name, values in columns.items():
        yield from _rules_of_field(name, np.asarray(values), name in log.categories, sets)


def _displays_before(log: SessionLog) -> IntArray:
    """Earlier events of its session that displayed a candidate's item, shape (n_candidates,)."""
    shown, chosen = np.zeros((2, log.n_candidates), dtype=np.int32)
    seen, picked = np.zeros((2, log.n_items), dtype=np.int32)
    packed = (log.session_offsets, log.display_offsets, log.items, log.choices)
    sessions, displays, items, choices = (np.asarray(part) for part in packed)
    counts_before(sessions, displays, items, choices, seen, picked, shown, chosen)
    return shown


def _rules_of_field(
    name: str, values: npt.NDArray[Any], categorical: bool, sets: DisplaySets
) -> Iterator[Rule]:
    missing = values < 0 if categorical else np.isnan(values)
    high, low = (
        ("last in alphabet", "first in alphabet") if categorical else ("largest", "smallest")
    )

    def scores(sign: float) -> Float64Array:
        # A missing value is picked last in either direction; whether it marks the choice is a rule
        # of its own.
        return np.where(missing, -np.inf, sign * values.astype(np.float64))

    yield Rule(f"field {name}, {high}", scores(1.0), sets, FIELD)
    yield Rule(f"field {name}, {low}", scores(-1.0), sets, FIELD)
    yield Rule(
        f"field {name}, missing", missing.astype(np.float64), sets, FIELD, says=bool(missing.any())
    )
