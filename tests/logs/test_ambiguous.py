"""What can be read in two ways, or in part, is refused: orders of events, columns of one role, ids
that are rounded, numbers that would be categories."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from fastgaum.logs.audit import audit
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import raw_rows, read_frame, read_log, read_with_rows
from fastgaum.logs.registry import resolve
from tests.logs.bad_logs import long, nested, refused

HALF = [
    (["10", "9", "9", "x"], r"1 of the 4 values of 'event', .* \('x'\): write all as numbers"),
    (
        ["10:00", "9:05", "10:00", "9:05"],
        r"4 of the 4 values .* \('10:00', '9:05'\).* 2025-01-09 08:30",
    ),
    (
        ["2024-05-01 08:00", "2024-05-01 8 Uhr", "2024-05-01 09:00", "2024-05-02 08:00"],
        r"1 of the 4 .*\('2024-05-01 8 Uhr'\)",
    ),
    (
        ["2024-05-01 08:00", "2024-05-01 08:00Z", "2024-05-01 09:00", "2024-05-02 08:00"],
        r"1 of the 4 .*\('2024-05-01 08:00Z'\).*everywhere or nowhere",
    ),
    (["01/13/2025", "02/03/2025", "03/01/2025", "03/01/2025"], "1 of the 4 values"),
    (
        ["01/09/2025", "02/03/2025", "03/01/2025", "03/01/2025"],
        r"4 of the 4 dates .* \('01/09/2025', '02/03/2025', '03/01/2025'\): write .* 2025-01-09",
    ),
    (["01.09.2025 10:00", "31.01.2025 10:00", "02.02.2025 10:00", "31.01.2025 9:00"], "1 of the 4"),
]


@pytest.mark.parametrize(("events", "says"), HALF)
def test_events_whose_order_is_in_doubt(events: list[str], says: str, tmp_path: Path) -> None:
    refused(long(event=events), says)
    long(event=events).write_csv(tmp_path / "log.csv")
    refused(tmp_path / "log.csv", f"log.csv: {says}")


@pytest.mark.parametrize(
    "events",
    [
        ["13/01/2025", "14/01/2025", "02/02/2025", "31/12/2024"],
        ["b", "b", "a", "c"],
        ["7f3a", "7f3a", "e1", "c"],
    ],
)
def test_events_whose_order_is_in_no_doubt(events: list[str]) -> None:
    assert read_frame(long(event=events)).n_events >= 3


def test_an_event_that_never_changes_beside_a_time() -> None:
    """The displays of a session would be one."""
    rows = {"session": ["u3"] * 4, "item": ["a", "b", "a", "b"], "chosen": [1, 0, 0, 0]}
    frame = pl.DataFrame({**rows, "event": "view", "time": [1, 1, 2, 2]})
    refused(frame, "column 'event' is 'view' in all 4 rows.*--column event=time")
    assert read_frame(frame, columns={"event": "time"}).n_events == 2
    assert read_frame(frame.drop("event")).n_events == 2
    assert read_frame(frame, columns={"event": "event"}).n_events == 1
    refused(nested(event=["view"] * 2, time=["2025-01-09", "2025-01-08"]), "in all 2 rows")
    # a field is no time of an event, nor is what differs between the rows of a display
    assert read_frame(frame, candidate_fields=["time"]).n_events == 1
    assert read_frame(frame.with_columns(time=pl.Series([12.5, 40.0, 9.0, 3.0]))).n_events == 1
    dates = pl.Series(["2025-01-09 08:00", "2025-01-09 08:01", "2025-01-10", "2025-01-11"])
    refused(frame.with_columns(time=dates), "in all 4 rows")
    # one display a session needs no order
    assert read_frame(frame.with_columns(time=7)).n_events == 1


@pytest.mark.parametrize(
    ("role", "other"),
    [("item", "item_id"), ("chosen", "clicked"), ("session", "session_id"), ("user", "userId")],
)
def test_two_columns_of_one_role(role: str, other: str) -> None:
    frame = long(user=["u3", "u3", "u3", "u4"])
    frame = frame.with_columns(frame[role].alias(other))
    text = refused(frame, f"'{role}' and '{other}' are both called as the {role} column")
    assert f"--column {role}={role}" in text
    assert read_frame(frame, columns={role: other}).n_events == 3
    assert read_frame(frame, columns={role: role}).n_events == 3


def test_a_list_of_items_beside_an_item() -> None:
    refused(nested(item=["a", "c"]), "'items' and 'item' are both called as the items column")
    assert read_frame(nested(item=["a", "c"]), columns={"items": "items"}).n_events == 2


def test_ids_that_are_rounded() -> None:
    huge = [2**60, 2**60 + 1, 2**60 + 2, 2**60 + 3]
    for role in ("item", "session", "event"):
        frame = long(**{role: pl.Series(huge).cast(pl.Float64)})
        refused(frame, rf"4 of the .* in column '{role}' are decimal numbers so large \(115292150")
        assert read_frame(long(**{role: huge})).n_candidates == 4
    lists = pl.Series([[float(huge[0]), float(huge[1])], [1.0]])
    refused(nested(items=lists, chosen=[None, "1"]), "2 of the item ids in column 'items'")


@pytest.mark.parametrize(
    "events",
    [
        [Decimal(2**60), Decimal(2**60 + 1), Decimal(2**60 + 2), Decimal(0)],
        [str(2**63), str(2**63 + 1), str(2**63 + 2), "0"],
        [f"2025-01-09 08:30:00.{n:09}" for n in (1, 2, 3, 4)],
    ],
)
def test_events_that_differ_in_their_last_digit(events: list[object]) -> None:
    assert read_frame(long(event=events)).n_events == 4


SPOILT = [
    ["1,234.50", "2,000.00", "3.25", "1,100.75"],
    ["$3.50", "$4.25", "$1.00", "$2.75"],
    ["12,50 €", "3,75 €", "4,25 €", "1,00 €"],
    ["1_000", "2_000", "3_000", "1_500"],
    ["12", "14", "n/a", "16"],
    ["1,234", "5,678", "2,345", "9,876"],
]


@pytest.mark.parametrize("values", SPOILT)
def test_numbers_that_would_be_categories(values: list[str], tmp_path: Path) -> None:
    says = "has 'price' = .*, and most values are numbers, which would be read as categories"
    frame = long(price=values)
    frame.write_csv(tmp_path / "log.csv")
    refused(tmp_path / "log.csv", says, candidate_fields=["price"])
    frame.select("price", item=pl.Series([*"abcd"])).write_csv(tmp_path / "items.csv")
    long(item=[*"abcd"]).drop("price").write_csv(tmp_path / "bare.csv")
    refused(
        tmp_path / "bare.csv",
        "item table items.csv: item '.' has 'price'",
        item_table=tmp_path / "items.csv",
    )
    if not any(value.isdigit() or value == "1_000" for value in values) and "." in values[0]:
        refused(frame, says, candidate_fields=["price"])


def test_names_with_digits_are_categories(tmp_path: Path) -> None:
    frame = long(price=["12a", "12b", "7", "x"])
    frame.write_csv(tmp_path / "log.csv")
    log = read_log(tmp_path / "log.csv", candidate_fields=["price"])
    assert log.columns["price"].categories.to_list() == ["12a", "12b", "7", "x"]


def test_the_audit_names_what_was_not_read(tmp_path: Path) -> None:
    frame = long(query=["q"] * 4, time=[1] * 4)
    frame.write_csv(tmp_path / "log.csv")
    options = ReadOptions.of(context_fields=["query"])
    rows = [
        raw_rows(frame, options=options),
        raw_rows(tmp_path / "log.csv", options=options),
        read_with_rows(resolve(tmp_path / "log.csv"), options=options)[1],
    ]
    log = read_frame(frame, options=options)
    for raw in rows:
        assert audit(log, raw).not_read == ("price", "time")
        assert audit(log, raw).to_text().endswith("not read: price, time")


def test_a_side_table_with_two_columns_of_items(tmp_path: Path) -> None:
    table = pl.DataFrame({"item": ["x", "y"], "item_id": ["a", "b"], "size": [1, 2]})
    table.write_csv(tmp_path / "items.csv")
    refused(long(), "'item' and 'item_id' are both called", item_table=tmp_path / "items.csv")
