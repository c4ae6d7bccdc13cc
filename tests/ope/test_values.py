"""Off-policy values where every slate can be written out, and what a log cannot say."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.cut import slice_sessions
from fastgaum.metrics.intervals import bootstrap_mean
from fastgaum.ope.estimators import (
    ImportanceWeights,
    ValueEstimate,
    WeightedEvents,
    ratio_interval,
    value_estimates,
)
from fastgaum.ope.shown import replay_policy
from fastgaum.ope.targets import Target, named_target
from fastgaum.ope.values import mean_item_values, off_policy_block, off_policy_values
from fastgaum.ope.weights import LoggedDisplays, LoggedEvents, weigh_events
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.worlds.world import IntArray
from tests.builders import log_of
from tests.ope.slates import BEST, ITEMS, every_slate, weighed
from tests.policies.small_world import TiringWorld


def events_of(n: int, *, seed: int = 0, users: int = 40) -> WeightedEvents:
    """Events with weights of mean 1."""
    rng = np.random.default_rng(seed)
    w = rng.exponential(size=n)
    w /= w.mean()
    return WeightedEvents(
        rng.integers(users, size=n),
        (rng.random(n) < 0.4).astype(np.float64),
        np.zeros(n),
        ImportanceWeights(w, n / 2),
        ImportanceWeights(w, n / 2),
        ImportanceWeights(w, n / 2),
        rng.random(n),
        rng.random(n),
    )


def by_name(events: WeightedEvents) -> dict[str, ValueEstimate]:
    return {one.estimator: one for one in value_estimates(events)}


def test_doubly_robust_is_the_world_where_the_world_is_right() -> None:
    events = events_of(500)
    found = by_name(dataclasses.replace(events, logged=events.rewards))
    for name in ("dr", "dr-pi"):
        assert found[name].value == found["dm"].value
        assert (found[name].low, found[name].high) == (found["dm"].low, found["dm"].high)
    worldless = by_name(dataclasses.replace(events, promised=np.full(500, np.nan)))
    assert [name for name, one in worldless.items() if one.value is None] == ["dr-pi", "dr", "dm"]
    assert worldless["snips"].value == pytest.approx(
        (events.weights.values * events.rewards).sum() / events.weights.values.sum()
    )


def test_a_world_is_corrected_in_its_mean_odds() -> None:
    """(D + t) / (1 + t), and its interval is that of a bootstrap over users."""
    events = events_of(3000, seed=1, users=300)
    v = np.random.default_rng(2).exponential(0.5, 3000)
    events = dataclasses.replace(
        events, residual_weights=ImportanceWeights(v, 1500.0), promised=0.3 + 0.2 * events.promised
    )
    corrections = v * (events.rewards - events.logged)

    def value(rows: np.ndarray) -> float:
        d, c = events.promised[rows].mean(), corrections[rows].mean()
        return float((d + c / (1 - d)) / (1 + c / (1 - d)))

    found = by_name(events)["dr-pi"]
    assert found.value == pytest.approx(value(np.arange(3000)), rel=1e-12)
    rng, by_user = np.random.default_rng(3), np.argsort(events.users, kind="stable")
    rows_of = np.split(by_user, np.cumsum(np.bincount(events.users))[:-1])
    drawn = [
        value(np.concatenate([rows_of[user] for user in rng.integers(300, size=300)]))
        for _ in range(400)
    ]
    np.testing.assert_allclose(
        [found.low, found.high], np.quantile(drawn, [0.025, 0.975]), atol=0.01
    )
    worth = by_name(dataclasses.replace(events, clicks=False))["dr-pi"]
    assert worth.value == pytest.approx(events.promised.mean() + corrections.mean())


@pytest.mark.parametrize("promised", [0.1, 0.45])
def test_a_large_correction_makes_no_jump(promised: float) -> None:
    """The more is taken back, the lower the value, by steps as small; its spread has no jump too,
    and follows from its slopes in D and C."""
    n = 100
    tilt = np.tile([-0.05, 0.05], n // 2)
    edge = -promised * (1.0 - promised) / 2.0

    def corrected(d: float, c: float) -> ValueEstimate:
        # D and C of these events are d and c
        events = events_of(n, users=n)
        return by_name(
            dataclasses.replace(
                events,
                users=np.arange(n),
                promised=d + tilt,
                logged=events.rewards - c,
                residual_weights=ImportanceWeights(np.ones(n), float(n)),
                # below 0 too, where a value of clicks would be refused
                rewards_within=(-1.0, 1.0),
            )
        )["dr-pi"]

    found = [corrected(promised, edge + 0.001 * step) for step in range(-400, 100)]
    steps = np.diff([one.value for one in found])
    assert (steps > 0).all()
    assert np.abs(np.diff(steps)).max() < 1e-5
    assert np.abs(np.diff([one.high - one.low for one in found])).max() < 1e-3
    for c in (edge - 0.1, edge + 0.01):
        by_d = (corrected(promised + 1e-5, c).value - corrected(promised - 1e-5, c).value) / 2e-5
        _, low, high = ratio_interval(tilt, None, np.arange(n))
        one = corrected(promised, c)
        assert one.high - one.low == pytest.approx(abs(by_d) * (high - low), rel=1e-3)


def test_intervals_are_those_of_a_bootstrap_over_users() -> None:
    rng = np.random.default_rng(3)
    users = rng.integers(200, size=3000)
    values = rng.normal(size=200)[users] + rng.normal(size=3000)
    mean, low, high = ratio_interval(values, None, users)
    drawn = bootstrap_mean(values, users, draws=2000)
    assert mean == pytest.approx(drawn.mean)
    np.testing.assert_allclose([low, high], [drawn.low, drawn.high], atol=0.015)


def test_what_the_log_cannot_say_has_no_value() -> None:
    few = events_of(60)
    assert "the log is worth 30.0 events of this policy" in by_name(few)["ips"].why
    assert by_name(few)["dm"].value is not None
    unseen = dataclasses.replace(events_of(500), unseen=np.full(500, 0.06))
    assert "6 % of its displays hold items that are never shown" in by_name(unseen)["pi"].why
    # propensities three times too large: the mean weight says so
    log = log_of([[(list(slate), -1)] for slate in combinations(range(ITEMS), 2)] * 40)
    target = Target(RandomPolicy())
    right, wrong = (
        weighed(log, target, LoggedDisplays(propensities=np.full(log.n_events, p)))
        for p in (1 / 15, 3 / 15)
    )
    assert by_name(right)["ips"].why == ""
    assert "the mean weight is 0.333 (0.333 to 0.333) and 1 is expected: the log lacks what" in (
        by_name(wrong)["ips"].why
    )


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_weights_of_another_mean_than_1_give_no_value(factor: float) -> None:
    """The interval of the mean excludes 1: nothing that is made of these weights has a value."""
    events = events_of(2000)
    w, n = events.weights.values * factor, 2000.0
    wrong = ImportanceWeights(w, n)
    found = by_name(dataclasses.replace(events, weights=wrong))
    for name in ("ips", "snips", "dr"):
        assert (found[name].value, found[name].low, found[name].effective_events) == (None,) * 3
        assert f"the mean weight is {factor:.3f} (" in found[name].why
        assert "1 is expected" in found[name].why
    assert None not in (found["pi"].value, found["dr-pi"].value, found["dm"].value)
    found = by_name(dataclasses.replace(events, slate_weights=wrong))
    for name in ("pi", "dr-pi"):
        assert (found[name].value, found[name].low, found[name].effective_events) == (None,) * 3
        assert f"the mean weight is {factor:.3f} (" in found[name].why


def test_what_the_log_never_shows_may_lack_in_the_mean_weight() -> None:
    events = events_of(2000)
    less = ImportanceWeights(0.96 * events.weights.values, 1000.0)
    lacking = dataclasses.replace(events, users=np.arange(2000) % 900, weights=less)
    even = dataclasses.replace(lacking, weights=ImportanceWeights(np.full(2000, 0.96), 2000.0))
    assert "0.960 (0.960 to 0.960) and 1 is expected" in by_name(even)["ips"].why
    never = dataclasses.replace(even, unseen=np.full(2000, 0.045))
    assert by_name(never)["ips"].why == ""


def test_slates_that_the_log_hardly_shows_have_no_weights() -> None:
    """However many events the weights are worth: the policy's own part hangs on a few."""
    few = by_name(dataclasses.replace(events_of(2000), matches=4))
    for name in ("ips", "snips", "dr"):
        assert few[name].value is None
        assert "the log shows the policy's own slate in 4 events, 50 are required" in few[name].why
    assert few["dr-pi"].value is not None
    log = log_of([[(list(slate), -1)] for slate in combinations(range(ITEMS), 2)] * 3)
    assert weighed(log, Target(BEST, 0.5), LoggedDisplays("uniform")).matches == 3
    assert weighed(log, Target(BEST, 0.99), LoggedDisplays("uniform")).matches == np.inf
    assert weighed(log, Target(RandomPolicy()), LoggedDisplays("uniform")).matches == np.inf


def test_random_displays_of_an_even_log_are_no_matter_of_odds() -> None:
    """The value is that of the policy's own displays and that of the log, by their shares."""
    events, share = events_of(3000), 0.6
    own = dataclasses.replace(events, promised=0.3 + 0.2 * events.promised)
    at_random = 0.4 + 0.1 * own.logged
    mixed = dataclasses.replace(
        own,
        promised=(1 - share) * own.promised + share * at_random,
        residual_weights=ImportanceWeights(
            (1 - share) * own.residual_weights.values + share, 3000.0
        ),
        even_share=share,
        at_random=share * at_random,
    )
    of_log = float((at_random + own.rewards - own.logged).mean())
    expected = (1 - share) * by_name(own)["dr-pi"].value + share * of_log
    assert by_name(mixed)["dr-pi"].value == pytest.approx(expected, rel=1e-12)
    alone = dataclasses.replace(
        own,
        promised=at_random,
        residual_weights=ImportanceWeights(np.ones(3000), 3000.0),
        even_share=1.0,
        at_random=at_random,
    )
    assert by_name(alone)["dr-pi"].value == pytest.approx(of_log, rel=1e-12)


def test_what_no_display_can_earn_is_no_value() -> None:
    """A value above the largest reward is refused; an interval that ends above is cut, and said."""
    always = dataclasses.replace(events_of(2000), rewards=np.ones(2000))

    def weighted(mean: float) -> dict[str, ValueEstimate]:
        w = ImportanceWeights(mean * always.weights.values, 1000.0)
        return by_name(dataclasses.replace(always, weights=w, slate_weights=w))

    for name in ("ips", "pi"):
        above = weighted(1.01)[name]
        assert (above.value, above.low, above.high) == (None, None, None)
        assert "impossible: 1.01 a display, which earns from 0 to 1" in above.why
        below = weighted(0.99)[name]
        assert below.value == pytest.approx(0.99)
        assert below.low < 0.99
        assert below.high == 1.0
        assert "interval cut at what a display can earn, it ended at 1.0" in below.why
    assert weighted(1.01)["snips"].value == pytest.approx(1.0)
    dear = dataclasses.replace(always, rewards=np.full(2000, 5.0), rewards_within=(0.0, 8.0))
    assert by_name(dear)["ips"].value == pytest.approx(5.0)
    assert by_name(dear)["ips"].why == ""


def test_frequent_clicks_warn_of_pi() -> None:
    events = events_of(2000)
    assert "too high for a good policy: 39 % of displays are clicked" in by_name(events)["pi"].why
    assert "read dr-pi" in by_name(events)["pi"].why
    rare = dataclasses.replace(events, rewards=events.rewards * (np.arange(2000) % 2))
    assert by_name(rare)["pi"].why == ""
    assert next(iter(by_name(events))) == "dr-pi"


def test_displays_that_answer_to_clicks_have_no_law() -> None:
    """A log that shows the clicked item again: only logged propensities give values then."""
    rng = np.random.default_rng(0)
    sessions = []
    for _ in range(400):
        first, second = (rng.choice(ITEMS, 2, replace=False).tolist() for _ in range(2))
        again = first if rng.random() < 0.5 else second
        sessions.append([(first, 0), (again, int(rng.integers(-1, 2)))])
    log = log_of(sessions)
    result = off_policy_values(log, Target(RandomPolicy()), displays=LoggedDisplays("uniform"))
    assert result["dependence"]["p"] < 1e-6
    for one in result["estimates"][:-1]:
        assert one["value"] is None
        assert one["estimator"].startswith("dr") or "displays depend on clicks (z = " in one["why"]
    block = off_policy_block(result)
    assert any(note.startswith("FLAG: displays depend on clicks: the item") for note in block.notes)
    told = LoggedDisplays(propensities=np.full(log.n_events, 1 / 15))
    found = off_policy_values(log, Target(RandomPolicy()), displays=told)
    assert {one["estimator"]: one for one in found["estimates"]}["ips"]["value"] is not None


class Watcher(Policy):
    """Shows the last items of the pool, and keeps what it is told."""

    name = "watcher"

    def __init__(self) -> None:
        self.told: list[Transition] = []
        self.moods: list[np.ndarray] = []

    def act(self, observation: Observation, k: int) -> IntArray:
        self.moods.append(observation.states[:, 0].copy())
        return np.tile(observation.pools[-k:], (observation.users.n, 1))

    def observe(self, transition: Transition) -> None:
        self.told.append(transition)


class FollowedWorld(TiringWorld):
    """Tiring users, who can be told what to choose, and who know their items in another order."""

    def __init__(self, n_items: int) -> None:
        super().__init__(n_items)
        self.item_ids = self.item_ids.reverse()

    def population(self, n: int) -> Followed:
        return Followed(self, n)


class Followed(TiringWorld(2).population(1).__class__):  # type: ignore[misc]
    def reset(self, keys: np.ndarray, rows: IntArray | None = None) -> None:
        self.mood[slice(None) if rows is None else rows] = 0

    def follow(self, slates: IntArray, places: IntArray, active: np.ndarray | None = None) -> None:
        clicked = places >= 0
        items = slates[np.arange(self.n), places]
        moved = 0.8 * self.mood[:, 0] + 0.2 * np.where(clicked, self.world.effect[items], 0)
        self.mood[:, 0] = np.where(active, moved, self.mood[:, 0])


def test_a_policy_meets_the_users_as_the_log_left_them() -> None:
    """It makes its slate before each event, then sees the logged one; items keep their ids, and a
    world's values are those of its users."""
    log = log_of([[([0, 1], 1), ([2, 3, 4], -1)], [([3, 5], 0)]])
    log = dataclasses.replace(
        log, item_ids=TiringWorld(6).item_ids.rename("item"), choices=log.choices
    )
    world, policy = FollowedWorld(6), Watcher()
    shown = replay_policy(log, Target(policy), world, np.arange(6, dtype=np.int32))
    assert shown.slates.tolist() == [[4, 5, -1], [3, 4, 5], [4, 5, -1]]
    # item 1 is the world's number 4, of effect -1; the other session is over after one event
    np.testing.assert_allclose(policy.moods[-1][0], -0.2)
    first, second = policy.told
    assert first.slates.tolist() == [[5, 4], [2, 0]]
    assert first.response.items.tolist() == [4, 2]
    assert second.active.tolist() == [True, False]
    users = world.population(1)
    users.mood[:] = -0.2
    own = users.probabilities(np.array([[2, 1, 0]]))[0].sum()
    assert shown.promised[1] == pytest.approx(own)
    assert shown.logged[1] == pytest.approx(users.probabilities(np.array([[3, 2, 1]]))[0].sum())
    np.testing.assert_allclose(shown.slopes[0, 1], (1 - own) ** 2, rtol=1e-5)


def test_draws_are_by_seed_user_session_and_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users in the log, and how many sessions are lived at once, change nothing."""
    rng = np.random.default_rng(0)
    sessions = [
        [(rng.choice(ITEMS, 2, replace=False).tolist(), 0)] * int(length)
        for length in rng.integers(1, 4, 20)
    ]
    log, pool = log_of(sessions, users=[0, 0, *range(1, 19)]), np.arange(ITEMS, dtype=np.int32)
    log = dataclasses.replace(log, item_ids=TiringWorld(ITEMS).item_ids.rename("item"))
    world, target = FollowedWorld(ITEMS), Target(RandomPolicy())
    promised = replay_policy(log, target, world, pool).promised
    assert (replay_policy(log, target, world, pool, seed=1).promised != promised).all()
    last = np.arange(10, 20)
    part = replay_policy(slice_sessions(log, last), target, world, pool).promised
    np.testing.assert_array_equal(part, promised[log.session_offsets[10] :])
    monkeypatch.setattr("fastgaum.ope.shown.AT_ONCE", 3 * ITEMS)
    np.testing.assert_array_equal(replay_policy(log, target, world, pool).promised, promised)
    # the two sessions of user 0 have draws of their own
    assert promised[0] != promised[log.session_offsets[1]]


def test_items_that_the_log_never_displays_have_no_worth_of_their_own() -> None:
    log = log_of([[([0, 1], 0)], [([1, 2], 1)], [([3, 4], 0)]])
    log = dataclasses.replace(log, item_ids=TiringWorld(5).item_ids.rename("item"))
    world, worth = FollowedWorld(5), np.array([1.0, 2.0, 4.0, 3.0, 5.0, 7.0])
    of_items = mean_item_values(log, worth)
    assert of_items.tolist() == [1.0, 3.0, 3.0, 5.0, 7.0]
    part, values = slice_sessions(log, [0, 1]), worth[:4]
    assert np.isnan(mean_item_values(part, values)[3:]).all()
    target, uniform = Target(RandomPolicy()), LoggedDisplays("uniform")
    with pytest.raises(ConfigError, match=r"2 items of the pool is worth is unknown \('"):
        off_policy_values(part, target, displays=uniform, world=world, values=values)
    whole = off_policy_values(
        part, target, displays=uniform, world=world, values=values, item_values=of_items
    )
    direct = {one["estimator"]: one["value"] for one in whole["estimates"]}["dm"]
    expected = replay_policy(part, target, world, np.arange(5, dtype=np.int32), of_items).promised
    assert direct == pytest.approx(expected.mean())
    with pytest.raises(ConfigError, match=r"one per item is required: \(5,\)"):
        off_policy_values(
            part, target, displays=uniform, world=world, values=values, item_values=values
        )


def test_values_that_are_all_1_are_no_clicks() -> None:
    """A world values them by their worth, so nothing is added in the odds."""
    log = every_slate(2)
    log = dataclasses.replace(log, item_ids=TiringWorld(ITEMS).item_ids.rename("item"))
    events = LoggedEvents(log, LoggedDisplays("uniform"))
    for of_items in (None, np.ones(ITEMS)):
        shown = replay_policy(log, Target(BEST), FollowedWorld(ITEMS), events.pool, of_items)
        weighted = weigh_events(events, Target(BEST), shown, np.ones(log.n_candidates))
        assert weighted.clicks == (of_items is None)
        assert (shown.slopes == 1.0).all() == (of_items is not None)


def test_a_few_nearly_sure_clicks_take_the_value_of_dr_pi_alone() -> None:
    """`pi` keeps its value: the log is worth enough events under v."""
    log, target = (
        log_of([[(list(s), 0)] for s in combinations(range(ITEMS), 2)] * 200),
        Target(BEST),
    )
    events = LoggedEvents(log, LoggedDisplays("uniform"))
    played = replay_policy(log, target, None, events.pool)
    slopes, half = np.full((3, log.n_events), 0.64), np.full(log.n_events, 0.5)

    def estimates() -> dict[str, ValueEstimate]:
        shown = dataclasses.replace(played, slopes=slopes, promised=half, logged=half)
        return by_name(weigh_events(events, target, shown, np.ones(log.n_candidates)))

    before = estimates()
    assert before["dr-pi"].value is not None
    assert before["dr-pi"].effective_events == pytest.approx(before["pi"].effective_events)
    slopes[2, [0, 15, 30]] = 1e-4
    found = estimates()
    assert found["pi"].value == before["pi"].value
    assert found["dr-pi"].value is None
    assert "no support: the log is worth 3.2 events" in found["dr-pi"].why
    assert "in the world's odds a few events have nearly all of the weight" in found["dr-pi"].why
    assert "odds" not in found["ips"].why


def test_a_log_gives_one_table() -> None:
    rng = np.random.default_rng(0)
    sessions = [
        [
            (sorted(rng.choice(ITEMS, 2, replace=False).tolist()), int(rng.integers(-1, 2)))
            for _ in range(2)
        ]
        for _ in range(600)
    ]
    log = log_of(sessions, split=[0, 1, 2] * 200)
    result = off_policy_values(log, named_target("popular", log, None, 0.5))
    rows = {one["estimator"]: one for one in result["estimates"]}
    assert rows["ips"]["ci"][0] < rows["ips"]["value"] < rows["ips"]["ci"][1]
    assert rows["dm"]["why"] == "no world (--run)"
    block = off_policy_block(result)
    assert [row[0] for row in block.rows] == list(rows)
    assert "1,200 events of 600 users" in block.notes[0]
    fixed = off_policy_values(log, Target(BEST, k=2), displays=LoggedDisplays("uniform"))
    assert fixed["left_out_events"] == 0
    worth = off_policy_values(
        log, Target(RandomPolicy()), values=np.full(log.n_candidates, 2.0), seed=1
    )
    clicks = off_policy_values(log, Target(RandomPolicy()), seed=1)
    pairs = zip(worth["estimates"], clicks["estimates"], strict=True)
    for double, single in pairs:
        if single["value"] is not None:
            assert double["value"] == pytest.approx(2 * single["value"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"displays": LoggedDisplays(propensities=np.ones(2))}, r"required: \(1,\)"),
        ({"displays": LoggedDisplays(propensities=np.zeros(1))}, "propensity of event 0 is 0.0"),
        ({"displays": LoggedDisplays(pool=np.array([0, 1]))}, "displays 1 items that the pool"),
        ({"values": np.ones(2)}, r"one per candidate is required: \(3,\)"),
        ({"values": np.array([1, np.nan, 2])}, "a click on candidate 1 is nan"),
        ({"target": Target(BEST, k=5)}, "no display of 5 items, which popular makes"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, object], says: str) -> None:
    log = log_of([[([0, 1, 2], -1)]])
    asked = {"target": Target(RandomPolicy()), **change}
    with pytest.raises((ConfigError, LogFormatError), match=says):
        off_policy_values(log, **asked)  # type: ignore[arg-type]


def test_successive_choices_are_no_slates() -> None:
    log = every_slate(2)
    fields = {CLICKS_SO_FAR: np.zeros(log.n_events, np.float32)}
    with pytest.raises(ConfigError, match="off-policy values are of one choice of each display"):
        off_policy_values(dataclasses.replace(log, event_fields=fields), Target(BEST))


def test_clicks_that_always_come_say_nothing() -> None:
    log = log_of([[([0, 1], 0)], [([1, 2], 1)]])
    with pytest.raises(LogFormatError, match="say what clicks are worth"):
        off_policy_values(log, Target(RandomPolicy()))
    with pytest.raises(ConfigError, match="from 0 to 1 is required"):
        Target(RandomPolicy(), 1.5)
    with pytest.raises(ConfigError, match="did you mean 'uniform'"):
        LoggedDisplays("unifrom")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give a run"):
        off_policy_values(
            log_of([[([0, 1], -1)]]), named_target("greedy", log_of([[([0, 1], -1)]]), None)
        )
