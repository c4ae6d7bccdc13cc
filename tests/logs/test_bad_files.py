"""Files that are damaged, not there, or hold no log: each raises LogFormatError in one
line that says the rule, the values and the cure."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs.read import read_log
from fastgaum.row_files import require_one_count
from tests.logs.bad_logs import long, refused


def test_a_byte_order_mark_works(tmp_path) -> None:
    (tmp_path / "bom.csv").write_bytes("session,event,item,chosen\nu1,0,é,1\n".encode("utf-8-sig"))
    assert read_log(tmp_path / "bom.csv").item_ids.to_list() == ["é"]


def test_directory_with_one_bad_shard(tmp_path) -> None:
    long().write_parquet(tmp_path / "part-0.parquet")
    long().drop("item").write_parquet(tmp_path / "part-1.parquet")
    refused(tmp_path, "shard 'part-1.parquet' lacks the column 'item' that 'part-0.parquet' has")
    long(user=[1, 1, 1, 2]).write_parquet(tmp_path / "part-1.parquet")
    refused(tmp_path, "shard 'part-0.parquet' lacks the column 'user' that 'part-1.parquet' has")
    for values, other in (([1.0, 2.0] * 2, ["1", "2"] * 2), ([date(2025, 1, 1)] * 4, [1, 2] * 2)):
        long(item=values).write_parquet(tmp_path / "part-0.parquet")
        long(item=other).write_parquet(tmp_path / "part-1.parquet")
        refused(tmp_path, "column 'item' is .* in one shard, .* in another")
    long().write_parquet(tmp_path / "part-0.parquet")
    long(item=[[1], [2], [3], [4]]).write_parquet(tmp_path / "part-1.parquet")
    refused(tmp_path, "the shards' columns differ in type")


def changed_footer(path: Path, was: int, now: int, at: int) -> None:
    """A parquet file whose footer says another count at the at-th place where it says `was`; both
    counts take two bytes."""

    def written(count: int) -> bytes:
        return bytes([count * 2 & 127 | 128, count * 2 >> 7])

    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(at + 1):
        start = data.index(written(was), start + 1)
    path.write_bytes(data[:start] + written(now) + data[start + 2 :])


@pytest.mark.parametrize("at", range(6))
def test_a_parquet_file_that_contradicts_itself_is_refused(tmp_path: Path, at: int) -> None:
    """Polars reads as many rows as the row group says, though its columns hold 480."""
    path = tmp_path / "log.parquet"
    rows = pl.DataFrame(
        {"session": range(480), "event": 0, "item": [f"i{i % 9}" for i in range(480)]}
    ).with_columns(chosen=pl.lit(1))
    rows.write_parquet(path)
    assert read_log(path).n_candidates == 480
    changed_footer(path, 480, 241, at)
    with pytest.raises(LogFormatError, match=r"'log.parquet' is no readable .* says .* copy or"):
        read_log(path)


def test_no_footer_is_more_than_refused(tmp_path: Path) -> None:
    """Whatever stands there, polars is asked or the file is refused."""
    path, rng = tmp_path / "log.parquet", np.random.default_rng(0)
    pl.DataFrame({"session": range(480), "items": [["a"]] * 480}).write_parquet(path)
    good, n_refused = path.read_bytes(), 0
    length = int.from_bytes(good[-8:-4], "little")
    for _ in range(400):
        data = bytearray(good)
        for at in rng.integers(len(data) - 8 - length, len(data) - 8, 3):
            data[at] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            require_one_count(path)
        except ValueError:
            n_refused += 1
    assert n_refused
    for part in (b"\x19", b"\x1c", b"\xff", b"\x15\x02"):
        footer = part * (100_000 // len(part))
        path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        require_one_count(path)


def test_all_whole_parquet_files_are_read(tmp_path: Path) -> None:
    """Lists, records, gaps, several row groups; written by polars, pyarrow and pandas."""
    path = tmp_path / "log.parquet"
    rows = pl.DataFrame(
        {
            "session": range(60),
            "items": [[f"i{j}" for j in range(1 + i % 3)] for i in range(60)],
            "chosen": ["i0", None] * 30,
            "more": [{"x": i, "y": [[], [i]][i % 2]} for i in range(60)],
            "list": [None, 1.0] * 30,
        }
    )
    expected = read_log(rows).fingerprint
    for write in (
        rows.write_parquet,
        lambda file: rows.write_parquet(file, row_group_size=7, statistics=False),
        lambda file: rows.write_parquet(file, use_pyarrow=True),
        lambda file: rows.to_pandas().to_parquet(file, row_group_size=11),
    ):
        write(path)
        assert read_log(path).fingerprint == expected


@pytest.mark.parametrize("other", ["more/b.parquet", "b.csv", "more/deep/b.ndjson.gz", "b.arrow"])
def test_other_tables_beside_shards_are_refused(tmp_path: Path, other: str) -> None:
    rows = pl.DataFrame({"session": [1], "event": [0], "item": ["a"], "chosen": [1]})
    rows.write_parquet(tmp_path / "a.parquet")
    for name in ("README.txt", "notes.md", "_SUCCESS", ".a.parquet.crc", "_delta/x.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert read_log(tmp_path).n_events == 1
    (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / other).write_bytes(b"x")
    with pytest.raises(LogFormatError, match=rf"holds '{other}' beside its 1 parquet shards"):
        read_log(tmp_path)
