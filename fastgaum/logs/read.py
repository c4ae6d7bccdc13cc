"""read_log: a file, a folder of files or a saved log, in; a checked and packed SessionLog, out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, did_you_mean
from fastgaum.logs.item_table import attach_item_table
from fastgaum.logs.log import SessionLog
from fastgaum.logs.pack import Packed, pack_rows
from fastgaum.logs.parts import read_in_parts
from fastgaum.logs.rows import ChoiceRule, rows_of
from fastgaum.logs.schema import LogSchema, require_column, resolve_schema
from fastgaum.logs.shard_files import refuse_former_form
from fastgaum.logs.shards import (
    AnyLog,
    ShardedLog,
    count_shards,
    is_saved_log,
    load_log,
    open_shards,
)
from fastgaum.logs.split import USER_RULES, resplit, resplit_by, split_by_time
from fastgaum.logs.tables import open_table

Stored = TypeVar("Stored", SessionLog, ShardedLog)
SPLIT_RULES = ("auto", "file", *USER_RULES, "time")


def read_log(
    path: str | os.PathLike[str],
    *,
    schema: LogSchema | None = None,
    candidate_fields: Sequence[str] = (),
    item_table: str | os.PathLike[str] | None = None,
    ordered: bool = False,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    choices: ChoiceRule = "error",
    split: str = "auto",
    split_seed: int = 0,
) -> SessionLog:
    """Read a log: csv, tsv, txt (tab), parquet, arrow, a folder of parquet files, or a saved log
    (all of its shards).

    Parameters:
        schema: which column plays which role, whole; by default found by name (see
            `sessions.schema`)
        columns: single columns by role, `{"item": "sku", "event": "ts"}`; come before names and
            before `schema`
        candidate_fields: further columns of each candidate to keep: numbers as float32 (NaN,
            infinite and missing are errors), text as categories (missing is code -1). A csv column
            is numbers if every filled value is one. A nested log gives a list per event, or one
            value for the whole display set.
        item_table: a file of static item columns, one row per item; missing items and numbers get
            the column's mean, missing categories code -1
        ordered: the order of rows (or of the list) is the real display order; else candidates are
            stored by item id
        choices: what to do with an event of several chosen items: "error", or "first" keeps the
            first one listed
        split: "file" (its split column), "user" (whole users 50/25/25 by `split_seed`), "time"
            (sessions 50/25/25 by the time of their first event), "half" and "other-half" (users of
            one half, drawn by `split_seed`, train and validate, the others are the test split: two
            runs without a common user), "auto" (file if there is a split column, else user)
        name: what tables and messages call the log; by default the file's name

    Raises ConfigError for an unknown `split` or `choices`, else LogFormatError: the rule, the
    values, the cure."""
    path = Path(path)
    check_options(split, choices)
    refuse_former_form(path)
    saved = is_saved_log(path)
    try:
        if saved:
            log = _saved(load_log(path), candidate_fields, ordered, schema, columns, split)
            log = resplit_by(log, split, split_seed) if split in USER_RULES else log
        else:
            table = open_table(path)
            found = resolve_schema(
                table.dtypes, schema=schema, columns=columns, candidate_fields=candidate_fields
            )
            for field in candidate_fields:
                require_column(field, table.dtypes, "a candidate field")
            packed = read_in_parts(
                table,
                found,
                candidate_fields=candidate_fields,
                ordered=ordered,
                choices=choices,
                name="log",
            )
            wanted = list(dict.fromkeys([*found.columns(), *candidate_fields]))
            log = (
                _split(packed, True, found, split, split_seed)
                if packed is not None
                else read_frame(
                    table.read(wanted),
                    schema=found,
                    candidate_fields=candidate_fields,
                    ordered=ordered,
                    choices=choices,
                    split=split,
                    split_seed=split_seed,
                    untyped=table.untyped,
                )
            )
    except LogFormatError as error:
        raise _named(path, error) from None
    if item_table is not None:
        log = attach_item_table(log, item_table)
    return dataclasses.replace(log, name=name or (log.name if saved else path.stem))


def open_log(path: str | os.PathLike[str], **options: Any) -> AnyLog:
    """Open a log to go through part by part: one of several shards stays on disk, any other is
    read by `read_log`.

    `options` are those of `read_log`. Raises LogFormatError and ConfigError as it does.
    """
    path = Path(path)
    if not is_saved_log(path) or count_shards(path) == 1:
        return read_log(path, **options)
    given = {
        "schema": None,
        "candidate_fields": (),
        "item_table": None,
        "ordered": False,
        "name": None,
        "columns": None,
        "choices": "error",
        "split": "auto",
        "split_seed": 0,
        **options,
    }
    check_options(given["split"], given.pop("choices"))
    return _of_shards(path, **given)


def read_frame(
    frame: pl.DataFrame,
    *,
    schema: LogSchema | None = None,
    candidate_fields: Sequence[str] = (),
    ordered: bool = False,
    name: str = "log",
    columns: Mapping[str, str] | None = None,
    choices: ChoiceRule = "error",
    split: str = "auto",
    split_seed: int = 0,
    untyped: bool = False,
) -> SessionLog:
    """Read a log that is already a polars frame, as `read_log` does; `untyped`: numbers may stand
    as text (csv)."""
    check_options(split, choices)
    found = resolve_schema(
        dict(frame.schema), schema=schema, columns=columns, candidate_fields=candidate_fields
    )
    rows = rows_of(
        frame, found, candidate_fields=candidate_fields, untyped=untyped, choices=choices
    )
    packed = pack_rows(rows, ordered=ordered, choices=choices, name=name)
    return _split(packed, rows.has_times, found, split, split_seed)


def _split(
    packed: Packed, has_times: bool, schema: LogSchema, split: str, split_seed: int
) -> SessionLog:
    """The log split by the rule asked for."""
    if split == "file" and schema.split is None:
        raise LogFormatError(
            "split='file' needs a split column (split, tr_val_tst), the log has none: use "
            "split='user'"
        )
    if split == "time":
        return packed.log.with_split(_time_split(packed, has_times, schema))
    if split in USER_RULES:
        return resplit_by(packed.log, split, split_seed)
    if schema.split is None:
        return resplit(packed.log, split_seed)
    return packed.log


def _time_split(packed: Packed, has_times: bool, schema: LogSchema) -> npt.NDArray[np.int8]:
    if schema.event is None or not has_times:
        found = "the log has none" if schema.event is None else f"'{schema.event}' is text"
        raise LogFormatError(
            f"split='time' needs an event column of numbers or times, {found}: use split='user'"
        )
    return split_by_time(packed.first_order)


def check_options(split: str, choices: str) -> None:
    """Raise ConfigError for an unknown way to split, or to choose among several choices."""
    for option, value, known in (
        ("split", split, SPLIT_RULES),
        ("choices", choices, ("error", "first")),
    ):
        if value not in known:
            raise ConfigError(
                f"{option} is '{value}', one of {', '.join(known)} is "
                f"required{did_you_mean(value, known)}"
            )


def _of_shards(
    path: Path,
    schema: LogSchema | None,
    candidate_fields: Sequence[str],
    item_table: str | os.PathLike[str] | None,
    ordered: bool,
    name: str | None,
    columns: Mapping[str, str] | None,
    split: str,
    split_seed: int,
) -> ShardedLog:
    try:
        log = _saved(open_shards(path), candidate_fields, ordered, schema, columns, split)
        log = log.resplit(split, split_seed) if split in USER_RULES else log
    except LogFormatError as error:
        raise _named(path, error) from None
    if item_table is not None:
        log = dataclasses.replace(log, head=attach_item_table(log.head, item_table))
    return log if name is None else log.renamed(name)


def _saved(
    log: Stored,
    candidate_fields: Sequence[str],
    ordered: bool,
    schema: LogSchema | None,
    columns: Mapping[str, str] | None,
    split: str,
) -> Stored:
    """A log that was saved, or written in shards, if the options make sense for it."""
    if schema is not None or columns:
        raise LogFormatError(
            "a saved log has no columns to name: leave schema and columns out, or read the original"
        )
    for field in candidate_fields:
        require_column(field, log.candidate_fields, "a candidate field")
    if ordered and not log.ordered:
        raise LogFormatError(
            "the log was saved without its display order: read the original with ordered=True"
        )
    if split == "time":
        raise LogFormatError(
            "a saved log keeps no times, split='time' needs them: read the original, or use "
            "split='user'"
        )
    return log


def _named(path: Path, error: LogFormatError) -> LogFormatError:
    """The error with the file's name; errors of opening a file have it already."""
    return (
        error
        if f"'{path.name}'" in str(error) or str(path) in str(error)
        else LogFormatError(f"{path.name or path}: {error}")
    )
