"""What a policy would have shown in the events of a log, and what a world says of both slates.

The logged sessions are lived again, event by event. Before each event the policy makes its slate
for the user as the log has made it; then it sees the logged slate and choice. So states are those
of the log, and an off-policy value is that of one display: what the policy's displays would
make of the user later is not in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import SessionLog
from fastgaum.ope.display_law import Float64Array
from fastgaum.ope.targets import LoggedItems, Target
from fastgaum.policies.base import LearningPolicy, Observation, Transition
from fastgaum.worlds.context import LoggedContexts
from fastgaum.worlds.learned_population import LearnedPopulation
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import POOL, SLATE, START, Keys, draw_distinct
from fastgaum.worlds.world import (
    NO_ITEM,
    IntArray,
    Population,
    Response,
    World,
)
from fastgaum.worlds.world_set import WorldSet

AT_ONCE = 1 << 23
"""users times items of the pool that are lived at once"""
LEAST_NONE = 0.01
"""the least probability of no click that a slope is made of"""
DRAWS = 8
"""random slates whose values in the world are averaged, of a policy that shows some"""
_RANDOM_SETS = np.uint64(5)
"""the first use of keys for these, after the uses of `worlds.pools`"""


@dataclass(frozen=True)
class Shown:
    """What the target would have shown in each event; arrays have a row per event of the log."""

    slates: IntArray
    """the policy's own items, by their codes in the log, -1 after the last, and everywhere in an
    event that is left out or where all displays are random, shape (n_events, widest)"""
    read: npt.NDArray[np.bool_]
    """events that count: displays of the size asked for"""
    promised: Float64Array
    """what the world expects of the target's display; NaN without a world"""
    logged: Float64Array
    """what the world expects of the logged display; NaN without a world"""
    slopes: Float64Array
    """by how much the world's click probability grows with the odds of a click, (1 − p)², of the
    policy's own slate, a random one and the logged one; all 1 where clicks differ in worth, shape
    (3, n_events)"""
    clicks: bool = True
    """whether what is valued are clicks, whose odds can be added; not where clicks differ in worth
    """


def replay_policy(
    log: SessionLog,
    target: Target,
    world: World | None,
    pool: IntArray,
    item_values: Float64Array | None = None,
    seed: int = 0,
) -> Shown:
    """Let a policy make a slate in every event of a log.

    Args:
        log: whose sessions are lived again.
        target: the policy; one that learns learns nothing here.
        world: what follows the logged users, and values slates; None: nothing does.
        pool: item codes that slates are made of, the same in every event.
        item_values: what a click on each item is worth, shape (n_items,); None: 1.
        seed: seeds random slates, and which world of a set values each user.

    Raises:
        ConfigError: the policy asks for a world and there is none, the world lacks an item of the
            log, or it is a set whose models read the context of events.
    """
    if isinstance(target.policy, LearningPolicy):
        target.policy.learning = False
    sizes = np.diff(log.display_offsets)
    read = np.ones(log.n_events, bool) if target.k is None else sizes == target.k
    nothing = np.full(log.n_events, np.nan)
    life = _Life(log, target, world, pool, item_values, seed)
    shown = Shown(
        np.full((log.n_events, int(sizes.max(initial=1))), NO_ITEM, np.int32),
        read,
        nothing,
        nothing.copy(),
        np.ones((3, log.n_events)),
        life.sloped,
    )
    order = np.argsort(-np.diff(log.session_offsets), kind="stable")
    step = max(1, AT_ONCE // max(len(pool), 1))
    for start in range(0, len(order), step):
        life.live(order[start : start + step], shown)
    return shown


class _Life:
    """A log's sessions lived again."""

    def __init__(
        self,
        log: SessionLog,
        target: Target,
        world: World | None,
        pool: IntArray,
        item_values: Float64Array | None,
        seed: int,
    ) -> None:
        self.log, self.target, self.valued = log, target, world is not None
        self.world = LoggedItems(log) if world is None else world
        self.sloped = self.valued and item_values is None and self.world.outside
        self.number = Vocabulary(self.world.item_ids).codes(log.item_ids)
        if (self.number[log.items] < 0).any() or (self.number[pool] < 0).any():
            missing = np.union1d(log.items, pool)
            missing = missing[self.number[missing] < 0]
            raise ConfigError(
                f"the world lacks {len(missing):,} items of log '{log.name}' "
                f"('{log.item_ids[int(missing[0])]}' …): make it with them (ope.targets.world_over)"
            )
        self.code = np.full(self.world.n_items, NO_ITEM, np.int32)
        there = np.flatnonzero(self.number >= 0)
        self.code[self.number[there]] = there
        self.pool = np.ascontiguousarray(self.number[pool], np.int32)
        self.own_pool = self.pool
        if target.pool is not None:
            if not np.isin(target.pool, pool).all():
                raise ConfigError(
                    f"{target.policy.name} chooses from items that the pool lacks: give a pool "
                    "that holds them"
                )
            self.own_pool = np.ascontiguousarray(self.number[target.pool], np.int32)
        self.worth = np.ones(self.world.n_items)
        if item_values is not None:
            self.worth[self.number[there]] = item_values[there]
        self.streams, self.ordinals = _user_streams(log, seed)
        self.contexts: LoggedContexts | None = None
        if isinstance(world, WorldSet) and any(one.context is not None for one in world.worlds):
            raise ConfigError(
                "the models of this set of worlds read the context of events, which the users of a "
                "set cannot be given: use one world, of a run trained with --set worlds=1, or "
                "train without context fields"
            )
        if isinstance(self.world, LearnedWorld) and self.world.context is not None:
            self.contexts = LoggedContexts(self.world.context, log, log.sessions_in("all"))

    def live(self, sessions: npt.NDArray[np.integer], shown: Shown) -> None:
        """Write what is shown in the events of some sessions."""
        log, n = self.log, len(sessions)
        users = self.world.population(n)
        keys = Keys(n)
        keys.streams[:] = self.streams[log.users[sessions]]
        keys.start(keys.everyone)
        # a user's first, in all its sessions: one world values it
        users.reset(keys.of(START).copy())
        keys.episodes[:] = self.ordinals[sessions]
        self.target.policy.start(n)
        lengths = np.diff(log.session_offsets)[sessions]
        for events, active in _steps(log.session_offsets[sessions], lengths):
            slates = _logged_slates(log, events, active, self.number)
            logged = self._value(users, slates, events)
            now = active & shown.read[events]
            shown.logged[events[now]] = logged[now]
            shown.slopes[2, events[now]] = self._slope(logged[now])
            sizes = np.where(now, log.display_offsets[events + 1] - log.display_offsets[events], 0)
            for k in np.unique(sizes[now]).tolist():
                self._show(users, keys, k, events, sizes == k, shown)
            keys.steps += 1
            self._follow(users, slates, events, active, keys)

    def _show(
        self,
        users: Population,
        keys: Keys,
        k: int,
        events: IntArray,
        who: npt.NDArray[np.bool_],
        shown: Shown,
    ) -> None:
        share = self.target.random_share
        rows, promised = events[who], np.zeros(int(who.sum()))
        if share < 1.0:
            observation = Observation(users.seen, self.own_pool, keys.of(SLATE).copy(), 1.0)
            slates = self.target.policy.act(observation, k)
            shown.slates[rows, :k] = self.code[slates[who]]
            own = self._value(users, slates)[who]
            shown.slopes[0, rows] = self._slope(own)
            promised += (1.0 - share) * own
        if share > 0.0:
            slopes, draws = np.zeros(len(rows)), DRAWS if self.valued else 1
            for draw in range(draws):
                use = _RANDOM_SETS + np.uint64(draw)
                places = draw_distinct(keys.of(use), len(self.pool), k)
                random = self._value(users, self.pool[places])[who]
                slopes += self._slope(random) / draws
                promised += share / draws * random
            shown.slopes[1, rows] = slopes
        shown.promised[rows] = promised

    def _slope(self, chances: Float64Array) -> Float64Array:
        return np.maximum(1.0 - chances, LEAST_NONE) ** 2 if self.sloped else np.ones(len(chances))

    def _value(
        self, users: Population, slates: IntArray, events: IntArray | None = None
    ) -> Float64Array:
        """Expected worth of the choice from each user's slate, (n,); NaN without a world. With
        `events` the users take their contexts."""
        if not self.valued:
            return np.full(users.n, np.nan)
        if events is not None and self.contexts is not None:
            assert isinstance(users, LearnedPopulation)
            chances, _ = users.probabilities(slates, self.contexts.at(events.astype(np.int64)))
        else:
            chances, _ = users.probabilities(slates)
        worth = np.where(slates >= 0, self.worth[slates], 0.0)
        return np.asarray((chances * worth).sum(axis=1))

    def _follow(
        self,
        users: Population,
        slates: IntArray,
        events: IntArray,
        active: npt.NDArray[np.bool_],
        keys: Keys,
    ) -> None:
        """Users and policy see what was logged; `keys` stand at the next step."""
        places = np.where(active, self.log.choices[events], -1).astype(np.int32)
        before = users.states.copy()
        users.follow(slates, places, active)
        items = np.where(places >= 0, slates[np.arange(users.n), places], NO_ITEM)
        zero = np.zeros(users.n, np.float32)
        self.target.policy.observe(
            Transition(
                states=before,
                left=1.0,
                slates=slates,
                response=Response(places, items.astype(np.int32), zero),
                rewards=(places >= 0).astype(np.float32),
                next_states=users.states.copy(),
                next_left=1.0,
                next_pools=keys.of(POOL).copy(),
                active=active,
                ended=np.zeros(users.n, bool),
            )
        )


def _user_streams(
    log: SessionLog, seed: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The stream of draws of each user, (n_users,), and which of its user's sessions each session
    is, 0 for the first, (n_sessions,): draws are by seed, user, session and event alone."""
    users = np.asarray(log.users)
    keys = Keys(int(users.max(initial=-1)) + 1)
    keys.seed(seed, keys.everyone)
    order = np.argsort(users, kind="stable")
    starts = np.searchsorted(users[order], users[order])
    ordinals = np.empty(len(users), np.int64)
    ordinals[order] = np.arange(len(users)) - starts
    return keys.streams, ordinals


def _steps(first: IntArray, lengths: IntArray) -> Iterator[tuple[IntArray, npt.NDArray[np.bool_]]]:
    """The event of each session at each step, and which sessions have one; the others name their
    first."""
    for t in range(int(lengths.max(initial=0))):
        active = lengths > t
        yield np.where(active, first + t, first).astype(np.int32), active


def _logged_slates(
    log: SessionLog, events: IntArray, active: npt.NDArray[np.bool_], number: IntArray
) -> IntArray:
    """Displays of some events as the world numbers their items, `NO_ITEM` after the last, shape
    (n, widest)."""
    starts = log.display_offsets[events]
    sizes = np.where(active, log.display_offsets[events + 1] - starts, 0)
    places = np.arange(max(int(sizes.max(initial=0)), 1))
    there = places < sizes[:, None]
    items = number[log.items[starts[:, None] + np.where(there, places, 0)]]
    return np.where(there, items, NO_ITEM).astype(np.int32)
