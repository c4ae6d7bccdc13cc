"""A replay shows the logged displays and keeps the world's own histories; new items are what the
encoder makes of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import ConfigError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import world as synthetic
from fastgaum.models.user_model import UserModel
from fastgaum.reports.behaviour import score_log
from fastgaum.worlds import replay as module
from fastgaum.worlds.replay import replay, world_of
from fastgaum.worlds.true_world import TrueWorld
from fastgaum.worlds.world import Population, Response, World
from tests.builders import random_log
from tests.worlds.simulated import Within

QUICK = {"epochs": 1, "warm_start": 1, "search": (), "folds": 0}


class FirstNew(World):
    """Users who take the first displayed item that they have not chosen before, or none."""

    def __init__(self, item_ids: pl.Series) -> None:
        self.item_ids, self.state_dim, self.no_click = item_ids, 1, True
        self.item_features = np.zeros((len(item_ids), 1), np.float32)

    def population(self, n: int) -> Population:
        return FirstNewUsers(n)


class FirstNewUsers(Population):
    def __init__(self, n: int) -> None:
        self.n = n
        self.chosen: list[set[int]] = [set() for _ in range(n)]

    @property
    def states(self) -> np.ndarray:
        return np.zeros((self.n, 1), np.float32)

    def reset(self, keys: np.ndarray, rows: np.ndarray | None = None) -> None:
        raise NotImplementedError

    def utilities(self, pools: np.ndarray, k: int | None = None) -> np.ndarray:
        raise NotImplementedError

    def probabilities(self, slates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def step(
        self, slates: np.ndarray, keys: np.ndarray, active: np.ndarray | None = None
    ) -> Response:
        assert len(keys) == len(np.unique(keys)) == self.n
        places = np.full(self.n, -1, np.int32)
        items = np.full(self.n, -1, np.int32)
        for user, slate in enumerate(slates.tolist()):
            assert active is None or active[user] == (slate[0] >= 0)
            new = [
                place
                for place, item in enumerate(slate)
                if item >= 0 and item not in self.chosen[user]
            ]
            if new:
                places[user], items[user] = new[0], slate[new[0]]
                self.chosen[user].add(slate[new[0]])
        return Response(places, items, np.zeros(self.n, np.float32))


def first_new(log: SessionLog) -> list[int]:
    """What users of `FirstNew` choose in each event, told one event at a time."""
    choices = []
    for session in range(log.n_sessions):
        chosen: set[int] = set()
        for event in range(log.session_offsets[session], log.session_offsets[session + 1]):
            items = log.items[log.display_offsets[event] : log.display_offsets[event + 1]].tolist()
            new = [place for place, item in enumerate(items) if item not in chosen]
            choices.append(new[0] if new else -1)
            chosen |= {items[new[0]]} if new else set()
    return choices


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 40))
def test_every_replica_lives_the_displays_with_its_own_history(
    seed: int, replicas: int, at_once: int
) -> None:
    log = random_log(seed, n_sessions=15, n_items=5)
    world = FirstNew(log.item_ids.reverse())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "USERS_AT_ONCE", at_once)
        choices = replay(world, log, replicas, seed)
    assert choices.tolist() == [first_new(log)] * replicas


def test_draws_follow_the_world_and_the_seed() -> None:
    world = synthetic("sample", no_click=0.3)
    log, truth = world.draw(3)
    log = slice_sessions(log, [0])
    choices = replay(TrueWorld(world), log, 40_000, seed=1)
    assert np.array_equal(choices, replay(TrueWorld(world), log, 40_000, seed=1))
    assert not np.array_equal(choices, replay(TrueWorld(world), log, 40_000, seed=2))
    size = log.display_offsets[1]
    shares = np.bincount(choices[:, 0] + 1, minlength=size + 1) / len(choices)
    expected = np.append(truth.no_click_probability[0], truth.probability[:size])
    assert np.abs(shares - expected).max() < 4 * 0.5 / np.sqrt(len(choices))


@pytest.mark.parametrize(
    "changes", [{"relations": True}, {"protocol": "identity", "relations": False}]
)
def test_new_items_are_items_of_their_own_and_unknown_to_the_model(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every event of sessions that a world lived, the encoder, kept within training, says what
    the population said."""
    log = random_log(1, n_sessions=400, n_items=12, max_length=4)
    # no training or validation session displays the last three items
    late = (
        np.add.reduceat((log.items >= 9).astype(int), log.display_offsets[log.session_offsets[:-1]])
        > 0
    )
    log = log.with_split(np.where(late, 2, np.arange(log.n_sessions) % 3 == 0).astype(np.int8))
    model = UserModel.from_preset("fastgaum", **QUICK, **changes)
    model.fit(log)
    assert model.space is not None
    known = model.space.categorical[0].values.to_list()
    test = slice_sessions(log, log.sessions_in("test"))
    new = [log.item_ids[int(item)] not in known for item in test.items]
    events = np.repeat(np.arange(test.n_events), np.diff(test.display_offsets))
    assert np.bincount(events, new).max() >= 2, "two new items must meet in one display"
    world = world_of(model, log)
    assert sorted(world.item_ids) == sorted(log.item_ids)
    said: list[tuple[float, ...]] = []
    choices = replay(_Overheard(world, said), test, 1, seed=4)[0]
    told = dataclasses.replace(test, choices=choices)
    monkeypatch.setattr("fastgaum.models.choice_model.Encoder", Within)
    scored = score_log(model, told, world.head)
    at = told.display_offsets[:-1] + choices
    assert sorted(p for one in said for p in one) == pytest.approx(
        sorted(np.exp(scored.log_probs[at])), abs=1e-5
    )


class _Overheard:
    """The same world; before each step, the probability of what is then chosen is noted."""

    def __init__(self, world: object, said: list[tuple[float, ...]]) -> None:
        self.world, self.said = world, said
        self.item_ids = world.item_ids  # type: ignore[attr-defined]

    def population(self, n: int) -> object:
        users = self.world.population(n)  # type: ignore[attr-defined]
        step = users.step

        def overheard(
            slates: np.ndarray, keys: np.ndarray, active: np.ndarray, context: object = None
        ) -> object:
            probs, _ = users.probabilities(slates)
            response = step(slates, keys, active, context)
            chosen = response.places >= 0
            self.said.append(tuple(probs[chosen, response.places[chosen]].tolist()))
            return response

        users.step = overheard
        return users


def test_a_world_without_the_items_is_refused() -> None:
    log = random_log(0)
    with pytest.raises(
        ConfigError, match=r"log 'log' displays 1 items that the world does not have \('i0' …\)"
    ):
        replay(FirstNew(log.item_ids.filter(log.item_ids != "i0")), log)


def test_further_items_are_new_ones() -> None:
    log = random_log(0)
    model = UserModel.from_preset("fastgaum", **QUICK)
    with pytest.raises(ConfigError, match="has not been trained"):
        world_of(model, log)
    model.fit(log)
    from fastgaum.worlds.learned_world import LearnedWorld

    with pytest.raises(ConfigError, match="a further item is a training item"):
        LearnedWorld(model, further=log.item_ids)
