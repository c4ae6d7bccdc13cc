"""Saved logs that are damaged or made to deceive: one row each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.builders import change_table
from tests.cli.bad_input import DEEP, Make, Row, Seeds, check_refused, convert


def store(change: Callable[[Path], None]) -> Make:
    """A saved log that was changed."""

    def make(seeds: Seeds) -> list[str]:
        shutil.copytree(seeds.store, seeds.folder / "store")
        change(seeds.folder / "store")
        return convert(seeds.folder / "store")

    return make


def manifest(text: Callable[[dict[str, Any]], Any]) -> Make:
    """A saved log whose log.json was changed."""

    def change(folder: Path) -> None:
        value = json.loads((folder / "log.json").read_text())
        new = text(value)
        (folder / "log.json").write_text(
            new if isinstance(new, str) and new[0] == "{" else json.dumps(value)
        )

    return store(change)


def rows(table: str, name: str, *values: Any) -> Make:
    """A saved log with the first values of one column changed, checksum and all; a number takes the
    first place of a list."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        column = frame[name].to_list()
        for i, value in enumerate(values):
            of_list = isinstance(column[i], list) and not isinstance(value, list)
            column[i] = [value, *column[i][1:]] if of_list else value
        return frame.with_columns(pl.Series(name, column, frame[name].dtype))

    return changed(table, change)


def changed(table: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Make:
    return store(lambda folder: change_table(folder, table, change))


def named(**changes: str) -> Make:
    """A saved log whose table of items is said to be another file, or to have another sha256."""
    return manifest(lambda value: value["tables"]["items"].update(changes))


def former(folder: Path) -> None:
    (folder / "log.json").rename(folder / "shards.json")


def cut_short(folder: Path) -> None:
    path = next(folder.glob("events.*"))
    path.write_bytes(path.read_bytes()[:-9])


ROWS: dict[str, Row] = {
    "item out of range": (rows("events", "items", 10**6), "items holds 1000000 at"),
    "negative item": (rows("events", "items", -5), "items holds -5 at"),
    "item twice": (rows("events", "items", [1, 1, 1]), "is damaged"),
    "choice out of range": (rows("events", "choice", 0, 0, 99), "choices holds 99"),
    "empty display of a saved log": (rows("events", "items", []), "is damaged"),
    "fewer events": (rows("sessions", "n_events", 0), "session_offsets ends with"),
    "negative events": (rows("sessions", "n_events", -1), "session_offsets holds -1"),
    "no events": (rows("sessions", "n_events", None), "session_offsets ends with"),
    "unknown split": (rows("sessions", "split", 7), "split holds 7"),
    "negative user": (rows("sessions", "user", -1), "users holds -1"),
    "views of 0": (rows("events", "views", 0), "views holds 0"),
    "gap in the session ids": (rows("sessions", "session", None), "session_ids holds"),
    "item ids that are alike": (rows("items", "item", "a", "a"), "item_ids holds a value twice"),
    "items that are text": (
        changed("events", lambda frame: frame.cast({"items": pl.List(pl.String)})),
        "items is object",
    ),
    "items that are no lists": (
        changed("events", lambda frame: frame.with_columns(items=pl.lit(1))),
        "is damaged",
    ),
    "column that is not there": (
        changed("events", lambda frame: frame.drop("choice")),
        "is damaged",
    ),
    "a list too short": (
        rows("events", "candidate_fields.price", [1.0]),
        "price has not one value per candidate",
    ),
    "table elsewhere": (named(file="../items.parquet"), "a plain name is required"),
    "absolute table": (named(file="/etc/passwd"), "a plain name is required"),
    "table that is not there": (named(file="items.parquet"), "cannot be read"),
    "table of another log": (named(sha256="0" * 64), "it was changed"),
    "table that is cut short": (store(cut_short), "it was changed"),
    "no table": (manifest(lambda value: value["tables"].pop("items")), "a plain name is required"),
    "manifest nested": (manifest(lambda _: f'{{"x": {DEEP}}}'), "nested too deeply"),
    "manifest of another kind": (manifest(lambda value: value.update(tables=3)), "is damaged"),
    "manifest of another version": (manifest(lambda value: value.update(version=2)), "version"),
    "log of an earlier version": (store(former), "convert it anew from its source"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bad_saved_log_is_refused(
    fails: Callable[[list[str]], str], seeds: Seeds, row: str
) -> None:
    check_refused(ROWS[row], seeds, fails)
