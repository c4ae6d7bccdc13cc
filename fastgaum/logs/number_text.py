"""Numbers written as text: read where it is plain what they say, and refused where they would
become categories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import polars as pl

from fastgaum.errors import LogFormatError

BOOLEANS = ("false", "true")
CONTEXT_KINDS = (pl.Int128(), pl.Float64())
"""of text in the context: ids, whose text stays, or numbers"""
FEWEST_NUMBERS = 0.5
"""share of numbers above which text among them is a fault"""
_GROUPS = r"\d{1,3}(?:[,.' _]\d{3})+"
_NUMBER = rf"(?:{_GROUPS}|\d+(?:_\d+)*)(?:[.,]\d+)?"
_SIGN = r"(?:[$€£¥%]|EUR|USD|GBP|CHF)?"
FaultyNumbers = Literal["all", "decimals"]
"""make text beside them a fault"""
_LIKE = rf"^[+-]?{_SIGN} ?[+-]?{_NUMBER} ?{_SIGN}$"
_DECIMAL_LIKE = rf"^[+-]?{_SIGN} ?[+-]?(?:{_GROUPS}|\d+)[.,]\d+ ?{_SIGN}$"
_COMMA = r"^[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+)(?:,\d+)?$"
"""a number with a decimal comma, or a whole one"""
_SURE_COMMA = r",\d{1,2}$|,\d{4,}$|\.\d{3},|\d{4},|^[+-]?0\d*,"
"""its comma divides no thousands"""
MAYBE_THOUSANDS = r"^[+-]?[1-9]\d{0,2}(?:\.\d{3})+$"
"""its points may divide thousands: 1.087"""
_SURE_POINT = r"^[+-]?\d+\.(?:\d{1,2}|\d{4,})$"
"""its point divides no thousands"""
_POINT = r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?$"
"""decimal point, thousands divided by commas"""


def parse_numbers(text: pl.Series) -> pl.Series | None:
    """Text as Int64, else UInt64, else Float64, if every filled value allows it; else None."""
    missing = text.null_count()
    for dtype in (pl.Int64, pl.UInt64, pl.Float64):
        numbers = text.cast(dtype, strict=False)
        if numbers.null_count() == missing:
            return numbers
    return None


def parse_field(text: pl.Series) -> pl.Series | None:
    """The text of a field as `parse_numbers`, decimal commas too, or true and false, in capitals
    too, as 1 and 0; None for other text.

    >>> parse_field(pl.Series(["True", None, "false"])).to_list()
    [1.0, None, 0.0]"""
    if (plain := lower_booleans(text)).drop_nulls().is_in(BOOLEANS).all():
        return (plain == "true").cast(pl.Float64)
    return parse_numbers(with_points(text))


def lower_booleans(text: pl.Series) -> pl.Series:
    """The same text with true and false as they are written here, TRUE and False among them."""
    low = text.str.to_lowercase()
    return low.zip_with(mask, text) if (mask := low.is_in(BOOLEANS)).any() else text


def with_points(text: pl.Series) -> pl.Series:
    """The same text with a decimal point where all are numbers with a decimal comma, one surely.

    >>> with_points(pl.Series(["1.087,46", "12"])).to_list()
    ['1087.46', '12']
    >>> with_points(pl.Series(["1,234", "5,678"])).to_list()
    ['1,234', '5,678']"""
    commas = text.str.contains(_COMMA).all() and text.str.contains(_SURE_COMMA).any()
    return text.to_frame("").select(pointed(pl.col(""), ",")).to_series() if commas else text


def pointed(text: pl.Expr, decimal: str) -> pl.Expr:
    """Numbers in text with a decimal point, where `decimal` is their sign; other text stays."""
    if decimal == ",":
        plain = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        return pl.when(text.str.contains(_COMMA)).then(plain).otherwise(text)
    plain = text.str.replace_all(",", "", literal=True)
    return pl.when(text.str.contains(_POINT)).then(plain).otherwise(text)


def refuse_other_sign(text: pl.Series, decimal: str) -> None:
    """Raise LogFormatError for numbers whose decimal sign is surely not the one that is named."""
    other = text.str.contains(_SURE_POINT)
    if decimal == ".":
        other = text.str.contains(_COMMA) & text.str.contains(_SURE_COMMA)
    values = text.filter(other.fill_null(value=False))
    if len(values):
        raise LogFormatError(
            f"column '{text.name}' has {values[0]!r} ({len(values)} such values: "
            f"{first_three(values)}), and its decimal sign was said to be '{decimal}': name the "
            "right one (--decimal, decimal=), or write all numbers with one sign"
        )


def refuse_spoilt(text: pl.Series, where: Callable[[int], str], counted: FaultyNumbers) -> None:
    """Raise LogFormatError for a column of text most of which are numbers, and not all."""
    wrong = text.is_not_null() & text.cast(pl.Float64, strict=False).is_null()
    numbers = text.str.contains(_LIKE if counted == "all" else _DECIMAL_LIKE)
    if not wrong.any() or numbers.sum() <= FEWEST_NUMBERS * (len(text) - text.null_count()):
        return
    values, row = text.filter(wrong), int(wrong.arg_max() or 0)
    raise LogFormatError(
        f"{where(row)} has '{text.name}' = {values[0]!r}, and most values are numbers, which would "
        f"be read as categories because of it ({len(values)} such values: {first_three(values)}): "
        "write numbers as 1234.5 and leave no text among them, or name their decimal sign "
        "(--decimal , or decimal=','); if they are names, begin each with a letter, or give the "
        "column a categorical type"
    )


def first_three(text: pl.Series) -> str:
    """The first three values, each in quotes."""
    return ", ".join(map(repr, text.unique(maintain_order=True).head(3)))
