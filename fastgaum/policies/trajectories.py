"""Trajectories: episodes of a policy in a world as a log in the long layout, with each candidate's
utility and probability before the choice, and each slate's propensity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import require_whole
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.registry import make_policy, popularity_in
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.worlds.world import NO_ITEM, Past, World, displayed

WRITTEN_AT_ONCE = 1 << 19
"""rows made at once"""


def trajectories(
    world: World,
    policy: str | Policy,
    setting: Setting,
    n_episodes: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[pl.DataFrame]:
    """Play episodes and yield their rows, some episodes at a time; episode i is the same whatever
    their number. A policy does not learn here; by name it is random, greedy, or popular in a
    learned world. A logged start is not written: of users who start within logged sessions the rows
    begin behind it, and what is fitted on them takes each user for a new one.

    `progress` is called with events done and events at most. Returns frames of session, event, item
    (as in the world's `item_ids`), chosen (0 or 1), utility, probability (of the user's choice),
    propensity (the probability with which the policy showed the event's set of items, as
    `fastgaum ope --propensity propensity` reads it); rows in the order of display.

    Raises:
        ConfigError: an unknown policy, one that reads the states of another world, a pool that does
            not fill a slate, no episode, or a negative seed.
    """
    require_whole("the number of episodes", n_episodes, 1)
    require_whole("seed", seed)
    if isinstance(policy, str):
        policy = make_policy(policy, popularity_in(world))
    if isinstance(policy, QLearner):
        policy.learning = False
    setting.pool.check(world.n_items, setting.k)
    at_once = int(np.clip(WRITTEN_AT_ONCE // (setting.horizon * setting.k), 1, 4096))
    for first in range(0, n_episodes, at_once):
        last = min(first + at_once, n_episodes)
        recorder = _Recorder(policy, (last - first, setting.horizon, setting.k))
        for _ in rollout(world, recorder, setting, last - first, seed, first):
            pass
        yield recorder.frame(world, first)
        if progress is not None:
            progress(last * setting.horizon, n_episodes * setting.horizon)


class _Recorder(Policy):
    """Shows what a policy shows, and writes down what users thought of it."""

    def __init__(self, policy: Policy, shape: tuple[int, int, int]) -> None:
        self.policy, self.step = policy, 0
        self.name, self.made_in = policy.name, policy.made_in
        self.items: IntArray = np.full(shape, NO_ITEM, np.int32)
        self.chosen = np.zeros(shape, np.int8)
        self.utility, self.probability = np.zeros((2, *shape), np.float32)
        self.propensity = np.zeros(shape[:2])

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        self.policy.start(n, past)

    def act(self, observation: Observation, k: int) -> IntArray:
        made = self.policy.act(observation, k)
        self.propensity[:, self.step] = self.policy.propensities(observation, made, made)
        slates, users = displayed(made), observation.met or observation.users
        self.utility[:, self.step] = users.utilities(slates)
        self.probability[:, self.step] = users.probabilities(slates)[0]
        return slates

    def observe(self, transition: Transition) -> None:
        there = transition.active
        self.items[there, self.step] = transition.slates[there]
        clicked = np.flatnonzero(there & (transition.response.places >= 0))
        self.chosen[clicked, self.step, transition.response.places[clicked]] = 1
        self.step += 1
        self.policy.observe(transition)

    def frame(self, world: World, first: int) -> pl.DataFrame:
        """The rows of what was shown, sessions counted from `first`."""
        session, event, place = np.nonzero(self.items >= 0)
        return pl.DataFrame(
            {
                "session": session.astype(np.int64) + first,
                "event": event.astype(np.int32),
                "item": world.item_ids.gather(self.items[session, event, place]),
                "chosen": self.chosen[session, event, place],
                "utility": self.utility[session, event, place],
                "probability": self.probability[session, event, place],
                "propensity": self.propensity[session, event],
            }
        )
