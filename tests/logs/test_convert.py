"""Any files of rows → shards → back: the same log up to the order of sessions; in one shard the
very same log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import ConfigError, LogFormatError, OutputError
from fastgaum.logs.convert import PIECE_ROWS, convert_files
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import resplit
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from fastgaum.logs.shards import ShardedLog
from tests.logs.test_fold import CONTEXT, FIELDS, SESSIONS, as_sets, rows_of
from tests.logs.test_saved_log import assert_same


def convert(
    paths: Sequence[Path], folder: Path, n_shards: int, piece_rows: int = PIECE_ROWS, **given: Any
) -> ShardedLog:
    """The shards of files that are read with the options given; former ones are replaced."""
    options = ReadOptions.of(**given)
    return convert_files(
        paths, folder, n_shards, options=options, piece_rows=piece_rows, overwrite=True
    )


@settings(max_examples=40, deadline=None)
@given(
    SESSIONS,
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_rows_to_shards_and_back(
    tmp_path_factory, sessions, n_shards, piece_rows, n_files, ordered, seed
) -> None:
    folder = tmp_path_factory.mktemp("convert")
    frame = rows_of(sessions, None if ordered else np.random.default_rng(seed))
    cuts = np.linspace(0, frame.height, n_files + 1).astype(int)
    files = [folder / f"{i}.parquet" for i in range(n_files)]
    for path, start, stop in zip(files, cuts, cuts[1:], strict=False):
        frame.slice(start, stop - start).write_parquet(path)
    frame.write_parquet(folder / "whole.parquet")
    options = {"candidate_fields": FIELDS, "context_fields": CONTEXT, "ordered": ordered}
    whole = read_log(folder / "whole.parquet", **options)
    shards = convert(
        files, folder / "shards", n_shards, piece_rows=piece_rows, name="whole", **options
    )
    back = shards.load()
    assert as_sets(back) == as_sets(whole)
    assert back.item_ids.to_list() == whole.item_ids.to_list()
    assert back.fingerprint == shards.fingerprint
    assert (shards.n_sessions, shards.n_events, shards.n_candidates) == (
        back.n_sessions,
        back.n_events,
        back.n_candidates,
    )
    if n_shards == 1:
        assert_same(back, whole)
        assert shards.fingerprint == whole.fingerprint


def users_frame() -> pl.DataFrame:
    """Sessions of a few users, each user's scattered over the file."""
    n = 40
    return pl.DataFrame(
        {
            "session": [f"s{i}" for i in range(n) for _ in range(3)],
            "user": [f"u{i % 13}" for i in range(n) for _ in range(3)],
            "event": [0, 0, 1] * n,
            "item": [f"i{(7 * i + j) % 11}" for i in range(n) for j in range(3)],
            "chosen": [1, 0, 0] * n,
        }
    )


def test_users_are_whole_and_the_split_is_theirs(tmp_path) -> None:
    users_frame().write_parquet(tmp_path / "log.parquet")
    shards = convert([tmp_path / "log.parquet"], tmp_path / "out", 3, piece_rows=10, split_seed=5)
    assert 2 <= len(shards.shards) <= 3
    assert shards.n_users == 13
    user_of = dict(zip(users_frame()["session"], users_frame()["user"], strict=True))
    seen: list[set[str]] = []
    for part in shards.parts():
        seen.append({user_of[session] for session in part.session_ids})
        assert len(seen[-1]) == part.users.max() + 1
    assert len(set().union(*seen)) == sum(map(len, seen)) == 13
    back = shards.load()
    assert set(back.split.tolist()) == {0, 1, 2}
    assert_same(back, resplit(back, 5))


@pytest.mark.parametrize("split", ["user", "half", "other-half"])
def test_a_log_in_shards_is_split_anew_as_in_memory(tmp_path, split) -> None:
    users_frame().write_parquet(tmp_path / "log.parquet")
    convert([tmp_path / "log.parquet"], tmp_path / "out", 3)
    from fastgaum.logs.read import open_log

    shards = open_log(tmp_path / "out", split=split, split_seed=3)
    whole = read_log(tmp_path / "out", split=split, split_seed=3)
    assert shards.fingerprint == whole.fingerprint
    for number, name in enumerate(("train", "validation", "test")):
        assert shards.count("sessions", name) == (whole.split == number).sum()
    assert_same(shards.load(), whole)


def test_text_is_typed_over_the_whole_log(tmp_path) -> None:
    """A csv column that reads as numbers in its first pieces is text everywhere."""
    n = 30
    frame = pl.DataFrame(
        {
            "session": [f"s{i // 2}" for i in range(n)],
            "event": [str(i) for i in range(3)] + [f"e{i}" for i in range(3, n)],
            "item": [str(i % 5) for i in range(n)],
            "chosen": [1] * n,
            "price": [str(i) for i in range(n)],
            "brand": [str(i) for i in range(n // 3)] + ["b"] * (n - n // 3),
            "page": [f"0{i}" for i in range(n)],
            "hour": [str(i) for i in range(n - 1)] + ["0.5"],
        }
    )
    frame.write_csv(tmp_path / "log.csv")
    options = {"candidate_fields": ["price", "brand"], "context_fields": ["page", "hour"]}
    shards = convert(
        [tmp_path / "log.csv"], tmp_path / "out", 1, piece_rows=4, name="log", **options
    )
    assert_same(shards.load(), read_log(tmp_path / "log.csv", **options))
    assert shards.categories["page"].to_list() == sorted(frame["page"].to_list())
    assert "hour" not in shards.categories
    frame.with_columns(pl.Series("event", [float(i % 2) for i in range(n)])).write_csv(
        tmp_path / "log.csv"
    )
    shards = convert(
        [tmp_path / "log.csv"], tmp_path / "out", 1, piece_rows=4, name="log", **options
    )
    assert_same(shards.load(), read_log(tmp_path / "log.csv", **options))


@pytest.mark.parametrize("spoil", ["n/a", "12,50"])
def test_text_among_decimal_numbers_is_no_category(tmp_path, spoil) -> None:
    """Whole and in pieces: a price that is read as categories is lost without a word."""
    frame = users_frame().with_columns(price=pl.int_range(pl.len()) / 8 + 0.5)
    rows = pl.int_range(pl.len())
    texts = pl.when(rows == 7).then(pl.lit(spoil)).otherwise(pl.col("price").cast(pl.String))
    frame.with_columns(price=texts).write_csv(tmp_path / "log.csv")
    says = f"has 'price' = '{spoil}', and most values are numbers"
    with pytest.raises(LogFormatError, match=says):
        read_log(tmp_path / "log.csv", candidate_fields=["price"])
    with pytest.raises(LogFormatError, match=says):
        convert([tmp_path / "log.csv"], tmp_path / "out", 2, candidate_fields=["price"])
    price = pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(spoil)).otherwise(pl.lit("1.5"))
    frame.unique("item").select("item", price=price).write_csv(tmp_path / "items.csv")
    with pytest.raises(LogFormatError, match=says):
        read_log(tmp_path / "log.csv", item_table=tmp_path / "items.csv")
    # text that is text stays so
    frame.with_columns(price=texts).write_parquet(tmp_path / "log.parquet")
    assert "price" in read_log(tmp_path / "log.parquet", candidate_fields=["price"]).categories


def test_nested_lists_times_and_an_item_table(tmp_path) -> None:
    n = 20
    frame = pl.DataFrame(
        {
            "session": [float(i // 3) for i in range(n)],
            "time": [f"2024-01-{1 + i % 3:02} 10:00:00" for i in range(n)],
            "items": [[i % 4, 4, 5] for i in range(n)],
            "chosen": [[4] if i % 2 else [] for i in range(n)],
            "price": [[1.0 * i, 2.0, 3.0] for i in range(n)],
            "page": [None if i == 3 else i % 4 for i in range(n)],
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({"item": [0, 1, 4], "brand": ["x", "y", "x"], "year": [1, 2, 3]}).write_csv(
        tmp_path / "items.csv"
    )
    options = {
        "candidate_fields": ["price"],
        "context_fields": ["page"],
        "item_table": tmp_path / "items.csv",
        "ordered": True,
    }
    whole = read_log(tmp_path / "log.parquet", **options)
    shards = convert(
        [tmp_path / "log.parquet"], tmp_path / "out", 1, piece_rows=3, name="log", **options
    )
    assert_same(shards.load(), whole)
    assert rows_without_split(
        convert([tmp_path / "log.parquet"], tmp_path / "out", 4, **options).load()
    ) == (rows_without_split(whole))


def rows_without_split(log) -> list:
    return sorted(to_frame(log).drop("split", "user").rows())


def test_real_logs(tmp_path, shared_data) -> None:
    for name in ("tb.txt", "yelp.txt"):
        whole = read_log(shared_data(name))
        assert_same(
            convert([shared_data(name)], tmp_path / "one", 1, piece_rows=5_000).load(), whole
        )
        many = convert([shared_data(name)], tmp_path / "many", 6, piece_rows=5_000).load()
        assert sorted(to_frame(many).drop("user").rows()) == sorted(
            to_frame(whole).drop("user").rows()
        )


BAD = {
    "two choices": ({"chosen": [1, 1, 0, 0]}, r"event 0 of session 's0' has 2 clicks"),
    "a bad flag": (
        {"chosen": [1, 0, 0, 7]},
        r"log\.parquet: row 2 has 'chosen' = 7.*counted from row 3",
    ),
    "no item": ({"item": ["a", "b", "c", None]}, r"log\.parquet: row 2 has no item"),
    "two splits": ({"split": [0, 0, 1, 0]}, r"session 's1' has the splits 1 and 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_named_and_nothing_is_left(tmp_path, case) -> None:
    changes, message = BAD[case]
    good = {
        "session": ["s0", "s0", "s1", "s1"],
        "event": [0, 0, 0, 0],
        "item": ["a", "b", "c", "d"],
        "chosen": [1, 0, 0, 1],
    }
    pl.DataFrame(good | changes).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(LogFormatError, match=message):
        convert([tmp_path / "log.parquet"], tmp_path / "out", 2, piece_rows=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet"]


def test_what_cannot_be_converted(tmp_path) -> None:
    users_frame().write_parquet(tmp_path / "log.parquet")
    log = [tmp_path / "log.parquet"]
    with pytest.raises(ConfigError, match="shards is 0"):
        convert(log, tmp_path / "out", 0)
    with pytest.raises(ConfigError, match="give the split as a column"):
        convert(log, tmp_path / "out", 2, split="time")
    with pytest.raises(LogFormatError, match="needs a split column"):
        convert(log, tmp_path / "out", 2, split="file")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "work.txt").write_text("years")
    with pytest.raises(OutputError, match="is no saved log"):
        convert(log, tmp_path / "thesis", 2)
    users_frame().drop("item").write_parquet(tmp_path / "other.parquet")
    with pytest.raises(LogFormatError, match=r"'other.parquet' lacks the column 'item'"):
        convert([*log, tmp_path / "other.parquet"], tmp_path / "out", 2)
    users_frame().with_columns(pl.lit([1]).alias("item")).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(LogFormatError, match="differ in type"):
        convert([*log, tmp_path / "other.parquet"], tmp_path / "out", 2)
