"""Tables beside a log: static columns of its items (category, price), and of its users (country,
age), stored once per item or user."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.column_roles import (
    ROLE_NAMES,
    find_role,
    is_list,
    no_column,
    refuse_two,
    require_column,
)
from fastgaum.logs.columns import (
    MOST_NUMBER,
    as_list,
    context_column,
    encode_column,
    filled_ids,
    first_true,
    read_numbers,
    show,
)
from fastgaum.logs.fold import LONG_COLUMNS
from fastgaum.logs.log import Column, SessionLog
from fastgaum.logs.store import item_columns
from fastgaum.logs.tables import naming, open_table
from fastgaum.logs.vocabulary import NO_CODE, Vocabulary


def _read_table(path: Path, role: str, column: str | None) -> tuple[pl.Series, pl.DataFrame]:
    """Ids of a table's rows, in `column` or what is called as `role`; and its other columns, but
    one without a name, an index."""
    table = open_table(path)
    known = [name for name in table.dtypes if name]
    found = column if column in known else find_role(role, known)
    article = "an" if role[0] in "aeio" else "a"
    if found is None:
        needs = f"{article} {role} table needs {article} {role} column"
        raise no_column(needs, role, ROLE_NAMES[role], known)
    if found != column:
        refuse_two(role, found, ROLE_NAMES[role], known)
    frame = table.read(known)
    ids = filled_ids(frame[found], role)
    if frame.height == 0:
        raise LogFormatError(f"the table is empty (no rows): one row per {role} is required")
    twice = first_true(ids.is_duplicated())
    if twice is not None:
        rows = [row + 1 for row in (ids == ids[twice]).arg_true().head(2)]
        raise LogFormatError(
            f"{role} {show(ids[twice])} has the rows {rows[0]} and {rows[1]}, one row per "
            f"{role} is required: drop one"
        )
    if len(known) == 1:
        raise LogFormatError(
            f"the only column is '{found}', at least one static column beside it is required: "
            "add one"
        )
    return ids, frame.drop(found)


def _check_new(columns: Iterable[str], log: SessionLog) -> None:
    for name in columns:
        if name in log.columns:
            raise LogFormatError(
                f"column '{name}' is already a field of the log, names must differ: rename one of "
                "them"
            )


def attach_item_table(
    log: SessionLog,
    path: str | os.PathLike[str],
    vectors: Sequence[str] = (),
    means: dict[str, float] | None = None,
    categories: Container[str] = (),
) -> SessionLog:
    """Return the log with the other columns of an item table, one row per item, as static item
    fields; `vectors` are columns of lists of numbers. A missing category is code -1. A missing
    number is that of `means`; a column that it lacks gets there the mean of the log's numbers, or
    of the table's if the log has none; text of `categories` is no number. Raises LogFormatError."""
    means = {} if means is None else means
    with naming(path, "item table"):
        ids, table = _read_table(Path(path), "item", None)
        row_of_item = Vocabulary(ids).codes(log.item_ids)
        if (row_of_item == NO_CODE).all():
            raise LogFormatError(
                f"none of the log's {log.n_items} items is in the table (it has {show(ids[0])} "
                f"…, the log {show(log.item_ids[0])} …): use the same item ids in both"
            )
        for name in vectors:
            require_column(name, table.columns, "item vectors")
        _check_new(table.columns, log)
        rows = pl.Series(row_of_item).replace(NO_CODE, None)
        columns = dict(log.columns)
        for column in table.iter_columns():
            name = column.name
            if name in vectors:
                columns[name] = Column("item", item_vectors_of(column, ids, row_of_item))
                continue
            if is_list(column.dtype):
                raise LogFormatError(
                    f"column '{name}' holds lists, a static field has one value per item: if it "
                    f"holds vectors, name it (--item-vectors {name}, item_vectors=['{name}']), "
                    "else drop it"
                )
            # the whole column decides whether it holds numbers
            column = read_numbers(column, lambda row: f"item {show(ids[row])}", categories)
            columns[name] = encode_column(
                _of_rows(column, rows, means),
                "item",
                where=lambda item: f"item {show(log.item_ids[item])}",
            )
    return replace(log, columns=columns)


def _of_rows(column: pl.Series, rows: pl.Series, means: dict[str, float]) -> pl.Series:
    """The values of items or users, numbers without gaps. Raises LogFormatError where the table has
    no number."""
    found, dtype = column.gather(rows), column.dtype
    if not (dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)):
        return found
    for numbers in (found.cast(pl.Float64), column.cast(pl.Float64)):
        mean = numbers.filter(numbers.is_finite()).mean()
        if column.name not in means and isinstance(mean, float):
            means[column.name] = mean
    if not found.null_count():
        return found
    if column.name not in means and found.null_count() == len(found):
        raise LogFormatError(
            f"column '{column.name}' has no number: fill it in, or drop the column"
        )
    # without a mean the others are infinite, which is refused later
    return found.cast(pl.Float64).fill_null(means.get(column.name, 0.0))


def has_item_table(folder: str | Path, path: str) -> bool:
    """Whether a saved log has the columns of an item table. Raises LogFormatError."""
    with naming(path, "item table"):
        known = open_table(Path(path)).dtypes
    return {*known} - {find_role("item", list(known))} <= item_columns(folder)


def item_vectors_of(column: pl.Series, ids: pl.Series, row_of_item: IntArray) -> FloatArray:
    """The vectors of items, (n_items, d), of a column of lists; a missing one is the mean of the
    others. ids: of the column's rows; row_of_item: row of each item, -1 for none. Raises
    LogFormatError."""
    name, dtype = column.name, column.dtype
    if not isinstance(dtype, pl.List | pl.Array) or not dtype.inner.is_numeric():
        raise LogFormatError(
            f"column '{name}' holds {dtype}, vectors are lists of numbers: store them so in "
            "a parquet, arrow or ndjson file (a csv file has no lists), or name another column"
        )
    lists = as_list(column)
    lengths = lists.list.len().fill_null(0).to_numpy()
    # an empty list is a missing one
    filled = lengths > 0
    width = int(lengths.max(initial=0))
    other = first_true(filled & (lengths != width))
    if width == 0 or other is not None:
        row = int(lengths.argmax())
        raise LogFormatError(
            f"column '{name}' holds no vector: fill it, or name another column"
            if other is None
            else f"the vectors of column '{name}' have different lengths: item {show(ids[other])} "
            f"has length {lengths[other]}, item {show(ids[row])} {width}; one length is "
            "required: correct them, or leave a list empty where an item has none"
        )
    # a copy of a large table is not made where it need not be
    numbers = (lists if filled.all() else lists.filter(pl.Series(filled))).explode()
    gap = first_true(numbers.is_null()) if numbers.null_count() else None
    with np.errstate(over="ignore"):
        table = numbers.cast(pl.Float32).to_numpy().reshape(-1, width)
    if (
        gap is None
        and len(table)
        and not (table.min() >= -MOST_NUMBER and table.max() <= MOST_NUMBER)
    ):
        gap = first_true(~(np.abs(table) <= MOST_NUMBER).reshape(-1))
    if gap is not None:
        row, at = divmod(gap, width)
        item = ids[int(np.flatnonzero(filled)[row])]
        raise LogFormatError(
            f"the vector of item {show(item)} in column '{name}' has {show(numbers[gap])} at place "
            f"{at + 1} of {width}, a finite number is required: correct it, or leave the item's "
            f"list empty (the largest number is {MOST_NUMBER:g})"
        )
    place = np.where(filled, np.cumsum(filled) - 1, -1)
    found = np.where(row_of_item >= 0, place[row_of_item], -1)
    known = found >= 0
    if not known.any():
        raise LogFormatError(
            f"none of the items has a vector in column '{name}': fill it, or name another column"
        )
    if known.all():
        return np.ascontiguousarray(table[found])
    result = np.empty((len(found), width), np.float32)
    result[known] = table[found[known]]
    result[~known] = result[known].mean(0, dtype=np.float64)
    return result


def attach_user_table(
    log: SessionLog,
    path: str | os.PathLike[str],
    column: str | None = None,
    means: dict[str, float] | None = None,
    categories: Container[str] = (),
) -> SessionLog:
    """Return the log with the columns of a table of users, one row per user, as context; column:
    the log's own name for its users, None: its sessions are its users; means and
    categories: as of `attach_item_table`. Raises LogFormatError."""
    means = {} if means is None else means
    file, owners = Path(path), log.user_ids
    assert owners is not None
    with naming(file, "user table"):
        own = column or find_role("session", open_table(file).dtypes)
        ids, table = _read_table(file, "user", own)
        row_of_session = Vocabulary(ids).codes(owners)
        unknown = first_true(row_of_session < 0)
        if unknown is not None:
            missing = owners.filter(row_of_session < 0).n_unique()
            raise LogFormatError(
                f"user {show(owners[unknown])} of the log has no row ({missing} of its "
                f"{owners.n_unique()} users have none; the table has {show(ids[0])} …), one "
                "row per user is required: add it, its cells may be empty"
            )
        rows, at = np.unique(row_of_session, return_inverse=True)
        columns = {}
        for one in table.iter_columns():
            # the whole column decides whether it holds numbers, the log's users its mean and codes
            values = context_column(one, lambda row: f"user {show(ids[row])}", categories)
            of_rows = encode_column(
                _of_rows(values, pl.Series(rows), means),
                "user",
                where=lambda row: f"user {show(ids[int(rows[row])])}",
            )
            columns[one.name] = of_rows.with_values(of_rows.values[at])
            if one.name in (*LONG_COLUMNS, CLICKS_SO_FAR):
                raise LogFormatError(
                    f"column '{one.name}' plays a role in logs, a field of users has another name: "
                    "rename it"
                )
        _check_new(columns, log)
    return replace(log, columns={**log.columns, **columns})
