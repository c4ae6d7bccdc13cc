"""A learned world in off-policy values: what it says of logged displays is what its model says."""

from __future__ import annotations

import dataclasses

import numpy as np

from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.ope.shown import replay_policy
from fastgaum.ope.targets import Target
from fastgaum.policies.heuristics import Greedy
from fastgaum.worlds.replay import world_of


def test_followed_users_are_those_of_the_model() -> None:
    """After each logged event, in its context: probabilities of a click on held-out events are the
    model's own. Events beyond the training's range are not: a world keeps its numbers within it."""
    log, _ = synthesise(300, preset="sample", n_items=12, no_click=0.5, max_length=4, seed=1)
    hours = np.random.default_rng(0).integers(0, 24, log.n_events) + 0.5
    log = dataclasses.replace(log, event_fields={"hour": hours.astype(np.float32)})
    model = UserModel.from_preset("fastgaum", epochs=1, warm_start=1, catch_up=1, search=[])
    model.fit(log)
    world = world_of(model, log)
    pool = np.arange(log.n_items, dtype=np.int32)
    shown = replay_policy(log, Target(Greedy()), world, pool)
    frame = model.predict(log, "all")
    chances = np.add.reduceat(frame["generator_probability"].to_numpy(), log.display_offsets[:-1])
    held_out = ~np.isin(log.session_of_event, log.sessions_in("train"))
    near = np.abs(chances - shown.logged)[held_out] < 1e-5
    assert near.mean() > 0.95
    assert held_out.sum() > 100
