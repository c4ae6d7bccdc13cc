"""Race: users of a learned world, shown random slates; user-steps per second.

A step is all of it, for 4,096 users and slates of 10 of 10,000 items. `env-4096` has the paper's
sizes, protocol identity, LSTM of 20, scorers 64-64; two others have these sizes and bags,
relations; `env-4096-towers` is what the preset makes of itself on a large log. What counts as
arithmetic is the second layer of a scorer, 2 · 64² per displayed item.

A set of worlds races one world: five members, the same model five times.

RecSim runs where $FASTGAUM_PEERS names an environment that holds it (`rivals/peers.py`). RecSim NG
and SARDINE did, measured elsewhere on two cores of this kind, 178,000 and 12,000 user-steps/s."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fastgaum import threads
from fastgaum.bench.races import RATE, Bar, Group, Race, SkippedError
from fastgaum.bench.rivals.peers import PEERS, recsim_rate
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import ContextPopulation, LearnedWorld
from fastgaum.worlds.world_set import WorldSet

IDENTITY = {"protocol": "identity", "relations": False, "relative_numbers": False}
TOWERS = {"tower_dim": 64, "hidden": (32,), "history_dim": 32}
TOWERS |= {"relative_numbers": False, "relations": False}
READS = Bar(600_000, RATE, 5)
SETTINGS: dict[str, tuple[dict[str, Any], Bar]] = {
    "env-4096": (IDENTITY, Bar(1_200_000, RATE, 5)),
    "env-4096-bags": ({"relations": False}, READS),
    "env-4096-relations": ({"relations": True}, READS),
    "env-4096-towers": (TOWERS, READS),
}
SETS = {"env-set": {"relations": False}, "env-set-relations": {"relations": True}}
K, STEPS, MEMBERS = 10, 20, 5


@cache
def world_of(full: bool, **changes: Any) -> LearnedWorld:
    log, _ = synthesise(
        60_000 if full else 600, n_items=10_000 if full else 50, no_click=0.3, seed=1
    )
    paper: dict[str, Any] = {"history_dim": 20, "hidden": (64, 64)}
    short: dict[str, Any] = {"warm_start": 2, "catch_up": 1, "epochs": 1, "batch_sessions": 256}
    model = UserModel.from_preset(device="cpu", search=[], folds=0, **paper | changes | short)
    model.fit(log)
    return LearnedWorld(model, "generator")


class Steps:
    """Users, and the slates and keys of their next steps."""

    def __init__(self, world: LearnedWorld | WorldSet, n: int, steps: int = STEPS) -> None:
        draws = np.random.default_rng(0)
        self.users: ContextPopulation = world.population(n)
        self.slates = [
            draws.integers(0, world.n_items, (n, K)).astype(np.int32) for _ in range(steps)
        ]
        self.keys = [draws.integers(0, 2**64, n, dtype=np.uint64) for _ in range(steps)]
        self.users.reset(self.keys[0])

    def play(self) -> list[float]:
        seconds = []
        for slates, keys in zip(self.slates, self.keys, strict=True):
            started = time.perf_counter()
            self.users.step(slates, keys)
            seconds.append(time.perf_counter() - started)
        return seconds


def many_users(race: Race) -> None:
    changes, bar = SETTINGS[race.group]
    n = 4096 if race.full else 40
    steps = checked_steps(Steps(world_of(race.full, **changes), n))
    flops = 2.0 * 64**2 * K * n * STEPS
    race.time(steps, None, unit="user-steps", amount=n * STEPS, bars=(bar,), flops=flops)


def users_of_a_set(race: Race) -> None:
    world, n = world_of(race.full, **SETS[race.group]), 4096 if race.full else 40
    members = [LearnedWorld(world.model, "generator") for _ in range(MEMBERS)]
    users_of = world if race.contender == "one-world" else WorldSet(members)
    steps = checked_steps(Steps(users_of, n))
    bars = (Bar(1.0, "one-world", 5),)
    race.time(steps, None, unit="user-steps", amount=n * STEPS, bars=bars)


def checked_steps(work: Steps) -> Callable[[], None]:
    """A life of all users, whose choices are what the probabilities and the keys say."""
    probabilities, none = work.users.probabilities(work.slates[0])
    np.testing.assert_allclose(probabilities.sum(axis=1) + none, 1, atol=1e-5)
    response = work.users.step(work.slates[0], work.keys[0])
    clicked = response.places >= 0
    assert (probabilities[clicked, response.places[clicked]] > 0).all()
    # the share of clicks is a mean of independent draws of known probabilities
    spread = np.sqrt((none * (1 - none)).sum())
    assert abs((~clicked).sum() - none.sum()) < 5 * spread + 1

    def steps() -> None:
        work.users.reset(work.keys[0])
        work.play()

    return steps


def single_user(race: Race) -> None:
    work = Steps(world_of(race.full, **IDENTITY), 1, steps=300 if race.full else 5)
    work.play()
    race.record(1e6 * float(np.median(work.play())), "µs per step of one user")


def late_steps(race: Race) -> None:
    """Record steps 181 to 200 against 1 to 20, the same slates and keys in turn."""
    full = race.full
    world, n, edge = world_of(full, **IDENTITY), 4096 if full else 40, 20 if full else 3
    before = Steps(world, n, steps=180 if full else 6)
    early, late = Steps(world, n, edge), Steps(world, n, edge)
    seconds = np.empty((2, 5, edge))
    for repeat in range(5):
        early.users.reset(early.keys[0])
        late.users.reset(early.keys[0])
        for slates, keys in zip(before.slates, before.keys, strict=True):
            late.users.step(slates, keys)
        for t, (slates, keys) in enumerate(zip(early.slates, early.keys, strict=True)):
            for which, users in enumerate((early.users, late.users)):
                started = time.perf_counter()
                users.step(slates, keys)
                seconds[which, repeat, t] = time.perf_counter() - started
    first, last = np.median(seconds, axis=(1, 2))
    race.record(100 * (last / first - 1), "% more at step 200", bar=5, at_most=5.0)


def recsim(race: Race) -> None:
    theirs = recsim_rate(threads.get_threads())
    if theirs is None:
        raise SkippedError(
            f"${PEERS} names no environment with RecSim: bench/rivals/peers.py makes one"
        )
    n = 4096 if race.full else 40
    work = Steps(world_of(race.full, **IDENTITY), n)
    # the best of five runs, as RecSim's
    ours = max(n * STEPS / sum(work.play()) for _ in range(5))
    race.record(ours / theirs, "x RecSim's user-steps/s", bar=13, at_least=50.0)


GROUPS = {
    **dict.fromkeys(SETTINGS, Group(many_users)),
    **dict.fromkeys(SETS, Group(users_of_a_set, ("ours", "one-world"))),
    "env-single": Group(single_user),
    "env-step-200": Group(late_steps),
    "env-recsim": Group(recsim),
}
