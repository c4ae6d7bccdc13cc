"""A log of ranked lists as click models read it: all clicks of a list, and what the session says of
each result; and what a click model says of a list's first click.

Click models know one event per place, ours one choice per list; both speak of the topmost click.
Our choice is the first click in time, which in 3 % of clara2's lists with a click is not that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.logs.log import SessionLog
from fastgaum.reports.table import num, rows_to_markdown

FLAGS = (
    "displayed before in the session",
    "clicked before in the session",
    "the session's query before was the same",
    "the session has a click before",
)
"""what the session's lists before say: two flags of a result, two of the whole list"""


@dataclass(frozen=True)
class ClickLists:
    """Lists of a log in its order, padded to the longest."""

    pairs: IntArray
    """query and document, counted from 1; 0 for a pair that training never showed, shape (n_lists,
    n_places)"""
    places: IntArray
    """1, 2, …, 0 where the list has ended, shape (n_lists, n_places)"""
    clicks: npt.NDArray[np.float32]
    """1 for each result that was clicked, shape (n_lists, n_places)"""
    flags: npt.NDArray[np.float32]
    """of FLAGS, shape (n_lists, n_places, 4)"""
    choices: IntArray
    """place of the first click in time, from 0; -1 for none, shape (n_lists,)"""
    users: IntArray
    split: npt.NDArray[np.int8]
    """0 train, 1 validation, 2 test, shape (n_lists,)"""

    @property
    def topmost(self) -> IntArray:
        first = self.clicks.argmax(axis=1)
        return np.where(self.clicks.any(axis=1), first, -1).astype(np.int32)

    @property
    def n_pairs(self) -> int:
        return int(self.pairs.max())

    def of(self, split: int) -> ClickLists:
        here = self.split == split
        return ClickLists(**{name: values[here] for name, values in vars(self).items()})


def click_lists(log: SessionLog, clicked: pl.DataFrame, query: str = "query") -> ClickLists:
    """Lists of a log; `clicked` has columns session, event, clicked (list of all clicked items)."""
    asked = pl.DataFrame(
        {
            "session": log.session_ids[log.session_of_event].cast(pl.String),
            "event": log.event_ids.cast(pl.String),
        }
    )
    text = clicked.select(
        pl.col("session").cast(pl.String), pl.col("event").cast(pl.String), "clicked"
    )
    found = asked.join(text, on=["session", "event"], how="left", maintain_order="left")
    of_lists: list[list[str]] = found["clicked"].to_list()
    sizes = np.diff(log.display_offsets)
    shape = (log.n_events, int(sizes.max()))
    row = np.repeat(np.arange(log.n_events), sizes)
    column = np.arange(log.n_candidates) - np.repeat(log.display_offsets[:-1], sizes)
    items = np.full(shape, -1, np.int64)
    items[row, column] = log.items
    ids = log.item_ids.to_list()
    clicks = np.zeros(shape, np.float32)
    for at, names in enumerate(of_lists):
        clicks[at] = [code >= 0 and ids[code] in names for code in items[at]]
    queries = log.columns[query].values.astype(np.int64)
    split = np.asarray(log.split)[log.session_of_event]
    return ClickLists(
        pairs=_pairs(queries, items, split),
        places=np.where(items >= 0, np.arange(1, shape[1] + 1), 0).astype(np.int32),
        clicks=clicks,
        flags=_flags(log, queries, items, clicks),
        choices=np.asarray(log.choices),
        users=np.asarray(log.users)[log.session_of_event],
        split=split,
    )


def _pairs(
    queries: npt.NDArray[np.int64], items: npt.NDArray[np.int64], split: npt.NDArray[np.int8]
) -> IntArray:
    key = queries[:, None] * (items.max() + 1) + items
    known = np.unique(key[(items >= 0) & (split == 0)[:, None]])
    at = np.minimum(np.searchsorted(known, key), len(known) - 1)
    return np.where((known[at] == key) & (items >= 0), at + 1, 0).astype(np.int32)


def _flags(
    log: SessionLog,
    queries: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
    clicks: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    flags = np.zeros((*items.shape, len(FLAGS)), np.float32)
    for start, stop in zip(log.session_offsets[:-1], log.session_offsets[1:], strict=True):
        shown: set[int] = set()
        clicked: set[int] = set()
        for at in range(start, stop):
            flags[at, :, 0] = [item in shown for item in items[at]]
            flags[at, :, 1] = [item in clicked for item in items[at]]
            flags[at, :, 2] = at > start and queries[at] == queries[at - 1]
            flags[at, :, 3] = bool(clicked)
            shown.update(items[at])
            clicked.update(items[at][clicks[at] > 0])
    flags[items < 0] = 0
    return flags


def first_click(log_click: Float64Array) -> Float64Array:
    """Log probability that the topmost click is at each place, and of none: shape (n_lists,
    n_places + 1), the last column for none.

    `log_click` (n_lists, n_places) is the log probability of a click at a place given that no place
    above was clicked; -inf where the list has ended."""
    none_here = np.log1p(-np.exp(np.minimum(log_click, -1e-12)))
    none_above = np.cumsum(none_here, axis=1)
    above = np.concatenate([np.zeros((len(log_click), 1)), none_above[:, :-1]], axis=1)
    return np.concatenate([above + log_click, none_above[:, -1:]], axis=1)


CLICK_MODEL_COLUMNS = (
    "model",
    "session flags",
    "split",
    "prec@1",
    "NLL",
    "NLL of the topmost click",
    "L2",
    "seeds",
    "seconds",
)


def click_models_to_markdown(result: Mapping[str, Any]) -> str:
    rows = [CLICK_MODEL_COLUMNS] + [
        (
            row["model"],
            "yes" if row["flags"] else "no",
            row["split"],
            _with_interval(row["prec1"], row["prec1_ci"], 1),
            _with_interval(row["nll"], row["nll_ci"], 3),
            "" if row["nll_topmost"] is None else num(row["nll_topmost"], 3),
            "" if row["strength"] is None else f"{row['strength']:g}",
            str(row["seeds"]),
            num(row["seconds"], 0),
        )
        for row in sorted(result["rows"], key=lambda row: (row["split"] != "test", row["nll"]))
    ]
    tried = len({one["strength"] for one in result["tried"]})
    lists = ", ".join(
        f"{n} {split}" for split, n in {r["split"]: r["n_events"] for r in result["rows"]}.items()
    )
    units = result.get("intervals", "sessions")
    notes = (
        f"lists: {lists}; in brackets 95 % intervals from a bootstrap over {units}; seconds of one fit",
        f"epoch, and strength of the L2 prior (of {tried}), chosen on the validation lists, whose own "
        "rows are therefore a little too good",
    )
    return "\n".join([rows_to_markdown(rows, left=(0, 1, 2)), "", *(f"- {n}" for n in notes)])


def _with_interval(value: float, ci: list[float], digits: int) -> str:
    return f"{num(value, digits)} ({num(ci[0], digits)} to {num(ci[1], digits)})"
