"""Raw rows folded to events and candidates are those of a walk over all rows."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.logs.audit_rules import DisplaySets, fold_events
from fastgaum.logs.column_roles import resolve_schema
from fastgaum.logs.fold import Rows
from fastgaum.logs.log import SessionLog
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from fastgaum.logs.rows import candidate_rows


def raw_frame(frame: pl.DataFrame) -> Rows:
    schema = resolve_schema(dict(frame.schema))
    return candidate_rows(frame, schema, ReadOptions(clicks="first"))


def naive_events(rows: Rows) -> list[tuple[str, int, list[dict[str, int]]]]:
    """Session, position of the choice and candidates of each event, in the order of their rows."""
    raw = table_of(rows)
    seen = {item: row for row, item in reversed(list(enumerate(raw["item"])))}
    events: dict[tuple[str, int], dict[str, dict[str, int]]] = {}
    clicks: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for row, one in enumerate(raw.iter_rows(named=True)):
        event = events.setdefault((one["session"], one["label"]), {})
        candidate = event.setdefault(
            one["item"],
            {"first_row": row, "rows": 0, "views": 0, "chosen": 0, "appearance": seen[one["item"]]},
        )
        candidate["last_row"] = row
        candidate["rows"] += 1
        candidate["views"] += one["views"]
        candidate["chosen"] |= one["chosen"]
        if one["chosen"]:
            place = one["click_order"]
            known = (0, place) if place is not None else (1, -list(event).index(one["item"]))
            clicks.setdefault((one["session"], one["label"]), []).append((*known, one["item"]))
    return [
        (key[0], list(event).index(min(clicks[key])[2]) if key in clicks else -1, [*event.values()])
        for key, event in events.items()
    ]


def table_of(rows: Rows) -> pl.DataFrame:
    """Rows as a table, a line for each."""
    views = np.ones(rows.n_rows, np.int64) if rows.views is None else rows.views
    return pl.DataFrame(
        [
            *(column.gather(rows.event_of_row) for column in rows.events.iter_columns()),
            rows.item.as_text().alias("item"),
            pl.Series("chosen", rows.chosen),
            pl.Series("views", views),
            *([] if rows.click_order is None else [rows.click_order.alias("click_order")]),
        ]
    )


def told(
    sets: DisplaySets, candidates: pl.DataFrame, log: SessionLog
) -> list[tuple[str, int, list[dict[str, int]]]]:
    """Folded rows in the form of `naive_events`."""
    rows = candidates.drop("event", "item", "click").to_dicts()
    ends = pairwise(sets.offsets)
    sessions = log.session_ids.gather(sets.users).to_list()
    return [
        (session, choice, rows[first:last])
        for (first, last), session, choice in zip(ends, sessions, sets.choices, strict=True)
    ]


@settings(max_examples=50)
@given(
    cells=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    together=st.booleans(),
    seed=st.integers(0, 9),
)
def test_folded_rows_are_those_of_a_walk_over_all_rows(
    cells: list[tuple[int, int, int, bool]], together: bool, seed: int
) -> None:
    frame = pl.DataFrame(
        sorted(cells, key=lambda cell: cell[:2]) if together else cells,
        schema=["session", "event", "item", "chosen"],
        orient="row",
    ).with_columns(pl.col("chosen").cast(pl.Int8))
    log = read_log(frame, clicks="first")
    order = np.random.default_rng(seed).permutation(len(cells)).tolist()
    places = pl.Series([None if place % 4 == 0 else place for place in order], dtype=pl.Int64)
    raw = dataclasses.replace(raw_frame(frame), click_order=places)
    assert told(*fold_events(raw, log), log) == naive_events(raw)
