"""The order of events: numbers or times, also where a file holds them as text.

Text orders events if all of it reads as numbers, or all as times with the year first. Names leave
events in the order of their rows. What lies between is refused."""

from __future__ import annotations

from typing import Literal

import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.columns import refuse_rounded
from fastgaum.logs.number_text import first_three, parse_numbers, with_points

FEWEST_ORDERED = 0.1
"""share of numbers and times above which other values are faults"""
_DATE = r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ]|$)|^\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(?:[T ,]|$)"
_CLOCK = r"^\d{1,2}:\d{2}(?:\D|$)"
_DAY_AND_MONTH = r"^(\d{1,2})[-/.](\d{1,2})[-/.]\d{4}(?:[T ]|$)"
"""a date that ends in the year"""
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
    numbers = parse_numbers(with_points(column))
    return _parse_times(column) if numbers is None else _exact(numbers)


def order_of(column: pl.Series) -> pl.Series | None:
    """As `parse_order` where the order counts. Raises LogFormatError for text that reads as numbers
    or times in part, and for dates whose day and month can be exchanged."""
    parsed = parse_order(column)
    if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        text = column.cast(pl.String)
        if parsed is None:
            _refuse_half_read(text)
        elif parsed.dtype.is_temporal():
            _refuse_exchangeable(text)
    return parsed


def clock_of(column: pl.Series) -> pl.Series | None:
    """Times of text as their own clock showed them, without offsets from UTC; None where no value
    has one."""
    if not isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        return None
    text = column.cast(pl.String)
    if not text.str.contains(_OFFSET).any():
        return None
    return _parse_times(text.str.replace(_OFFSET, "$1"))


def _exact(numbers: pl.Series) -> pl.Series:
    """The numbers; NaN and infinities are missing."""
    if not numbers.dtype.is_float():
        return numbers
    refuse_rounded(numbers, "orders of events")
    return numbers.set(~numbers.is_finite(), None)


def _parse_times(text: pl.Series) -> pl.Series | None:
    unit: Literal["ns", "us"] = "ns" if text.str.contains(r"\.\d{7}").any() else "us"
    try:
        times = text.str.to_datetime(strict=False, time_unit=unit, time_zone="UTC")
    except pl.exceptions.PolarsError:
        return None
    return times if times.null_count() == text.null_count() else None


def _refuse_half_read(text: pl.Series) -> None:
    filled = text.drop_nulls()
    is_number = filled.cast(pl.Float64, strict=False).is_not_null()
    is_time = filled.str.contains(f"{_DATE}|{_CLOCK}")
    if int((is_number | is_time).sum()) <= FEWEST_ORDERED * len(filled):
        return
    wrong = filled.filter(~(is_number if is_number.sum() >= is_time.sum() else _is_time(filled)))
    raise LogFormatError(
        f"{len(wrong)} of the {len(filled)} values of '{text.name}', which orders events, read "
        f"neither as a number nor as a time as the others do ({first_three(wrong)}): write all as "
        "numbers, or all as times with a date, 2025-01-09 08:30:00, with an offset (+02:00) "
        "everywhere or nowhere; if they are names, begin each with a letter, and events keep the "
        "order of their rows"
    )


def _is_time(text: pl.Series) -> pl.Series:
    try:
        return text.str.to_datetime(strict=False, time_zone="UTC").is_not_null()
    except pl.exceptions.PolarsError:
        return pl.repeat(value=False, n=len(text), eager=True)


def _refuse_exchangeable(text: pl.Series) -> None:
    parts = text.str.extract_groups(_DAY_AND_MONTH).struct.unnest().cast(pl.Int64)
    first, second = (parts[name] for name in parts.columns)
    wrong = text.filter((first <= 12) & (second <= 12) & (first != second))
    if len(wrong):
        raise LogFormatError(
            f"{len(wrong)} of the {len(text)} dates of '{text.name}' do not say which number is "
            f"the day and which the month ({first_three(wrong)}): write the year first, "
            "2025-01-09"
        )
