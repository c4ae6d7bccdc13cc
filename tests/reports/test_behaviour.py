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
from fastgaum.metrics.intervals import Statistic, cut
from fastgaum.reports.behaviour import LogVersions, reliability_curve, score_log, statistics_of
from fastgaum.reports.permutation_test import sides
from fastgaum.reports.rank_agreement import policies_of, values_of
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
        model.outside,
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
                else math.exp(scored.outside_log_prob[event])
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


def ratios(statistic: Statistic) -> np.ndarray:
    return statistic.sums.sum(axis=1) / statistic.counts.sum(axis=1)


def test_means_are_those_told_event_by_event(
    setting: tuple[SessionLog, LogVersions, HeadScores, bool],
) -> None:
    log, context, scored, outside = setting
    found = {one.name: one for one in statistics_of(context, scored, outside)}
    events = told(log, scored)
    for event in events:
        event |= {
            "never chosen": event["choices"] == 0,
            "never displayed": event["displays"] == 0,
            "log": math.log1p(event["choices"]),
        }
    for name, value, counted in (
        ("repeat rate", "again", "later"),
        ("new to the session", "new", "later"),
        ("surprise", "surprise", "all"),
        ("never chosen in training", "never chosen", "clicks"),
        ("never displayed in training", "never displayed", "clicks"),
        ("popularity, mean log", "log", "clicks"),
        ("rank by utility", "rank", "clicks"),
    ):
        assert ratios(found[name])[:, 0] == pytest.approx(
            mean_of(events, value, counted), abs=1e-5
        ), name
    assert ("click rate" in found) == outside
    if outside:
        assert ratios(found["click rate"])[:, 0] == pytest.approx(mean_of(events, "clicked", "all"))
        by_event = found["click rate by event"]
        assert by_event.labels == ("1", "2", "3", "4", "5", "6+")
        for group in range(6):
            some = [e for e in events if min(e["number"], 5) == group]
            assert ratios(by_event)[:, group] == pytest.approx(mean_of(some, "clicked", "all"))


def test_depths_are_counted_session_by_session(
    setting: tuple[SessionLog, LogVersions, HeadScores, bool],
) -> None:
    """Clicks per session where no click is offered, places where displays have an order."""
    log, context, scored, outside = setting
    unordered = {one.name for one in statistics_of(context, scored, outside)}
    assert ("clicks per session" in unordered) == outside
    assert "place of the click" not in unordered
    ordered = dataclasses.replace(context, log=dataclasses.replace(log, ordered=True))
    found = {one.name: one for one in statistics_of(ordered, scored, outside)}
    depths: dict[str, list[list[int]]] = {"place of the click": [[] for _ in range(1 + REPLICAS)]}
    if outside:
        depths["clicks per session"] = [[] for _ in range(1 + REPLICAS)]
    for session in range(log.n_sessions):
        version = session // (log.n_sessions // (1 + REPLICAS))
        choices = log.choices[log.session_offsets[session] : log.session_offsets[session + 1]]
        places = [int(choice) + 1 for choice in choices if choice >= 0]
        depths["place of the click"][version] += places
        if outside:
            depths["clicks per session"][version].append(len(places))
    for name, by_version in depths.items():
        assert ratios(found[name])[:, 0] == pytest.approx([np.mean(part) for part in by_version])
        spread = found[f"{name}, distribution"]
        assert spread.test == "ks"
        edges, labels = cut(np.concatenate(by_version), 50)
        assert spread.labels == labels
        for version, part in enumerate(by_version):
            groups = [int(np.searchsorted(edges, depth)) for depth in part]
            shares = [groups.count(group) / len(part) for group in range(len(labels))]
            assert ratios(spread)[version] == pytest.approx(shares), name


def test_distributions(setting: tuple[SessionLog, LogVersions, HeadScores, bool]) -> None:
    log, context, scored, outside = setting
    found = {one.name: one for one in statistics_of(context, scored, outside)}
    events = [event for event in told(log, scored) if event["clicked"]]
    n = int(log.display_offsets[log.n_events // (1 + REPLICAS)])
    for name, most in (("popularity, tenths", 10), ("popularity, distribution", 50)):
        edges, labels = cut(context.training_choices[:n], most)
        assert found[name].labels == labels
        for version in range(1 + REPLICAS):
            levels = [event["choices"] for event in events if event["version"] == version]
            shares = [
                np.mean([int(np.searchsorted(edges, level)) == group for level in levels])
                for group in range(len(labels))
            ]
            assert ratios(found[name])[version] == pytest.approx(shares)


def test_calibration_counts_what_happened_per_what_was_expected(
    setting: tuple[SessionLog, LogVersions, HeadScores, bool],
) -> None:
    log, context, scored, outside = setting
    found = next(
        one for one in statistics_of(context, scored, outside) if one.name == "calibration"
    )
    events = told(log, scored)
    cases = sorted(
        (p, e["version"], i == e["choice"])
        for e in events
        for i, p in enumerate(e["probs"].tolist())
    )
    total, reached = sum(case[0] for case in cases), 0.0
    bins: dict[float, float] = {}
    for level in sorted({case[0] for case in cases}):
        mass = level * sum(case[0] == level for case in cases)
        bins[level] = min(int((reached + mass / 2) / total * 10), 9)
        reached += mass
    order = sorted(set(bins.values()))
    happened = np.zeros((1 + REPLICAS, len(order), 2))
    for p, version, came in cases:
        happened[version, order.index(bins[p])] += (came, p)
    assert found.sums.sum(axis=1) == pytest.approx(happened[:, :, 0])
    assert found.counts.sum(axis=1) == pytest.approx(happened[:, :, 1], rel=1e-4)
    predicted, curve = reliability_curve(context, scored)
    observed = sides(curve, np.ones((1, context.sums.n_users)))[0][0]
    n_cases = curve.counts[0].sum(axis=0)
    assert predicted @ n_cases == pytest.approx(
        sum(p for p, version, _ in cases if version == 0), rel=1e-4
    )
    assert observed @ n_cases == pytest.approx(
        sum(came for _, version, came in cases if version == 0)
    )


def test_values_of_policies(setting: tuple[SessionLog, LogVersions, HeadScores, bool]) -> None:
    log, context, scored, _ = setting
    policies = policies_of(context, scored, {"other": scored})
    values = ratios(values_of(context, policies))
    chance = {name: [0.0] * (1 + REPLICAS) for name in policies}
    per_version = log.n_events // (1 + REPLICAS)
    for event in range(log.n_events):
        a, b = log.display_offsets[event : event + 2]
        for name, recommended in policies.items():
            assert recommended[a:b].sum() == pytest.approx(1.0)
            if log.choices[event] >= 0:
                chance[name][event // per_version] += (
                    recommended[a + log.choices[event]] / per_version
                )
    for column, name in enumerate(policies):
        assert values[:, column] == pytest.approx(chance[name]), name
    clicked = log.choices >= 0
    uniform = (
        np.where(clicked, 1 / np.diff(log.display_offsets), 0)
        .reshape(1 + REPLICAS, -1)
        .mean(axis=1)
    )
    assert values[:, 0] == pytest.approx(uniform)


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
        list(statistics_of(context, score_log(model, every, "reward"), model.outside))
