"""The types of a table's columns where it is read in pieces.

Reading a table whole, text is numbers if every value reads as one, and a number is an id if all are
whole. A piece cannot know that: the columns in doubt are looked through first, streaming, and then
every piece is cast alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.event_order import clock_of, has_nanoseconds, order_of
from fastgaum.logs.fields import is_list
from fastgaum.logs.number_text import CONTEXT_KINDS, FEWEST_NUMBERS, Counted, of_spoilt, spoilt
from fastgaum.logs.schema import LogSchema
from fastgaum.logs.tables import FileTable, damaged
from fastgaum.untrusted_parquet import PIECE_ROWS, READ_ERRORS, one_line

TIME = pl.Datetime("us", "UTC")
_ID_ROLES = ("session", "user", "item", "items", "chosen", "split")


@dataclass(frozen=True)
class TypedTable:
    """Files of one table and the type of each column that is read."""

    parts: tuple[tuple[Path, pl.LazyFrame], ...]
    types: Mapping[str, pl.DataType]

    def pieces(self, n_rows: int) -> Iterator[tuple[Path, int, pl.DataFrame]]:
        """Yield at most `n_rows` rows at a time, in order, with their file and the number of rows
        before them in it.

        Raises:
            LogFormatError: naming a damaged file.
        """
        for path, lazy in self.parts:
            before = 0
            for piece in _batches(path, lazy.select(list(self.types)), n_rows):
                for frame in piece.iter_slices(n_rows):
                    yield (
                        path,
                        before,
                        frame.select(
                            _cast(frame[name], dtype) for name, dtype in self.types.items()
                        ),
                    )
                    before += frame.height


def _batches(path: Path, lazy: pl.LazyFrame, n_rows: int) -> Iterator[pl.DataFrame]:
    try:
        yield from lazy.collect_batches(chunk_size=n_rows, maintain_order=True)
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def decide_types(
    tables: Sequence[FileTable], schema: LogSchema, time_fields: Sequence[str] = ()
) -> TypedTable:
    """Decide the type of every column that the schema names, over all tables.

    Raises:
        LogFormatError: a table lacks a column, two disagree on its type, or one is damaged; or the
            order of events is none that can be told.
    """
    parts = tuple(part for table in tables for part in table.parts)
    names = schema.columns()
    for table in tables:
        missing = [name for name in names if name not in table.dtypes]
        if missing:
            raise LogFormatError(
                f"'{table.parts[0][0].name}' lacks the column '{missing[0]}' that "
                f"'{parts[0][0].name}' has: all files need the same columns"
            )
    for name in names:
        if len({is_list(table.dtypes[name]) for table in tables}) > 1:
            raise LogFormatError(
                f"the files' columns differ in type ('{name}' holds lists in some): write them "
                "alike"
            )
    try:
        common = pl.concat(
            [pl.DataFrame(schema={name: table.dtypes[name] for name in names}) for table in tables],
            how="vertical_relaxed",
        ).schema
    except pl.exceptions.PolarsError as error:
        raise LogFormatError(
            f"the files' columns differ in type ({one_line(error)}): write them alike"
        ) from None
    for table in tables:
        table.check(names)
    doubts: dict[str, tuple[pl.DataType, ...]] = {}
    for role in ("event", "event_label", "click_order"):
        name = getattr(schema, role)
        if name is not None and _is_text(common[name]):
            doubts[name] = (pl.Int64(), pl.UInt64(), pl.Float64(), TIME)
    for name in schema.candidate_fields:
        if common[name] == pl.String and any(table.untyped for table in tables):
            doubts[name] = (pl.Int64(), pl.Float64())
    for name in schema.context_fields:
        of_text = common[name] == pl.String and name not in doubts
        if of_text and any(table.untyped for table in tables):
            doubts[name] = CONTEXT_KINDS
    for role in _ID_ROLES:
        name = getattr(schema, role)
        if name is not None and name not in doubts and _may_be_whole(common[name]):
            doubts[name] = (pl.Int64(),)
    if schema.event in doubts and _is_text(common[schema.event]):
        _check_order(parts, schema.event, clock=bool({"hour", "day"} & {*time_fields}))
    decided = _decided(parts, doubts, common)
    for name in schema.context_fields:
        if decided.get(name) == CONTEXT_KINDS[0]:
            decided[name] = pl.String()
        elif name in doubts and decided[name] == pl.String:
            _refuse_spoilt_parts(parts, name, "decimals")
    for name in schema.candidate_fields:
        if name in doubts and decided[name] == pl.String:
            _refuse_spoilt_parts(parts, name, "all")
    return TypedTable(parts, {**common, **decided})


def _check_order(parts: Sequence[tuple[Path, pl.LazyFrame]], name: str, *, clock: bool) -> None:
    """Raise LogFormatError for text whose order cannot be told, or that a piece cannot keep.

    clock: whether the clock as written is asked for."""
    first = None
    for path, lazy in parts:
        for piece in _batches(path, lazy.select(pl.col(name).cast(pl.String)), PIECE_ROWS):
            text = piece[name].drop_nulls()
            if not len(text):
                continue
            parsed = order_of(text)
            is_time = parsed is not None and parsed.dtype.is_temporal()
            if is_time and (has_nanoseconds(text) or (clock and clock_of(text) is not None)):
                raise LogFormatError(
                    f"'{name}' is text with {'nanoseconds' if has_nanoseconds(text) else 'offsets'}"
                    ", which is not read in pieces: store it as times in a parquet file, with its "
                    "zone, or read the file whole"
                )
            kind = "names" if parsed is None else "times" if is_time else "numbers"
            first = first or kind
            if kind != first:
                raise LogFormatError(
                    f"'{name}', which orders events, reads as {first} at the start of the files "
                    f"and as {kind} further on: write all values alike"
                )


def _refuse_spoilt_parts(
    parts: Sequence[tuple[Path, pl.LazyFrame]], name: str, counted: Counted
) -> None:
    """`refuse_spoilt` of a column of several files, read in pieces."""
    n_filled, n_numbers, first = 0, 0, None
    value, kinds = pl.col(name), spoilt(pl.col(name), counted)
    for path, lazy in parts:
        answer = lazy.select(
            value.count().alias("filled"),
            kinds[0].sum(),
            value.filter(kinds[1]).first().alias("wrong"),
        ).collect(engine="streaming")
        filled, numbers, wrong = answer.row(0)
        n_filled, n_numbers = n_filled + filled, n_numbers + numbers
        first = first or (None if wrong is None else (path.name, wrong))
    if first is not None and n_numbers > FEWEST_NUMBERS * n_filled:
        raise of_spoilt(name, pl.Series([first[1]]), first[0])


def _decided(
    parts: Sequence[tuple[Path, pl.LazyFrame]],
    doubts: Mapping[str, tuple[pl.DataType, ...]],
    common: pl.Schema,
) -> dict[str, pl.DataType]:
    """The first type in doubt that every filled value of a column allows; text, or what it is, if
    none does."""
    fits = {name: dict.fromkeys(kinds, True) for name, kinds in doubts.items()}
    filled = dict.fromkeys(doubts, False)
    for path, lazy in parts if doubts else ():
        tests = [
            (~_values(name, common[name]).is_null() & ~_allows(name, common[name], kind))
            .any()
            .alias(f"{i} {j}")
            for i, (name, kinds) in enumerate(doubts.items())
            for j, kind in enumerate(kinds)
        ]
        some = [
            _values(name, common[name]).is_not_null().any().alias(f"{i}")
            for i, name in enumerate(doubts)
        ]
        # one at a time: exploded lists are longer than the rest
        try:
            found = {k: v for one in (*tests, *some) for k, v in _answer(lazy, one).items()}
        except READ_ERRORS as error:
            raise damaged(path, error) from None
        for i, (name, kinds) in enumerate(doubts.items()):
            filled[name] |= bool(found[f"{i}"])
            for j, kind in enumerate(kinds):
                fits[name][kind] &= not found[f"{i} {j}"]
    decided: dict[str, pl.DataType] = {}
    for name, allowed in fits.items():
        text = pl.String() if _is_text(common[name]) else _inner(common[name])
        kind = next((kind for kind, fit in allowed.items() if fit and filled[name]), text)
        decided[name] = pl.List(kind) if is_list(common[name]) else kind
    return decided


def _may_be_whole(dtype: pl.DataType) -> bool:
    """Whether a column holds decimal numbers, which are ids where all are whole."""
    return _inner(dtype).is_float() or _inner(dtype).is_decimal()


def _answer(lazy: pl.LazyFrame, test: pl.Expr) -> dict[str, bool]:
    """What a test finds. Polars 1.35 refuses to look for times in text that has none."""
    try:
        return lazy.select(test).collect(engine="streaming").row(0, named=True)
    except pl.exceptions.ComputeError as error:
        if "format to parse dates" in str(error):
            return {test.meta.output_name(): True}
        raise


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _inner(dtype: pl.DataType) -> pl.DataType:
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    return cast(pl.DataType, inner)


def _values(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column's values: of a list its entries, of numbers without NaN."""
    column = pl.col(name)
    if is_list(dtype):
        column = column.explode()
    return (
        column.fill_nan(None)
        if _inner(dtype).is_float()
        else column.cast(pl.String)
        if _is_text(dtype)
        else column
    )


def _allows(name: str, dtype: pl.DataType, kind: pl.DataType) -> pl.Expr:
    """Whether a value reads as the type."""
    values = _values(name, dtype)
    if kind == TIME:
        return values.str.to_datetime(strict=False, time_zone="UTC").is_not_null()
    cast = values.cast(kind, strict=False)
    if _is_text(dtype):
        return cast.is_not_null()
    exact = values.abs() < 2**53 if _inner(dtype).is_float() else pl.lit(value=True)
    return cast.is_not_null() & (cast == values) & exact


def _cast(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    """A piece's column in the type decided on; what does not fit becomes null, and is refused."""
    if column.dtype == dtype:
        return column
    if dtype == TIME and _is_text(column.dtype):
        return column.cast(pl.String).str.to_datetime(strict=False, time_zone="UTC")
    if _may_be_whole(column.dtype) and not _may_be_whole(dtype):
        return column.cast(dtype, strict=False)
    return column.cast(dtype)
