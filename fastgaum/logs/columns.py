"""Columns of a log, each turned into the type that folding needs, or refused with the row at
fault."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.log import Column, Of
from fastgaum.logs.vocabulary import NO_CODE, Vocabulary

SPLIT_CODES: dict[str, int] = {
    **dict.fromkeys(("0", "train", "training", "tr"), 0),
    **dict.fromkeys(("1", "validation", "valid", "val", "dev"), 1),
    **dict.fromkeys(("2", "test", "tst"), 2),
}

BOOLEANS = ("false", "true")
FEWEST_NUMBERS = 0.5
"""share of numbers above which text among them is a fault"""
_NUMBER = r"(?:\d{1,3}(?:[,.' _]\d{3})+|\d+(?:_\d+)*)(?:[.,]\d+)?"
_SIGN = r"(?:[$€£¥%]|EUR|USD|GBP|CHF)?"
NUMBER_LIKE = rf"^[+-]?{_SIGN} ?[+-]?{_NUMBER} ?{_SIGN}$"
"""also what polars reads as no number: 1,5, 1.087,46, $3"""

FLAGS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}

FEWEST_STEPS, FEWEST_JUDGED = 64, 100
"""steps of float32 over the range of a field's numbers below which it is refused, if it has as many
numbers"""
MOST_NUMBER = 1e30
"""largest size of a field's numbers: sums over a log stay finite in float32"""

REFUSED = "\x1f"
"""stands before the text of a click that its file does not say; no id begins so"""

# polars before 1.36 has no types of others, such as the periods of pandas
_OTHERS = getattr(pl, "BaseExtension", pl.Object)
_NO_TEXT = (pl.List, pl.Array, pl.Struct, pl.Binary, pl.Object, pl.Duration, _OTHERS)

Where = Callable[[int], str]
"""names the place of row i in a message: `row 17`, `event 3 of session 'u3'`"""


@dataclass(frozen=True)
class CodedIds:
    """A column of ids as codes of their sorted texts.

    >>> CodedIds.of(pl.Series([10, 9, None, 10]), "item").codes.tolist()
    [0, 1, -1, 0]"""

    codes: IntArray
    """code of each id, -1 for a gap, shape (n,)"""
    texts: pl.Series

    @classmethod
    def of(cls, column: pl.Series, role: str) -> CodedIds:
        """The ids of a column that plays `role`. Raises LogFormatError as `ids_as_text`."""
        known = column.drop_nulls().unique() if column.dtype.is_integer() else column
        text = ids_as_text(known, role)
        vocabulary = Vocabulary.of(text)
        codes = vocabulary.codes(text)
        if known is not column:
            of_id = pl.Series(codes)
            found = column.replace_strict(known, of_id, default=None, return_dtype=pl.Int32)
            codes = found.fill_null(NO_CODE).to_numpy()
        return cls(codes, vocabulary.texts)

    def as_text(self) -> pl.Series:
        """The column as text, null for a gap."""
        return Vocabulary(self.texts).decode(self.codes)


def show(value: object) -> str:
    """Return a value as a message shows it: text in quotes, anything else bare."""
    return repr(value) if isinstance(value, str) else str(value)


def row_number(index: int) -> str:
    """Name row `index` (from 0) as a reader counts it, from 1, the header not counted."""
    return f"row {index + 1}"


def first_true(mask: pl.Series | npt.NDArray[np.bool_]) -> int | None:
    """Index of the first true entry, if any."""
    array = mask.to_numpy() if isinstance(mask, pl.Series) else mask
    return int(array.argmax()) if array.any() else None


def of_several(wrong: pl.Series) -> str:
    """Return how many rows share a fault, and the first of them; empty for one row.

    >>> of_several(pl.Series([False, True, True]))
    ' (one of 2 such rows: 2, 3)'"""
    rows = wrong.fill_null(value=False).arg_true()
    if len(rows) < 2:
        return ""
    first = ", ".join(str(row + 1) for row in rows.head(3))
    return f" (one of {len(rows)} such rows: {first}{', …' if len(rows) > 3 else ''})"


def ids_as_text(column: pl.Series, role: str) -> pl.Series:
    """Ids as text: text, numbers by their digits (36.0 as 36, 1.50 as 1.5), booleans, times without
    a fraction of 0; NaN and empty text are null. Raises LogFormatError for lists, records, bytes,
    durations and pandas' own types, and for rounded floats."""
    dtype = column.dtype
    if isinstance(dtype, _NO_TEXT):
        raise LogFormatError(
            f"the {role} column '{column.name}' holds {dtype}, ids are required: text or numbers"
        )
    if dtype.is_float():
        column = column.fill_nan(None)
        refuse_rounded(column, f"{role} ids")
    text = column.cast(pl.String)
    # each value by itself: no text depends on the values beside it, or on the unit of times
    if dtype.is_float():
        text = text.str.strip_suffix(".0").replace("-0", "0")
    elif isinstance(dtype, pl.Decimal) and dtype.scale:
        text = text.str.strip_chars_end("0").str.strip_chars_end(".")
    elif isinstance(dtype, pl.Time):
        text = column.dt.to_string("%T%.f")
    elif isinstance(dtype, pl.Datetime):
        text = column.dt.to_string("%F %T%.f%:z" if dtype.time_zone else "%F %T%.f")
    return text.set(text == "", None) if (text == "").any() else text


def refuse_rounded(column: pl.Series, what: str) -> None:
    """Raise LogFormatError for floats of 2^53 and beyond, where neighbours are one number."""
    most = 2**53 if column.dtype == pl.Float64 else 2**24
    wrong = column.filter((column.abs() >= most) & column.is_finite())
    if len(wrong):
        first = ", ".join(f"{value:.0f}" for value in wrong.unique(maintain_order=True).head(3))
        raise LogFormatError(
            f"{len(wrong)} of the {what} in column '{column.name}' are decimal numbers so large "
            f"({first}) that several whole numbers are rounded to one: keep them as whole numbers "
            "(Int64 of pandas keeps gaps too) or as text"
        )


def require_filled(column: pl.Series, role: str, name: str, where: Where = row_number) -> None:
    """Raise LogFormatError at the first null of a column that plays `role`, with their number."""
    row = first_true(column.is_null()) if column.null_count() else None
    if row is not None:
        raise LogFormatError(
            f"{where(row)} has no {role}{of_several(column.is_null())}: column '{name}' is empty "
            "there; fill it in or drop the row"
        )


def filled_ids(column: pl.Series, role: str, called: str = "") -> pl.Series:
    """Ids as text. Raises LogFormatError as `ids_as_text`, and for a gap."""
    ids = ids_as_text(column, role)
    require_filled(ids, called or role, column.name)
    return ids


def as_list(column: pl.Series) -> pl.Series:
    """A column of lists, of fixed length too, as one of lists."""
    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def refuse_at(column: pl.Series, wrong: pl.Series, rule: str, where: Where = row_number) -> None:
    """Raise LogFormatError, naming the first wrong value of a column and how many there are."""
    row = first_true(wrong)
    if row is not None:
        several = of_several(wrong) if where is row_number else ""
        raise LogFormatError(
            f"{where(row)} has '{column.name}' = {show(column[row])}{several}, {rule}"
        )


def parse_flags(column: pl.Series, rule: str, where: Where = row_number) -> pl.Series:
    """A column of 0 and 1 as booleans. Raises LogFormatError."""
    if column.dtype == pl.Boolean and not column.null_count():
        return column
    if column.dtype.is_numeric() or column.dtype == pl.String:
        # 1.00 is a 1, as a number and as the text of a csv
        numbers = column.cast(pl.Float64, strict=False)
        if numbers.is_in([0.0, 1.0]).all() and not numbers.null_count():
            return numbers == 1.0
    two = column.unique().drop_nulls().sort().to_list() if column.dtype == pl.String else []
    if len(two) == 2 and not {value.lower() for value in two} & FLAGS.keys():
        raise LogFormatError(
            f"column '{column.name}' has two values, {two[0]!r} and {two[1]!r}; "
            f"{rule}: replace them by 0 and 1"
        )
    return _by_table(column, FLAGS, pl.Boolean(), rule, where)


def parse_weights(column: pl.Series) -> pl.Series:
    """A column of weights as Float32. Raises LogFormatError for what is no finite number above
    0."""
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        raise LogFormatError(
            f"column '{column.name}' holds {column.dtype}, weights are numbers: cast it, or name "
            "another column"
        )
    numbers = column.cast(pl.Float32, strict=False)
    right = (numbers > 0) & (numbers <= MOST_NUMBER)
    rule = "a finite weight above 0 is required: correct it, or drop the event"
    refuse_at(column, ~right.fill_null(value=False), rule)
    return numbers


def parse_split(column: pl.Series) -> pl.Series:
    """A split column as 0 train, 1 validation, 2 test (Int8). Raises LogFormatError."""
    if column.dtype.is_float() or column.dtype.is_decimal():
        column = ids_as_text(column, "split")
    rule = "one of 0, 1, 2, train, validation, test is required"
    return _by_table(column, SPLIT_CODES, pl.Int8(), rule)


def _by_table(
    column: pl.Series,
    table: Mapping[str, bool | int],
    dtype: pl.DataType,
    rule: str,
    where: Where = row_number,
) -> pl.Series:
    if isinstance(column.dtype, _NO_TEXT):
        raise LogFormatError(
            f"column '{column.name}' holds {column.dtype}, {rule}: correct the column"
        )
    text = column.cast(pl.String).str.to_lowercase()
    values = text.replace_strict(table, default=None, return_dtype=dtype)
    refuse_at(column, values.is_null(), f"{rule}: correct or drop it", where)
    return values


def _of_values(n: int) -> str:
    return f" (one of {n} such values)" if n > 1 else ""


def parse_numbers(text: pl.Series) -> pl.Series | None:
    """Text as Int64, else UInt64, else Float64, if every filled value allows it; else None."""
    missing = text.null_count()
    for dtype in (pl.Int64, pl.UInt64, pl.Float64):
        numbers = text.cast(dtype, strict=False)
        if numbers.null_count() == missing:
            return numbers
    return None


def parse_field(text: pl.Series) -> pl.Series | None:
    """The text of a field as `parse_numbers`, or true and false, in capitals too, as 1 and 0; None
    for other text.

    >>> parse_field(pl.Series(["True", None, "false"])).to_list()
    [1.0, None, 0.0]"""
    if (plain := _lower_booleans(text)).drop_nulls().is_in(BOOLEANS).all():
        return (plain == "true").cast(pl.Float64)
    return parse_numbers(text)


def _lower_booleans(text: pl.Series) -> pl.Series:
    """The same text with true and false as they are written here, TRUE and False among them."""
    low = text.str.to_lowercase()
    return low.zip_with(mask, text) if (mask := low.is_in(BOOLEANS)).any() else text


def _refuse_mixed(text: pl.Series, is_number: pl.Series, where: Where) -> None:
    """Raise LogFormatError for a column of text most of which are numbers (`is_number`), and not
    all in a way that polars reads."""
    wrong = text.is_not_null() & text.cast(pl.Float64, strict=False).is_null()
    if is_number.sum() > FEWEST_NUMBERS * (len(text) - text.null_count()):
        rule = (
            "and most values are numbers, which would be read as categories because of it: write "
            "numbers as 1234.5 and leave no text among them (polars.read_csv has decimal_comma); "
            "if they are names, begin each with a letter, or give the column a categorical type"
        )
        refuse_at(text, wrong, rule, where)


def read_numbers(column: pl.Series, where: Where, categories: Container[str] = ()) -> pl.Series:
    """A column whose text is numbers where each value reads as one, and categories where they are
    known to be. Raises LogFormatError for text among numbers."""
    if column.dtype != pl.String or column.null_count() == len(column):
        return column
    if column.name in categories:
        return column
    numbers = parse_field(column)
    if numbers is None:
        _refuse_mixed(column, column.str.contains(NUMBER_LIKE), where)
    return column if numbers is None else numbers


def encode_column(
    column: pl.Series,
    of: Of,
    *,
    where: Where,
    judged: bool = False,
) -> Column:
    """A field as float32 numbers, or as int32 codes and their sorted categories (code -1: missing),
    which text is. Missing numbers are an error; `judged`: so are numbers that float32 cannot tell
    apart. Raises LogFormatError."""
    name, dtype = column.name, column.dtype
    if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        # sorted, so that codes do not depend on the order of rows
        categories = Vocabulary.of(column.cast(pl.String))
        return Column(of, categories.codes(column.cast(pl.String)), categories.texts)
    if not (column.dtype.is_numeric() or isinstance(column.dtype, pl.Boolean | pl.Null)):
        raise LogFormatError(
            f"column '{name}' holds {dtype}, a field is numbers or text: cast it to one of them"
        )
    row = first_true(column.is_null()) if column.null_count() else None
    if row is not None:
        raise LogFormatError(
            f"{where(row)} has no value in column '{name}'{_of_values(column.null_count())}, a "
            "number is required: fill it in, or give the column a categorical type, or text that "
            "is no number (missing is then a category)"
        )
    # Numbers beyond float32 (1e300) would turn into infinity here: they are refused with the
    # infinities.
    exact = column.cast(pl.Float64).to_numpy()
    with np.errstate(over="ignore"):
        values = exact.astype(np.float32)
    wrong = ~(np.abs(values) <= MOST_NUMBER)
    row = first_true(wrong)
    if row is not None:
        raise LogFormatError(
            f"{where(row)} has {column[row]} in column '{name}'{_of_values(int(wrong.sum()))}, "
            "a finite number is required: correct it, drop the row, or leave the column out (the "
            f"largest number is {MOST_NUMBER:g})"
        )
    if judged:
        _refuse_collapsed(name, exact, values)
    return Column(of, values)


def _refuse_collapsed(name: str, exact: Float64Array, rounded: FloatArray) -> None:
    """Raise LogFormatError for numbers so far from 0, and so near each other, that float32 makes
    one of several."""
    least, most = exact.min(initial=np.inf), exact.max(initial=-np.inf)
    steps = 2**24 * (most - least) / max(abs(least), abs(most), np.finfo(float).tiny)
    # a constant may have noise in its last digits
    if len(exact) < FEWEST_JUDGED or not 2.0**-20 < steps < FEWEST_STEPS:
        return
    n, kept = len(np.unique(exact)), len(np.unique(rounded))
    if 2 * kept <= n:
        raise LogFormatError(
            f"column '{name}' has {n} different numbers from {least:.17g} to {most:.17g}, and only "
            f"{kept} are left of them in single precision, which models read: subtract "
            f"{least:.17g} from all"
        )


def context_column(
    column: pl.Series, where: Where = row_number, categories: Container[str] = ()
) -> pl.Series:
    """A column of one value per event as text, its categories (whole numbers and booleans too), or
    as numbers. Text is numbers if all filled values are and some are not whole, unless it is known
    to be `categories`. Raises LogFormatError for other types."""
    dtype = column.dtype
    if dtype == pl.String:
        # an empty text is a gap, as it is in a csv
        column = column.replace("", None)
        if column.name not in categories:
            # ids, whose text stays, or numbers
            whole, numbers = (
                column.cast(kind, strict=False) for kind in (pl.Int128(), pl.Float64())
            )
            missing = column.null_count()
            if whole.null_count() > missing == numbers.null_count():
                return numbers
            if whole.null_count() > missing:
                decimals = column.str.contains(NUMBER_LIKE) & column.str.contains(r"[.,]\d")
                _refuse_mixed(column, decimals, where)
        column = _lower_booleans(column)
    elif not (dtype.is_integer() or isinstance(dtype, pl.Boolean | pl.Categorical | pl.Enum)):
        if dtype.is_numeric() or isinstance(dtype, pl.Null):
            return column.cast(pl.Float64)
        raise LogFormatError(
            f"column '{column.name}' holds {dtype}, a context field is numbers or text: cast it to "
            "one of them"
        )
    return ids_as_text(column, "context")
