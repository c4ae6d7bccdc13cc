"""Several clicks on a display, and clicks on items that were not displayed: by each rule, from each
layout, against plain Python."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastgaum.errors import FeatureMismatchError
from fastgaum.features.coded_log import check_columns
from fastgaum.features.fitting import fit_space
from fastgaum.logs.audit import audit
from fastgaum.logs.clicks import CLICKS_SO_FAR, ClickFacts
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import SessionLog
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import raw_rows, read_log
from fastgaum.logs.store import save_log
from tests.logs.bad_logs import refused

Rule = Literal["none", "append", "drop"]
Display = tuple[list[int], list[int]]
"""items in their order, and the clicks in theirs, some on items of no display"""
DISPLAYS = st.tuples(
    st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(0, 9), max_size=4, unique=True),
)
SESSIONS = st.lists(st.lists(DISPLAYS, min_size=1, max_size=3), min_size=1, max_size=9)
LONG = {"candidate_fields": ["price"], "context_fields": ["query"], "ordered": True}


def inside(sessions: list[list[Display]]) -> list[list[Display]]:
    """The displays without the clicks on what they do not show."""
    return [[(items, [i for i in clicks if i in items]) for items, clicks in s] for s in sessions]


def price_of(item: int, event: int) -> float:
    return item + event / 4


def nested_frame(sessions: list[list[Display]]) -> pl.DataFrame:
    rows = [
        (f"s{number}", event, items, clicks, [price_of(i, event) for i in items], f"q{event}")
        for number, session in enumerate(sessions)
        for event, (items, clicks) in enumerate(session)
    ]
    lists = {"items": pl.List(pl.Int64), "clicked": pl.List(pl.Int64), "price": pl.List(pl.Float64)}
    schema = {"session": pl.String, "event": pl.Int64, **lists, "query": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def long_frame(sessions: list[list[Display]]) -> pl.DataFrame:
    """Clicks have times, rows have the order of the display."""
    rows = [
        {
            "session": f"s{number}",
            "event": event,
            "item": item,
            "chosen": int(item in clicks),
            "price": price_of(item, event),
            "query": f"q{event}",
            "click_time": 10.5 * clicks.index(item) if item in clicks else None,
        }
        for number, session in enumerate(sessions)
        for event, (items, clicks) in enumerate(session)
        for item in items
    ]
    return pl.DataFrame(rows, schema_overrides={"click_time": pl.Float64})


def plain_events(sessions: list[list[Display]]) -> list[list[tuple[list[int], int | None, int]]]:
    """What is left, what is clicked, and how many clicks went before, of each choice event."""
    no_click = any(not clicks for session in sessions for _, clicks in session)
    logs = []
    for session in sessions:
        events: list[tuple[list[int], int | None, int]] = []
        for items, clicks in session:
            left = list(items)
            for number, item in enumerate(clicks):
                events.append((list(left), item, number))
                left.remove(item)
            if not clicks or (no_click and left):
                events.append((left, None, len(clicks)))
        logs.append(events)
    return logs


def events_of(log: SessionLog) -> list[list[tuple[list[int], int | None, int]]]:
    ids = log.item_ids.cast(pl.Int64).to_list()
    sessions = []
    for session in range(log.n_sessions):
        events = []
        for event in range(*log.session_offsets[session : session + 2]):
            first, last = log.display_offsets[event : event + 2]
            items, choice = [ids[i] for i in log.items[first:last]], int(log.choices[event])
            so_far = int(log.columns[CLICKS_SO_FAR].values[event])
            events.append((items, None if choice < 0 else items[choice], so_far))
        sessions.append(events)
    return sessions


@settings(max_examples=12, deadline=None)
@given(SESSIONS, st.booleans())
def test_each_click_is_a_choice_of_what_is_left(
    sessions: list[list[Display]], always: bool
) -> None:
    """always: every display has a click, so that what is left of one is no event."""
    sessions = inside(sessions)
    if always:
        sessions = [[(items, clicks or items[-1:]) for items, clicks in s] for s in sessions]
    expected = plain_events(sessions)
    logs = [
        read_log(frame, clicks="each", **LONG)
        for frame in (nested_frame(sessions), long_frame(sessions))
    ]
    for log in logs:
        assert events_of(log) == expected
        event = log.event_number[log.event_of_candidate()]
        display = np.array([int(label) for label in log.event_ids])[log.event_of_candidate()]
        ids = log.item_ids.cast(pl.Int64).to_numpy()[log.items]
        np.testing.assert_allclose(log.columns["price"].values, ids + display / 4)
        queries = log.columns["query"].categories.gather(log.columns["query"].values).to_list()
        assert queries == [f"q{label}" for label in log.event_ids]
        assert event.max() >= display.max()
    assert logs[0].fingerprint == dataclasses.replace(logs[1], views=None).fingerprint
    unordered = read_log(nested_frame(sessions), clicks="each")
    by_id = [[(sorted(left), item, n) for left, item, n in session] for session in expected]
    assert [[(sorted(a), b, c) for a, b, c in s] for s in events_of(unordered)] == by_id


@settings(max_examples=8, deadline=None)
@given(SESSIONS)
def test_the_first_click_alone(sessions: list[list[Display]]) -> None:
    sessions = inside(sessions)
    firsts = [[(items, clicks[:1]) for items, clicks in session] for session in sessions]
    several = [clicks for session in sessions for _, clicks in session if len(clicks) > 1]
    facts = ClickFacts(
        clicks="first",
        displays=sum(map(len, sessions)),
        several=len(several),
        ignored=sum(len(clicks) - 1 for clicks in several),
    )
    for frame_of in (nested_frame, long_frame):
        log = read_log(frame_of(sessions), clicks="first", **LONG)
        assert log.clicks == facts
        assert log.fingerprint == read_log(frame_of(firsts), **LONG).fingerprint
        if several:
            refused(frame_of(sessions), r"has \d clicks, one is required: pass --clicks first")


@settings(max_examples=12, deadline=None)
@given(SESSIONS, st.sampled_from(["none", "append", "drop"]))
@example([[([0], [9])]], "drop")
def test_clicks_on_what_was_not_displayed(sessions: list[list[Display]], rule: Rule) -> None:
    frame = nested_frame(sessions)
    outside = [
        [item for item in clicks if item not in items] for s in sessions for items, clicks in s
    ]
    if any(outside):
        refused(frame, "which is not among its .* pass --outside none", clicks="each")
    kept = sessions
    if rule == "append":
        kept = [
            [([*items, *(i for i in clicks if i not in items)], clicks) for items, clicks in s]
            for s in sessions
        ]
    elif rule == "drop":
        kept = [[(items, c) for items, c in s if set(c) <= set(items)] for s in sessions]
    kept = [session for session in inside(kept) if session]
    options = {"clicks": "each", "outside": rule, "ordered": True, "context_fields": ["query"]}
    if not kept:
        refused(frame, "with --outside drop no event is left", **options)
        return
    log = read_log(frame, **options)
    assert events_of(log) == plain_events(kept)
    assert (log.clicks.displays, log.clicks.outside) == (len(outside), rule)
    assert log.clicks.outside_displays == sum(map(bool, outside))
    assert log.clicks.outside_clicks == sum(map(len, outside))
    if rule == "append" and any(outside):
        refused(frame, "has no value in column 'price'", candidate_fields=["price"], **options)
    else:
        read_log(frame, candidate_fields=["price"], **options)


SHOP: list[list[Display]] = [
    [([0, 1, 2, 3], [2, 0]), ([4, 5], [])],
    [([1, 3, 5], [5, 9, 1, 3]), ([2, 0], [2])],
    [([6, 0, 1], [8]), ([0, 6], [0])],
    [([3, 4, 2], [])],
]


def test_a_saved_log_remembers_its_rules(tmp_path: Path) -> None:
    frame = nested_frame(SHOP)
    saved = {
        name: str(save_log(read_log(frame, **options), tmp_path / name))
        for name, options in {
            "each": {"clicks": "each", "outside": "none"},
            "first": {"clicks": "first", "outside": "drop"},
        }.items()
    }
    each = read_log(saved["each"], clicks="each", outside="none")
    assert each.fingerprint == read_log(saved["each"]).fingerprint
    refused(saved["each"], "it has --clicks each: read the original", clicks="first")
    refused(saved["first"], "it has --clicks first", clicks="each")
    refused(saved["each"], "it has --outside none", outside="append")


def test_the_long_form_is_read_back(tmp_path: Path) -> None:
    log = read_log(nested_frame(inside(SHOP)), clicks="each", **LONG)
    to_frame(log).write_parquet(tmp_path / "log.parquet")
    to_frame(log).write_csv(tmp_path / "log.csv")
    fields = {**LONG, "context_fields": ["query", CLICKS_SO_FAR]}
    for name in ("log.parquet", "log.csv"):
        back = read_log(tmp_path / name, split="file", **fields)
        assert dataclasses.replace(back, views=None).fingerprint == log.fingerprint
        np.testing.assert_array_equal(back.first_choices, log.first_choices)
    refused(tmp_path / "log.csv", "is what --clicks each adds", clicks="each", **fields)


@pytest.mark.parametrize(
    ("so_far", "says"),
    [
        ([1.0, 1.0, 1.0], "event 0 of session 's' has clicks_so_far = 1: 0 is required"),
        ([0.0, 0.0, 2.0], "event 1 of session 's' has clicks_so_far = 2"),
        ([0.0, 0.0, 1.0], None),
        (["a", "a", "b"], "holds categories, numbers are required"),
    ],
)
def test_a_field_of_that_name_counts_clicks(so_far: list[Any], says: str | None) -> None:
    columns = {"session": ["s"] * 3, "event": [0, 0, 1], "item": [1, 2, 2], "chosen": [1, 0, 0]}
    frame = pl.DataFrame({**columns, CLICKS_SO_FAR: so_far})
    fields = {"context_fields": [CLICKS_SO_FAR]}
    if says is None:
        assert read_log(frame, **fields).first_choices.tolist() == [True, False]
        refused(frame.with_columns(item=pl.Series([1, 2, 3])), "= 1: 0 is required", **fields)
        refused(frame.with_columns(chosen=pl.Series([0, 1, 0])), "= 1: 0 is required", **fields)
    else:
        refused(frame, says, **fields)
    of_candidates = {"candidate_fields": [CLICKS_SO_FAR], "clicks": "each"}
    refused(frame, "candidate field 'clicks_so_far' is what --clicks each adds", **of_candidates)


def test_the_audit_counts_clicks(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    nested_frame(SHOP).write_parquet(path)
    found: dict[str, dict[str, tuple[float | None, int, str]]] = {}
    for clicks, outside in (("each", "none"), ("first", "append"), ("first", "drop")):
        options = ReadOptions.of(clicks=clicks, outside=outside)
        log = read_log(path, options=options)
        report = audit(log, raw_rows(path, options=options))
        assert report.has_rows
        found[outside] = {f.name: (f.percent, f.n, f.action) for f in report.facts}
        saved = audit(read_log(save_log(log, tmp_path / outside)))
        assert saved.facts[:2] == report.facts[:2]
    several, beyond = (
        "displays with several clicks",
        "displays with a click on an item not displayed",
    )
    assert found["none"][several][:2] == (pytest.approx(200 / 7), 7)
    assert "each click is a choice event" in found["none"][several][2]
    assert found["none"][beyond][:2] == (pytest.approx(200 / 7), 7)
    assert "do not count, 2 in all" in found["none"][beyond][2]
    assert "4 later clicks are ignored" in found["append"][several][2]
    assert "whose size then tells" in found["append"][beyond][2]
    assert (found["drop"][beyond][1], found["drop"][several][0]) == (7, pytest.approx(100 / 7))
    plain = tmp_path / "plain.parquet"
    nested_frame([[([1, 2], [1])]]).write_parquet(plain)
    assert several not in {fact.name for fact in audit(read_log(plain)).facts}


def test_a_model_of_displays_may_be_judged_on_successive_choices_and_not_the_other_way() -> None:
    frame = nested_frame(inside(SHOP)).with_columns(split=pl.Series([0, 0, 0, 0, 1, 1, 2]))
    first, each = (
        read_log(frame, clicks=clicks, context_fields=["query"]) for clicks in ("first", "each")
    )
    check_columns(fit_space(first), each)
    space = fit_space(each)
    assert space.context_number_names == (CLICKS_SO_FAR,)
    with pytest.raises(FeatureMismatchError, match="read it with --clicks each"):
        check_columns(space, first)


def two_clicks(**changes: Any) -> pl.DataFrame:
    columns = {"session": ["s"], "items": [["a", "b", "c"]], "chosen": [["b", "a"]], **changes}
    return pl.DataFrame(columns, strict=False)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, [1, 0]),
        ({"click_rank": [[2, 1]]}, [0, 1]),
        ({"click_time": [["2020-01-01T00:00:09", "2020-01-01T00:00:01"]]}, [0, 1]),
        ({"chosen": [["b", "a", "b"]], "click_order": [[3.0, 2.0, 1.0]]}, [1, 0]),
        ({"chosen": [["b", None, "a"]]}, [1, 0]),
        ({"chosen_index": [[2, 0, -1, 2]], "chosen": None}, [2, 0]),
    ],
)
def test_the_order_of_clicks(changes: dict[str, Any], chosen: list[int]) -> None:
    """By rank or time where there is one, else as they are listed."""
    frame = two_clicks(**changes)
    frame = frame.drop("chosen") if changes.get("chosen", 0) is None else frame
    log = read_log(frame, clicks="each")
    first = int(log.choices[0])
    second = int(log.choices[1])
    assert [first, second + (second >= first)] == chosen
    assert log.n_events == 2
    assert read_log(frame, clicks="first").choices.tolist() == chosen[:1]


ROWS = {"session": ["s"] * 3, "event": [1] * 3, "item": ["a", "b", "c"], "chosen": [1, 1, 0]}


@pytest.mark.parametrize(
    ("frame", "options", "says"),
    [
        (two_clicks(click_rank=[[1]]), {}, "has 1 values in 'click_rank' for 2 clicks"),
        (two_clicks(click_rank=[1]), {}, "a list of one rank or time for each click"),
        (two_clicks(click_rank=[[1, None]]), {}, "one of them has no value in 'click_rank'"),
        (two_clicks(click_rank=[["x", "y"]]), {}, "ranks or times are required"),
        (
            pl.DataFrame({**ROWS, "click_time": [1, 2, None]}),
            {"candidate_fields": ["click_time"]},
            "says what was chosen",
        ),
        (pl.DataFrame({**ROWS, "click_time": [1, None, None]}), {}, "one of them has no value in"),
        (pl.DataFrame({**ROWS, "click_time": ["x", "y", None]}), {}, "ranks or times are required"),
    ],
)
def test_what_is_no_order_of_clicks_is_refused(
    frame: pl.DataFrame, options: dict[str, Any], says: str
) -> None:
    refused(frame, says, clicks="each", **options)


def test_a_click_time_is_read_only_where_clicks_are_several() -> None:
    frame = pl.DataFrame({**ROWS, "chosen": [1, 0, 0], "click_time": ["x", "y", None]})
    assert read_log(frame).choices.tolist() == [0]


@pytest.mark.parametrize("dtype", [pl.Null, pl.String, pl.Float64])
def test_an_order_of_clicks_without_a_value(dtype: pl.DataType) -> None:
    """Nothing is to be sorted where no display has several clicks."""
    empty = pl.lit(None, dtype=dtype).alias("click_time")
    nested = two_clicks(chosen=[["b"]], click_time=[[None]])
    gap = nested.with_columns(click_time=pl.lit(None, dtype=pl.List(dtype)))
    filled = nested.with_columns(session=pl.lit("t"), click_time=pl.lit([2.5]))
    both = pl.concat([gap, filled], how="vertical_relaxed")
    for frame in (nested.cast({"click_time": pl.List(dtype)}), nested.with_columns(empty), both):
        assert set(read_log(frame, clicks="first").choices.tolist()) == {1}
    long = pl.DataFrame(ROWS).with_columns(empty)
    one = long.with_columns(chosen=pl.Series([1, 0, 0]))
    assert read_log(one, clicks="each").choices.tolist() == [0]
    several = two_clicks().with_columns(click_time=pl.lit(None, dtype=pl.List(dtype)))
    for frame in (long, several):
        refused(frame, "one of them has no value in", clicks="each")
