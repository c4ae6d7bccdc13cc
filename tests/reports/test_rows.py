"""Seeds are averaged, splits are pooled, and users are what an interval is about; who is compared
with whom, and when a figure may be bold. Of figures of runs that were never trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastgaum.logs.splits import resplit
from fastgaum.metrics.evaluation import DisplayFigures, Evaluation, HeadFigures
from fastgaum.metrics.intervals import Interval, paired_difference
from fastgaum.reports.comparison import Row, cells_of, compare_rows
from fastgaum.reports.grid import GridPlan, RunFigures
from fastgaum.reports.log_facts import PooledEvents, dataset_facts
from tests.builders import random_log

RANDOM = {"1": 50.0, "2": 100.0}


def run_of(
    values: np.ndarray, nll: float = 1.0, heads: tuple[str, ...] = ("reward",), brier: float = 0.5
) -> RunFigures:
    """A run with these prec@1 per event, percent, NaN without a choice; prec@2 is the same."""
    counted = ~np.isnan(values)
    mean = float(values[counted].mean()) if counted.any() else float("nan")
    precision = Interval(mean, mean, mean, int(counted.sum()), 1)
    head = HeadFigures(
        precision={1: precision, 2: precision},
        per_user={},
        nontrivial={},
        nll=Interval(nll, nll, nll, len(values), 1),
        brier=brier,
        ece=0.1,
        no_click=None,
        precision_per_event={1: values, 2: values},
        nll_per_event=np.full(len(values), nll),
        displays=DisplayFigures({}, precision, precision, precision, {}),
    )
    test = Evaluation(dict.fromkeys(heads, head), len(values), 1, {1: 0.0, 2: 0.0}, None)
    return RunFigures(test, None, 1.0, "bags", "loss", None)


def events_of(users: list[list[int]], weights: list[float] | None = None) -> PooledEvents:
    """Test events by split, each of two candidates, by their users."""
    every = np.concatenate([np.array(one, np.int32) for one in users])
    sizes = np.full(len(every), 2, np.int32)
    of_events = np.ones(len(every)) if weights is None else np.array(weights)
    return PooledEvents(every, sizes, tuple(map(len, users)), of_events)


def row(
    model: str, values: list[float] | np.ndarray, heads: tuple[str, ...] = ("reward",)
) -> list[Row]:
    """Rows of a model with one split and one seed."""
    run = run_of(np.asarray(values, np.float64), heads=heads)
    return [Row.of(model, head, [run], 1) for head in heads]


def cell_of(
    runs: list[list[RunFigures]],
    users: list[list[int]],
    weights: list[float] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """The cell at k = 1 of a model's runs by split, then by seed; splits have the seeds 1, 2, …"""
    row = Row.of("logit", "reward", [run for split in runs for run in split], len(runs[0]))
    plan = GridPlan(["logit"], len(runs[0]), resplits=range(1, len(runs) + 1))
    events = events_of(users, weights)
    about = {"floors": {"random": RANDOM}, **facts}
    return next(cells_of(row, "world", plan, events, about, compare_rows([row], events, about)[0]))


def compared(
    rows: list[Row],
    floor: float = 50.0,
    others: tuple[float | None, ...] = (),
    published: tuple[float, ...] = (),
) -> list[dict[str, Any]]:
    """What is said of prec@1 of each row."""
    rivals = [{"model": "theirs", "prec1": one, "prec2": one, "nll": None} for one in others]
    facts = {"floors": {"random": {"1": floor, "2": floor}}, "others": rivals}
    facts["published_models"] = [{"model": "XGBoost", "mean": one, "nll": 0.5} for one in published]
    return [part["prec1"] for part in compare_rows(rows, EVENTS, facts)]


def test_pooled_interval_is_a_bootstrap_over_seeds_and_users_with_their_events_of_all_splits() -> (
    None
):
    """Against a naive twin that gathers a drawn user's events split by split."""
    rng = np.random.default_rng(3)
    users = [
        rng.integers(0, 9, 14).tolist(),
        rng.integers(3, 12, 20).tolist(),
        rng.integers(0, 12, 11).tolist(),
    ]
    values = [[100.0 * (rng.random(len(one)) < 0.6) for _ in range(2)] for one in users]
    cell = cell_of([[run_of(seed) for seed in split] for split in values], users)

    by_user: dict[int, list[tuple[float, float]]] = {}
    for split_users, seeds in zip(users, values, strict=True):
        for user, *both in zip(split_users, *seeds, strict=True):
            by_user.setdefault(user, []).append((both[0], both[1]))
    distinct = sorted(by_user)
    draws = np.random.default_rng(0).integers(
        len(distinct), size=(1000, len(distinct)), dtype=np.int32
    )
    # one of the two seeds a draw
    of_seed = np.random.default_rng([0, 1]).multinomial(1, [0.5, 0.5], 1000).argmax(axis=1)
    means = [
        np.mean([value[seed] for i in drawn for value in by_user[distinct[i]]])
        for drawn, seed in zip(draws, of_seed, strict=True)
    ]
    assert cell["mean"] == pytest.approx(
        np.mean([value for one in by_user.values() for value in one])
    )
    assert cell["ci"] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())
    assert cell["prec_per_user"] == pytest.approx(
        np.mean([np.mean(one) for one in by_user.values()])
    )
    assert (cell["n_events"], cell["splits"], cell["seeds"]) == (45, 3, 2)


def test_spread_over_seeds_is_that_of_their_pooled_means() -> None:
    splits = [
        [np.array([100.0, 0.0, 0.0]), np.array([100.0, 100.0, 0.0])],
        [np.array([0.0]), np.array([100.0])],
    ]
    cell = cell_of([[run_of(seed) for seed in split] for split in splits], [[0, 1, 2], [3]])
    assert cell["mean"] == pytest.approx((25 + 75) / 2)
    assert cell["sd"] == pytest.approx(np.std([25, 75], ddof=1))
    assert cell["by_split"] == {"1": pytest.approx(50.0), "2": pytest.approx(50.0)}


def test_events_without_a_choice_count_in_the_nll_only() -> None:
    values = [np.array([100.0, np.nan, np.nan]), np.array([0.0])]
    runs = [[run_of(values[0], nll=1.0)], [run_of(values[1], nll=5.0)]]
    cell = cell_of(runs, [[0, 1, 2], [3]])
    assert (cell["mean"], cell["n_events"], cell["nll"]) == (50.0, 2, 2.0)
    # a draw is the user of three events twice, the user of one twice, or both
    assert cell_of(runs, [[0, 0, 0], [3]])["nll_ci"] == [1.0, 5.0]


def test_figures_of_whole_splits_are_pooled_by_the_weights_of_their_events() -> None:
    runs = [[run_of(GOOD[:2], brier=0.0)], [run_of(GOOD[:1], brier=1.0)]]
    assert cell_of(runs, [[0, 1], [2]], [1.0, 1.0, 6.0])["brier"] == pytest.approx(0.75)


def test_way_to_the_oracle() -> None:
    runs = [[run_of(np.array([100.0, 50.0]))]]
    cell = cell_of(runs, [[0, 1]], oracle={"1": 80.0, "2": 110.0})
    assert cell["way_to_oracle"] == pytest.approx((75 - 50) / (80 - 50))
    assert cell_of(runs, [[0, 1]], oracle={"1": 50.0, "2": 100.0})["way_to_oracle"] is None


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
    *traces, pooled = (
        dataset_facts("movielens-small", log, seeds, PooledEvents.of(log, seeds))["simulated"]
        for seeds in ([None], [2], [None, 2])
    )
    clicks = [one.count("choices", "test") for one in (log, again)]
    trace = np.average([one["trace"] for one in traces], weights=clicks)
    assert pooled["trace"] == pytest.approx(trace)


USERS = list(range(40))
EVENTS = events_of([USERS])
GOOD, BAD = np.full(40, 100.0), np.zeros(40)
HALF = np.where(np.arange(40) % 2, 100.0, 0.0)


def test_the_best_is_compared_with_the_runner_up_and_others_with_the_best() -> None:
    parts = compared([*row("logit", HALF), *row("dfm", GOOD), *row("iknn", BAD)])
    assert [part["vs_best_other"]["model"] for part in parts] == ["dfm", "logit", "dfm"]
    assert [part["vs_best_other"]["diff"] for part in parts] == [-50, 50, -100]
    assert [part["bold"] for part in parts] == [False, True, False]
    expected = paired_difference(GOOD, HALF, np.array(USERS))
    assert parts[1]["vs_best_other"]["ci"] == [expected.low, expected.high]
    assert [part.get("vs_logit", {}).get("diff") for part in parts] == [None, 50, -50]


def test_the_interval_must_exclude_zero() -> None:
    """One event in forty better is no more than chance."""
    better = HALF.copy()
    better[0] = 100.0
    parts = compared([*row("logit", HALF), *row("dfm", better)])
    assert parts[1]["vs_best_other"]["diff"] == pytest.approx(2.5)
    assert parts[1]["vs_best_other"]["ci"][0] <= 0
    assert not any(part["bold"] for part in parts)


def test_the_best_must_be_ahead_of_the_third_too() -> None:
    """The runner-up errs where the best does, the third elsewhere: its interval is wide."""
    best = np.where(np.arange(40) < 24, 100.0, 0.0)
    second = np.where((np.arange(40) < 24) & (np.arange(40) % 4 > 0), 100.0, 0.0)
    third = np.where(np.arange(40) >= 23, 100.0, 0.0)
    parts = compared([*row("a", best), *row("b", second), *row("c", third)])
    assert parts[0]["vs_best_other"]["model"] == "b"
    assert parts[0]["vs_best_other"]["ci"][0] > 0
    assert not parts[0]["bold"]


def test_what_is_below_another_figure_of_its_column_is_not_bold() -> None:
    rows = [*row("logit", HALF), *row("dfm", BAD)]
    for floor, others, bold in ((np.nan, (None, 50.0), True), (51.0, (), False), (0, (51,), False)):
        assert compared(rows, floor, others)[0]["bold"] == bold
    for mean, bold in ((50.0, True), (50.1, False)):
        assert compared(rows, published=(mean,))[0]["bold"] == bold


def test_floors_are_never_bold() -> None:
    parts = compared([*row("click-rate", GOOD), *row("logit", BAD)])
    assert parts[0]["vs_best_other"]["ci"] == [100, 100]
    assert not any(part["bold"] for part in parts)


def test_the_other_head_of_a_model_is_no_rival_and_other_presets_are() -> None:
    heads = ("reward", "generator")
    parts = compared([*row("fastgaum", GOOD, heads), *row("report", HALF), *row("logit", BAD)])
    assert [part["vs_best_other"]["model"] for part in parts] == [
        "report",
        "report",
        "fastgaum",
        "fastgaum",
    ]
    assert parts[2]["vs_best_other"]["head"] == "reward"
    assert [part["bold"] for part in parts] == [True, False, False, False]


def test_a_model_alone() -> None:
    parts = compared(row("fastgaum", GOOD, ("reward", "generator")))
    assert all(part == {"vs_best_other": None, "bold": False} for part in parts)


def test_a_log_without_choices_has_no_best() -> None:
    nothing = np.full(40, np.nan)
    parts = compared([*row("a", nothing), *row("b", nothing)])
    assert not any(part["bold"] for part in parts)
