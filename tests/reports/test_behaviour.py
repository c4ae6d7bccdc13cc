"""Every statistic against a naive twin that reads the log session by session."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from fastgaum.baselines.registry import make_model
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.evaluation import HeadScores
from fastgaum.reports.behaviour import (
    LogVersions,
    compare_sides,
    reliability_curve,
    score_log,
    values_of,
)
from fastgaum.worlds.replay import versions
from tests.builders import random_log

REPLICAS = 2


@pytest.fixture(
    scope="module", params=[0.0, 0.3], ids=["every event has a click", "no click is offered"]
)
def setting(request: pytest.FixtureRequest) -> tuple[SessionLog, LogVersions, HeadScores, bool]:
    log = random_log(
        5, n_sessions=80, n_items=14, max_length=9, no_click=request.param, shared_users=True
    )
    model = make_model("click-rate", {})
    model.fit(log)
    rng = np.random.default_rng(1)
    sizes = np.diff(log.display_offsets)
    simulated = rng.integers(0, sizes, (REPLICAS, log.n_events)).astype(np.int32)
    if request.param:
        simulated[rng.random(simulated.shape) < 0.3] = -1
    every = versions(log, simulated)
    assert model.space is not None
    return (
        every,
        LogVersions.of(every, 1 + REPLICAS, model.space),
        score_log(model, every, "reward"),
        model.no_click,
    )


def told(log: SessionLog, scored: HeadScores) -> list[dict[str, Any]]:
    """What each event was, version by version, read one session at a time; `log` is all
    versions."""
    n_sessions = log.n_sessions // (1 + REPLICAS)
    training_displays: Counter[int] = Counter()
    training_choices: Counter[int] = Counter()
    for session in np.flatnonzero(log.split[:n_sessions] == 0):
        for event in range(log.session_offsets[session], log.session_offsets[session + 1]):
            items = log.items[log.display_offsets[event] : log.display_offsets[event + 1]].tolist()
            training_displays.update(items)
            if log.choices[event] >= 0:
                training_choices.update([items[log.choices[event]]])
    events = []
    for session in range(log.n_sessions):
        displayed: set[int] = set()
        chosen: set[int] = set()
        for number, event in enumerate(
            range(log.session_offsets[session], log.session_offsets[session + 1])
        ):
            a, b = log.display_offsets[event : event + 2]
            items, choice = log.items[a:b].tolist(), int(log.choices[event])
            item = items[choice] if choice >= 0 else None
            utilities = scored.scores[a:b].tolist()
            probs = np.exp(scored.log_probs[a:b])
            p = (
                float(probs[choice])
                if item is not None
                else math.exp(scored.no_click_log_prob[event])
            )
            row = {
                "version": session // n_sessions,
                "user": int(log.users[session]),
                "number": number,
                "clicked": item is not None,
                "again": item in chosen,
                "new": item not in displayed,
                "surprise": -math.log(p),
                "probs": probs,
                "choice": choice,
                "choices": training_choices[item],
                "displays": training_displays[item],  # type: ignore[index]
            }
            if item is not None:
                own = utilities[choice]
                row["rank"] = (
                    1
                    + sum(u > own for u in utilities)
                    + 0.5 * (sum(u == own for u in utilities) - 1)
                )
                chosen.add(item)
            displayed |= set(items)
            events.append(row)
    return events


def mean_of(events: list[dict[str, Any]], value: str, counted: str) -> list[float]:
    """Mean per version; `counted`: clicks, later clicks, or all."""
    kept: dict[int, list[float]] = defaultdict(list)
    for event in events:
        if counted == "all" or (event["clicked"] and (counted == "clicks" or event["number"] > 0)):
            kept[event["version"]].append(float(event[value]))
    return [float(np.mean(kept[version])) for version in range(1 + REPLICAS)]


def ratios(context: LogVersions, values: np.ndarray) -> np.ndarray:
    sums, counts = context.sums(values)
    return np.asarray(sums.sum(axis=1) / counts.sum(axis=1))


def test_means_are_those_told_event_by_event(
    setting: tuple[SessionLog, LogVersions, HeadScores, bool],
) -> None:
    log, context, scored, no_click = setting
    found = dict(values_of(context, scored, no_click))
    events = told(log, scored)
    for event in events:
        event["log"] = math.log1p(event["choices"])
    for name, value, counted in (
        ("repeat rate", "again", "later"),
        ("new to the session", "new", "later"),
        ("surprise", "surprise", "all"),
        ("popularity, mean log", "log", "clicks"),
    ):
        assert ratios(context, found[name]) == pytest.approx(
            mean_of(events, value, counted), abs=1e-5
        ), name
    assert ("click rate" in found) == no_click
    if no_click:
        clicks = ratios(context, found["click rate"])
        assert clicks == pytest.approx(mean_of(events, "clicked", "all"))
    assert "place of the click" not in found
    for event in events:
        event["place"] = event["choice"] + 1
    ordered = dataclasses.replace(context, log=dataclasses.replace(log, ordered=True))
    places = dict(values_of(ordered, scored, no_click))["place of the click"]
    assert ratios(context, places) == pytest.approx(mean_of(events, "place", "clicks"))


def test_intervals_are_those_of_drawn_users(
    setting: tuple[SessionLog, LogVersions, HeadScores, bool],
) -> None:
    _, context, scored, no_click = setting
    values = dict(values_of(context, scored, no_click))["surprise"]
    found = compare_sides(context, "surprise", values, 4000, 3)
    (sums, counts), n = context.sums(values), context.n_users
    assert found["logged"] == pytest.approx(sums[0].sum() / counts[0].sum())
    assert found["simulated"] == pytest.approx(sums[1:].sum() / counts[1:].sum())
    assert found["difference"] == pytest.approx(found["simulated"] - found["logged"])
    rng = np.random.default_rng(9)
    naive = []
    for _ in range(4000):
        users = rng.integers(n, size=n)
        logged = sums[0, users].sum() / counts[0, users].sum()
        simulated = sums[1:, users].sum() / counts[1:, users].sum()
        naive.append((logged, simulated, simulated - logged))
    for i, name in enumerate(("logged_ci", "simulated_ci", "difference_ci")):
        wanted = np.quantile([one[i] for one in naive], [0.025, 0.975])
        assert found[name] == pytest.approx(wanted, abs=0.03)
    nothing = compare_sides(context, "surprise", np.full(len(values), np.nan), 9, 0)
    assert np.isnan([nothing["logged"], nothing["difference"], *nothing["difference_ci"]]).all()


def test_the_curve_counts_what_happened_in_tenths_of_what_was_expected(
    setting: tuple[SessionLog, LogVersions, HeadScores, bool],
) -> None:
    log, context, scored, _ = setting
    cases = sorted(
        (p, i == e["choice"])
        for e in told(log, scored)
        if e["version"] == 0
        for i, p in enumerate(e["probs"].tolist())
    )
    total, reached = sum(case[0] for case in cases), 0.0
    bins: dict[float, float] = {}
    for level in sorted({case[0] for case in cases}):
        mass = level * sum(case[0] == level for case in cases)
        bins[level] = min(int((reached + mass / 2) / total * 10), 9)
        reached += mass
    order = sorted(set(bins.values()))
    groups = [[case for case in cases if bins[case[0]] == one] for one in order]
    curve = reliability_curve(context, scored, 99, 0)
    for at, group in enumerate(groups):
        assert curve["predicted"][at] == pytest.approx(np.mean([p for p, _ in group]))
        assert curve["observed"][at] == pytest.approx(np.mean([came for _, came in group]))
        low, high = curve["ci"][at]
        assert low <= curve["observed"][at] <= high
    assert len(curve["predicted"]) == len(groups)


def test_no_click_without_a_probability_is_refused() -> None:
    log = random_log(0)
    model = make_model("click-rate", {})
    model.fit(log)
    assert model.space is not None
    every = versions(log, np.full((1, log.n_events), -1, np.int32))
    context = LogVersions.of(every, 2, model.space)
    with pytest.raises(
        ConfigError, match="which the model does not offer: train with no_click = always"
    ):
        list(values_of(context, score_log(model, every, "reward"), model.no_click))
