"""Logs whose columns or rows are wrong: each raises LogFormatError in one line that says the
rule, the values and the cure."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest

from fastgaum.logs.read import read_frame, read_log
from tests.logs.bad_logs import GOOD, long, nested, refused


def test_the_good_logs_are_good() -> None:
    assert read_frame(long(), candidate_fields=["price"]).n_events == 3
    assert read_frame(nested()).n_events == 2


@pytest.mark.parametrize("role", ["session", "event", "item", "chosen"])
def test_missing_column(role) -> None:
    refused(
        long().drop(role),
        f"no {role} column in a log of one row per displayed candidate .accepted: {role}",
    )


def test_misnamed_column() -> None:
    text = refused(long().rename({"item": "iten"}), "did you mean 'iten'.*columns=")
    assert "columns={'item': 'iten'}" in text
    refused(nested().rename({"chosen": "choosen"}), "did you mean 'choosen'")
    refused(
        long().rename({"session": "xyz"}),
        r"pass --column session=NAME \(columns={'session': 'NAME'}\)",
    )


def test_two_choices_in_one_event() -> None:
    expected = (
        "event 17 of session 'u3' has 2 clicks, one is required: pass --clicks first "
        "(clicks='first'), which keeps the first, or --clicks each, by which each is a choice of "
        "what is left"
    )
    assert refused(long(chosen=[1, 1, 0, 1]), "has 2 clicks") == expected
    assert refused(nested(chosen=[["a", "b"], []]), "has 2 clicks") == expected


def test_chosen_is_not_among_the_candidates() -> None:
    refused(
        nested(chosen=["a", "z"]),
        "event 18 of session 'u3' chose item 'z', which is not among its 1 candidates",
    )
    # Positions under the name of items: the message says how to say so.
    text = refused(nested(chosen=[1, 0]), "event 17 of session 'u3' chose item '1'")
    assert "columns={'chosen_index': 'chosen'}" in text
    index = nested(chosen=[1, 0])
    assert read_frame(index, columns={"chosen_index": "chosen"}).choices.tolist() == [1, 0]


@pytest.mark.parametrize("position", [2, -2, 0.5])
def test_chosen_index_is_no_position(position) -> None:
    frame = (
        nested()
        .drop("chosen")
        .with_columns(pl.Series("chosen_index", [position, None], strict=False))
    )
    refused(
        frame,
        f"event 17 of session 'u3' has 'chosen_index' = {position} for 2 candidates, a position "
        "from 0 to 1",
    )


def test_chosen_index_as_text() -> None:
    frame = nested().drop("chosen").with_columns(pl.Series("chosen_index", ["a", None]))
    refused(frame, "event 17 of session 'u3' has 'chosen_index' = 'a'")


def test_chosen_and_chosen_index() -> None:
    refused(
        nested(chosen_index=[0, None]),
        "both 'chosen' .* and 'chosen_index' .* are given, one is required",
    )


def test_empty_log(tmp_path) -> None:
    refused(long().clear(), "the log is empty .no rows.: at least one event is required")
    refused(nested().clear(), "the log is empty")
    long().clear().write_csv(tmp_path / "header.csv")
    refused(tmp_path / "header.csv", "header.csv: the log is empty")
    (tmp_path / "nothing.csv").write_text("")
    refused(tmp_path / "nothing.csv", "empty .0 bytes.")


@pytest.mark.parametrize("empty", [[], None])
def test_empty_display(empty) -> None:
    frame = nested(items=pl.Series([["a"], empty], dtype=pl.List(pl.String)))
    refused(frame, "event 18 of session 'u3' displays nothing .'items' is empty.")


def test_session_without_event(tmp_path) -> None:
    refused(
        long(event=[17, None, 18, 1]),
        "row 2 .session 'u3'. has no event: column 'event' is empty there",
    )
    refused(long(event=[17, float("nan"), 18, 1]), "row 2 .session 'u3'. has no event")
    refused(nested(event=[None, 18]), "row 1 .session 'u3'. has no event")
    (tmp_path / "log.csv").write_text("session,event,item,chosen\nu3,17,a,1\nu4,,,0\n")
    refused(tmp_path / "log.csv", "log.csv: row 2 .session 'u4'. has no event")


@pytest.mark.parametrize("role", ["session", "item"])
def test_missing_ids(role) -> None:
    values = list(GOOD[role])
    for missing in (None, ""):
        values[2] = missing
        refused(long(**{role: values}), f"row 3 has no {role}.*: column '{role}' is empty there")
    refused(nested(items=[["a", None], ["c"]]), "event 17 of session 'u3' has no item")
    refused(long(user=["p", "p", None, "q"]), "row 3 has no user id")


def test_ids_of_the_wrong_type() -> None:
    refused(
        long(session=[[1], [1], [1], [2]]),
        "the session column 'session' holds List.Int64., ids are required",
    )
    refused(nested(items=["a b", "c"]), "column 'items' holds String, a list of items is required")


def test_item_and_items() -> None:
    refused(
        nested(sku=["a", "b"]),
        "both an item column 'sku' and an items",
        columns={"item": "sku", "items": "items"},
    )


def test_strange_ids_work(tmp_path) -> None:
    huge, negative = 2**64 - 1, -(2**63)
    numbers = long(
        item=pl.Series([huge, 0, huge, 0], dtype=pl.UInt64),
        session=[negative, negative, negative, 5],
    )
    log = read_frame(numbers)
    assert log.item_ids.to_list() == ["0", str(huge)]
    assert log.session_ids.to_list() == [str(negative), "5"]

    (tmp_path / "mixed.csv").write_text(
        "session,event,item,chosen\n"
        + "".join(f"{i},0,{i},1\n" for i in range(300))
        + "-7,0,007,1\n-7,0,a b,0\n'q',0,123456789012345678901234567890,1\n\"x,y\",0,é,1\n"
    )
    log = read_log(tmp_path / "mixed.csv")
    assert log.session_ids[-3:].to_list() == ["-7", "'q'", "x,y"]
    for item in ("007", "7", "a b", "123456789012345678901234567890", "é"):
        assert item in log.item_ids

    typed = nested(items=[[-1, 2**40], [3]], chosen=[2**40, None])
    assert read_frame(typed).item_ids.to_list() == ["-1", str(2**40), "3"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e300])
def test_candidate_column_that_is_not_finite(tmp_path, bad) -> None:
    message = (
        "event 18 of session 'u3' has .* in column 'price', a finite number is required: correct "
        "it, drop the row"
    )
    frame = long(price=[1.0, 2.0, bad, 4.0])
    refused(frame, message, candidate_fields=["price"])
    assert read_frame(frame).n_events == 3
    frame.write_csv(tmp_path / "log.csv")
    refused(tmp_path / "log.csv", message, candidate_fields=["price"])
    refused(nested(price=[[1.0, 2.0], [bad]]), message, candidate_fields=["price"])


def test_candidate_column_with_missing_numbers() -> None:
    message = "event 18 of session 'u3' has no value in column 'price', a number is required"
    refused(long(price=[1.0, 2.0, None, 4.0]), message, candidate_fields=["price"])
    log = read_frame(long(price=["1", "2", None, "4"]), candidate_fields=["price"])
    assert log.columns["price"].values.tolist() == [0, 1, -1, 2]


def test_candidate_column_of_no_field_type() -> None:
    dates = pl.Series(["2024-01-01"] * 4).str.to_date()
    refused(
        long(day=dates),
        "column 'day' holds Date, a field is numbers or text",
        candidate_fields=["day"],
    )


def test_unknown_candidate_field(tmp_path) -> None:
    refused(
        long(),
        "no column 'prise' .*candidate field.*did you mean 'price'",
        candidate_fields=["prise"],
    )
    long().write_parquet(tmp_path / "log.parquet")
    refused(
        tmp_path / "log.parquet",
        "log.parquet: no column 'prise'.*'price'",
        candidate_fields=["prise"],
    )


def test_the_choice_is_no_candidate_field() -> None:
    refused(long(), "column 'chosen' is the choice itself", candidate_fields=["chosen"])


def test_candidate_lists_of_another_length() -> None:
    frame = nested(rank=[[1, 2], [1, 2]])
    refused(
        frame,
        "event 18 of session 'u3' has 2 values in 'rank' for 1 candidates",
        candidate_fields=["rank"],
    )


@pytest.mark.parametrize("value", [2, -1, 0.5, None, "yes"])
def test_chosen_is_neither_0_nor_1(value) -> None:
    values = [str(v) for v in GOOD["chosen"]] if isinstance(value, str) else list(GOOD["chosen"])
    values[1] = value
    refused(long(chosen=values), "row 2 has 'chosen' = .*, 0 .displayed. or 1 .chosen. is required")


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
    assert read_frame(long(chosen=values)).choices.tolist() == [0, -1, 0]


def test_whole_decimals_are_ids() -> None:
    """What a database calls NUMERIC(10, 2): 12.00 is the item 12, as 12.0 is."""
    texts = ["12", "3", "12", "3"]
    log = read_frame(long(item=[Decimal(f"{text}.00") for text in texts]))
    assert log.fingerprint == read_frame(long(item=texts)).fingerprint
    half = read_frame(long(item=[Decimal("1.50"), Decimal("2.00")] * 2))
    assert half.item_ids.to_list() == ["1.50", "2.00"]


@pytest.mark.parametrize("value", ["holdout", 3, None])
def test_unknown_split(value) -> None:
    refused(
        long(split=["train" if isinstance(value, str) else 0] * 3 + [value]),
        "row 4 has 'split' = .*, one of 0, 1, 2, train",
    )


def test_session_of_two_users() -> None:
    refused(
        long(user=["p", "q", "p", "r"]), "session 'u3' has the users 'p' and 'q', one is required"
    )


def test_an_event_label_that_numbers_rows() -> None:
    frame = long(event_id=[1, 2, 3, 4])
    text = refused(
        frame,
        "the event label 'event_id' differs in each of the 4 rows while session and 'event' make 3",
    )
    assert "columns={'event': 'event', 'event_label': 'event'}" in text
    assert read_frame(frame, columns={"event": "event", "event_label": "event"}).n_events == 3


def test_views_that_are_no_counts() -> None:
    refused(long(views=[1, 2, -3, 0]), "row 3 has 'views' = -3, a count of views is required")
