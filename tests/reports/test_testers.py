"""Reliability of worlds and testers: what a naive twin finds, and what the estimate must say of
worlds that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.baselines.registry import make_model
from fastgaum.metrics.intervals import Statistic
from fastgaum.reports.behaviour import Context, ModelScores
from fastgaum.reports.permutation import policies_of
from fastgaum.reports.testers import expected_values, reliabilities, reliability_report
from fastgaum.worlds.replay import versions
from tests.builders import random_log


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_worlds_and_testers_agree_with_each_other(n_worlds: int, n_testers: int, seed: int) -> None:
    """At the end each reliability is the weighted mean that defines it, told entry by entry."""
    passed = np.random.default_rng(seed).random((n_worlds, n_testers))
    worlds, testers = reliabilities(passed)
    for w in range(n_worlds):
        mean = sum(passed[w, t] * testers[t] for t in range(n_testers)) / sum(testers)
        assert worlds[w] == pytest.approx(mean, abs=1e-9)
    for t in range(n_testers):
        mean = sum(passed[w, t] * worlds[w] for w in range(n_worlds)) / sum(worlds)
        assert testers[t] == pytest.approx(mean, abs=1e-9)


def test_nothing_passed_is_no_reliability() -> None:
    worlds, testers = reliabilities(np.zeros((2, 3)))
    assert worlds.tolist() == [0, 0]
    assert testers.tolist() == [0, 0, 0]


def values_of_users(logged: np.ndarray, simulated: np.ndarray) -> Statistic:
    """Values (n_users, n_policies) of a log and one replica, one event a user."""
    sums = np.stack([logged, simulated])
    labels = tuple("abcdefg"[: logged.shape[1]])
    return Statistic("value", "", "chi2", labels, sums, np.ones_like(sums))


def test_a_world_that_turns_pairs_round_is_less_reliable() -> None:
    """Policies of values .2, .5, .8: the log's order is clear. One world swaps the last two, a
    model all."""
    rng = np.random.default_rng(0)
    log = (rng.random((300, 3)) < [0.2, 0.5, 0.8]).astype(float)
    swapped, turned = log[:, [0, 2, 1]], log[:, ::-1]
    report = reliability_report(values_of_users(log, swapped), {"model": turned}, draws=99)
    assert report["pairs"] == 3
    worlds = {one["name"]: one for one in report["worlds"]}
    assert list(worlds) == ["the log, users drawn anew", "this world", "users of the model"]
    found = [round(one["share"], 2) for one in worlds.values()]
    assert found == [1.0, 0.67, 0.0]
    reliability = [one["reliability"] for one in worlds.values()]
    assert reliability[0] == pytest.approx(1.0)
    assert 0.67 < reliability[1] < 1, "the pair that this world fails weighs less"
    assert reliability[2] == 0.0
    *good, last = report["testers"]
    assert [one["passed"] for one in good] == [1.0, 1.0]
    assert (last["better"], last["worse"], last["passed"]) == ("c", "b", 0.0)
    assert last["reliability"] < good[0]["reliability"]
    same = reliability_report(values_of_users(log, log), {}, draws=9)
    assert [one["reliability"] for one in same["worlds"]] == [1.0, 1.0]


def test_an_order_that_is_noise_is_no_test() -> None:
    log = np.zeros((300, 3))
    # the last two differ by five users and by four: b is ahead by one of 300
    log[:60, 0], log[:155, 1], log[5:159, 2] = 1, 1, 1
    testers = reliability_report(values_of_users(log, log), {}, draws=199)["testers"]
    assert {testers[-1]["better"], testers[-1]["worse"]} == {"b", "c"}
    assert testers[-1]["reliability"] < 0.95
    assert testers[0]["reliability"] > 0.99
    ties = np.ones((20, 3))
    assert reliability_report(values_of_users(ties, ties), {}, draws=9) == {
        "pairs": 0,
        "worlds": [],
        "testers": [],
    }


def test_expected_values_are_sums_over_each_user_s_events() -> None:
    log = random_log(3, n_sessions=30, n_items=9, shared_users=True)
    model = make_model("click-rate", {})
    model.fit(log)
    assert model.space is not None
    every = versions(log, np.zeros((1, log.n_events), np.int32))
    context = Context.of(every, 2, model.space)
    scored = ModelScores.of(model, every, "reward")
    policies = policies_of(context, scored, {})
    found = expected_values(context, policies, scored)
    users = np.unique(log.users)
    for column, recommended in enumerate(policies.values()):
        expected = dict.fromkeys(users.tolist(), 0.0)
        for event in range(log.n_events):
            user = int(log.users[log.session_of_event[event]])
            for at in range(log.display_offsets[event], log.display_offsets[event + 1]):
                expected[user] += recommended[at] * np.exp(scored.log_probs[at])
        np.testing.assert_allclose(found[:, column], [expected[user] for user in users.tolist()])
