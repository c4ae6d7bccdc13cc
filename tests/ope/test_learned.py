"""A learned world in off-policy values: what it says of logged displays is what its model says."""

from __future__ import annotations

import dataclasses

import numpy as np

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


def test_a_set_of_worlds_values_each_user_by_one_of_them() -> None:
    log, _ = synthesise(200, preset="sample", n_items=12, no_click=0.5, seed=1)
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
