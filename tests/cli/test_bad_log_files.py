"""Logs that cannot be read, whatever is wrong with the file or its rows: one row each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fastgaum.cli.app import main
from tests.cli.bad_input import Make, Row, Seeds, check_refused, convert


def csv(change: Callable[[pl.DataFrame], pl.DataFrame], *options: str) -> Make:
    """A csv log, changed."""

    def make(seeds: Seeds) -> list[str]:
        change(seeds.frame).write_csv(seeds.folder / "log.csv")
        return convert(seeds.folder / "log.csv", *options)

    return make


def raw(name: str, content: bytes) -> Make:
    """A log of these bytes."""

    def make(seeds: Seeds) -> list[str]:
        (seeds.folder / name).write_bytes(content)
        return convert(seeds.folder / name)

    return make


def nested(**columns: Any) -> Make:
    """A nested log of two events, some columns changed."""
    values = {
        "session": ["u", "u"],
        "event": [1, 2],
        "items": [["a", "b"], ["c"]],
        "chosen": ["a", None],
        **columns,
    }

    def make(seeds: Seeds) -> list[str]:
        pl.DataFrame(values, strict=False).write_parquet(seeds.folder / "log.parquet")
        return convert(seeds.folder / "log.parquet")

    return make


def column(name: str, value: Any, *options: str) -> Make:
    """A csv log with one value everywhere in one column."""
    return csv(lambda frame: frame.with_columns(pl.lit(value).alias(name)), *options)


def long_line(seeds: Seeds) -> list[str]:
    path = seeds.folder / "log.csv"
    path.write_text("session,event,item,chosen\nu,1,")
    # a hole: two gigabytes that take no disk
    os.truncate(path, 2 << 30)
    return convert(path)


def bad_shard(seeds: Seeds) -> list[str]:
    for name in ("a", "b"):
        seeds.frame.write_parquet(seeds.folder / f"{name}.parquet")
    os.truncate(seeds.folder / "b.parquet", 500)
    return ["data", "convert", str(seeds.folder), "-o", str(seeds.folder / "out")]


def item_table(text: str) -> Make:
    def make(seeds: Seeds) -> list[str]:
        (seeds.folder / "items.csv").write_text(text)
        return [
            "data",
            "convert",
            str(seeds.log),
            "-o",
            str(seeds.folder / "out"),
            "--item-table",
            str(seeds.folder / "items.csv"),
        ]

    return make


def adopt(seeds: Seeds) -> list[str]:
    (seeds.folder / "yelp.txt").write_text("not it")
    return [
        "data",
        "get",
        "yelp",
        "--from",
        str(seeds.folder / "yelp.txt"),
        "--data-dir",
        str(seeds.folder),
    ]


def unfilled(seeds: Seeds) -> list[str]:
    (seeds.folder / "log.csv").write_text("session,event,item,chosen\nu3,17,a,1\nu4,,,0\n")
    return convert(seeds.folder / "log.csv")


WIDE = ",".join(f"c{i}" for i in range(20_000)).encode() + b"\n1\n"


ROWS: dict[str, Row] = {
    "missing column": (csv(lambda frame: frame.drop("item")), "no item column"),
    "misnamed column": (
        csv(lambda frame: frame.rename({"chosen": "choosen"})),
        "did you mean 'choosen'",
    ),
    "two choices": (column("chosen", 1), "one is required"),
    "choice not displayed": (nested(chosen=["z", None]), "which is not among its 2 candidates"),
    "empty log": (csv(lambda frame: frame.head(0)), "the log is empty"),
    "empty file": (raw("log.csv", b""), "0 bytes"),
    "empty display": (nested(items=[["a", "b"], []]), "displays nothing"),
    "session without event": (unfilled, "has no event"),
    "NaN in a column": (
        column("price", float("nan"), "--candidate-field", "price"),
        "a finite number is required",
    ),
    "infinity in a column": (
        column("price", float("inf"), "--candidate-field", "price"),
        "a finite number is required",
    ),
    "not UTF-8": (
        raw("log.csv", "session,event,item,chosen\nu,0,café,1\n".encode("latin1")),
        "not UTF-8: line 2",
    ),
    "truncated parquet": (raw("log.parquet", b"PAR1" + bytes(40)), "no readable parquet file"),
    "one bad shard": (bad_shard, "'b.parquet' is no readable parquet file"),
    "line of 2 GB": (long_line, "no line end in the"),
    "20,000 columns": (raw("log.csv", WIDE), "has 20000 columns, at most 10000"),
    # names that a terminal obeys
    "escape in a header": (
        raw("log.csv", b"session,event,it\x1b[31mem,chosen\nu,1,a,1\n"),
        r"it\x1b[31mem",
    ),
    "bidi in a header": (
        raw("log.csv", "session,event,it\u202eem,chosen\nu,1,a,1\n".encode()),
        r"it\u202eem",
    ),
    "escape in an id": (
        raw("log.csv", b"session,event,item,chosen\nu\x1b[2J,1,a,1\nu\x1b[2J,1,b,1\n"),
        r"u\x1b[2J",
    ),
    # tables of items, and other files
    "item twice in a table": (item_table("item,kind\na,1\na,2\n"), "one row per item"),
    "empty table of items": (item_table("item,kind\n"), "the table is empty"),
    "table of other items": (item_table("item,kind\nnobody,1\n"), "none of the log's"),
    "copy that is not the file": (adopt, "yelp.txt' has the sha256"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bad_log_is_refused(fails: Callable[[list[str]], str], seeds: Seeds, row: str) -> None:
    check_refused(ROWS[row], seeds, fails)


@pytest.mark.parametrize(
    "item",
    ["-9223372036854775808", "18446744073709551616", "007", "a b", "é", "1.5", "=1+1", "a\x00b"],
)
def test_strange_ids_are_ids(tmp_path: Path, item: str) -> None:
    (tmp_path / "log.csv").write_text(
        f"session,event,item,chosen\n-1,0,{item},1\n-1,0,b,0\nx,0,b,1\n"
    )
    assert main(convert(tmp_path / "log.csv")) == 0
