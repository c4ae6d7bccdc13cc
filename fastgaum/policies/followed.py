"""Followed: a policy of one world plays in another, whose users it knows by what they were shown and chose.

A policy trained in a learned world reads that world's states. In another world, fitted on other users or true, it keeps a
learned user of its own beside each one that it meets: `observe` tells that one the choice, and its state, utilities and
probabilities are what the policy sees. Nothing of the other world reaches the policy but slates, choices and rewards.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fastgaum.envs.world import FloatArray, IntArray, Population, World
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy, Transition


class Followed(Policy):
    """A policy of the world `own` in the world `other`; items are the same where their ids are.

    Attributes:
        policy: the policy that decides.
    """

    def __init__(self, policy: Policy, own: World, other: World) -> None:
        """Take the policy, its world, and the one that it is to play in."""
        self.policy, self.own = policy, own
        self.own_of = rows_of(own, other)
        self.other_of = rows_of(other, own)
        self.users: Population | None = None
        self.before: FloatArray | None = None

    def start(self, n: int) -> None:
        """Meet n users without history."""
        self.users = self.own.population(n)
        self.users.reset(np.zeros(n, np.uint64))
        self.policy.start(n)

    def act(self, observation: Observation, k: int) -> IntArray:
        """The policy's slates for its own idea of the users, shape (n, k).

        Raises:
            ConfigError: a pool holds an item that the policy's world does not know.
        """
        pools = self.own_of[observation.pools]
        if pools.size and pools.min() < 0:
            raise ConfigError(
                f"{(pools < 0).sum()} items of the pools are unknown to the world that {self.policy.name} was made in: draw"
                " pools from Pool(items=shared_items(own, other))"
            )
        users = self._users()
        self.before = users.states.copy()
        return self.other_of[self.policy.act(dataclasses.replace(observation, users=users, pools=pools), k)]

    def observe(self, transition: Transition) -> None:
        """Tell its own users what was chosen, and the policy what came of it."""
        users = self._users()
        assert self.before is not None
        slates = self.own_of[transition.slates]
        users.follow(slates, transition.response.places)
        response = dataclasses.replace(
            transition.response,
            items=np.where(transition.response.places >= 0, self.own_of[transition.response.items], -1).astype(
                np.int32
            ),
        )
        self.policy.observe(
            dataclasses.replace(
                transition, states=self.before, next_states=users.states.copy(), slates=slates, response=response
            )
        )

    def _users(self) -> Population:
        if self.users is None:
            raise ConfigError("a followed policy meets its users in start: call start(n) before act")
        return self.users


def rows_of(own: World, other: World) -> IntArray:
    """The number in `own` of each item of `other`, by id, -1 where it is unknown, shape (other.n_items,)."""
    number = {item: i for i, item in enumerate(own.item_ids.to_list())}
    return np.array([number.get(item, -1) for item in other.item_ids.to_list()], np.int32)


def shared_items(own: World, other: World) -> tuple[int, ...]:
    """The items of `other` that `own` knows too, by their numbers in `other`: what pools may be drawn from.

    Raises:
        ConfigError: there is none.
    """
    shared = np.flatnonzero(rows_of(own, other) >= 0)
    if len(shared) == 0:
        raise ConfigError("the two worlds have no item in common: their runs must be trained on logs of one catalogue")
    return tuple(shared.tolist())
