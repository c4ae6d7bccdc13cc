"""What users did between displays: read from a table or a column, put before the event that follows,
kept by every form of a log, and counted apart."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.logs.audit import audit
from fastgaum.logs.audit_rules import latest_actions
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from fastgaum.logs.store import load_log, save_log
from tests.builders import random_log, with_drawn_actions

DISPLAYS = pl.DataFrame(
    {
        "session": ["s1", "s1", "s2", "s3"],
        "user": ["u1", "u1", "u1", "u2"],
        "time": [10, 20, 30, 15],
        "items": [["a", "b"], ["b", "c"], ["a", "c"], ["a", "b"]],
        "chosen": ["a", "c", "a", None],
    }
)
Told = list[tuple[str, str]]


def told(log: SessionLog) -> list[Told]:
    """Item and kind of the actions before each event."""
    assert log.actions is not None
    actions = log.actions
    rows = [
        (str(log.item_ids[i]), str(actions.kind_names[k]))
        for i, k in zip(actions.items.tolist(), actions.kinds.tolist(), strict=True)
    ]
    ends = actions.offsets.tolist()
    return [rows[a:b] for a, b in itertools.pairwise(ends)]


def table(folder: Path, **columns: Any) -> Path:
    pl.DataFrame(columns).write_parquet(folder / "actions.parquet")
    return folder / "actions.parquet"


def test_an_action_comes_before_the_event_that_follows_it(tmp_path: Path) -> None:
    """By session: one of an event's own time comes after it, one after the last event never."""
    path = table(
        tmp_path,
        session=["s1", "s1", "s1", "s1", "s3", "s9"],
        time=[20, 12, 10, 3, 1, 1],
        item=["x", "b", "a", "z", "a", "a"],
        action=["cart", "view", "view", "play", "view", "view"],
    )
    log = read_log(DISPLAYS, actions=path)
    expected: list[Told] = [[("z", "play")], [("a", "view"), ("b", "view")], [], [("a", "view")]]
    assert told(log) == expected
    assert log.actions is not None
    assert log.actions.left_out == 2
    assert log.counts()["actions"] == tuple(
        sum(len(expected[e]) for e in range(4) if log.split[log.session_of_event[e]] == part)
        for part in range(3)
    )
    # what is displayed and chosen is what it was
    plain = read_log(DISPLAYS)
    assert log.item_ids.to_list() == ["a", "b", "c", "x", "z"]
    for name in ("items", "choices", "display_offsets", "session_offsets", "split"):
        assert getattr(log, name).tolist() == getattr(plain, name).tolist()
    assert dataclasses.replace(log, actions=None).fingerprint != log.fingerprint
    assert "4 actions" in repr(log)
    assert "2 view" in log.actions.in_words or "3 view" in log.actions.in_words


def test_a_user_s_action_goes_to_the_next_of_all_its_sessions(tmp_path: Path) -> None:
    path = table(tmp_path, user_id=["u1", "u1", "u2"], time=[25.5, 5.0, 14.0], item=["p", "q", "r"])
    log = read_log(DISPLAYS, actions=path)
    assert told(log) == [[("q", "acted")], [], [("p", "acted")], [("r", "acted")]]


def test_without_times_actions_come_before_the_first_event(tmp_path: Path) -> None:
    path = table(tmp_path, user=["u1", "u1"], item=[7, 8], action=["view", "cart"])
    before = [("7", "view"), ("8", "cart")]
    assert told(read_log(DISPLAYS, actions=path)) == [before, [], before, []]


def test_a_row_of_lists_is_a_row_for_each_entry(tmp_path: Path) -> None:
    """As EB-NeRD's history.parquet has them; times may be of another unit, or of a zone."""
    start = dt.datetime(2023, 5, 1, tzinfo=dt.UTC)
    displays = DISPLAYS.with_columns(
        time=pl.Series([start + dt.timedelta(seconds=s) for s in DISPLAYS["time"]])
    )
    zone = dt.timezone(dt.timedelta(hours=2))
    times = [[start, (start + dt.timedelta(seconds=11)).astimezone(zone)], []]
    path = table(
        tmp_path,
        user_id=["u1", "u2"],
        impression_time_fixed=pl.Series(times, dtype=pl.List(pl.Datetime("ms", "UTC"))),
        article_id_fixed=pl.Series([[5, 6], []], dtype=pl.List(pl.Int32)),
    )
    log = read_log(displays, actions=path)
    assert told(log) == [[("5", "acted")], [("6", "acted")], [], []]


def test_times_are_compared_to_the_nanosecond(tmp_path: Path) -> None:
    """Also with dates that nanoseconds of 64 bits do not reach."""
    times = pl.Series([0, 500, 0, 0]).cast(pl.Datetime("ns"))
    displays = DISPLAYS.with_columns(time=times)
    path = table(
        tmp_path,
        session=["s1", "s1"],
        time=pl.Series([400, 900]).cast(pl.Datetime("ns")),
        item=["p", "q"],
    )
    assert told(read_log(displays, actions=path)) == [[], [("p", "acted")], [], []]
    late = [dt.date(1970, 1, 1), dt.date(9999, 12, 31)]
    path = table(tmp_path, session=["s1", "s1"], time=late, item=["p", "q"])
    assert told(read_log(displays, actions=path)) == [[], [("p", "acted")], [], []]


@pytest.mark.parametrize("kind", [pl.List(pl.Int32), pl.List(pl.Float64), pl.List(pl.String)])
def test_the_past_is_that_of_a_session_s_first_event(kind: pl.List) -> None:
    pasts = pl.Series("seen", [["3"], ["4", "5"], ["6", None, "3"], None]).cast(kind)
    late_first = DISPLAYS.with_columns(pasts)[[1, 0, 2, 3]]
    log = read_log(late_first, past="seen")
    past = [[("3", "past")], [], [("6", "past"), ("3", "past")], []]
    assert told(log) == past
    # successive choices of a display are after what came before it
    every = read_log(late_first.with_columns(chosen=pl.lit("a")), past="seen", outside="none")
    each = read_log(
        late_first.with_columns(chosen=pl.lit("a")), past="seen", outside="none", clicks="each"
    )
    assert told(each)[: each.n_events] == [
        told(every)[event] if so_far == 0 else []
        for event, so_far in zip(
            np.cumsum(each.columns["clicks_so_far"].values == 0) - 1,
            each.columns["clicks_so_far"].values,
            strict=True,
        )
    ]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), data=st.data())
def test_a_log_keeps_its_actions_in_every_form(
    seed: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = with_drawn_actions(random_log(seed, 6), seed)
    rows = data.draw(st.lists(st.integers(0, 5), max_size=8))
    part = slice_sessions(log, np.array(rows, np.int32))
    events = [e for row in rows for e in range(*log.session_offsets[row : row + 2])]
    assert told(part) == [told(log)[event] for event in events]
    again = load_log(save_log(log, tmp_path_factory.mktemp("log") / "saved"))
    assert again.fingerprint == log.fingerprint
    assert again.actions is not None
    assert again.actions.left_out == 2


def test_a_saved_log_keeps_a_past_and_a_table(tmp_path: Path) -> None:
    pasts = pl.Series([["p", "q"], ["q"], [], ["p"]])
    DISPLAYS.with_columns(past=pasts).write_parquet(tmp_path / "log.parquet")
    path = table(tmp_path, session=["s1", "s2"], time=[12, 3], item=["z", "a"], action="view")
    options = ReadOptions.of(past="past", actions=path)
    log = read_log(tmp_path / "log.parquet", options=options)
    saved = save_log(log, tmp_path / "1")
    # a run names what its log was read with: the saved log has it
    assert read_log(saved, options=options).fingerprint == log.fingerprint
    plain = save_log(read_log(tmp_path / "log.parquet"), tmp_path / "plain")
    for asked in ({"past": "past"}, {"actions": str(path)}):
        with pytest.raises(LogFormatError, match="it was saved without"):
            read_log(plain, options=ReadOptions.of(**asked))  # type: ignore[arg-type]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"item": ["a"], "time": [1]}, "needs a session or user column"),
    ({"session": ["s1"], "time": [1]}, "needs an item column"),
    ({"session": ["s1"], "item": [None], "time": [1]}, "row 1 has no item"),
    ({"session": ["s1"], "item": ["a"], "time": [None]}, "row 1 has no time"),
    ({"session": ["s1"], "item": ["a"], "time": ["soon"]}, "column 'time' holds String, the times"),
    ({"session": ["s1"], "item": ["a"], "time": [dt.datetime(2020, 1, 1)]}, "have numbers: give"),
    (
        {"session": ["s8"], "item": ["a"], "time": [1]},
        "none of the 1 actions comes before an event",
    ),
    ({"session": ["s1"], "item": ["a"], "time": [99]}, "none of the 1 actions comes before"),
    (
        {"session": ["s1"], "item": [["a"]], "time": [[1, 2]]},
        "lists of 1 in 'item' and 2 in 'time'",
    ),
    ({"session": pl.Series([], dtype=pl.String), "item": [], "time": []}, "the table is empty"),
]


@pytest.mark.parametrize(("columns", "says"), WRONG)
def test_what_is_wrong_with_a_table_is_said(
    columns: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(LogFormatError, match=r"actions actions\.parquet: ") as error:
        read_log(DISPLAYS, actions=table(tmp_path, **columns))
    assert says in str(error.value)


def test_times_of_two_kinds_are_refused(tmp_path: Path) -> None:
    """A zone beside none; hours without a day are compared with their like alone."""
    local = pl.Series([dt.datetime(2025, 7, 1, hour) for hour in range(8, 12)])
    berlin, clock = local.dt.replace_time_zone("Europe/Berlin"), local.dt.time()
    path = table(tmp_path, session=["s1"] * 4, item=list("abab"), time=local)
    with pytest.raises(LogFormatError, match=r"is none, .* events is Europe/Berlin: give both"):
        read_log(DISPLAYS.with_columns(time=berlin), actions=path)
    with pytest.raises(LogFormatError, match="their times are times, the log's events have Time"):
        read_log(DISPLAYS.with_columns(time=clock), actions=path)
    for times in (local, berlin, clock, clock.cast(pl.Duration("us"))):
        path = table(tmp_path, session=["s1"] * 4, item=list("abab"), time=times)
        assert len(told(read_log(DISPLAYS.with_columns(time=times), actions=path))[1]) == 1


def test_a_past_is_text_of_ids_or_a_list() -> None:
    """As MIND writes it, in a csv too."""
    lists = DISPLAYS.with_columns(seen=pl.lit(["a", "zz"], pl.List(pl.String)))
    text = DISPLAYS.with_columns(seen=pl.lit(" a  zz"))
    wanted = read_log(lists, past="seen")
    assert wanted.n_actions
    assert read_log(text, past="seen").fingerprint == wanted.fingerprint


def test_what_is_wrong_with_a_past_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match=r"no column 'seeen' .*did you mean 'seen'"):
        read_log(DISPLAYS.with_columns(seen=pl.col("items")), past="seeen")
    save_log(read_log(DISPLAYS.with_columns(seen=pl.col("items")), past="seen"), tmp_path / "log")
    with pytest.raises(LogFormatError, match="it has the past of its users"):
        read_log(tmp_path / "log", past="")
    with pytest.raises(LogFormatError, match="'user' holds String, the past of a user is a list"):
        read_log(DISPLAYS, past="user")
    timed = table(tmp_path, session=["s1"], item=["a"], time=[1])
    with pytest.raises(LogFormatError, match="the log's events have no order in time"):
        read_log(DISPLAYS.drop("time"), actions=timed)


def test_the_audit_counts_actions_apart_and_finds_clicks_among_them(tmp_path: Path) -> None:
    log = with_drawn_actions(random_log(3, 40), 3)
    assert log.actions is not None
    report = audit(log)
    assert report.n_actions == log.n_actions
    assert f", {log.n_actions} actions;" in report.to_text()
    facts = {fact.name: fact for fact in report.facts}
    before = np.diff(log.actions.offsets)
    assert facts["events with an action before them"].percent == pytest.approx(
        100 * np.mean(before > 0)
    )
    left = facts["actions that no event follows"]
    assert left.percent == pytest.approx(100 * 2 / (2 + log.n_actions))
    shown = {str(log.item_ids[i]) for i in np.flatnonzero(log.training_counts().displays).tolist()}
    items = [item for event in told(log) for item, _ in event]
    assert facts["actions on items never displayed in training"].percent == pytest.approx(
        100 * np.mean([item not in shown for item in items])
    )
    assert not any(found.rule.startswith("acted on") for found in report.flagged)
    numbers = latest_actions(log, log.actions)
    for event in range(log.n_events):
        acted = [item for item, _ in told(log)[event]]
        for at in range(*log.display_offsets[event : event + 2]):
            item = str(log.item_ids[int(log.items[at])])
            latest = max((i for i, one in enumerate(acted, 1) if one == item), default=0)
            assert numbers[at] == latest
    # a table whose clock is early holds the clicks themselves
    clicks = dataclasses.replace(
        log.actions,
        offsets=np.concatenate(([0], np.cumsum(log.choices >= 0))).astype(np.int32),
        items=log.items[log.chosen_candidates],
        kinds=np.zeros(int((log.choices >= 0).sum()), np.int32),
    )
    leaked = audit(dataclasses.replace(log, actions=clicks))
    assert any(found.rule.startswith("acted on") for found in leaked.flagged)
