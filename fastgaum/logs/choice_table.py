"""The choice table: who chose what and when, in time order, from a file of choices without display
sets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.columns import first_true, parse_numbers, row_number, show
from fastgaum.logs.decoder import READ_ERRORS, one_line
from fastgaum.logs.layouts import ItemKind, Period, Source
from fastgaum.logs.log import IntArray
from fastgaum.logs.vocabulary import Vocabulary

UNKNOWN = -1
"""period of an item whose release nobody knows"""
LATEST = 2**31 - 1
"""times are int32 seconds since 1970: 2038-01-19"""


@dataclass(frozen=True)
class ChoiceTable:
    """Choices sorted by time, then user, then item: the order of the file's rows leaves no
    trace."""

    users: IntArray
    """who chose, a row of `user_ids`, shape (n_choices,)"""
    times: IntArray
    """seconds since 1970, ascending, shape (n_choices,)"""
    items: IntArray
    """what was chosen, a row of `item_ids`, shape (n_choices,)"""
    user_ids: pl.Series
    """the file's own ids as text, sorted (as numbers if they are), length n_users; each has a
    choice"""
    item_ids: pl.Series
    """the file's own ids as text, sorted as text, length n_items; each was chosen"""
    released: IntArray | None = None
    """month or year of each item's release as in `layouts.Releases`, UNKNOWN (-1), shape
    (n_items,); None: not read"""
    period: Period = "year"
    """what `released` counts"""

    @property
    def n_choices(self) -> int:
        """Number of choices."""
        return len(self.items)

    def periods(self) -> IntArray:
        """The month or year of each choice in the units of `released`, shape (n_choices,)."""
        unit = self.times.astype("datetime64[s]").astype(
            "datetime64[M]" if self.period == "month" else "datetime64[Y]"
        )
        return (unit.astype(np.int64) + 1970 * (12 if self.period == "month" else 1)).astype(
            np.int32
        )

    def with_known_release(self) -> ChoiceTable:
        """Only choices of items whose release is known; users and items without any choice left are
        dropped."""
        assert self.released is not None
        kept = self.released[self.items] != UNKNOWN
        if kept.all():
            return self
        users, new_users = np.unique(self.users[kept], return_inverse=True)
        items, new_items = np.unique(self.items[kept], return_inverse=True)
        return dataclasses.replace(
            self,
            users=new_users.astype(np.int32),
            times=self.times[kept],
            items=new_items.astype(np.int32),
            user_ids=self.user_ids.gather(users),
            item_ids=self.item_ids.gather(items),
            released=self.released[items],
        )


def read_choices(
    source: Source, *, item: ItemKind = "artist", releases: bool = False
) -> ChoiceTable:
    """Read a file of choices; `item` says what an item is in LastFM-1K, `releases` asks for release
    dates as well.

    The file is read in a stream, twice: its ids, then its rows as codes, 12 bytes each.

    Raises LogFormatError for a file that cannot be read, a row without user or item, a time that is
    not one or lies outside 1970 to 2038, and a file with fewer than two users; DatasetError where
    there are no release dates."""
    known = source.releases() if releases else None
    rows = source.layout.scan(source.path, item).filter(~pl.all_horizontal(pl.all().is_null()))
    try:
        user_ids, item_ids = (_ids(rows, role) for role in ("user", "item"))
        table = rows.select(
            pl.col("user").cast(pl.Enum(user_ids)).to_physical().cast(pl.Int32),
            pl.col("time").cast(pl.Int64),
            pl.col("item").cast(pl.Enum(item_ids)).to_physical().cast(pl.Int32),
        ).collect(engine="streaming")
    except READ_ERRORS as error:
        raise LogFormatError(
            f"'{source.path.name}' is no well-formed {source.layout.name} file "
            f"({one_line(error)}): copy it again"
        ) from None
    _check(table, rows, source)
    if len(user_ids) < 2:
        raise LogFormatError(
            f"'{source.path.name}' has choices of {len(user_ids)} user, at least two are required: "
            "display sets are made"
            " of what others chose"
        )
    table = table.with_columns(pl.col("time").cast(pl.Int32)).sort("time", "user", "item")
    users, times, items = (table[column].to_numpy() for column in ("user", "time", "item"))
    if known is None:
        return ChoiceTable(users, times, items, user_ids, item_ids)
    released = (
        known.frame["released"]
        .fill_null(UNKNOWN)
        .append(pl.Series([UNKNOWN], dtype=pl.Int32))
        .to_numpy()
    )
    # Items that the file of releases does not have get code -1: the row appended for them.
    rows_of_items = Vocabulary(_distinct(known.frame["item"])).codes(item_ids)
    return ChoiceTable(
        users, times, items, user_ids, item_ids, released[rows_of_items], known.period
    )


def _ids(rows: pl.LazyFrame, role: str) -> pl.Series:
    """The distinct ids of a role: items sorted as text, as in any log, users by number where they
    are numbers."""
    ids = rows.select(pl.col(role).unique()).collect(engine="streaming")[role].drop_nulls().sort()
    numbers = parse_numbers(ids) if role == "user" else None
    return (
        ids
        if numbers is None
        else pl.DataFrame({"number": numbers, "id": ids}).sort("number", "id")["id"]
    )


def _distinct(ids: pl.Series) -> pl.Series:
    if ids.null_count():
        raise LogFormatError(
            f"{row_number(first_true(ids.is_null()) or 0)} of the items has no id: fill it in or "
            "drop the row"
        )
    twice = first_true(ids.is_duplicated())
    if twice is not None:
        raise LogFormatError(
            f"item {show(ids[twice])} has several release dates, one is required: drop a row"
        )
    return ids


def _check(table: pl.DataFrame, rows: pl.LazyFrame, source: Source) -> None:
    """Refuse a row that lacks something, with its number (blank lines and header not counted) and
    what it holds."""
    name = source.path.name
    if table.height == 0:
        raise LogFormatError(f"'{name}' is empty (no rows): at least one choice is required")
    for role in ("user", "item"):
        row = first_true(table[role].is_null())
        if row is not None:
            raise LogFormatError(
                f"'{name}': {row_number(row)} has no {role}: fill it in or drop the row"
            )
    row = first_true(
        table["time"].is_null() | ~table["time"].is_between(0, LATEST).fill_null(False)
    )
    if row is not None:
        found = table["time"][row]
        user = show(rows.slice(row, 1).collect()["user"][0])
        raise LogFormatError(
            f"'{name}': {row_number(row)} (user {user}) has "
            f"{'no time' if found is None else f'the time {found}'},"
            f" seconds from 1970 to 2038 (0 to {LATEST}) are required: correct it or drop the row"
        )
