"""A learned world in off-policy values: what it says of logged displays is what its model says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastgaum.errors import ConfigError
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.ope.shown import replay_policy
from fastgaum.ope.targets import Target, world_over
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.worlds.world_set import WorldSet


def test_followed_users_are_those_of_the_model() -> None:
    """After each logged event, in its context: probabilities of a click on held-out events are the
    model's own. Events beyond the training's range are not: a world keeps its numbers within it."""
    log, _ = synthesise(300, preset="sample", n_items=12, no_click=0.5, max_length=4, seed=1)
    hours = np.random.default_rng(0).integers(0, 24, log.n_events) + 0.5
    log = dataclasses.replace(log, event_fields={"hour": hours.astype(np.float32)})
    model = UserModel.from_preset("fastgaum", epochs=1, warm_start=1, catch_up=1, search=[])
    model.fit(log)
    world = world_over(model, log)
    pool = np.arange(log.n_items, dtype=np.int32)
    shown = replay_policy(log, Target(Greedy()), world, pool)
    frame = model.predict(log, "all")
    chances = np.add.reduceat(frame["generator_probability"].to_numpy(), log.display_offsets[:-1])
    held_out = ~np.isin(log.session_of_event, log.sessions_in("train"))
    near = np.abs(chances - shown.logged)[held_out] < 1e-5
    assert near.mean() > 0.95
    assert held_out.sum() > 100
    with pytest.raises(ConfigError, match="read the context of events"):
        replay_policy(log, Target(Greedy()), WorldSet([world, world]), pool)


def test_a_set_of_worlds_values_each_user_by_one_of_them() -> None:
    """In all its sessions, while a greedy policy reads the first world, whichever values it."""
    log, _ = synthesise(200, preset="sample", n_items=12, no_click=0.5, seed=1)
    log = dataclasses.replace(log, users=(np.arange(log.n_sessions) // 2).astype(np.int32))
    model = UserModel.from_preset(
        "fastgaum", worlds=2, epochs=1, warm_start=1, catch_up=1, search=[], grow=False
    )
    model.fit(log)
    world = world_over(model, log)
    assert isinstance(world, WorldSet)
    pool, target = np.arange(log.n_items, dtype=np.int32), Target(RandomPolicy())
    logged = replay_policy(log, target, world, pool).logged
    apart = np.stack(
        [np.abs(replay_policy(log, target, one, pool).logged - logged) for one in world.worlds]
    )
    by_session = np.maximum.reduceat(apart, log.session_offsets[:-1], axis=1)
    assert by_session.min(axis=0).max() < 1e-5
    assert (by_session.argmin(axis=0) == 0).any()
    assert (by_session.argmin(axis=0) == 1).any()
    # sessions without a click say the same in both worlds of their users
    sure = by_session.max(axis=0) > 1e-3
    both = sure[: log.n_sessions // 2 * 2].reshape(-1, 2).all(axis=1)
    member = by_session.argmin(axis=0)[: log.n_sessions // 2 * 2].reshape(-1, 2)[both]
    assert len(member) > 20
    assert (member[:, 0] == member[:, 1]).all()

    greedy = replay_policy(log, Target(Greedy()), world, pool)
    first, second = (replay_policy(log, Target(Greedy()), one, pool) for one in world.worlds)
    assert (first.slates != second.slates).any()
    assert (greedy.slates == first.slates).all()
    # valued by the user's own world
    lives_second = (by_session.argmin(axis=0) == 1) & sure
    events = np.isin(log.session_of_event, np.flatnonzero(lives_second))
    assert np.abs(greedy.promised - first.promised)[events].max() > 1e-3
