"""The clicks of a nested log: which rows they are of, and which are of no row.

An event has a click, or a list of them in the order in which they were made."""

from __future__ import annotations

import numpy as np
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.clicks import without_order
from fastgaum.logs.columns import (
    CodedIds,
    Vocabulary,
    Where,
    first_true,
    ids_as_text,
    row_number,
    show,
)
from fastgaum.logs.event_order import order_of
from fastgaum.logs.schema import LogSchema, is_list

REFUSED = "\x1f"
"""what a layout puts before the text of a click that its file does not say; no id begins so"""


def as_list(column: pl.Series) -> pl.Series:
    """A column of lists, of fixed length too, as one of lists."""
    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def rows_of_items(clicks: pl.DataFrame, item: CodedIds, event_of_row: IntArray) -> IntArray:
    """The click of each row, -1 for none, shape (n_rows,), of clicks that are items: rows of one
    item of an event have the same."""
    codes, n = Vocabulary(item.texts).codes(clicks["value"]), len(item.texts)
    known = np.flatnonzero(codes >= 0)
    click_keys = clicks["event"].to_numpy()[known].astype(np.int64) * n + codes[known]
    keys = event_of_row.astype(np.int64) * n + item.codes
    rows = pl.Series(keys).is_in(pl.Series(click_keys).implode()).arg_true().to_numpy()
    order = np.argsort(click_keys)
    click_of_row = np.full(len(keys), -1, np.int32)
    click_of_row[rows] = known[order[np.searchsorted(click_keys[order], keys[rows])]]
    return click_of_row


def rows_of_positions(
    clicks: pl.DataFrame, lengths: pl.Series, column: str, name_event: Where
) -> IntArray:
    """The click of each row, -1 for none, shape (n_rows,), of clicks that are positions.

    lengths: candidates of each event. Raises LogFormatError for a click that is no position."""
    event, index = clicks["event"].to_numpy(), clicks["value"]
    numbers = index.cast(pl.Float64, strict=False).fill_nan(None)
    unread = numbers.is_null() & index.cast(pl.String).ne("NaN")
    # A missing index is NaN here, and every comparison with it is false.
    position, size = numbers.to_numpy(), lengths.to_numpy().astype(np.int64)
    click = first_true(
        unread.to_numpy() | (position < -1) | (position >= size[event]) | (position % 1 > 0)
    )
    if click is not None:
        of_click = size[event[click]]
        raise LogFormatError(
            f"{name_event(int(event[click]))} has '{column}' = {show(index[click])} for {of_click} "
            f"candidates, a position from 0 to {of_click - 1} is required (null or -1: no click): "
            f"correct the row, or if '{column}' is an item pass --column chosen={column} "
            f"(columns={{'chosen': '{column}'}})"
        )
    clicked = np.flatnonzero(position >= 0)
    click_of_row = np.full(size.sum(), -1, np.int32)
    starts = np.cumsum(size) - size
    click_of_row[starts[event[clicked]] + position[clicked].astype(np.int64)] = clicked
    return click_of_row


def read_clicks(table: pl.DataFrame, schema: LogSchema, name_event: Where) -> pl.DataFrame:
    """Event and value, the item as text or the position, of the clicks of all events, those of an
    event in their order; gaps are no clicks.

    Raises LogFormatError where the order of clicks is not one rank or time for each."""
    value, of_items = table[schema.choice], schema.chosen_index is None
    of_lists = is_list(value.dtype)
    event = np.arange(table.height, dtype=np.int32)
    frame = pl.DataFrame([pl.Series("event", event), value.alias("value")])
    if of_lists:
        value = as_list(value)
        lengths = value.list.len().fill_null(0)
        frame = pl.DataFrame(
            [
                pl.Series("event", np.repeat(event, lengths.to_numpy())),
                value.filter(lengths > 0).explode().alias("value"),
            ]
        )
        if schema.click_order is not None:
            order = _spread_order(table[schema.click_order], lengths, name_event)
            frame = frame.with_columns(order.alias("order"))
    if of_items:
        frame = frame.with_columns(
            ids_as_text(frame["value"].alias(schema.choice), "chosen").alias("value")
        )
    frame = frame.drop_nulls("value")
    if of_items:
        row = first_true(frame["value"].str.starts_with(REFUSED))
        if row is not None:
            # the file does not say whether there was a click
            of_event, text = frame.select("event", "value").row(row)
            raise LogFormatError(f"{row_number(of_event)} has {text.removeprefix(REFUSED)}")
    if "order" in frame.columns:
        wrong = frame.filter(pl.col("event").is_duplicated() & pl.col("order").is_null())
        if wrong.height:
            of_click = name_event(int(wrong["event"][0]))
            raise LogFormatError(without_order(of_click, schema.click_order or ""))
        frame = frame.sort("event", "order", maintain_order=True)
    if of_lists:
        frame = frame.unique(["event", "value"], keep="first", maintain_order=True)
    return frame.select("event", "value")


def _spread_order(column: pl.Series, lengths: pl.Series, name_event: Where) -> pl.Series:
    """What sorts clicks, of all events one after the other, null for those of an event without a
    list; lengths: clicks of each event."""
    if column.null_count() == len(column):
        return pl.Series([None] * int(lengths.sum()), dtype=pl.Int64)
    if not is_list(column.dtype):
        raise LogFormatError(
            f"column '{column.name}' is the order of clicks and holds {column.dtype}, a list of "
            "one rank or time for each click is required: correct it, or rename it, and clicks "
            "count in the order of their list"
        )
    lists = as_list(column)
    assert isinstance(lists.dtype, pl.List)
    gaps = pl.lit(None, lists.dtype.inner).repeat_by(lengths)
    lists = lists.to_frame().select(pl.coalesce(pl.col(column.name), gaps)).to_series()
    sizes = lists.list.len()
    event = first_true(sizes != lengths)
    if event is not None:
        raise LogFormatError(
            f"{name_event(event)} has {sizes[event]} values in '{column.name}' for "
            f"{lengths[event]} clicks, one each is required: make the lists equally long, or "
            "rename the column, and clicks count in the order of their list"
        )
    order = order_of(lists.filter(lengths > 0).explode())
    if order is None:
        raise LogFormatError(
            f"column '{column.name}' is the order of clicks and holds {column.dtype}: ranks or "
            "times are required"
        )
    return order
