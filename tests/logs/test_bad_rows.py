"""Logs whose columns or rows are wrong: each raises LogFormatError in one line that says the
rule, the values and the cure. More are rows of tests/attack/table.py."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.logs.columns import CodedIds, ids_as_text
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from tests.logs.bad_logs import long, nested, refused

PRICE: dict[str, Any] = {"candidate_fields": ["price"]}
NO_NUMBER = "event 18 of session 'u3' has .* in column 'price', a finite number is required"
AS_POSITION = "a position from 0 to 1"

NEVER = {
    "session": ["u3"] * 4,
    "item": ["a", "b", "a", "b"],
    "chosen": [1, 0, 0, 0],
    "event": ["view"] * 4,
}


def test_two_words_are_no_flags() -> None:
    rows = long().with_columns(chosen=pl.Series([["nein", "ja"][one] for one in long()["chosen"]]))
    refused(rows, "column 'chosen' has two values, 'ja' and 'nein'; 0 .* replace them by 0 and 1")


def by_index(*positions: Any) -> pl.DataFrame:
    column = pl.Series("chosen_index", positions, strict=False)
    return nested().drop("chosen").with_columns(column)


ROWS: list[tuple[pl.DataFrame, str, dict[str, Any]]] = [
    (long().rename({"session": "xyz"}), r"--column session=NAME \(columns={'session': 'NAME'}", {}),
    # positions under the name of items: the message says how to say so
    (nested(chosen=[1, 0]), "event 17 .* chose item '1'.*{'chosen_index': 'chosen'}", {}),
    *(
        (by_index(at, None), f"event 17 of .* has 'chosen_index' = {at} for 2 .*{AS_POSITION}", {})
        for at in (2, -2, 0.5)
    ),
    *(
        (by_index(*each), "'chosen_index' says yes or no of each candidate, the positions", {})
        for each in ([True, False], [[True, False], [False]])
    ),
    (
        by_index([0, 1, 0], [1, 0]).with_columns(items=pl.Series([[*"abc"], [*"ab"]])),
        "'chosen_index' says yes or no",
        {"clicks": "first"},
    ),
    (
        long(at=[1, 0, 0, 1]),
        "'at' is named as a position .* one row per .*name a column of 0 and 1",
        {"columns": {"chosen_index": "at"}},
    ),
    (by_index("a", None), "event 17 of session 'u3' has 'chosen_index' = 'a'", {}),
    *(
        (long().with_columns(event=pl.Series(event)), "row 2 .session 'u3'. has no event", {})
        for bad in ("NaN", "inf", "-inf")
        for event in (["17", bad, "18", "1"], [17.0, float(bad), 18.0, 1.0])
    ),
    (nested(event=[None, 18]), "row 1 .session 'u3'. has no event", {}),
    (nested(items=[["a", None], ["c"]]), "event 17 of session 'u3' has no item", {}),
    (long(user=["p", "p", None, "q"]), "row 3 has no user id", {}),
    (long(session=[[1], [1], [1], [2]]), "the session column 'session' holds List.Int64., ids", {}),
    (nested(items=["a b", "c"]), "column 'items' holds String, a list of items is required", {}),
    (
        nested(sku=["a", "b"]),
        "both an item column 'sku' and an items",
        {"columns": {"item": "sku", "items": "items"}},
    ),
    *(
        (frame, NO_NUMBER, PRICE)
        for bad in (float("nan"), float("inf"), float("-inf"), 1e300)
        for frame in (long(price=[1.0, 2.0, bad, 4.0]), nested(price=[[1.0, 2.0], [bad]]))
    ),
    (long(price=[1.0, 2.0, None, 4.0]), "event 18 of .* has no value in column 'price', a", PRICE),
    (
        long(price=pl.Series(["2024-01-01"] * 4).str.to_date()),
        "column 'price' holds Date, a field is numbers or text",
        PRICE,
    ),
    (nested(price=[[1, 2], [1, 2]]), "event 18 .* has 2 values in 'price' for 1 cand", PRICE),
    (long(user=["p", "q", "p", "r"]), "session 'u3' has the users 'p' and 'q', one is req", {}),
    (
        long(event_id=[1, 2, 3, 4]),
        "the event label 'event_id' differs in each of the 4 rows while session and 'event' make 3"
        ".*columns={'event': 'event', 'event_label': 'event'}",
        {},
    ),
    (
        # a row that is there twice
        long(event_id=[1, 2, 3, 4])[[0, 1, 2, 3, 3]],
        "the event label 'event_id' differs in each of the 4 rows while session and 'event' make 3",
        {},
    ),
    *(
        (
            nested(**{name: [5, 6]}).drop("event" if name == "impression_id" else [])[[0, 1, 0]],
            "event 5 of session 'u3' has two rows, alike in items and choice .1 rows are such",
            {},
        )
        for name in ("event_id", "impression_id")
    ),
    (long(split=[0, 0, 0, None]), "row 4 has 'split' = None, one of 0, 1, 2, train", {}),
    (long(views=[1, 2, -3, 0]), "row 3 has 'views' = -3, a count of views is required", {}),
    (long(views=[[1]] * 4), "column 'views' holds List.Int64., a count of views is requ", {}),
    # the displays of a session would be one
    (nested(event=["view"] * 2, time=["2025-01-09", "2025-01-08"]), "in all 2 rows", {}),
]


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_a_bad_log_is_refused(row: int) -> None:
    frame, says, options = ROWS[row]
    refused(frame, says, **options)


def test_strange_ids_work(tmp_path) -> None:
    (tmp_path / "mixed.csv").write_text(
        "session,event,item,chosen\n"
        + "".join(f"{i},0,{i},1\n" for i in range(300))
        + "-7,0,007,1\n-7,0,a b,0\n'q',0,123456789012345678901234567890,1\n\"x,y\",0,é,1\n"
    )
    log = read_log(tmp_path / "mixed.csv")
    assert log.session_ids[-3:].to_list() == ["-7", "'q'", "x,y"]
    for item in ("007", "7", "a b", "123456789012345678901234567890", "é"):
        assert item in log.item_ids


@pytest.mark.parametrize(
    "values",
    [
        [True, False, False, True],
        [1.0, 0.0, 0.0, 1.0],
        ["1", "0", "0", "1"],
        ["True", "FALSE", "0", "1"],
        ["1.00", "0.00", "0", "1"],
        [Decimal("1.00"), Decimal("0.00"), Decimal("0.00"), Decimal("1.00")],
    ],
)
def test_chosen_in_other_clothes_works(values) -> None:
    assert read_log(long(chosen=values)).choices.tolist() == [0, -1, 0]


def test_what_the_messages_advise_works() -> None:
    position = nested(chosen=[1, 0])
    assert read_log(position, columns={"chosen_index": "chosen"}).choices.tolist() == [1, 0]
    numbered = long(event_id=[1, 2, 3, 4])
    assert read_log(numbered, columns={"event": "event", "event_label": "event"}).n_events == 3
    names = pl.Series(["1", "2", None, "4"], dtype=pl.Categorical)
    log = read_log(long(price=names), **PRICE)
    assert log.columns["price"].values.tolist() == [0, 1, -1, 2]
    two = long().with_columns(pl.col("item").alias("item_id"))
    assert read_log(two, columns={"item": "item_id"}).n_events == 3
    assert read_log(nested(item=["a", "c"]), columns={"items": "items"}).n_events == 2


def test_an_event_that_never_changes_beside_what_is_no_time_of_events() -> None:
    frame = pl.DataFrame({**NEVER, "time": [1, 1, 2, 2]})
    assert read_log(frame, columns={"event": "time"}).n_events == 2
    assert read_log(frame.drop("event")).n_events == 2
    assert read_log(frame, columns={"event": "event"}).n_events == 1
    # a field is no time of an event, nor is what differs between the rows of a display
    alike = frame.with_columns(time=pl.Series([1, 2, 1, 2]))
    assert read_log(alike, candidate_fields=["time"]).n_events == 1
    assert read_log(frame.with_columns(time=pl.Series([12.5, 40.0, 9.0, 3.0]))).n_events == 1
    # one display a session needs no order
    assert read_log(frame.with_columns(time=7)).n_events == 1


def test_whole_decimals_are_ids() -> None:
    """What a database calls NUMERIC(10, 2): 12.00 is the item 12, as 12.0 is."""
    texts = ["12", "3", "12", "3"]
    log = read_log(long(item=[Decimal(f"{text}.00") for text in texts]))
    assert log.fingerprint == read_log(long(item=texts)).fingerprint
    half = read_log(long(item=[Decimal("1.50"), Decimal("2.00")] * 2))
    assert half.item_ids.to_list() == ["1.5", "2"]


def test_the_text_of_an_id_does_not_depend_on_the_ids_beside_it() -> None:
    """Nor on the unit of a column of times: a display that is read alone has the log's items."""
    noon = dt.datetime(2025, 1, 1, 12)
    days = [noon, noon + dt.timedelta(milliseconds=1)]
    for column, texts in (
        (pl.Series([36.0, 36.5, -0.0, 1e-7, 2.0**52]), ["36", "36.5", "0", "1e-7", str(2**52)]),
        (pl.Series([36.0, 36.5], dtype=pl.Float32), ["36", "36.5"]),
        (pl.Series([Decimal("36.00"), Decimal("36.50"), Decimal("100.00")]), ["36", "36.5", "100"]),
        *(
            (pl.Series(days, dtype=pl.Datetime(unit)), [str(noon), f"{noon}.001"])
            for unit in ("ms", "us", "ns")
        ),
        (pl.Series([day.time() for day in days]), ["12:00:00", "12:00:00.001"]),
    ):
        assert ids_as_text(column, "item").to_list() == texts
        assert [ids_as_text(column[[i]], "item")[0] for i in range(len(column))] == texts


def test_labels_of_text_are_names() -> None:
    """Labels that are one number or one time name two events."""
    for one, other in (("12", "012"), ("1e5", "100000"), ("2025-01-09 08:30", "2025-01-09T08:30Z")):
        frame = long(event=5, impression_id=[one, one, other, other], chosen=[1, 0, 1, 0])
        log = read_log(frame.with_columns(session=pl.lit("s")))
        assert log.event_ids.to_list() == [one, other]


def test_numbers_that_single_precision_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    """Unix seconds of a minute were one number; of a year they are many."""
    rows = {
        "session": range(200),
        "event": [0] * 200,
        "item": ["a", "b"] * 100,
        "chosen": [1] * 200,
    }
    seconds = 1.7e9 + np.linspace(0, 60, 200)
    frame = pl.DataFrame({**rows, "at": seconds})
    frame.write_csv(tmp_path / "log.csv")
    says = (
        "'at' has 200 different numbers .* only 1 are left of them.*: subtract 1700000000 from all"
    )
    for source in (frame, tmp_path / "log.csv"):
        for fields in ({"candidate_fields": ["at"]}, {"context_fields": ["at"]}):
            refused(source, says, **fields)
    for fine in (seconds - 1.7e9, 1.7e9 + (seconds - 1.7e9) * 5e5, seconds * 0 + 0.3):
        read_log(frame.with_columns(at=pl.Series(fine)), candidate_fields=["at"])
    noisy = frame.with_columns(at=pl.Series([0.3, 0.1 + 0.2] * 100))
    read_log(noisy, candidate_fields=["at"])
    # what a run is asked is a part of what it was trained on
    of_run = ReadOptions.from_json({"candidate_field": ["at"]})
    assert read_log(frame, options=of_run).n_events == 200


RANGES = {
    pl.Int8: (-(2**7), 2**7 - 1),
    pl.UInt8: (0, 2**8 - 1),
    pl.Int32: (-(2**31), 2**31 - 1),
    pl.Int64: (-(2**63), 2**63 - 1),
    pl.UInt64: (0, 2**64 - 1),
}


@given(st.data())
def test_codes_are_those_of_the_numbers_texts(data: st.DataObject) -> None:
    """Ids that are whole numbers, near each other or far apart, are the texts of these numbers."""
    dtype = data.draw(st.sampled_from([*RANGES]))
    least, most = RANGES[dtype]
    # near one number, often the least or the most of the type; and anywhere
    centre = data.draw(st.sampled_from([least, most]) | st.integers(least, most))
    near = st.integers(max(least, centre - 3), min(most, centre + 3))
    values = data.draw(st.lists(near | st.integers(least, most), min_size=1, max_size=12))
    if data.draw(st.booleans()):
        values = data.draw(st.lists(near, min_size=3, max_size=12))
    coded = CodedIds.of(pl.Series("item", values, dtype=dtype), "item")
    assert coded.as_text().to_list() == [str(value) for value in values]
    assert coded.texts.n_unique() == len(coded.texts) == len(set(values))
