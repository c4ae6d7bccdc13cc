"""Static item columns (category, brand, price) from a table of their own."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import polars as pl

from fastgaum.errors import LogFormatError, did_you_mean
from fastgaum.logs.columns import (
    encode_field,
    first_true,
    ids_as_text,
    require_filled,
    show,
)
from fastgaum.logs.log import SessionLog
from fastgaum.logs.schema import ROLE_NAMES, find_role
from fastgaum.logs.tables import open_table
from fastgaum.logs.vocabulary import Vocabulary


def attach_item_table(log: SessionLog, path: str | os.PathLike[str]) -> SessionLog:
    """Return the log with every other column of an item table as a static item field.

    The table (any format that `read_log` takes) has an item column and one row per item; rows of
    items that the log never displays are left out. Text becomes categories, code -1 where an item
    or a value is missing; numbers become float32, the mean of the log's other items standing in for
    a missing item or value.

    Raises LogFormatError for a missing item column, an item with two rows, a number that is not
    finite, a column named like another field, and a table that holds none of the log's items."""
    path = Path(path)
    try:
        table = open_table(path)
        column = find_role("item", table.dtypes)
        if column is None:
            raise LogFormatError(
                f"an item table needs an item column (accepted: {', '.join(ROLE_NAMES['item'])}); "
                "the columns are"
                f" {', '.join(table.dtypes)}{did_you_mean('item', table.dtypes)}: rename it"
            )
        frame = table.read(list(table.dtypes))
        return _attach(log, frame, column, table.untyped)
    except LogFormatError as error:
        raise LogFormatError(f"item table {path.name}: {error}") from None


def _attach(log: SessionLog, frame: pl.DataFrame, column: str, untyped: bool) -> SessionLog:
    ids = ids_as_text(frame[column], "item")
    require_filled(ids, "item", column)
    if frame.height == 0:
        raise LogFormatError("the table is empty (no rows): one row per item is required")
    twice = first_true(ids.is_duplicated())
    if twice is not None:
        rows = [row + 1 for row in (ids == ids[twice]).arg_true().head(2)]
        raise LogFormatError(
            f"item {show(ids[twice])} has the rows {rows[0]} and {rows[1]}, one row per item is "
            "required: drop one"
        )
    if len(frame.columns) == 1:
        raise LogFormatError(
            f"the only column is '{column}', at least one static column beside it is required: add "
            "one"
        )
    row_of_item = pl.Series(Vocabulary(ids).codes(log.item_ids)).replace(-1, None)
    if row_of_item.null_count() == log.n_items:
        raise LogFormatError(
            f"none of the log's {log.n_items} items is in the table (it has {show(ids[0])} …,"
            f" the log {show(log.item_ids[0])} …): use the same item ids in both"
        )
    fields = dict(log.item_fields)
    categories = dict(log.categories)
    for name in frame.columns:
        if name == column:
            continue
        if name in fields or name in log.candidate_fields:
            raise LogFormatError(
                f"column '{name}' is already a field of the log, names must differ: rename one of "
                "them"
            )
        values = frame[name].gather(row_of_item)
        fields[name], labels = encode_field(
            values,
            untyped=untyped,
            where=lambda item: f"item {show(log.item_ids[item])}",
            fill_mean=True,
        )
        if labels is not None:
            categories[name] = labels
    return dataclasses.replace(log, item_fields=fields, categories=categories)
