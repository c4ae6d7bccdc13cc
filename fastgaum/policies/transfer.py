"""Transfer: a policy that was made in one world plays in another.

For each user that it meets it has one of its own world, who sees the same slates and makes the same
choices, and whose state and utilities it reads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.rollout import Setting
from fastgaum.worlds.env_options import Reward, StepReward
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import NO_ITEM, Past, Population, Response, World
from fastgaum.worlds.world_set import WorldSet


class TransferPolicy(Policy):
    """A policy of the world `own` in the world `other`; items are the same where their ids are."""

    def __init__(self, policy: Policy, own: World, other: World, reward: Reward = "click") -> None:
        """Take the policy, its world, and the one that it is to play in. The policy is told that it
        earned `reward`: clicks, or utility, contrast, surplus or a function of its own users'
        utilities and states and of the items' numbers in `other`. Raises ConfigError if it reads
        the states of another world than its own, or that reads the context of events, or actions
        where users of the other start after some."""
        policy.require_world(own)
        if isinstance(own, LearnedWorld | WorldSet) and own.context is not None:
            raise ConfigError(
                f"{policy.name} reads states of a model with context fields "
                f"({', '.join(own.context.space.context_holds)}), which the users of another world "
                "do not have: train its model without them"
            )
        home, met = (one.first if isinstance(one, WorldSet) else one for one in (own, other))
        if (
            isinstance(home, LearnedWorld)
            and home.action_ids is not None
            and isinstance(met, LearnedWorld)
            and met.starts is not None
            and met.starts.actions is not None
        ):
            raise ConfigError(
                f"{policy.name} reads states of a model with actions, and does not get the actions "
                "before the logged starts of the other world: make that world with starts='empty'"
            )
        self.policy, self.own, self.other, self.pays = policy, own, other, StepReward(reward)
        self.pays.require_world(own)
        self.name, self.made_in = policy.name, other.fingerprint
        self.own_of = item_map(own, other)
        self.other_of = item_map(other, own)
        self.users: Population | None = None
        self.before: FloatArray | None = None

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """Meet n users. Items that the own world does not know are left out of the past, and events
        of which one was chosen with them."""
        # never reset: the past of these users is that of the met ones, and no key of the own world
        # draws one
        self.users = self.own.population(n).seen
        known = list(self._known(past))
        for event in known:
            self.users.follow(event.slates, event.places, event.active)
        self.policy.start(n, known)

    def act(self, observation: Observation, k: int) -> IntArray:
        """As the base says. Raises ConfigError for an item that the policy's world does not
        know."""
        pools = self.own_of[observation.pools]
        if pools.size and pools.min() < 0:
            raise ConfigError(
                f"{(pools < 0).sum()} items of the pools are unknown to the world that "
                f"{self.policy.name} was made in: draw"
                " pools from Pool(items=shared_items(own, other))"
            )
        own = dataclasses.replace(observation, users=self._users(), pools=pools)
        return renumbered(self.policy.act(own, k), self.other_of)

    def propensities(
        self, observation: Observation, own: IntArray, slates: IntArray
    ) -> Float64Array:
        """As the base says."""
        seen = dataclasses.replace(
            observation, users=self._users(), pools=self.own_of[observation.pools]
        )
        return self.policy.propensities(seen, self._own(own), self._own(slates))

    def observe(self, transition: Transition) -> None:
        """Let its own users choose what was chosen, and the policy see what came of it."""
        users = self._users()
        # here and not in act: a step may be seen that another policy acted in
        self.before = users.states.copy()
        slates, places = self._own(transition.slates), transition.response.places
        pools = self._own(transition.pools)
        before = self.pays.before(users, slates, pools, self.own.no_click)
        thought = users.utilities(slates)[np.arange(len(slates)), places]
        items = self._own(transition.response.items)
        outcomes = self._own_outcomes(transition.response.outcomes)
        told = np.where(items >= 0, places, -1)
        users.follow(slates, told, transition.active, outcomes=outcomes)
        utilities = np.where(places >= 0, thought, np.float32(0))
        response = Response(places, items, utilities, outcomes)
        met = dataclasses.replace(transition.response, utilities=utilities, outcomes=outcomes)
        rewards = self.pays.of(met, transition.slates, users.states, before)
        self.policy.observe(
            dataclasses.replace(
                transition,
                states=self.before,
                next_states=users.states.copy(),
                slates=slates,
                response=response,
                rewards=np.where(transition.active, rewards, np.float32(0)),
                pools=pools,
            )
        )

    def _own_outcomes(self, outcomes: FloatArray | None) -> FloatArray | None:
        """What followed choices as the own world has it, NaN for what the other does not draw;
        None where the own world has no outcomes."""
        labels = self.own.outcome_labels
        if not labels or outcomes is None:
            return None
        columns = {label: at for at, label in enumerate(self.other.outcome_labels)}
        # the last column is of what is not known
        known = np.column_stack([outcomes, np.full(len(outcomes), np.nan, np.float32)])
        return np.asarray(known[:, [columns.get(label, -1) for label in labels]])

    def _own(self, items: IntArray) -> IntArray:
        return renumbered(items, self.own_of)

    def _known(self, past: Iterable[Past]) -> Iterator[Past]:
        for event in past:
            slates = self._own(event.slates)
            chosen = slates[np.arange(len(slates)), event.places][:, None]
            clicked = event.places >= 0
            active = event.active & ~(clicked & (chosen[:, 0] < 0))
            # an item shown twice is displayed once, where it stands first
            first = (slates == chosen).argmax(axis=1)
            yield Past(slates, np.where(clicked & active, first, -1).astype(np.int32), active)

    def _users(self) -> Population:
        if self.users is None:
            raise ConfigError(
                "a policy in another world meets its users in start: call start(n) before act"
            )
        return self.users


def item_map(own: World, other: World) -> IntArray:
    """The number in `own` of each item of `other`, by id, -1: unknown; shape (other.n_items,)."""
    number = {item: i for i, item in enumerate(own.item_ids.to_list())}
    return np.array([number.get(item, -1) for item in other.item_ids.to_list()], np.int32)


def renumbered(items: IntArray, numbers: IntArray) -> IntArray:
    """The `numbers` of items, of any shape, `NO_ITEM` where there is none."""
    return np.where(items >= 0, numbers[items], NO_ITEM).astype(np.int32)


def setting_in(own: World, setting: Setting, other: World) -> Setting:
    """A setting of `other` for `own`, whose functions of reward and leaving are told the items'
    numbers in `other` there too."""
    if own is other:
        return setting
    numbers = item_map(other, own)

    def told(rule: Callable[..., Any], with_slates: bool) -> Callable[..., Any]:
        @functools.wraps(rule)
        def of_other(response: Response, second: IntArray, states: FloatArray) -> Any:
            items = renumbered(response.items, numbers)
            second = renumbered(second, numbers) if with_slates else second
            return rule(dataclasses.replace(response, items=items), second, states)

        return of_other

    reward, leaving = setting.reward, setting.leaving
    return dataclasses.replace(
        setting,
        reward=told(reward, True) if callable(reward) else reward,
        leaving=told(leaving, False) if callable(leaving) else leaving,
    )


def shared_items(own: World, other: World) -> tuple[int, ...]:
    """The items of `other` that `own` knows too, by their numbers in `other`, for pools. Raises
    ConfigError if there is none."""
    shared = np.flatnonzero(item_map(own, other) >= 0)
    if len(shared) == 0:
        raise ConfigError(
            "the two worlds have no item in common: their runs must be trained on logs of one "
            "catalogue"
        )
    return tuple(shared.tolist())


def shared_pool(pool: Pool, own: World, other: World) -> tuple[Pool, Pool]:
    """One pool in the numbers of two worlds: for training in `own`, and for playing in `other`.

    One key draws the same items in both. Items that `other` does not know are left out of both.
    Raises ConfigError if no item is left."""
    if own is other:
        return pool, pool
    pool = pool.pinned(own.n_items)
    mine = np.asarray(pool.items, np.int32)
    theirs = item_map(other, own)[mine]
    mine, theirs = mine[theirs >= 0], theirs[theirs >= 0]
    if len(mine) == 0:
        raise ConfigError(
            "the other world knows no item of the policy's pool: their runs must be trained on "
            "logs of one catalogue"
        )
    return (
        dataclasses.replace(pool, items=tuple(mine.tolist())),
        dataclasses.replace(pool, items=tuple(theirs.tolist())),
    )
