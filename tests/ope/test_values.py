"""Off-policy values of a log: what a policy meets, what the table says, and what is refused."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.ope.estimators import ValueEstimate, value_estimates
from fastgaum.ope.importance_weights import weigh_events
from fastgaum.ope.replay import Target, replay_policy
from fastgaum.ope.values import off_policy_block, off_policy_values
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from tests.builders import log_of, put
from tests.ope.test_importance_weights import BEST, ITEMS, every_slate
from tests.policies.small_world import TiringPopulation, TiringWorld


def test_displays_that_answer_to_clicks_have_no_law() -> None:
    """A log that shows the clicked item again: only logged propensities give values then."""
    rng = np.random.default_rng(0)
    sessions = []
    for _ in range(400):
        first, second = (rng.choice(ITEMS, 2, replace=False).tolist() for _ in range(2))
        again = first if rng.random() < 0.5 else second
        sessions.append([(first, 0), (again, int(rng.integers(-1, 2)))])
    log = log_of(sessions)
    result = off_policy_values(log, Target(RandomPolicy()))
    assert result["dependence"]["p"] < 1e-6
    for one in result["estimates"][:-1]:
        assert one["value"] is None
        assert one["estimator"].startswith("dr") or "displays depend on clicks (z = " in one["why"]
    block = off_policy_block(result)
    assert any(note.startswith("FLAG: displays depend on clicks: the item") for note in block.notes)
    told = np.full(log.n_events, 1 / 15)
    found = off_policy_values(log, Target(RandomPolicy()), propensities=told)
    assert {one["estimator"]: one for one in found["estimates"]}["ips"]["value"] is not None


class Watcher(Policy):
    """Shows the last items of the pool, and keeps what it is told."""

    name = "watcher"

    def __init__(self) -> None:
        self.told: list[Transition] = []
        self.read: list[np.ndarray] = []

    def act(self, observation: Observation, k: int) -> IntArray:
        self.read.append(observation.states.copy())
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


class Followed(TiringPopulation):
    def reset(self, keys: np.ndarray, rows: IntArray | None = None) -> None:
        self._states[slice(None) if rows is None else rows] = 0

    def follow(self, slates: IntArray, places: IntArray, active: np.ndarray | None = None) -> None:
        active = np.ones(self.n, np.bool_) if active is None else active
        self._move(places >= 0, slates[np.arange(self.n), places], active)


def test_a_policy_meets_the_users_as_the_log_left_them() -> None:
    """It makes its slate before each event, then sees the logged one; items keep their ids, and a
    world's values are those of its users."""
    log = log_of([[([0, 1], 1), ([2, 3, 4], -1)], [([3, 5], 0)]])
    log = dataclasses.replace(
        log, item_ids=TiringWorld(6).item_ids.rename("item"), choices=log.choices
    )
    world, policy = FollowedWorld(6), Watcher()
    shown = replay_policy(log, Target(policy), world, np.arange(6, dtype=np.int32), np.ones(6))
    assert shown.slates.tolist() == [[4, 5, -1], [3, 4, 5], [4, 5, -1]]
    # item 1 is the world's number 4, of effect -1; the other session is over after one event
    np.testing.assert_allclose(policy.read[-1][0, 0], -0.2)
    first, second = policy.told
    assert first.slates.tolist() == [[5, 4], [2, 0]]
    assert first.response.items.tolist() == [4, 2]
    assert second.active.tolist() == [True, False]
    users = world.population(1)
    users._states[:] = -0.2
    own = users.probabilities(np.array([[2, 1, 0]]))[0].sum()
    assert shown.own[1] == pytest.approx(own)
    assert shown.logged[1] == pytest.approx(users.probabilities(np.array([[3, 2, 1]]))[0].sum())


def test_clicks_may_differ_in_worth() -> None:
    """Rewards and what a world expects are worths, which are added as they are; an item of the
    pool without a worth is refused."""
    log = dataclasses.replace(
        every_slate(2, times=40), item_ids=TiringWorld(ITEMS).item_ids.rename("item")
    )
    worth = np.array([1.0, 3.0, 3.0, 5.0, 7.0, 2.0])
    world, target = FollowedWorld(ITEMS), Target(BEST)
    found = off_policy_values(log, target, world=world, item_values=worth)
    direct = {one["estimator"]: one["value"] for one in found["estimates"]}["dm"]
    pool = np.arange(ITEMS, dtype=np.int32)
    assert direct == pytest.approx(replay_policy(log, target, world, pool, worth).own.mean())
    assert 1.0 < direct < 3.0
    worth[4] = np.nan
    with pytest.raises(ConfigError, match=r"1 items of the pool is worth is unknown \('i04' …"):
        off_policy_values(log, target, item_values=worth)


def test_a_few_nearly_sure_clicks_take_the_value_of_dr_pi_alone() -> None:
    """`pi` keeps its value: the log is worth enough events under v."""
    slates = [[(list(s), 0)] for s in combinations(range(ITEMS), 2)]
    log, target = log_of(slates * 200), Target(BEST)
    pool, half = np.arange(ITEMS, dtype=np.int32), np.full(log.n_events, 0.2)
    played = replay_policy(log, target, None, pool, np.ones(ITEMS))

    def estimates(logged: np.ndarray) -> dict[str, ValueEstimate]:
        shown = dataclasses.replace(played, own=half, logged=logged, random=half)
        rewards = np.ones(log.n_events)
        found = weigh_events(log, target, shown, pool, rewards, clicks=True)
        return {one.estimator: one for one in value_estimates(found)}

    before = estimates(half)
    assert before["dr-pi"].value is not None
    assert before["dr-pi"].effective_events == pytest.approx(before["pi"].effective_events)
    logged = half.copy()
    logged[[0, 15, 30]] = 0.99
    found = estimates(logged)
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
    popular = Target(Popular.of_log(log, log), 0.5)
    result = off_policy_values(log, popular)
    rows = {one["estimator"]: one for one in result["estimates"]}
    assert list(rows) == ["dr-pi", "pi", "dr", "snips", "ips", "dm"]
    assert rows["ips"]["ci"][0] < rows["ips"]["value"] < rows["ips"]["ci"][1]
    assert rows["dm"]["why"] == "no world (--run)"
    block = off_policy_block(result)
    assert [row[0] for row in block.rows] == list(rows)
    assert "1,200 events of 600 users" in block.notes[1]
    (note,) = result["notes"]
    assert "400 of these events are of the training split. popular is made of their" in note
    assert off_policy_values(log, Target(BEST, k=2))["left_out_events"] == 0
    worth = off_policy_values(log, Target(RandomPolicy()), item_values=np.full(ITEMS, 2.0))
    clicks = off_policy_values(log, Target(RandomPolicy()))
    for double, single in zip(worth["estimates"], clicks["estimates"], strict=True):
        if single["value"] is not None:
            assert double["value"] == pytest.approx(2 * single["value"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensities": np.ones(2)}, r"\(1,\) is required"),
        ({"propensities": np.zeros(1)}, "propensity of event 0 is 0.0"),
        ({"pool": np.array([0, 1])}, "displays 1 items that the pool"),
        ({"pool": np.array([0, 1, 2, -1])}, "codes from -1 to 2, and log .* has items 0 to 2"),
        ({"pool": np.array([0, 1, 2, 3])}, "codes from 0 to 3, and log .* has items 0 to 2"),
        ({"item_values": np.ones(2)}, r"\(3,\) is required"),
        ({"target": Target(BEST, k=5)}, "no display of 5 items, which popular makes"),
        ({"target": Target(BEST, pool=np.array([0, 1]))}, "popular chooses 3 of 2 items, 2 of"),
        ({"target": Target(BEST, pool=np.array([0, 1, 2, 2]))}, "chooses 3 of 4 items, 3 of"),
        ({"target": Target(BEST, pool=np.array([1, 2, 3]))}, "from items that the pool lacks"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, object], says: str) -> None:
    log = log_of([[([0, 1, 2], -1)]])
    asked = {"target": Target(RandomPolicy()), **change}
    with pytest.raises((ConfigError, LogFormatError), match=says):
        off_policy_values(log, **asked)  # type: ignore[arg-type]


def test_a_policy_chooses_from_its_own_pool_without_a_world_too() -> None:
    log, pool = every_slate(2), np.arange(ITEMS, dtype=np.int32)
    shown = replay_policy(log, Target(BEST, pool=pool[[2, 4, 5]]), None, pool, np.ones(ITEMS))
    assert (shown.slates == [2, 4]).all()
    with pytest.raises(ConfigError, match="random sets are of the 6 of the pool"):
        replay_policy(log, Target(RandomPolicy(), pool=pool[:3]), None, pool, np.ones(ITEMS))


def test_successive_choices_are_no_slates() -> None:
    log = every_slate(2)
    fields = {CLICKS_SO_FAR: np.zeros(log.n_events, np.float32)}
    with pytest.raises(ConfigError, match="off-policy values are of one choice of each display"):
        off_policy_values(put(log, event=fields), Target(BEST))


def test_clicks_that_always_come_say_nothing() -> None:
    log = log_of([[([0, 1], 0)], [([1, 2], 1)]])
    with pytest.raises(LogFormatError, match="say what clicks are worth"):
        off_policy_values(log, Target(RandomPolicy()))
    with pytest.raises(ConfigError, match="from 0 to 1 is required"):
        Target(RandomPolicy(), 1.5)
    with pytest.raises(ConfigError, match="give a run"):
        off_policy_values(log_of([[([0, 1], -1)]]), Target(Greedy()))
