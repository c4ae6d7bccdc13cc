"""Seeds are averaged, splits are pooled, and users are what an interval is about."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.logs.split import resplit
from fastgaum.reports.log_facts import PooledEvents, dataset_facts
from fastgaum.reports.reproduce import cells_of, rows_of
from tests.builders import random_log
from tests.reports.made_up import events_of, run_of

RANDOM = {"1": 50.0, "2": 100.0}


def test_pooled_interval_is_a_bootstrap_over_users_with_their_events_of_all_splits() -> None:
    """Against a naive twin that gathers a drawn user's events split by split."""
    rng = np.random.default_rng(3)
    users = [
        rng.integers(0, 9, 14).tolist(),
        rng.integers(3, 12, 20).tolist(),
        rng.integers(0, 12, 11).tolist(),
    ]
    values = [[100.0 * (rng.random(len(one)) < 0.6) for _ in range(2)] for one in users]
    (row,) = rows_of("logit", [[run_of(seed) for seed in split] for split in values])
    cell = cells_of(row, "world", [1, 2, 3], events_of(users), RANDOM, None)[0]

    by_user: dict[int, list[float]] = {}
    for split_users, seeds in zip(users, values, strict=True):
        for user, first, second in zip(split_users, *seeds, strict=True):
            by_user.setdefault(user, []).append((first + second) / 2)
    distinct = sorted(by_user)
    draws = np.random.default_rng(0).integers(
        len(distinct), size=(1000, len(distinct)), dtype=np.int32
    )
    means = [np.mean([value for i in drawn for value in by_user[distinct[i]]]) for drawn in draws]
    assert cell["mean"] == pytest.approx(
        np.mean([value for one in by_user.values() for value in one])
    )
    assert cell["ci"] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())
    assert cell["prec_per_user"] == pytest.approx(
        np.mean([np.mean(one) for one in by_user.values()])
    )
    assert (cell["n_events"], cell["splits"], cell["seeds"]) == (45, 3, 2)


def test_a_user_of_many_splits_does_not_narrow_the_interval() -> None:
    """Ten splits that test the same users alike say no more than one."""
    rng = np.random.default_rng(0)
    users, values = list(range(60)), 100.0 * (rng.random(60) < 0.5)
    widths = []
    for n in (1, 10):
        (row,) = rows_of("logit", [[run_of(values)]] * n)
        low, high = cells_of(row, "world", list(range(n)), events_of([users] * n), RANDOM, None)[0][
            "ci"
        ]
        widths.append(high - low)
    assert widths[0] == pytest.approx(widths[1])


def test_spread_over_seeds_is_that_of_their_pooled_means() -> None:
    splits = [
        [np.array([100.0, 0.0, 0.0]), np.array([100.0, 100.0, 0.0])],
        [np.array([0.0]), np.array([100.0])],
    ]
    (row,) = rows_of("logit", [[run_of(seed) for seed in split] for split in splits])
    cell = cells_of(row, "world", [7, 8], events_of([[0, 1, 2], [3]]), RANDOM, None)[0]
    assert cell["mean"] == pytest.approx((25 + 75) / 2)
    assert cell["sd"] == pytest.approx(np.std([25, 75], ddof=1))
    assert cell["by_split"] == {"7": pytest.approx(50.0), "8": pytest.approx(50.0)}


def test_events_without_a_choice_count_in_the_nll_only() -> None:
    values = [np.array([100.0, np.nan, np.nan]), np.array([0.0])]
    (row,) = rows_of("logit", [[run_of(values[0], nll=1.0)], [run_of(values[1], nll=5.0)]])
    cell = cells_of(row, "world", [1, 2], events_of([[0, 1, 2], [3]]), RANDOM, None)[0]
    assert (cell["mean"], cell["n_events"], cell["nll"]) == (50.0, 2, 2.0)


def test_a_split_without_any_choice() -> None:
    values = [np.array([100.0, 0.0]), np.array([np.nan])]
    (row,) = rows_of("logit", [[run_of(one)] for one in values])
    cell = cells_of(row, "world", [1, 2], events_of([[0, 1], [2]]), RANDOM, None)[0]
    assert (cell["mean"], cell["sd"]) == (50.0, 0.0)


def test_way_to_the_oracle() -> None:
    (row,) = rows_of("logit", [[run_of(np.array([100.0, 50.0]))]])
    cell = cells_of(row, "world", [None], events_of([[0, 1]]), RANDOM, {"1": 80.0, "2": 110.0})[0]
    assert cell["way_to_oracle"] == pytest.approx((75 - 50) / (80 - 50))


def test_events_and_facts_of_several_splits() -> None:
    log = random_log(3, n_sessions=40, shared_users=True, no_click=0.1)
    events = PooledEvents.of(log, [None, 2])
    again = resplit(log, 2)
    n = [int(np.diff(one.session_offsets)[one.sessions_in("test")].sum()) for one in (log, again)]
    assert events.counts == tuple(n)
    assert set(events.users[n[0] :]) == set(again.users[again.sessions_in("test")])
    one, two, both = (
        dataset_facts("world", log, seeds, PooledEvents.of(log, seeds))
        for seeds in ([None], [2], [None, 2])
    )
    assert both["n_test_events"] == sum(n)
    name = "test events that display one item"
    shares = [facts["shares"][name] for facts in (one, two, both)]
    assert shares[2]["n"] == shares[0]["n"] + shares[1]["n"]
    assert shares[2]["percent"] == pytest.approx(
        np.average([s["percent"] for s in shares[:2]], weights=n)
    )
    low, high = sorted(facts["floors"]["train_click_rate"]["1"] for facts in (one, two))
    assert low <= both["floors"]["train_click_rate"]["1"] <= high
