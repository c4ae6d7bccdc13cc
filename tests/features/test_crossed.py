"""Context crossed with items: the encoder's numbers against counts taken pair by pair."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from fastgaum.features.crossed import add_crossed, count_crossed, most_displayed
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.sessions import select_sessions
from fastgaum.kernels.crossed import CrossedEvents
from fastgaum.kernels.walks import FLOOR
from fastgaum.logs.log import SessionLog
from tests.builders import factor_of_counts, numbers_of, put, random_log, sessions_that_speak
from tests.logs.test_context import navigation


def log_with_context(seed: int) -> SessionLog:
    """Events with a query, and with two items of their session: of the display, and of its
    choice."""
    log = random_log(seed, n_sessions=80, n_items=60, no_click=0.2, shared_users=True)
    rng = np.random.default_rng(seed)
    first = log.display_offsets[:-1]
    sizes = np.diff(log.display_offsets)
    page = log.items[first + rng.integers(0, sizes)]
    goal = log.items[first + np.maximum(log.choices, 0)]
    fields = {
        "query": rng.integers(-1, 3, log.n_events),
        "page": np.where(rng.random(log.n_events) < 0.1, -1, page),
        "goal": goal,
    }
    return put(
        log,
        event={name: values.astype(np.int32) for name, values in fields.items()},
        categories={
            "query": pl.Series(["a", "b", "c"]),
            "page": log.item_ids,
            "goal": log.item_ids,
        },
    )


def naive(log: SessionLog, name: str, event: int, value: int, item: int) -> tuple[float, ...]:
    """Displays, choices, expected choices of an item and events, where the field has this value,
    in the training sessions that the session of `event` reads. A missing category is a value, a
    missing item is none."""
    read = np.isin(log.session_of_event, sessions_that_speak(log, int(log.session_of_event[event])))
    shown = chosen = expected = events = 0.0
    is_value = value >= 0 or name == "query"
    for other in np.flatnonzero(read & (log.columns[name].values == value) & is_value):
        events += 1
        display = log.items[log.display_offsets[other] : log.display_offsets[other + 1]].tolist()
        if item in display:
            shown += 1
            chosen += log.choices[other] == display.index(item)
            expected += (log.choices[other] >= 0) / len(display)
    factor = factor_of_counts(log, int(log.session_of_event[event]))
    return (
        round(shown * factor),
        round(chosen * factor),
        expected * factor,
        round(events * factor),
    )


def test_walks_are_those_on_the_pages_that_earlier_users_saw() -> None:
    log = navigation(60, n_items=25, fixed=True)
    space = fit_space(log, "bags", relative_numbers=False)
    assert space.fixing_fields == {"page"}
    numbers = numbers_of(
        Encoder(space, log), select_sessions(log, np.arange(log.n_sessions, dtype=np.int32))
    )
    at = {name: column for column, name in enumerate(space.number_names)}
    new_pages = 0
    for event in range(0, log.n_events, 16):
        steps = np.zeros((25, 25))
        for page in range(25):
            for item in range(25):
                steps[page, item] = naive(log, "page", event, page, item)[0] > 0
        new_pages += not steps[log.columns["page"].values[event]].any()
        steps /= np.maximum(steps.sum(1, keepdims=True), 1)
        two = steps @ steps
        goal = int(log.columns["target"].values[event])
        for candidate in range(log.display_offsets[event], log.display_offsets[event + 1]):
            item, row = int(log.items[candidate]), numbers[candidate]
            for name, walk in (("walk2", two), ("walk3", two @ steps)):
                wanted = math.log(walk[item, goal] + FLOOR)
                assert row[at[f"{name}_page_target"]] == pytest.approx(wanted, abs=1e-4)
            assert row[at["within2_page_target"]] == (two[item, goal] > 0)
            assert row[at["back_page_target"]] == (steps[goal, item] > 0)
    # the case that a leak would show in: pages that no user before has seen
    assert new_pages > 0


def test_displays_that_vary_are_no_graph() -> None:
    space = fit_space(navigation(seed=1), "bags", relative_numbers=False)
    assert not space.fixing_fields


def test_pairs_are_dropped_by_their_displays_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets, items = np.array([0, 2, 4, 6, 8], np.int32), np.array([0, 1] * 3 + [2, 3], np.int32)
    values = np.zeros(4, np.int32)
    events = CrossedEvents(offsets, items, np.array([0, 1, 0, 0], np.int32), values)
    whole = count_crossed(events, 1, 4)
    assert whole.displays.tolist() == [3, 3, 1, 1]
    monkeypatch.setattr("fastgaum.features.crossed.MOST_CROSSED", 3)
    kept = most_displayed(count_crossed(events, 1, 4), 4)
    assert kept.items.tolist() == [0, 1]
    assert kept.displays.tolist() == [3, 3]
    # a pair that is rare in each part keeps what both say of it
    first = CrossedEvents(offsets[:4], items[:6], events.choices[:3], values[:3])
    last = CrossedEvents(offsets[3:] - offsets[3], items[6:], events.choices[3:], values[3:])
    parts = add_crossed(count_crossed(first, 1, 4), count_crossed(last, 1, 4), n_items=4)
    for one, other in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(one, other)
    assert most_displayed(parts, 4).displays.tolist() == [3, 3]
