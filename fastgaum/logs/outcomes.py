"""Outcomes: what followed the choice of an event, such as minutes, a rating or a purchase."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import BoolArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.columns import Where, encode_column, first_true, read_numbers, show
from fastgaum.logs.log import Column, SessionLog

MOST_CATEGORIES = 50
"""of an outcome: a model has one output for each"""
_KNOWN = "\0known: "


def refuse_unchosen(
    outcomes: Mapping[str, pl.Series], chosen: BoolArray, where: Where, *, of_all: bool
) -> None:
    """Raise LogFormatError for an outcome of a row that was not chosen, unless the log has some
    `of_all`; chosen: of each row."""
    for name, column in outcomes.items():
        row = None if of_all else first_true(column.is_not_null().to_numpy() & ~chosen)
        if row is not None:
            raise LogFormatError(
                f"{where(row)} has {show(column[row])} in the outcome '{name}' of an item that was "
                "not chosen, what follows a choice is empty elsewhere: empty it, pass "
                "--outcome-of-all (outcome_of_all=True), which passes over such values, or if it "
                "was known before the choice name it a candidate field"
            )


def encode_outcomes(
    outcomes: Mapping[str, pl.Series], where: Where, categories: frozenset[str]
) -> dict[str, Column]:
    """Outcomes of candidates, each a series of n_candidates, as columns that can be cut with the
    log: two for one of numbers, whose gaps are 0. Raises LogFormatError."""
    columns: dict[str, Column] = {}
    for name, column in outcomes.items():
        if column.dtype.is_float():
            column = column.fill_nan(None)
        column = read_numbers(column, where, categories)
        known = column.is_not_null()
        if column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
            column = column.cast(pl.Float64).fill_null(0.0)
            values = known.cast(pl.Float32).to_numpy()
            columns[_KNOWN + name] = Column("candidate", values)
        columns[name] = encode_column(column.alias(name), "candidate", where=where)
        n = len(columns[name].categories) if columns[name].texts is not None else 0
        if n > MOST_CATEGORIES:
            raise LogFormatError(
                f"the outcome '{name}' has {n} categories, at most {MOST_CATEGORIES} are read: "
                "name fewer, or give it as a number"
            )
    return columns


def with_outcomes(log: SessionLog, names: tuple[str, ...]) -> SessionLog:
    """The log whose candidates' columns of `encode_outcomes` became outcomes of events. Raises
    LogFormatError where no choice has one."""
    columns, chosen = dict(log.columns), log.choices >= 0
    at = log.chosen_candidates
    for name in names:
        column, known = columns.pop(name), columns.pop(_KNOWN + name, None)
        values: npt.NDArray[Any]
        if known is None:
            values = np.full(log.n_events, -1, np.int32)
            values[chosen] = column.values[at]
            some = bool((values >= 0).any())
        else:
            values = np.full(log.n_events, np.nan, np.float32)
            values[chosen] = np.where(known.values[at] > 0, column.values[at], np.nan)
            some = not np.isnan(values).all()
        if chosen.any() and not some:
            raise LogFormatError(
                f"the outcome '{name}' is empty in every chosen row, at least one value is "
                "required: correct the column, or leave it out"
            )
        columns[name] = Column("outcome", values, column.texts)
    return dataclasses.replace(log, columns=columns) if names else log
