"""Saved logs that are damaged or made to deceive: one row each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.builders import change_shard
from tests.cli.bad_input import DEEP, Make, Row, Seeds, check_refused, convert


def store(change: Callable[[Path], None]) -> Make:
    """A saved log that was changed."""

    def make(seeds: Seeds) -> list[str]:
        shutil.copytree(seeds.store, seeds.folder / "store")
        change(seeds.folder / "store")
        return convert(seeds.folder / "store")

    return make


def manifest(text: Callable[[dict[str, Any]], Any]) -> Make:
    """A saved log whose shards.json was changed."""

    def change(folder: Path) -> None:
        value = json.loads((folder / "shards.json").read_text())
        changed = text(value)
        (folder / "shards.json").write_text(
            changed if isinstance(changed, str) else json.dumps(value)
        )

    return store(change)


def rows(name: str, *values: Any) -> Make:
    """A saved log with the first values of one column of its shard changed, checksum and all; a
    number takes the first place of a list."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        column = frame[name].to_list()
        for i, value in enumerate(values):
            of_list = isinstance(column[i], list) and not isinstance(value, list)
            column[i] = [value, *column[i][1:]] if of_list else value
        return frame.with_columns(pl.Series(name, column, frame[name].dtype))

    return store(lambda folder: change_shard(folder, change))


ROWS: dict[str, Row] = {
    "item out of range": (rows("items", 10**6), "items holds 1000000 at"),
    "negative item": (rows("items", -5), "items holds -5 at"),
    "choice out of range": (rows("choice", 0, 0, 99), "choices holds 99"),
    "empty display of a saved log": (rows("items", []), "is damaged"),
    "no first session": (rows("start", False), "its first row starts no session"),
    "unknown split": (rows("split", 7), "split holds 7"),
    "negative user": (rows("user", -1), "users holds -1"),
    "views of 0": (rows("views", 0), "views holds 0"),
    "gap in the session ids": (rows("session", None), "session_ids holds"),
    "items that are text": (
        store(lambda folder: change_shard(folder, lambda f: f.cast({"items": pl.List(pl.String)}))),
        "items is object",
    ),
    "column that is not there": (
        store(lambda folder: change_shard(folder, lambda f: f.drop("choice"))),
        "is damaged",
    ),
    "shard elsewhere": (
        manifest(lambda value: value["shards"][0].update(file="../shard-00000.parquet")),
        "a plain name is required",
    ),
    "absolute shard": (
        manifest(lambda value: value["tables"]["items"].update(file="/etc/passwd")),
        "a plain name is required",
    ),
    "manifest nested": (manifest(lambda _: f'{{"x": {DEEP}}}'), "nested too deeply"),
    "manifest of another kind": (manifest(lambda value: value.update(shards=3)), "is damaged"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bad_saved_log_is_refused(
    fails: Callable[[list[str]], str], seeds: Seeds, row: str
) -> None:
    check_refused(ROWS[row], seeds, fails)
