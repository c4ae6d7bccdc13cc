"""LearnedWorld: what its users are shown and choose from is what the encoder makes of a log that
holds the same sessions."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import MISSING
from fastgaum.models.user_model import UserModel
from fastgaum.nets.batches import assemble
from fastgaum.nets.networks import Head
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.worlds.env_options import session_leaving
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import NO_ITEM
from tests.builders import random_log
from tests.live_users.online_users import IDENTITY, MODELS, fitted, log_of_kind, model_of
from tests.worlds.simulated import as_log, encoded, keys_of, play


def check_same_as_encoder(
    model: UserModel, world: LearnedWorld, source: SessionLog | None = None, idle: float = 0.0
) -> None:
    """Play, write the sessions down, and ask the model."""
    users = world.population(7)
    users.reset(keys_of(1, 7))
    played = play(users, world, steps=6, idle=idle)
    log, had = as_log(played, world, source)
    assert model.space is not None
    batch = assemble(encoded(model.space, log))
    log_probs, none = model.choice_log_probs(batch, world.head)
    # sparse distributions are floored at 1e-12 before the logarithm
    np.testing.assert_allclose(had["probability"], log_probs.exp().numpy(), atol=1e-5)
    np.testing.assert_allclose(
        had["none"], none.exp().numpy() if world.no_click else 0 * had["none"], atol=1e-5
    )
    chosen, sizes = had["chosen"], np.diff(log.display_offsets)
    utilities = model.utility(batch).numpy()[chosen]
    assert model.networks is not None
    if (examination := model.networks.player.reward.examination) is not None:
        by_place = examination.by_place.detach().numpy()
        places = np.concatenate([np.arange(size) for size in sizes])[chosen]
        utilities = utilities - by_place[np.minimum(places, len(by_place) - 1)]
    np.testing.assert_allclose(had["utility"], utilities, rtol=1e-4, atol=2e-5)
    assert len(chosen) > 5
    assert had["probability"][np.repeat(sizes, sizes) > 1].std() > 1e-3, (
        "nothing was learned: everything equals everything"
    )


HEADS: tuple[Head, ...] = ("generator", "reward")


@pytest.mark.parametrize("name", [name for name in MODELS if "actions" not in name])
def test_what_a_world_plays_is_as_predicted(name: str) -> None:
    """As a log that online users are told is (tests/live_users/test_online.py): of users who all take
    part, and of users of whom some sit out. Of actions: tests/worlds/test_actions.py."""
    kind, _ = MODELS[name]
    model, log = model_of(name), log_of_kind(kind, 4, 60)
    world = {} if kind in ("plain", "clicks", "grid", "context") else {"log": log}
    for head, idle in zip(HEADS, (0.4, 0.0), strict=True):
        check_same_as_encoder(model, LearnedWorld(model, head, **world), log, idle)


def test_without_what_a_log_knows_there_is_no_world() -> None:
    for name, reads in (
        ("fields, views, positions", "brand, price, shelf, size.*pass the log"),
        ("vectors, towers", "the model reads item vectors image, item vectors text"),
    ):
        with pytest.raises(ConfigError, match=reads):
            LearnedWorld(model_of(name))


@pytest.mark.parametrize("changes", [{"tower_dim": 6}])
def test_changing_the_model_afterwards_changes_no_world(changes: dict[str, Any]) -> None:
    model = fitted(random_log(4, n_sessions=60, no_click=0.3), **changes)
    world, mark = LearnedWorld(model), LearnedWorld(deepcopy(model)).fingerprint

    def lived() -> list[np.ndarray]:
        users = world.population(5)
        users.reset(keys_of(0, 5))
        played = play(users, world, steps=4)
        return [*played.probabilities, *played.utilities, users.states.copy()]

    before = lived()
    assert model.networks is not None
    with torch.no_grad():
        for weight in model.networks.parameters():
            weight.mul_(0.5).add_(0.3)
    for ours, former in zip(lived(), before, strict=True):
        np.testing.assert_array_equal(ours, former)
    assert world.fingerprint == mark != LearnedWorld(model).fingerprint


def test_a_contrast_is_of_what_is_displayed() -> None:
    """Slates of ten places of a pool of three: at most three items are displayed."""
    world = LearnedWorld(fitted(random_log(4, n_sessions=60, no_click=0.3)))
    paid = []
    for k in (3, 10):
        env = UserVectorEnv(50, world=world, slate_size=k, pool=[4, 0, 2], reward="contrast")
        env.reset(seed=1)
        paid.append(env.step(np.tile(np.arange(k) % 3, (50, 1)))[1])
    np.testing.assert_allclose(*paid, atol=1e-6)


def test_logged_starts_without_a_choice_need_users_who_may_choose_nothing() -> None:
    log = random_log(4, n_sessions=60, no_click=0.3)
    with pytest.raises(
        LogFormatError, match="events without a choice, and the model's users always"
    ):
        LearnedWorld(fitted(random_log(5, n_sessions=60)), log=log, starts="logged")


def test_candidate_fields_are_the_item_s_mean_and_most_frequent_value() -> None:
    log = dataclasses.replace(log_of_kind("fields", 4, 60), ordered=False)
    model = fitted(log)
    world = LearnedWorld(model, log=log)
    space = world.catalogue.space
    train = np.isin(log.session_of_event, log.sessions_in("train"))[log.event_of_candidate()]
    shelf = next(part for part in space.categorical if part.name == "shelf")
    for row, item in enumerate(world.item_ids):
        mine = train & (log.items == log.item_ids.to_list().index(item))
        price = log.columns["price"].values[mine].mean()
        assert world.catalogue.fixed[row, space.number_names.index("price")] == pytest.approx(
            price, rel=1e-5
        )
        codes = log.columns["shelf"].values[mine]
        counts = {code: (codes == code).sum() for code in np.unique(codes)}
        code = (
            int(world.catalogue.ids[row, [part.name for part in space.categorical].index("shelf")])
            - shelf.start
            - 1
        )
        texts = log.columns["shelf"].categories.to_list()
        value = -1 if shelf.values[code] == MISSING else texts.index(shelf.values[code])
        assert counts[value] == max(counts.values())


@pytest.mark.parametrize("changes", [{}, {"protocol": "bags", "relative_numbers": True}], ids=str)
def test_an_item_of_a_pool_is_one_of_an_average_slate(changes: dict[str, Any]) -> None:
    """The mean over all slates of k that hold the item: exact, as scores are linear in the set."""
    changed = {**IDENTITY, "tower_dim": 6, **changes}
    model = fitted(random_log(4, n_sessions=60, no_click=0.3), **changed)
    assert model.networks is not None
    reward = model.networks.player.reward
    with torch.no_grad():
        # the network is not linear
        for parameter in reward.rest[-1].parameters():
            parameter.zero_()
    users = LearnedWorld(model).population(1)
    users.reset(keys_of(0, 1))
    pool, k = [3, 1, 7, 5, 10], 3
    found = users.utilities(np.array(pool, np.int32), k)[0]
    for place, item in enumerate(pool):
        others = combinations([other for other in pool if other != item], k - 1)
        slates = [[item, *rest] for rest in others]
        each = [users.utilities(np.array(slate, np.int32))[0, 0] for slate in slates]
        assert found[place] == pytest.approx(np.mean(each), abs=1e-5)


def test_item_features_are_few_finite_and_have_one_sign() -> None:
    log = random_log(4, n_sessions=120, n_items=40, no_click=0.3)
    model = fitted(log, hidden=[32, 8])
    world = LearnedWorld(model)
    features = world.item_features
    assert features.shape == (world.n_items, 15)
    assert np.array_equal(features, LearnedWorld(model).item_features)
    spread = features.std(axis=0)
    assert spread[0] == pytest.approx(1, rel=1e-4)
    assert (np.diff(spread[:12]) <= 1e-6).all()
    np.testing.assert_allclose(spread[12:], 1, rtol=1e-4)
    displays = world.catalogue.space.item_counts.displays
    assert np.corrcoef(features[:, 12], np.log1p(displays))[0, 1] == pytest.approx(1)
    assert LearnedWorld(model, n_features=3).item_features.shape == (world.n_items, 3)
    with pytest.raises(ConfigError, match="n_features must be at least 3"):
        LearnedWorld(model, n_features=2)


def test_a_repeated_item_that_is_followed_stands_in_its_first_place() -> None:
    world = LearnedWorld(fitted(random_log(4, n_sessions=60, no_click=0.3)))
    states = []
    for place in (0, 1, -1):
        users = world.population(1)
        users.follow(np.array([[3, 3, 2]]), np.array([place]))
        states.append(users.states.copy())
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[0] != states[2]).any()


def test_a_row_of_leaving_is_not_for_users_who_start_within_sessions() -> None:
    log = random_log(4, n_sessions=60, no_click=0.3)
    world, leaving = LearnedWorld(fitted(log), log=log, starts="logged"), session_leaving(log)
    with pytest.raises(ConfigError, match="make the world with starts='empty'"):
        UserVectorEnv(2, world=world, slate_size=2, leaving=leaving)
    with pytest.raises(ConfigError, match="make the world with starts='empty'"):
        list(rollout(world, RandomPolicy(), Setting(2, 3, leaving=leaving), 2, 0))
    UserVectorEnv(2, world=world, slate_size=2, leaving=0.5)


def test_what_cannot_be_is_named() -> None:
    log = random_log(4, n_sessions=60, no_click=0.3)
    exact = fitted(log, players="exact")
    with pytest.raises(ConfigError, match="has not been trained"):
        LearnedWorld(UserModel.from_preset())
    with pytest.raises(ConfigError, match="no generator"):
        LearnedWorld(exact, "generator")
    with pytest.raises(ConfigError, match=r"pass --log LOG \(log="):
        LearnedWorld(exact, starts="logged")
    with pytest.raises(ConfigError, match="starts must be empty or logged, got 'cold'"):
        LearnedWorld(exact, starts="cold")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        LearnedWorld(exact, split="tset")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="further is a list"):
        LearnedWorld(exact, further=["zz"])  # type: ignore[arg-type]
    world = LearnedWorld(exact)
    assert world.head == "reward"
    with pytest.raises(ConfigError, match="at least one user, got n = 0"):
        world.population(0)
    users = world.population(2)
    with pytest.raises(ConfigError, match=r"\(2, k\), got \(3, 2\)"):
        users.step(np.zeros((3, 2), np.int32), keys_of(0, 2))
    with pytest.raises(ConfigError, match=f"holds item {world.n_items}"):
        users.utilities(np.full(3, world.n_items, np.int32))
    for pool, says in (([0.9, 1.9], "slates are float64, whole"), ([2**32 + 3], "item 4294967299")):
        with pytest.raises(ConfigError, match=says):
            users.utilities(np.array(pool))
    slates = np.array([[0, 1, NO_ITEM], [1, 2, 3]])
    for wrong, says in (
        ([3, 0], "user 0 is told place 3"),
        ([-7, 0], "told place -7"),
        ([2, 0], "told place 2, which shows no item"),
        ([0], r"places are int64 of shape \(1,\)"),
        ([0.0, 1.0], "places are float64"),
    ):
        with pytest.raises(ConfigError, match=says):
            users.follow(slates, np.array(wrong))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"keys are uint64 of shape \(1,\), whole"):
        users.step(slates, keys_of(0, 1))
    for active in ([0, 1], [True], [True, False, True]):
        with pytest.raises(ConfigError, match=r"bools of shape \(2,\) are required"):
            users.step(slates, keys_of(0, 2), np.array(active))
    with pytest.raises(ConfigError, match="at least 1 item, got k = 0"):
        users.utilities(np.array([0, 1], np.int32), 0)
    with pytest.raises(ValueError, match="read-only"):
        users.states[0] = 1
