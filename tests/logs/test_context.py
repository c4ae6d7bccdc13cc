"""The context of events: one value each, the same from every layout; and what it is found to
hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.logs.context import context_of
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.logs.store import load_log, save_log
from tests.builders import log_of, put, random_log, values_of
from tests.logs.bad_logs import long, nested, refused

CONTEXT = ["query", "page", "hour"]


def long_log(**changes: Any) -> pl.DataFrame:
    """The long log of bad input with a context of every kind."""
    columns = {"query": ["q", "q", None, "r"], "page": [7, 7, 9, 7], "hour": [0.5, 0.5, 3.0, 1.0]}
    return long(**{**columns, **changes})


def test_a_value_per_event_of_its_kind() -> None:
    log = read_log(long_log(), context_fields=CONTEXT)
    assert log.columns["query"].values.tolist() == [0, -1, 1]
    assert log.columns["query"].categories.to_list() == ["q", "r"]
    assert log.columns["page"].values.tolist() == [0, 1, 0]
    assert log.columns["page"].categories.to_list() == ["7", "9"]
    assert log.columns["hour"].values.tolist() == [0.5, 3.0, 1.0]
    kinds = {values.dtype.name for values in values_of(log, "event").values()}
    assert kinds == {"int32", "float32"}
    assert log.columns_of("candidate") == {}


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        ([3, 4, 3], ["3", "4"]),
        ([3, None, 3], ["3"]),
        (["3", "", "x"], ["3", "x"]),
        ([True, False, True], ["false", "true"]),
        (["TRUE", "False", "true"], ["false", "true"]),
        (["True", "x", ""], ["true", "x"]),
        (["12.5", "3.53e0", "+3"], None),
        ([3.0, 4.0, 3.0], None),
        (pl.Series([1, 2, 1], dtype=pl.UInt64) + 2**63, [str(2**63 + 1), str(2**63 + 2)]),
        (pl.Series(["a", "b", "a"], dtype=pl.Categorical), ["a", "b"]),
        (["07", "7", ""], ["07", "7"]),
        (["18446744073709551616", "1", "1"], ["1", "18446744073709551616"]),
        (["1", "2.5", "1e3"], None),
        (["1", "2.5", "x"], ["1", "2.5", "x"]),
        (["", "", ""], []),
    ],
    ids=[
        *("integers", "gaps", "text", "flags", "text of flags", "a flag in text"),
        *("text of decimals", "decimals", "large", "categories", "leading zeros", "large text"),
        *("some whole", "some numbers", "nothing"),
    ],
)
def test_whole_numbers_and_text_are_categories(values: Any, categories: list[str] | None) -> None:
    """Of text too: a csv is read alike (tests/logs/test_sources.py)."""
    frame = nested().vstack(nested()[:1]).with_columns(page=pl.Series(values))
    log = read_log(frame, context_fields=["page"])
    known = log.columns["page"].texts
    assert (None if known is None else known.to_list()) == categories


def test_context_changes_the_fingerprint_and_its_absence_does_not() -> None:
    plain = read_log(long_log())
    assert plain.fingerprint == read_log(long()).fingerprint
    seen = {plain.fingerprint}
    for fields in (["query"], ["page"], ["hour"], CONTEXT):
        seen.add(read_log(long_log(), context_fields=fields).fingerprint)
    seen.add(read_log(long_log(hour=[0.5, 0.5, 3.0, 2.0]), context_fields=CONTEXT).fingerprint)
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (long_log(query=["q", "p", "q", "q"]), "event 17 of session 'u3' has 'q' and 'p' in"),
        (long_log(query=["q", None, "q", "q"]), "event 17 of session 'u3' has 'q' and None in"),
        (long_log(query=[1.0, 2.0, 3.0, 3.0]), r"event 17 of session 'u3' has 1.0 and 2.0 in"),
        (long_log(query=[1.0, 1.0, None, 3.0]), "event 18 of session 'u3' has no value in"),
        (long_log(query=[1.0, 1.0, 1e39, 3.0]), r"event 18 of session 'u3' has 1e\+39 in"),
        (long_log(query=[1.0, 1.0, float("nan"), 3.0]), "event 18 of session 'u3' has nan in"),
        (nested(query=[["q"], ["r"]]), "holds lists, a context field has one value per event"),
        (long_log().with_columns(query=pl.struct("page")), "a context field is numbers or text"),
    ],
)
def test_what_is_no_context_is_refused(frame: pl.DataFrame, says: str) -> None:
    refused(frame, says, context_fields=["query"])


def navigation(
    n_sessions: int = 300, n_items: int = 200, seed: int = 0, fixed: bool = False
) -> SessionLog:
    """Sessions that search for an item and reach it: `page` is the item where an event happens,
    `target` the last choice, `kind` a number that only happens to be an item's id. A `fixed` page
    always displays the same items."""
    rng = np.random.default_rng(seed)
    links = [sorted(rng.choice(n_items, 6, replace=False).tolist()) for _ in range(n_items * fixed)]
    sessions, pages, targets = [], [], []
    for _ in range(n_sessions):
        page, session = int(rng.integers(n_items)), []
        length = int(rng.integers(1, 5))
        for _ in range(length):
            shown = links[page] if fixed else sorted(rng.choice(n_items, 6, replace=False).tolist())
            choice = int(rng.integers(6))
            session.append((shown, choice))
            pages.append(page)
            page = shown[choice]
        targets += [page] * length
        sessions.append(session)
    log = log_of(sessions, split=rng.integers(0, 3, n_sessions).tolist())
    ids = [f"i{i}" for i in range(n_items)]
    kinds = rng.integers(0, n_items, log.n_events)
    values = {"page": pages, "target": targets, "kind": kinds}
    return put(
        log,
        item_ids=pl.Series(ids),
        event={
            **{name: np.array(codes, np.int32) for name, codes in values.items()},
            "hour": rng.random(log.n_events, np.float32),
        },
        categories={name: pl.Series(ids) for name in values},
    )


def holds(log: Any) -> dict[str, str]:
    return {field.name: field.holds for field in context_of(log)}


EXPECTED = {"hour": "numbers", "kind": "categories", "page": "items", "target": "items"}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_ids_that_are_displayed_in_their_session_are_items(seed: int) -> None:
    """Anonymised numbers that collide with ids of items by accident are not."""
    assert holds(navigation(seed=seed)) == EXPECTED


def test_values_of_few_items_are_categories() -> None:
    """At least 90 % must be ids of items; a missing value counts neither way."""
    log = navigation()
    train = np.flatnonzero(np.repeat(log.split == 0, np.diff(log.session_offsets)))
    for share, expected in ((0.08, "items"), (0.12, "categories")):
        for codes in (np.full(log.n_events, 200, np.int32), np.full(log.n_events, -1, np.int32)):
            target = log.columns["target"].values.copy()
            others = train[: int(share * len(train))]
            target[others] = codes[others]
            categories = {"target": pl.Series([*log.item_ids.to_list(), "other"])}
            changed = put(log, event={"target": target}, categories=categories)
            missing = codes[0] < 0
            assert holds(changed) == {"target": "items" if missing else expected}


def test_nothing_is_known_without_training_sessions_or_values() -> None:
    log = navigation(20)
    untrained = log.with_split(np.full(log.n_sessions, 2, np.int8))
    assert set(holds(untrained).values()) == {"numbers", "categories"}
    empty = {"page": np.full(log.n_events, -1, np.int32)}
    assert holds(put(log, event=empty)) == {"page": "categories"}
    every = log_of([[([0, 1], 0)], [([0, 1], 1)]])
    every = put(every, event={"page": every.choices}, categories={"page": pl.Series(["i0", "i1"])})
    assert holds(every) == {"page": "categories"}, "chance alone displays every item"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_values_displayed_in_their_own_session_are_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log = random_log(seed, n_sessions=8, n_items=6)
    codes = rng.integers(-1, log.n_items, log.n_events).astype(np.int32)
    log = put(log, event={"page": codes}, categories={"page": log.item_ids})
    observed, chance, every = [], [], set()
    for session in log.sessions_in("train").tolist():
        events = range(*log.session_offsets[session : session + 2].tolist())
        ends = log.display_offsets[[events[0], events[-1] + 1]]
        shown = set(log.items[slice(*ends.tolist())].tolist())
        every |= shown
        observed += [int(codes[event]) in shown for event in events if codes[event] >= 0]
        chance += [len(shown) for event in events if codes[event] >= 0]
    (found,) = context_of(log)
    if observed:
        assert found.displayed == pytest.approx(np.mean(observed))
        assert found.by_chance == pytest.approx(np.mean(chance) / len(every))
    else:
        assert (found.holds, found.displayed) == ("categories", None)


def test_a_saved_log_asked_for_its_context(tmp_path: Path) -> None:
    folder = save_log(navigation(20), tmp_path / "log")
    assert read_log(folder, context_fields=["page"]).fingerprint == load_log(folder).fingerprint
    with pytest.raises(LogFormatError, match=r"no column 'pag'.*did you mean 'page'"):
        read_log(folder, context_fields=["pag"])
