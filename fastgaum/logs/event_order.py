"""The order of events: numbers or times, also where a file holds them as text.

Text orders events if all of it reads as numbers, or all as times with the year first. Names leave
events in the order of their rows. What lies between is refused."""

from __future__ import annotations

from typing import Literal

import polars as pl

from fastgaum.logs.columns import (
    NUMBER_LIKE,
    Where,
    parse_numbers,
    refuse_at,
    refuse_rounded,
    row_number,
)

FEWEST_ORDERED = 0.1
"""share of numbers and times above which other values are faults"""
_YEAR_FIRST = r"^\d{4}[-/.]\d"
_TIME_LIKE = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d|^\d{1,2}:\d\d"
_OFFSET = r"^(.*\d:\d.*?) ?(?:Z|[+-]\d\d(?::?\d\d)?)$"
"""a time with its offset from UTC"""


def parse_order(column: pl.Series) -> pl.Series | None:
    """Event order as numbers or times, nulls kept; None for text of neither kind. Raises
    LogFormatError for floats so large that neighbours are one number."""
    dtype = column.dtype
    if dtype.is_temporal():
        return column
    if len(column) and column.null_count() == len(column):
        # without a value a column has no kind, or that of text
        return column.cast(pl.Int64)
    if isinstance(dtype, pl.Boolean):
        return column.cast(pl.Float64)
    if isinstance(dtype, pl.Decimal):
        whole = column.cast(pl.Int64, strict=False)
        is_whole = whole.null_count() == column.null_count() and bool((whole == column).all())
        return whole if is_whole else _exact(column.cast(pl.Float64))
    if dtype.is_numeric():
        return _exact(column)
    if isinstance(dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        return None
    numbers = parse_numbers(column)
    return _all_times(column) if numbers is None else _exact(numbers)


def order_of(column: pl.Series, where: Where = row_number) -> pl.Series | None:
    """As `parse_order` where the order counts. Raises LogFormatError for text that reads as numbers
    or times in part, or as dates whose year does not come first."""
    parsed = parse_order(column)
    if parsed is not None or not isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        return parsed
    text = column.cast(pl.String)
    is_number = text.cast(pl.Float64, strict=False).is_not_null()
    is_time = text.str.contains(_TIME_LIKE).fill_null(value=False)
    if (is_number | is_time | text.str.contains(NUMBER_LIKE)).sum() > FEWEST_ORDERED * (
        len(text) - text.null_count()
    ):
        right = is_number if is_number.sum() >= is_time.sum() else _times(text).is_not_null()
        refuse_at(
            text,
            text.is_not_null() & ~right,
            "and orders events beside numbers or times: write all as numbers, or all as times with "
            "the year first, 2025-01-09 08:30:00, with an offset (+02:00) everywhere or nowhere; "
            "if they are names, begin each with a letter, and events keep the order of their rows",
            where,
        )
    return None


def clock_of(column: pl.Series) -> pl.Series | None:
    """Times of text as their own clock showed them, without offsets from UTC; None where no value
    has one."""
    if not isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        return None
    text = column.cast(pl.String)
    if not text.str.contains(_OFFSET).any():
        return None
    return _all_times(text.str.replace(_OFFSET, "$1"))


def _exact(numbers: pl.Series) -> pl.Series:
    """The numbers; NaN and infinities are missing."""
    if not numbers.dtype.is_float():
        return numbers
    refuse_rounded(numbers, "orders of events")
    return numbers.set(~numbers.is_finite(), None)


def _all_times(text: pl.Series) -> pl.Series | None:
    times = _times(text)
    return times if times.null_count() == text.null_count() else None


def _times(text: pl.Series) -> pl.Series:
    """Text with the year first as times, null for other text, or where offsets are mixed."""
    unit: Literal["ns", "us"] = "ns" if text.str.contains(r"\.\d{7}").any() else "us"
    dated = text.set(~text.str.contains(_YEAR_FIRST), None)
    try:
        return dated.str.to_datetime(strict=False, time_unit=unit, time_zone="UTC")
    except pl.exceptions.PolarsError:
        return pl.repeat(None, len(text), dtype=pl.Datetime(unit, "UTC"), eager=True)
