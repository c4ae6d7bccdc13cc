from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs.column_roles import LogSchema, find_role, resolve_schema
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from fastgaum.logs.side_tables import attach_item_table
from tests.logs.test_round_trip import WRITERS

LONG = pl.DataFrame(
    {
        "session": ["u3", "u3", "u3", "u1", "u1"],
        "event": [1, 1, 0, 5, 5],
        "item": ["b", "a", "c", "a", "d"],
        "chosen": [0, 1, 1, 0, 0],
        "price": [2.0, 1.5, 3.0, 4.0, 5.0],
        "brand": ["x", None, "y", "x", "x"],
    }
)


ALSO = {".tab": ".tsv", ".pq": ".parquet", ".feather": ".arrow", ".ipc": ".arrow"}


def write(frame: pl.DataFrame, path):
    WRITERS[ALSO.get(path.suffix, path.suffix)](frame, path)
    return path


def check_long(log) -> None:
    assert log.session_ids.to_list() == ["u3", "u1"]
    assert log.item_ids.to_list() == ["a", "b", "c", "d"]
    assert log.session_offsets.tolist() == [0, 2, 3]
    assert log.event_ids.to_list() == [0, 1, 5]
    assert log.display_offsets.tolist() == [0, 1, 3, 5]
    assert log.items.tolist() == [2, 0, 1, 0, 3]
    assert log.choices.tolist() == [0, 0, -1]
    assert log.views.tolist() == [1, 1, 1, 1, 1]
    assert log.users.tolist() == [0, 1]
    np.testing.assert_array_equal(log.columns["price"].values, np.float32([3, 1.5, 2, 4, 5]))
    assert log.columns["price"].values.dtype == np.float32
    assert log.columns["brand"].categories.to_list() == ["x", "y"]
    assert log.columns["brand"].values.tolist() == [1, -1, 0, 0, 0]
    assert log.columns["brand"].values.dtype == np.int32
    for array in (log.session_offsets, log.display_offsets, log.items, log.choices, log.users):
        assert array.dtype == np.int32


@pytest.mark.parametrize("suffix", [".tab", ".pq", ".feather", ".ipc", "_stream.ARROW"])
def test_every_extension_gives_the_same_log(tmp_path, suffix) -> None:
    path = tmp_path / f"tiny{suffix}"
    LONG.write_ipc_stream(path) if "stream" in suffix else write(LONG, path)
    log = read_log(path, candidate_fields=["price", "brand"])
    check_long(log)
    assert log.name == path.stem


def test_folder_of_shards_is_read_in_name_order(tmp_path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    LONG[2:].with_columns(pl.col("event").cast(pl.Int32)).write_parquet(folder / "part-1.parquet")
    LONG[:2].write_parquet(folder / "part-0.parquet")
    (folder / "_SUCCESS").write_text("")
    log = read_log(folder, candidate_fields=["price", "brand"], name="mine")
    check_long(log)
    assert log.name == "mine"


NESTED = pl.DataFrame(
    {
        "session": [7, 7, 8],
        "time": [dt.datetime(2024, 1, 2), dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1)],
        "items": [[10, 9, 8], [9], [8, 10]],
        "chosen": [9, None, 10],
    }
)


@pytest.mark.parametrize("missing", [None, -1, float("nan")])
def test_nested_by_index(missing) -> None:
    frame = NESTED.drop("chosen").with_columns(
        pl.Series("chosen_index", [1, missing, 1], strict=False)
    )
    by_index, by_item = read_log(frame), read_log(NESTED)
    np.testing.assert_array_equal(by_index.choices, by_item.choices)
    np.testing.assert_array_equal(by_index.items, by_item.items)


def test_nested_with_lists_of_choices_and_fixed_length_arrays() -> None:
    frame = pl.DataFrame(
        {
            "user": ["a", "a", "b", "b"],
            "items": pl.Series(
                [["x", "y"], ["y", "z"], ["z", "x"], ["x", "z"]], dtype=pl.Array(pl.String, 2)
            ),
            "clicked": [["y"], [], None, ["z", "x"]],
        }
    )
    with pytest.raises(LogFormatError, match="event 3 of session 'b' has 2 clicks"):
        read_log(frame)
    log = read_log(frame, clicks="first")
    assert log.choices.tolist() == [1, -1, -1, 1]
    assert log.event_ids.to_list() == [0, 1, 2, 3]


def test_nested_fields_per_candidate_and_per_event() -> None:
    frame = NESTED.with_columns(
        pl.Series("rank", [[1, 2, 3], [4], [5, 6]]),
        pl.Series("tags", [["p", None, "q"], ["p"], ["q", "q"]]),
        pl.Series("device", ["phone", "tv", "phone"]),
    )
    log = read_log(frame, candidate_fields=["rank", "tags", "device"])
    assert log.columns["rank"].values.tolist() == [4, 1, 3, 2, 6, 5]
    assert log.columns["tags"].values.tolist() == [0, 0, 1, -1, 1, 1]
    assert log.columns["device"].values.tolist() == [1, 0, 0, 0, 0, 0]


def test_event_order_by_number_time_or_appearance() -> None:
    def labels(values, **options):
        rows = len(values)
        frame = pl.DataFrame(
            {"session": ["s"] * rows, "event": values, "item": ["i"] * rows, "chosen": [0] * rows}
        )
        return read_log(frame, **options).event_ids.to_list()

    assert labels([10, 9, 100]) == [9, 10, 100]
    assert labels(["10", "9", "100"]) == [9, 10, 100]
    assert labels([1.5, 0.5]) == [0.5, 1.5]
    assert labels(["2024-03-01 10:00:00", "2023-12-31 09:00:00"])[0].year == 2023
    days = [dt.date(2024, 1, 2), dt.date(2024, 1, 1)]
    assert labels(days) == days[::-1]
    assert labels(["second", "tenth", "first"]) == ["second", "tenth", "first"]


def test_an_event_label_tells_events_of_one_time_apart() -> None:
    frame = pl.DataFrame(
        {
            "session": ["s"] * 4,
            "timestamp": [50, 50, 50, 20],
            "impression_id": ["p", "q", "q", "r"],
            "item": ["i", "j", "k", "i"],
            "chosen": [1, 0, 1, 1],
        }
    )
    log = read_log(frame)
    assert log.event_ids.to_list() == ["r", "p", "q"]
    assert log.display_offsets.tolist() == [0, 1, 2, 4]


def test_users_may_share_sessions() -> None:
    frame = LONG.with_columns(pl.Series("user", ["ann"] * 5))
    assert read_log(frame).users.tolist() == [0, 0]
    without_session = read_log(frame.drop("session"))
    assert without_session.session_ids.to_list() == ["ann"]


def test_columns_name_roles() -> None:
    frame = LONG.rename({"session": "visitor", "item": "sku"})
    log = read_log(frame, columns={"session": "visitor", "item": "sku"})
    assert log.items.tolist() == [2, 0, 1, 0, 3]
    options = ReadOptions(columns={"session": "visitor", "item": "sku"})
    assert read_log(frame, options=options).fingerprint == log.fingerprint
    with pytest.raises(LogFormatError, match=r"names the role 'itm'.*did you mean 'item'"):
        read_log(frame, columns={"itm": "sku"})


def test_names_ignore_case_and_underscores_and_prefer_the_first() -> None:
    assert find_role("session", ["sessionID", "x"]) == "sessionID"
    assert find_role("event", ["timestamp", "Time"]) == "Time"
    assert find_role("item", ["things"]) is None
    types = dict.fromkeys(
        ("SessionId", "Time", "ItemId", "is_click", "tr_val_tst", "raw_index"), pl.String()
    )
    assert resolve_schema(types) == LogSchema(
        "SessionId", "Time", item="ItemId", chosen="is_click", split="tr_val_tst"
    )


def test_a_views_column_is_a_count_unless_named_as_a_field() -> None:
    frame = LONG.with_columns(pl.Series("views", [0, 3, 70_000, 1, 1]))
    assert read_log(frame).views.tolist() == [65535, 3, 1, 1, 1]
    as_field = read_log(frame, candidate_fields=["views"])
    assert as_field.views.tolist() == [1] * 5
    assert as_field.columns["views"].values.tolist() == [70_000, 3, 0, 1, 1]


def test_split_rules() -> None:
    n = 40
    times = [n - i for i in range(n)]
    frame = pl.DataFrame({"session": range(n), "time": times, "item": "i", "chosen": 1})
    by_time = read_log(frame, split="time").split
    assert by_time.tolist() == [2] * 10 + [1] * 10 + [0] * 20
    assert by_time.dtype == np.int8
    auto, user, other = (
        read_log(frame, **o).split
        for o in ({}, {"split": "user"}, {"split": "user", "split_seed": 1})
    )
    np.testing.assert_array_equal(auto, user)
    assert (user != other).any()
    marked = frame.with_columns(pl.Series("split", ["Train", "valid", "dev", "TEST"] * 10))
    assert read_log(marked).split.tolist() == [0, 1, 1, 2] * 10
    assert read_log(marked, split="file").split.tolist() == [0, 1, 1, 2] * 10
    np.testing.assert_array_equal(read_log(marked, split="user").split, user)
    with pytest.raises(LogFormatError, match="needs a split column"):
        read_log(frame, split="file")
    with pytest.raises(LogFormatError, match="'event' is text"):
        read_log(LONG.with_columns(pl.Series("event", ["a", "a", "b", "c", "c"])), split="time")


def test_item_table(tmp_path) -> None:
    log = read_log(LONG)
    table = pl.DataFrame(
        {
            "ItemId": ["a", "c", "b", "zz"],
            "genre": ["g2", "g1", None, "g9"],
            "year": [2000.0, 2010.0, None, 1.0],
        }
    )
    for suffix in (".csv", ".parquet"):
        out = attach_item_table(log, write(table, tmp_path / f"items{suffix}"))
        assert out.columns["genre"].categories.to_list() == ["g1", "g2"]
        assert out.columns["genre"].values.tolist() == [1, -1, 0, -1]
        # b has no year and d no row: both get the mean of a and c.
        assert out.columns["year"].values.tolist() == [2000, 2005, 2010, 2005]
    write(LONG, tmp_path / "log.csv")
    via_read = read_log(tmp_path / "log.csv", item_table=tmp_path / "items.csv")
    assert via_read.columns["year"].values.tolist() == [2000, 2005, 2010, 2005]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_no_choice_of_items_decides_what_a_column_of_the_table_holds(tmp_path, suffix) -> None:
    """Items without a number have the table's mean, codes beside names are categories."""
    table = pl.DataFrame({"item": ["a", "b", "x", "y"], "year": [None, None, 1.5, 2.0]})
    table = table.with_columns(code=pl.Series(["7", None, "A", "B"]))
    columns = attach_item_table(read_log(LONG), write(table, tmp_path / f"items{suffix}")).columns
    assert columns["year"].values.tolist() == [1.75] * 4
    assert columns["code"].categories.to_list() == ["7"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item": ["a", "x"], "x": [None, None]}, "column 'x' has no number: fill it in, or drop"),
        ({"itm": ["a"], "x": [1]}, "needs an item column.*did you mean 'itm'"),
        ({"item": ["a"]}, "the only column is 'item'"),
        ({"item": ["a"], "x": [float("inf")]}, "item 'a' has inf in column 'x'"),
        ({"item": ["a"], "price": [1.0]}, "column 'price' is already a field"),
    ],
)
def test_bad_item_tables(tmp_path, table, message) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "items.parquet")
    log = read_log(LONG, candidate_fields=["price"])
    with pytest.raises(LogFormatError, match=message):
        attach_item_table(log, tmp_path / "items.parquet")


def test_displays_that_have_no_choice_yet_are_as_without_a_click(tmp_path) -> None:
    nested = LONG.group_by("session", "event", maintain_order=True).agg("item")
    nested = nested.rename({"item": "items"})
    for frame, none in ((LONG.drop("chosen"), 0), (nested, pl.lit(None, pl.String))):
        same = read_log(frame.with_columns(chosen=none))
        for source in (frame, write(frame, tmp_path / "asked.parquet")):
            log = read_log(source, columns={"chosen": ""}, clicks="first")
            assert log.fingerprint == same.fingerprint
        # a column of choices is left out where it is not wanted
        assert (read_log(frame.with_columns(chosen_index=0), columns={"chosen": ""})).has_no_click
        with pytest.raises(LogFormatError, match=r"are read with --column chosen= \(columns="):
            read_log(frame)
