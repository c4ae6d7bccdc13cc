"""Tables beside a log: static columns of its items (category, price), and of its users (country,
age). One row says what is known of one item or user; the log stores it once, not per candidate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from fastgaum.errors import LogFormatError, did_you_mean
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.columns import (
    NO_CODE,
    Vocabulary,
    context_column,
    encode_field,
    first_true,
    ids_as_text,
    require_filled,
    show,
)
from fastgaum.logs.fields import require_column
from fastgaum.logs.fold import LONG_COLUMNS
from fastgaum.logs.log import FieldArray, SessionLog
from fastgaum.logs.schema import ROLE_NAMES, find_role
from fastgaum.logs.tables import open_table

Result = TypeVar("Result")


@dataclass(frozen=True)
class _SideTable:
    """A table of one row per item, or per user."""

    ids: pl.Series
    """whose row each is, as text, distinct"""
    columns: pl.DataFrame
    """what the rows say, without the ids"""
    untyped: bool
    """whether numbers may be given as text (csv)"""

    @classmethod
    def read(cls, path: Path, role: str, column: str | None = None) -> _SideTable:
        """The table of a file that `read_log` could read. `column` plays the role if the table has
        it, else the column that is called so."""
        table = open_table(path)
        known = list(table.dtypes)
        found = column if column in known else find_role(role, known)
        article = "an" if role[0] in "aeio" else "a"
        if found is None:
            raise LogFormatError(
                f"{article} {role} table needs {article} {role} column (accepted: "
                f"{', '.join(ROLE_NAMES[role])}); the columns are {', '.join(known)}"
                f"{did_you_mean(role, known)}: rename it"
            )
        frame = table.read(known)
        ids = ids_as_text(frame[found], role)
        require_filled(ids, role, found)
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
        return cls(ids, frame.drop(found), table.untyped)

    def check_new(self, log: SessionLog) -> None:
        """Raise LogFormatError if a column has the name of a field of the log."""
        of_log = (log.candidate_fields, log.event_fields, log.user_fields, log.item_fields)
        for name in self.columns.columns:
            if any(name in fields for fields in of_log):
                raise LogFormatError(
                    f"column '{name}' is already a field of the log, names must differ: rename one "
                    "of them"
                )


def _named(role: str, path: Path, work: Callable[[], Result]) -> Result:
    """Do something with a table; errors say which one it is."""
    try:
        return work()
    except LogFormatError as error:
        raise LogFormatError(f"{role} table {path.name}: {error}") from None


def attach_item_table(log: SessionLog, path: str | os.PathLike[str]) -> SessionLog:
    """Return the log with every other column of an item table as a static item field.

    The table (any format that `read_log` takes) has an item column and one row per item; rows of
    items that the log never displays are left out. Text becomes categories, code -1 where an item
    or a value is missing; numbers become float32, and a missing item or value gets the mean of the
    log's other items.

    Raises LogFormatError for a missing item column, an item with two rows, a number that is not
    finite, a column named like another field, and a table that holds none of the log's items."""
    path = Path(path)
    return _named("item", path, lambda: _with_items(log, _SideTable.read(path, "item")))


def _with_items(log: SessionLog, table: _SideTable) -> SessionLog:
    row_of_item = pl.Series(Vocabulary(table.ids).codes(log.item_ids)).replace(NO_CODE, None)
    if row_of_item.null_count() == log.n_items:
        raise LogFormatError(
            f"none of the log's {log.n_items} items is in the table (it has {show(table.ids[0])} "
            f"…, the log {show(log.item_ids[0])} …): use the same item ids in both"
        )
    table.check_new(log)
    fields, categories = dict(log.item_fields), dict(log.categories)
    for column in table.columns.iter_columns():
        name = column.name
        fields[name], labels = encode_field(
            column.gather(row_of_item),
            untyped=table.untyped,
            where=lambda item: f"item {show(log.item_ids[item])}",
            fill_mean=True,
        )
        if labels is not None:
            categories[name] = labels
    return replace(log, item_fields=fields, categories=categories)


@dataclass(frozen=True)
class UserTable:
    """What a table says of users: fields of the context that do not change within a session.

    Whole numbers and text are categories, decimal numbers are numbers, as in all context. A missing
    category has code -1, a missing number the mean of the table's others."""

    path: Path
    table: _SideTable
    fields: Mapping[str, FieldArray]
    """values of each row, shape (n_rows,)"""
    categories: Mapping[str, pl.Series]
    """values of the fields that are categories"""

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], has_users: bool, column: str | None = None
    ) -> UserTable:
        """Read a table of one row per user, in any format that `read_log` takes.

        Args:
            path: the file.
            has_users: whether the log has users; if not, its sessions are its users.
            column: the log's own name for its users, which the table may have too.

        Raises:
            LogFormatError: there is no user column, a user has two rows or no name, or a number is
                not finite.
        """
        file = Path(path)
        return _named("user", file, lambda: cls._encoded(file, has_users, column))

    @classmethod
    def _encoded(cls, path: Path, has_users: bool, column: str | None) -> UserTable:
        own = column if has_users else find_role("session", open_table(path).dtypes)
        table = _SideTable.read(path, "user", own)
        fields: dict[str, FieldArray] = {}
        categories: dict[str, pl.Series] = {}
        for one in table.columns.iter_columns():
            fields[one.name], labels = encode_field(
                context_column(one, table.untyped),
                untyped=False,
                where=lambda row: f"user {show(table.ids[row])}",
                fill_mean=True,
            )
            if labels is not None:
                categories[one.name] = labels
            if one.name in (*LONG_COLUMNS, CLICKS_SO_FAR):
                raise LogFormatError(
                    f"column '{one.name}' plays a role in logs, a field of users has another name: "
                    "rename it"
                )
        return cls(path, table, fields, categories)

    def attach(self, log: SessionLog, owners: pl.Series) -> SessionLog:
        """Return the log with the table's columns as fields of its users. owners: the user of each
        session as text, length n_sessions.

        Raises LogFormatError for a user of the log who has no row, and for a column named like
        another field."""
        return _named("user", self.path, lambda: self._joined(log, owners))

    def _joined(self, log: SessionLog, owners: pl.Series) -> SessionLog:
        ids = self.table.ids
        row_of_session = Vocabulary(ids).codes(owners)
        unknown = first_true(row_of_session < 0)
        if unknown is not None:
            missing = owners.filter(row_of_session < 0).n_unique()
            raise LogFormatError(
                f"user {show(owners[unknown])} of the log has no row ({missing} of its "
                f"{owners.n_unique()} users have none; the table has {show(ids[0])} …), one row "
                "per user is required: add it, its cells may be empty"
            )
        self.table.check_new(log)
        values = {name: np.asarray(of_row)[row_of_session] for name, of_row in self.fields.items()}
        return replace(
            log,
            user_fields={**log.user_fields, **values},
            categories={**log.categories, **self.categories},
        )


def check_saved_users(
    path: str | os.PathLike[str],
    fields: Mapping[str, FieldArray],
    categories: Mapping[str, pl.Series],
) -> None:
    """Raise LogFormatError unless a table of users may be the one that a saved log was made with.

    A saved log keeps no names of users, so no table can be joined to it. The table must say what
    the log says: it has the log's fields, no others, and all of their values.

    fields: of the saved log's users; categories: values of those that are categories."""
    file = Path(path)
    _named("user", file, lambda: _check_saved(file, fields, categories))


def _check_saved(
    path: Path, fields: Mapping[str, FieldArray], categories: Mapping[str, pl.Series]
) -> None:
    table = open_table(path)
    again = "read the original with it, or convert that again with it"
    if not fields.keys() & table.dtypes.keys():
        raise LogFormatError(
            "a saved log keeps no names of users, so that a table cannot be joined: " + again
        )
    for name in fields:
        require_column(name, table.dtypes, "a field of users of the saved log")
    others = [name for name in table.dtypes if name not in fields]
    if len(others) > 1:
        raise LogFormatError(
            f"one of the columns {', '.join(others)} names the users, and the log was saved without"
            f" the others: {again}"
        )
    frame = table.read(list(fields))
    for name, values in fields.items():
        column = context_column(frame[name], table.untyped)
        if (column.dtype == pl.String) != (name in categories):
            held: object = "categories" if name in categories else "numbers"
        elif name in categories:
            other = first_true(Vocabulary.of(column).codes(categories[name]) == NO_CODE)
            held = None if other is None else categories[name][other]
        else:
            # where the table has gaps, the log has its mean
            new = values[~np.isin(values, column.to_numpy().astype(np.float32))]
            held = None if column.null_count() or not len(new) else new[0]
        if held is not None:
            raise LogFormatError(
                f"the saved log has {held} in the field '{name}' of users, the table does "
                f"not: it is another table than the log was saved with; {again}"
            )
