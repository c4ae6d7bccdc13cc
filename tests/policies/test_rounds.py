"""Rounds of deploying, logging, refitting and retraining, at toy size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

import fastgaum
from fastgaum.arrays import IntArray
from fastgaum.bench.experiments.known_worlds import short_sighted
from fastgaum.config import Config
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.policies.base import Observation, Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import JUDGING_SEED, lower_bound_of, member_means
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.rollout import Setting, play
from fastgaum.policies.rounds import Round, rounds
from fastgaum.policies.trajectories import trajectories
from fastgaum.policies.transfer import item_map
from fastgaum.worlds.pools import SLATE, START, Keys, Pool
from fastgaum.worlds.world import World

TOY = PolicyConfig(episodes=2, users=16, warm_up=16, batch=16, updates=1, evaluations=1)
SETTING = Setting(3, 5, reward="click")
SMALL: dict[str, Any] = {
    "n_rounds": 3,
    "round_events": 200,
    "users": 40,
    "training": TOY,
    "seed": 4,
}


def model(folds: int = 2) -> Config:
    quick = {"epochs": 1, "warm_start": 1, "search": (), "relations": False}
    return Config.from_preset("fastgaum", set_context=False, folds=folds, **quick)


@pytest.fixture(scope="module")
def played() -> list[Round]:
    seen: list[tuple[int, int, str]] = []
    found = fastgaum.rounds(
        short_sighted(), SETTING, model=model(), progress=lambda *call: seen.append(call), **SMALL
    )
    result = list(found)
    assert seen[0] == (0, 3, "showing slates")
    assert seen[-1] == (3, 3, "done")
    return result


def test_each_round_adds_to_the_log_and_judges_all(played: list[Round]) -> None:
    truth = short_sighted()
    for number, one in enumerate(played, start=1):
        facts = one.to_dict()
        assert (one.number, facts["round"], facts["events"]) == (number, number, 200 * number)
        # the split has no test part: the next round is the test
        assert np.bincount(one.log.split).tolist() == [30 * number, 10 * number]
        assert {*facts["promised"]} == {*facts["bound"]} == {"plan", "greedy"}
        assert {*facts["paid"]} == {"plan", "greedy", "random"}
        assert facts["recommended"] in ("plan", "greedy")
        assert facts["clicks"] == one.shown["chosen"].sum() / 40
        for name, returns in one.at_home.items():
            assert facts["promised"][name] == pytest.approx(returns.mean())
            assert facts["bound"][name] < facts["promised"][name]
        # the last policy is the one that the record says, and what it was paid can be had again
        again = play(one.world, one.policy, one.setting, 40, JUDGING_SEED + SMALL["seed"])
        np.testing.assert_allclose(again.returns, one.at_home["plan"], atol=1e-5)
        assert {*one.world.item_ids} == {*truth.item_ids}
    logs = [{*one.shown.rows()} for one in played]
    assert not logs[1] & logs[2]
    # random slates of 10 items; then the plan, of whose places some are random
    first, second = (one.shown for one in played[:2])
    np.testing.assert_allclose(first["propensity"], 1 / 120)
    assert (second["propensity"] < 1).all()
    assert second["propensity"].max() > 0.7


def test_a_round_s_bound_is_that_of_its_set(
    played: list[Round], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a set of fits on folds by the jackknife; of another set by the spread of its members."""
    one, leads = played[-1], {}
    for folds in (0, 5):
        monkeypatch.setattr(one.world, "folds", folds)
        facts = one.to_dict()
        for name, returns in one.at_home.items():
            by_member = member_means(returns, one.members)  # type: ignore[arg-type]
            assert facts["bound"][name] == lower_bound_of(by_member, folds)
        leads[folds] = facts["bound"]
    assert leads[0]["plan"] > leads[5]["plan"]


def test_a_seed_repeats_them_and_another_does_not(played: list[Round]) -> None:
    again = rounds(short_sighted(), SETTING, model=model(), **SMALL)
    for one, before in zip(again, played[:2], strict=False):
        assert one.to_dict() == before.to_dict()
        assert one.shown.equals(before.shown)
    other = next(rounds(short_sighted(), SETTING, model=model(), **(SMALL | {"seed": 5})))
    assert not other.shown.equals(played[0].shown)


class Shop:
    """A site that is no world: it shows slates, and its users click by a rule of their own."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool, int]] = []

    def __call__(
        self, policy: Policy, own: World | None, n_sessions: int, seed: int
    ) -> pl.DataFrame:
        self.calls.append((policy.name, own is None, n_sessions))
        items = np.arange(100, 112) if own is None else own.item_ids.cast(int).to_numpy()
        pool, keys = np.arange(len(items), dtype=np.int32), Keys(n_sessions)
        keys.seed(seed, keys.everyone)
        keys.start(keys.everyone)
        users: Any = short_sighted().population(n_sessions) if own is None else None
        if own is not None:
            users = own.population(n_sessions)
            users.reset(keys.of(START))
        policy.start(n_sessions)
        rng, rows = np.random.default_rng(seed), []
        for event in range(5):
            seen = Observation(users, pool, keys.of(SLATE).copy(), 1 - event / 5)
            slates = policy.act(seen, 3)
            keys.steps += 1
            # the users like large numbers, and leave the rest
            chance = (items[slates] - 100) / 24
            clicked = rng.random(slates.shape) < chance
            places = np.where(clicked.any(axis=1), clicked.argmax(axis=1), -1)
            if own is not None:
                users.follow(slates, places.astype(np.int32))
            for session in range(n_sessions):
                rows += [
                    {
                        "session": session,
                        "event": event,
                        "item": int(items[item]),
                        "chosen": int(place == places[session]),
                        "mood": 1.0,
                    }
                    for place, item in enumerate(slates[session])
                ]
        return pl.DataFrame(rows)


def test_a_site_of_one_s_own_is_a_function() -> None:
    shop = Shop()
    found = list(rounds(shop, SETTING, model=model(0), **(SMALL | {"n_rounds": 2})))
    assert [call[1:] for call in shop.calls] == [(True, 40), (False, 40)]
    last = found[-1].to_dict()
    assert (last["events"], last["paid"], last["bound"]) == (400, {}, {})
    # one world cannot say how wrong it is
    assert last["recommended"] == "greedy"
    # what was logged before takes the place of the first round
    later, text = Shop(), pl.col("chosen").cast(pl.String)
    for log in (found[0].shown, found[0].shown.with_columns(text)):
        begun = rounds(later, SETTING, model=model(0), log=log, **(SMALL | {"n_rounds": 2}))
        assert next(begun).to_dict() == found[0].to_dict()
        assert later.calls == []
    assert next(begun).to_dict() == last


def with_users(named: Callable[[int], bool]) -> Callable[..., pl.DataFrame]:
    """A shop to which twenty users come again, in rounds that `named` accepts."""
    shop, calls = Shop(), list[int]()

    def show(*call: Any) -> pl.DataFrame:
        calls.append(1)
        shown = shop(*call)
        user = (pl.col("session") % 20).alias("user")
        return shown.with_columns(user) if named(len(calls)) else shown

    return show


def test_sessions_of_a_user_stay_in_one_part() -> None:
    site = with_users(lambda number: True)
    *_, last = rounds(site, SETTING, model=model(0), **(SMALL | {"n_rounds": 2}))
    assert len({*last.log.users.tolist()}) == 20 < last.log.n_sessions
    parts = {(user, part) for user, part in zip(last.log.users, last.log.split, strict=True)}
    assert len(parts) == 20


@pytest.mark.parametrize(("first", "says"), [(1, "without user in round 2"), (2, "none before")])
def test_users_are_named_in_each_round_or_in_none(first: int, says: str) -> None:
    begun = rounds(with_users(lambda n: n == first), SETTING, model=model(0), **SMALL)
    next(begun)
    with pytest.raises(LogFormatError, match=says):
        next(begun)


def test_items_that_no_round_has_shown_are_known() -> None:
    """Two sessions show few of 60."""
    setting = Setting(3, 5, Pool("per_user", 20), "click")
    truth = short_sighted(60)
    few: dict[str, Any] = SMALL | {"n_rounds": 2, "round_events": 20}
    first, second = rounds(truth, setting, model=model(0), **few)
    assert first.log.n_items < 60
    assert {*first.world.item_ids} == {*second.world.item_ids} == {*truth.item_ids}
    assert second.log.n_items > first.log.n_items


def test_functions_are_told_the_numbers_of_the_site_s_items() -> None:
    """A log of six items, so that the learned world numbers all ten in another order: its users pay
    and leave by what the ids say."""
    site, price = short_sighted(), np.arange(10.0)

    def terms(price: np.ndarray) -> dict[str, Any]:
        def of_items(items: IntArray) -> np.ndarray:
            return np.where(items >= 0, price[items], 0)

        return {
            "reward": lambda response, slates, states: (
                of_items(response.items) + 0.1 * price[slates[:, 0]]
            ),
            "leaving": lambda response, steps, states: of_items(response.items) / 20,
        }

    few = Setting(3, 5, Pool(items=(9, 4, 5, 6, 7, 8)))
    log = pl.concat(trajectories(site, RandomPolicy(), few, 40, 3))
    setting = Setting(3, 5, **terms(price))
    one = next(rounds(site, setting, model=model(0), log=log, **SMALL))
    numbers = item_map(site, one.world)
    assert numbers.tolist() != list(range(10))
    home = replace(one.setting, **terms(price[numbers]))
    for name, policy in (("plan", one.policy), ("greedy", Greedy())):
        twin = play(one.world, policy, home, 40, JUDGING_SEED + SMALL["seed"])
        np.testing.assert_allclose(one.at_home[name], twin.returns, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"n_rounds": 0}, ConfigError, "got 0 rounds of 200 events"),
        ({"round_events": 4}, ConfigError, "at least 1 round of 5 events"),
        ({"explore": 1.5}, ConfigError, "a share from 0 to 1 is explored, got 1.5"),
        ({"learner": "greedy"}, ConfigError, "is not trained in a world"),
        ({"site": "shop"}, ConfigError, "a site is a world or a function that shows, got 'shop'"),
        ({"setting": Setting(11)}, ConfigError, "slate of 11 items cannot be made"),
        (
            {"site": Shop(), "setting": Setting(3, 5, Pool(items=(0, 1, 2)))},
            ConfigError,
            "names 3 items by number",
        ),
        ({"site": lambda *call: None}, LogFormatError, "without session, event, item, chosen"),
        (
            {"site": lambda *call: pl.DataFrame({"session": [1], "event": [1], "item": ["a"]})},
            LogFormatError,
            "without chosen in round 1",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    given: dict[str, Any] = {"site": short_sighted(), "setting": SETTING, **SMALL} | changes
    with pytest.raises(error, match=says):
        next(rounds(given.pop("site"), given.pop("setting"), **given))
