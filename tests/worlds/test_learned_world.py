"""LearnedWorld: what its users are shown and choose from is what the encoder makes of a log that
holds the same sessions."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features.batches import assemble
from fastgaum.features.encoder import Encoder
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import MISSING
from fastgaum.models.choice_model import Head
from fastgaum.models.user_model import UserModel
from fastgaum.nets.tensors import to_tensors
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.threads import set_threads
from fastgaum.worlds.env_options import session_leaving
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.logged import drawn_sessions
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import NO_ITEM
from tests.builders import put, random_log, with_drawn_actions
from tests.worlds.simulated import as_log, encoded, keys_of, play, random_slates

SMALL: dict[str, Any] = {
    "epochs": 1,
    "warm_start": 2,
    "catch_up": 1,
    "hidden": [8, 6],
    "history_dim": 5,
    "batch_sessions": 16,
    "lr": 0.03,
    "search": [],
    "folds": 0,
}
IDENTITY: dict[str, Any] = {"protocol": "identity", "relations": False, "relative_numbers": False}


_FITTED: dict[tuple[str, str], UserModel] = {}


def fitted(log: SessionLog, **changes: Any) -> UserModel:
    """A copy of the model of a log and a configuration, which is fitted once."""
    key = log.fingerprint, str((log.ordered, log.grid, sorted(changes.items())))
    if key not in _FITTED:
        _FITTED[key] = UserModel.from_preset(**{**SMALL, **changes}, device="cpu")
        _FITTED[key].fit(log)
    return deepcopy(_FITTED[key])


def check_same_as_encoder(
    model: UserModel, world: LearnedWorld, source: SessionLog | None = None, idle: float = 0.0
) -> None:
    """Play, write the sessions down, and ask the model."""
    users = world.population(7)
    users.reset(keys_of(1, 7))
    played = play(users, world, steps=6, idle=idle)
    log, had = as_log(played, world, source)
    assert model.space is not None
    batch = to_tensors(
        assemble(encoded(model.space, log), np.arange(log.n_sessions, dtype=np.int32))
    )
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
VARIANTS: list[dict[str, Any]] = [
    IDENTITY,
    {**IDENTITY, "activation": "elu"},
    {**IDENTITY, "wide": False, "history_layers": 2},
    {"relations": False},
    {"relations": True},
    {"relations": True, "relative_numbers": False, "history_layers": 2},
    {"history": "pw", "history_window": 3},
    {"regulariser": "l2"},
    {"regulariser": "tsallis"},
    {"eta": 2.0, "history_layers": 2},
    {"tower_dim": 6},
    {"tower_dim": 5, "relations": False},
    {**IDENTITY, "tower_dim": 5, "history": "pw"},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_probabilities_are_the_model_s_on_the_same_sessions(changes: dict[str, Any]) -> None:
    """Of users who all take part, and of users of whom some sit out."""
    model = fitted(random_log(4, n_sessions=60, no_click=0.3), **changes)
    for head, idle in zip(HEADS, (0.4, 0.0), strict=True):
        check_same_as_encoder(model, LearnedWorld(model, head), idle=idle)


def test_without_no_click() -> None:
    model = fitted(random_log(5, n_sessions=60), relations=True)
    check_same_as_encoder(model, LearnedWorld(model, "reward"))


def log_with_fields(ordered: bool = False) -> SessionLog:
    log = random_log(2, n_sessions=60, no_click=0.2)
    rng = np.random.default_rng(0)
    return put(
        log,
        candidate={
            "price": rng.random(log.n_candidates, np.float32),
            "shelf": rng.integers(-1, 3, log.n_candidates).astype(np.int32),
        },
        item={
            "brand": rng.integers(-1, 3, log.n_items).astype(np.int32),
            "weight": rng.random(log.n_items, np.float32),
        },
        categories={
            "brand": pl.Series(["a", "b", "c"]),
            "shelf": pl.Series(["top", "low", "back"]),
        },
        views=rng.integers(1, 6, log.n_candidates).astype(np.uint16),
        ordered=ordered,
    )


@pytest.mark.parametrize(
    ("changes", "ordered"),
    [
        ({"protocol": "views"}, False),
        ({"protocol": "views"}, True),
        ({"relations": True}, False),
        ({**IDENTITY, "examination": False}, True),
        ({"relations": False, "tower_dim": 5, "lr": 0.1}, True),
    ],
    ids=str,
)
def test_fields_views_and_order(changes: dict[str, Any], ordered: bool) -> None:
    log = log_with_fields(ordered)
    model = fitted(log, **changes)
    assert model.space is not None
    assert (len(model.space.place_rates) > 0) == (ordered and model.config.examination)
    for head in HEADS:
        check_same_as_encoder(model, LearnedWorld(model, head, log=log), log)
    with pytest.raises(ConfigError, match=r"brand, price, shelf, weight.*pass the log"):
        LearnedWorld(model)


@pytest.mark.parametrize("changes", [{"relations": False}, {**IDENTITY, "history": "pw"}], ids=str)
def test_places_in_a_grid(changes: dict[str, Any]) -> None:
    """Slates of four and five in rows of two."""
    log = random_log(4, n_sessions=60, no_click=0.3)
    log = dataclasses.replace(log, ordered=True, grid=2)
    model = fitted(log, examination=False, **changes)
    check_same_as_encoder(model, LearnedWorld(model), log)


def test_a_reward_has_no_part_of_the_place() -> None:
    """Users look more at the first places: the order of a slate moves probabilities, and neither
    utilities nor what a choice pays, which is the utility of the item in a pool."""
    log = dataclasses.replace(random_log(4, n_sessions=60, no_click=0.3), ordered=True)
    model = fitted(log, **IDENTITY, examination=True)
    for head in HEADS:
        users = LearnedWorld(model, head).population(200)
        slates = np.tile(np.array([[3, 1, 5, 0]], np.int32), (200, 1))
        utilities = users.utilities(slates)
        np.testing.assert_allclose(users.utilities(slates[:, ::-1])[:, ::-1], utilities, atol=1e-6)
        turned = users.probabilities(slates[:, ::-1])[0][:, ::-1]
        assert np.abs(turned - users.probabilities(slates)[0]).max() > 1e-3
        np.testing.assert_allclose(users.utilities(slates[0], 4), utilities, atol=1e-6)
        found = users.step(slates, keys_of(2, 200))
        clicked = np.flatnonzero(found.places >= 0)
        assert set(found.places[clicked]) == {0, 1, 2, 3}
        paid = utilities[clicked, found.places[clicked]]
        np.testing.assert_allclose(found.utilities[clicked], paid, atol=1e-6)


@pytest.mark.parametrize("changes", [{"history": "pw"}, {"tower_dim": 6}])
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


def test_an_item_that_stands_twice_in_a_slate_is_no_rival_of_the_others() -> None:
    users = LearnedWorld(fitted(random_log(4, n_sessions=60, no_click=0.3))).population(1)
    again, once = (users.utilities(np.array([one])) for one in ([3, 3, 5], [3, NO_ITEM, 5]))
    np.testing.assert_array_equal(again, once)
    assert np.abs(users.utilities(np.array([[3, 2, 5]])) - once)[0, 2] > 1e-4


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
    log = log_with_fields()
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


@pytest.mark.parametrize(
    "changes",
    [
        *(IDENTITY, {}, {"history": "pw"}, {"history_layers": 2, "relations": True}),
        *({"actions": True}, {"actions": True, "history": "pw"}),
    ],
    ids=str,
)
def test_logged_starts_are_prefixes_of_the_log(changes: dict[str, Any]) -> None:
    """A user who starts after a prefix has the state and the probabilities that the logged session
    has at its next event."""
    log, changes = random_log(4, n_sessions=60, no_click=0.3), dict(changes)
    log = with_drawn_actions(log) if changes.pop("actions", False) else log
    model = fitted(log, **changes)
    world = LearnedWorld(model, "reward", log=log, starts="logged", split="test")
    users = world.population(50)
    users.reset(keys_of(3, 50))
    assert world.starts is not None
    assert model.space is not None
    assert model.networks is not None
    sessions, lengths = drawn_sessions(keys_of(3, 50), world.starts.session_offsets)
    assert len(set(lengths.tolist())) > 2
    assert len(set(sessions.tolist())) > 5
    rows = log.sessions_in("test")[sessions]
    events = log.session_offsets[rows] + lengths
    encoded = Encoder(model.space, log).encode(rows)
    batch = to_tensors(assemble(encoded, np.arange(50, dtype=np.int32)))
    with torch.no_grad():
        states = model.networks.eval().utility(batch)[1].numpy()
    at = encoded.session_offsets[:-1] + lengths
    np.testing.assert_allclose(users.states, states[at], atol=1e-5)
    # in whatever order users are named, here two who both have a prefix
    pair, again = np.flatnonzero(lengths > 0)[:2], world.population(2)
    again.reset(keys_of(3, 50)[pair[::-1]], np.array([1, 0], np.int32))
    np.testing.assert_allclose(again.states, users.states[pair], atol=1e-5)
    # the next event's displays, shown; items that training never displayed are none of the world's
    row_of = {item: row for row, item in enumerate(world.item_ids)}
    shown = [
        log.items[log.display_offsets[event] : log.display_offsets[event + 1]] for event in events
    ]
    slates = np.full((50, max(map(len, shown))), -1, np.int32)
    known = np.zeros(50, bool)
    for user, items in enumerate(shown):
        rows_of = [row_of.get(log.item_ids[int(item)], -1) for item in items]
        slates[user, : len(items)] = rows_of
        known[user] = min(rows_of) >= 0
    assert known.sum() > 20
    expected = model.choice_log_probs(batch, "reward")[0].exp().numpy()
    probabilities, _ = users.probabilities(slates)
    for user in np.flatnonzero(known):
        first = encoded.display_offsets[at[user]]
        np.testing.assert_allclose(
            probabilities[user, : len(shown[user])],
            expected[first : first + len(shown[user])],
            atol=1e-5,
        )
    again = world.population(3)
    again.reset(keys_of(3, 50)[[5, 17, 30]])
    np.testing.assert_allclose(again.states, users.states[[5, 17, 30]], atol=1e-5)
    users.reset(keys_of(3, 50)[:2], np.array([40, 9], np.int32))
    first = users.states[:2].copy()
    users.reset(keys_of(3, 50)[:2], np.array([40, 9], np.int32))
    np.testing.assert_allclose(users.states[[40, 9]], first, atol=1e-5)


@pytest.mark.parametrize("changes", [IDENTITY, {"relations": True}, {"history": "pw"}], ids=str)
def test_a_user_s_trajectory_depends_on_its_keys_alone(changes: dict[str, Any]) -> None:
    """Whatever users stand beside it, in whatever order: within 1e-5, for a product's bits depend on
    what is multiplied together. The same users again, on one thread or two, are the same bits."""
    model = fitted(random_log(4, n_sessions=60, n_items=40, no_click=0.3), **changes)
    world = LearnedWorld(model)
    n = 700
    who = np.array([699, 3, 256, 255, 97])
    many, few, alone, again = (world.population(size) for size in (n, 5, 1, n))
    for users in (many, few, alone, again):
        users.reset(keys_of(0, users.n))
    for t in range(6):
        slates, keys = random_slates(world, n, 3 + t % 3, t), keys_of(t, n)
        set_threads(1 + t % 2)
        all_of, some = many.step(slates, keys), few.step(slates[who], keys[who])
        set_threads(1)
        one, same = alone.step(slates[who[:1]], keys[who[:1]]), again.step(slates, keys)
        assert np.array_equal(all_of.items[who], some.items)
        for ours, theirs in (
            (all_of.utilities[who], some.utilities),
            (many.states[who], few.states),
            (some.utilities[:1], one.utilities),
            (few.states[:1], alone.states),
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.array_equal(all_of.utilities, same.utilities)
        assert np.array_equal(many.states, again.states)


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
