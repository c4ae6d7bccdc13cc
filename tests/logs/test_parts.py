"""A log that is saved in parts is the log that is read whole; a part that is damaged, exchanged or
of another log is refused by name."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError, LogFormatError, OutputError
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import SessionLog
from fastgaum.logs.parts import save_in_parts
from fastgaum.logs.read import read_log
from fastgaum.logs.store import ABOUT, StoredLog, load_log, save_log
from tests.logs.test_saved_log import assert_same, rich_log

FIELDS = {"candidate_fields": ("price", "shelf"), "context_fields": ("hour", "query")}


def by_session(log: SessionLog) -> SessionLog:
    """The log with sessions in the order of their ids, and users in that of their sessions."""
    from fastgaum.logs.cut import slice_sessions

    log = slice_sessions(log, log.session_ids.arg_sort().to_numpy())
    _, first, users = np.unique(log.users, return_index=True, return_inverse=True)
    ranks = np.argsort(np.argsort(first))
    return replace(log, users=ranks[users].astype(np.int32))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    to_frame(rich_log(n_sessions=60)).write_parquet(tmp_path / "clicks.parquet")
    return tmp_path / "clicks.parquet"


def save(source: Path, folder: Path, parts: int, **given: object) -> StoredLog:
    from fastgaum.logs.options import ReadOptions

    options = ReadOptions.of(**given)  # type: ignore[arg-type]
    return StoredLog(save_in_parts(str(source), folder, parts, options=options))


@pytest.mark.parametrize("parts", [1, 40])
def test_parts_are_the_log(source: Path, tmp_path: Path, parts: int) -> None:
    items = pl.DataFrame({"item": [f"i{i}" for i in range(12)], "year": np.arange(12.0)})
    items.write_csv(tmp_path / "items.csv")
    given = {**FIELDS, "ordered": True, "grid": 2, "item_table": str(tmp_path / "items.csv")}
    stored = save(source, tmp_path / "parts", parts, **given)
    whole = read_log(source, **given)  # type: ignore[arg-type]
    joined = load_log(tmp_path / "parts")
    assert 1 <= stored.n_parts <= parts
    assert_same(by_session(joined), by_session(whole))
    assert {name: sum(of) for name, of in joined.counts().items()} == {
        name: stored.count(name)  # type: ignore[arg-type]
        for name in joined.counts()
    }
    each = [stored.read([number]) for number in range(stored.n_parts)]
    users = np.concatenate([np.unique(part.user_hashes) for part in each])
    assert len(np.unique(users)) == len(users)
    assert all(part.item_ids.equals(whole.item_ids) for part in each)
    assert stored.read(range(stored.n_parts)).fingerprint == stored.fingerprint
    if parts == 1:
        assert stored.fingerprint == joined.fingerprint


def test_folders_of_a_partition_are_parts(source: Path, tmp_path: Path) -> None:
    rows = pl.read_parquet(source)
    part = (rows["user"].hash(1) % 4).rename("part")
    rows.with_columns(part).write_parquet(
        pl.PartitionBy(tmp_path / "clicks", key="part", include_key=False, max_rows_per_file=20),
        mkdir=True,
    )
    (tmp_path / "clicks" / "_SUCCESS").touch()
    assert len(list((tmp_path / "clicks").rglob("*.parquet"))) > 4
    stored = save(tmp_path / "clicks", tmp_path / "parts", 0)
    assert stored.n_parts == part.n_unique() == 4
    assert_same(by_session(load_log(tmp_path / "parts")), by_session(read_log(source)))


def test_the_statement_of_the_docs_deals_rows_out_in_duckdb(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb = pytest.importorskip("duckdb", reason="pip install duckdb")
    page = Path(__file__).parents[2] / "docs" / "guide" / "large-logs.md"
    statement = page.read_text(encoding="utf-8").split("```sql\n-- DuckDB")[1].split("```")[0]
    # many files and groups of rows, which several threads would mix
    rows = pl.concat(
        pl.read_parquet(source).with_columns(
            pl.col("user") + 1000 * number, pl.col("session") + f"-{number:02}"
        )
        for number in range(40)
    )
    (tmp_path / "clicks").mkdir()
    for number, some in enumerate(rows.iter_slices(3000)):
        some.write_parquet(tmp_path / "clicks" / f"{number:02}.parquet", row_group_size=100)
    monkeypatch.chdir(tmp_path)
    duckdb.connect().execute(statement.partition("\n")[2])
    stored = save(tmp_path / "dealt", tmp_path / "parts", 0, **FIELDS, ordered=True)
    assert 100 < stored.n_parts <= 256
    whole = read_log(tmp_path / "clicks", **FIELDS, ordered=True)  # type: ignore[arg-type]
    dealt = replace(load_log(tmp_path / "parts"), name=whole.name)
    assert_same(by_session(dealt), by_session(whole))


def test_a_sample_of_users_is_the_same_of_parts_and_of_the_whole(
    source: Path, tmp_path: Path
) -> None:
    whole = by_session(read_log(source, sample_users=0.4))
    save(source, tmp_path / "parts", 5)
    assert 0 < whole.n_sessions < 60
    of_parts = by_session(read_log(tmp_path / "parts", sample_users=0.4))
    # what reading found is of the whole log
    assert_same(replace(of_parts, clicks=whole.clicks), whole)
    dealt = save(source, tmp_path / "sample", 5, sample_users=0.4)
    assert_same(by_session(load_log(dealt.folder)), whole)


def test_text_and_a_log_in_memory_make_the_same_parts(source: Path, tmp_path: Path) -> None:
    pl.read_parquet(source).write_csv(tmp_path / "clicks.csv")
    from_text = save(tmp_path / "clicks.csv", tmp_path / "text", 5)
    from_rows = save(source, tmp_path / "rows", 5)
    assert from_text.fingerprint == from_rows.fingerprint
    whole = read_log(source)
    from_memory = save(save_log(whole, tmp_path / "saved"), tmp_path / "memory", 5)
    joined = load_log(from_memory.folder)
    assert_same(by_session(joined), by_session(whole))


def test_each_file_of_a_folder_is_a_part(source: Path, tmp_path: Path) -> None:
    rows = pl.read_parquet(source)
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(3):
        own = rows.filter(pl.col("user").cast(pl.Int64) % 3 == number)
        own.write_parquet(folder / f"{number}.parquet")
    stored = save(folder, tmp_path / "parts", 0)
    assert stored.n_parts == 3
    assert stored.first.users.max() < stored.read([2]).users.min()
    rows.filter(pl.col("user") == rows["user"][0]).write_parquet(folder / "9.parquet")
    with pytest.raises(
        LogFormatError, match=r"user '?0'? is in two parts, 0.parquet and 9.parquet"
    ):
        save(folder, tmp_path / "twice", 0)
    assert sorted(os.listdir(tmp_path)) == ["clicks.parquet", "files", "parts"]


def test_what_cannot_be_read_in_parts_is_refused(source: Path, tmp_path: Path) -> None:
    for given, text in (
        ({"split": "time"}, "a split by time cannot be read part by part"),
        ({"actions": str(source)}, "actions cannot be read part by part"),
    ):
        with pytest.raises(ConfigError, match=text):
            save(source, tmp_path / "parts", 3, **given)
    for parts in (-1, 5000):
        with pytest.raises(ConfigError, match=f"parts is {parts}, a number from 1 to 4096"):
            save(source, tmp_path / "parts", parts)
    folder = tmp_path / "files"
    folder.mkdir()
    rows = pl.read_parquet(source).with_columns(tag=pl.lit("7"))
    first = pl.col("user").cast(pl.Int64) % 2 == 0
    rows.filter(first).write_parquet(folder / "0.parquet")
    rows.filter(~first).with_columns(tag=pl.lit("x")).write_parquet(folder / "1.parquet")
    with pytest.raises(LogFormatError, match="column 'tag' holds category values in part"):
        save(folder, tmp_path / "parts", 0, candidate_fields=["tag"])
    save(source, tmp_path / "there", 2)
    with pytest.raises(OutputError, match="holds a saved log already"):
        save(source, tmp_path / "there", 2)
    assert sorted(os.listdir(tmp_path)) == ["clicks.parquet", "files", "there"]


def test_a_damaged_or_exchanged_part_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    stored = save(source, tmp_path / "parts", 4)
    other = save(source, tmp_path / "other", 4)
    folder, parts = stored.folder, stored.about.parts

    def refused(text: str) -> None:
        opened = StoredLog(folder)
        with pytest.raises(LogFormatError, match=text):
            opened.read([2])
        with pytest.raises(LogFormatError, match=text):
            load_log(folder)
        opened.read([1])

    file = folder / parts[2].events.file
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(rf"{file.name}' has the sha256")
    for foreign in (folder / parts[1].events.file, other.folder / other.about.parts[1].events.file):
        shutil.copy(foreign, file)
        refused(rf"{file.name}' has the sha256")
    file.unlink()
    refused(rf"{file.name}' cannot be read")
    # by hand, with its sha256: sessions and events that do not fit
    about = msgspec.json.decode((folder / ABOUT).read_bytes())
    about["parts"][2]["events"] = about["parts"][1]["events"]
    (folder / ABOUT).write_bytes(msgspec.json.encode(about))
    refused("is damaged")
