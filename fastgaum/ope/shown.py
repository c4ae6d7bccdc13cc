"""What a policy would have shown in the events of a log, and what a world says of both slates.

The logged sessions are lived again, event by event. Before each event the policy makes its slate
for the user as the log has made it; then it sees the logged slate and choice. So states are those
of the log, and an off-policy value is that of one display: what the policy's displays would
make of the user later is not in it.

In a set of worlds each member follows every user, and what the world says is the mean of what the
members say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import SessionLog
from fastgaum.ope.display_law import Float64Array
from fastgaum.ope.targets import LoggedItems, Target
from fastgaum.policies.base import Observation, Transition
from fastgaum.policies.q_learning import QLearner
from fastgaum.worlds.learned_population import LearnedPopulation
from fastgaum.worlds.pools import POOL, SLATE, START, Keys, draw_distinct
from fastgaum.worlds.set_population import distance_to_mean
from fastgaum.worlds.world import (
    NO_ITEM,
    FloatArray,
    IntArray,
    KeyArray,
    Population,
    Response,
    World,
)
from fastgaum.worlds.world_set import WorldSet, contexts_of

AT_ONCE = 1 << 23
"""users times items of the pool that are lived at once"""
LEAST_NONE = 0.01
"""the least probability of no click that a slope is made of"""
DRAWS = 8
"""random slates whose values in the world are averaged, of a policy that shows some"""
Chances = tuple[FloatArray, FloatArray]
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
    at_random: Float64Array
    """the part of it that random sets add: their share, times what the world expects of one"""
    by_member: Float64Array
    """`promised` of each member of a set of worlds, shape (n_members, n_events); one row of a world
    """
    disagreement: Float64Array
    """how far the members are apart about the target's display (`distance_to_mean`), 0 of one"""
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
        seed: seeds random slates.

    Raises:
        ConfigError: the policy asks for a world and there is none, or the world lacks an item of
            the log.
        FeatureMismatchError: the log lacks context fields that the world reads.
    """
    if isinstance(target.policy, QLearner):
        target.policy.learning = False
    sizes = np.diff(log.display_offsets)
    read = np.ones(log.n_events, bool) if target.k is None else sizes == target.k
    nothing = np.full(log.n_events, np.nan)
    life = _Life(log, target, world, pool, item_values, seed)
    by_member = np.tile(nothing, (len(life.worlds), 1))
    shown = Shown(
        np.full((log.n_events, int(sizes.max(initial=1))), NO_ITEM, np.int32),
        read,
        nothing,
        np.zeros(log.n_events),
        by_member,
        np.zeros(log.n_events),
        nothing.copy(),
        np.ones((3, log.n_events)),
        life.sloped,
    )
    order = np.argsort(-np.diff(log.session_offsets), kind="stable")
    step = max(1, AT_ONCE // max(len(pool) * len(life.worlds), 1))
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
        self.world: World = LoggedItems(log) if world is None else world
        self.worlds: Sequence[World] = (self.world,)
        self.own_of = [np.append(np.arange(self.world.n_items, dtype=np.int32), NO_ITEM)]
        if isinstance(world, WorldSet):
            self.worlds, self.own_of = world.worlds, world.own_of
        self.contexts = [contexts_of(one, log) for one in self.worlds]
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

    def live(self, sessions: npt.NDArray[np.integer], shown: Shown) -> None:
        """Write what is shown in the events of some sessions."""
        log, n = self.log, len(sessions)
        keys = Keys(n)
        keys.streams[:] = self.streams[log.users[sessions]]
        keys.start(keys.everyone)
        keys.episodes[:] = self.ordinals[sessions]
        users = _Users(self, n, keys.of(START).copy())
        self.target.policy.start(n)
        first, lengths = log.session_offsets[sessions], np.diff(log.session_offsets)[sessions]
        # a session that is over names its last event
        steps = [first + np.minimum(t, lengths - 1) for t in range(int(lengths.max(initial=0)))]
        for t, events in enumerate(steps):
            active = lengths > t
            users.take(events)
            slates = _logged_slates(log, events, active, self.number)
            logged = self._value(users.chances(slates), slates).mean(axis=0)
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
        users: _Users,
        keys: Keys,
        k: int,
        events: IntArray,
        who: npt.NDArray[np.bool_],
        shown: Shown,
    ) -> None:
        share = self.target.random_share
        rows, n_who = events[who], int(who.sum())
        promised, apart = np.zeros((len(self.worlds), n_who)), np.zeros(n_who)
        if share < 1.0:
            observation = Observation(users.seen, self.own_pool, keys.of(SLATE).copy(), 1.0)
            slates = self.target.policy.act(observation, k)
            shown.slates[rows, :k] = self.code[slates[who]]
            chances = users.chances(slates)
            own = self._value(chances, slates)[:, who]
            shown.slopes[0, rows] = self._slope(own.mean(axis=0))
            promised += (1.0 - share) * own
            apart += (1.0 - share) * distance_to_mean(chances)[who]
        if share > 0.0:
            slopes, draws = np.zeros(n_who), DRAWS if self.valued else 1
            for draw in range(draws):
                use = _RANDOM_SETS + np.uint64(draw)
                slates = self.pool[draw_distinct(keys.of(use), len(self.pool), k)]
                chances = users.chances(slates)
                random = self._value(chances, slates)[:, who]
                slopes += self._slope(random.mean(axis=0)) / draws
                promised += share / draws * random
                shown.at_random[rows] += share / draws * random.mean(axis=0)
                apart += share / draws * distance_to_mean(chances)[who]
            shown.slopes[1, rows] = slopes
        shown.by_member[:, rows], shown.promised[rows] = promised, promised.mean(axis=0)
        shown.disagreement[rows] = apart

    def _slope(self, chances: Float64Array) -> Float64Array:
        return np.maximum(1.0 - chances, LEAST_NONE) ** 2 if self.sloped else np.ones(len(chances))

    def _value(self, chances: Sequence[Chances], slates: IntArray) -> Float64Array:
        """Expected worth of the choice from each user's slate, as each member says, (n_members, n);
        NaN without a world."""
        worth = np.where(slates >= 0, self.worth[slates], 0.0)
        return np.stack([(places * worth).sum(axis=1) for places, _ in chances])

    def _follow(
        self,
        users: _Users,
        slates: IntArray,
        events: IntArray,
        active: npt.NDArray[np.bool_],
        keys: Keys,
    ) -> None:
        """Users and policy see what was logged; `keys` stand at the next step."""
        places = np.where(active, self.log.choices[events], -1).astype(np.int32)
        before = users.seen.states.copy()
        users.follow(slates, places, active)
        last = self.log.session_offsets[self.log.session_of_event[events] + 1] - 1
        users.take(np.minimum(events + 1, last))
        items = np.where(places >= 0, slates[np.arange(len(slates)), places], NO_ITEM)
        zero = np.zeros(len(slates), np.float32)
        self.target.policy.observe(
            Transition(
                states=before,
                left=1.0,
                slates=slates,
                response=Response(places, items.astype(np.int32), zero),
                rewards=(places >= 0).astype(np.float32),
                next_states=users.seen.states.copy(),
                next_left=1.0,
                next_pools=keys.of(POOL).copy(),
                active=active,
                ended=np.zeros(len(slates), bool),
                pools=self.pool,
            )
        )


class _Users:
    """The logged users as every member of a set takes them to be, or one world."""

    def __init__(self, life: _Life, n: int, keys: KeyArray) -> None:
        self.life, self.n = life, n
        self.members = [one.population(n) for one in life.worlds]
        for users in self.members:
            users.reset(keys)

    @property
    def seen(self) -> Population:
        """What a policy reads: the users of the first member."""
        return self.members[0].seen

    def take(self, events: npt.NDArray[np.integer]) -> None:
        """Give the users the logged contexts of their events, (n,)."""
        for users, contexts in zip(self.members, self.life.contexts, strict=True):
            if contexts is not None:
                assert isinstance(users, LearnedPopulation)
                users.take(contexts(events.astype(np.int64)))

    def chances(self, slates: IntArray) -> list[Chances]:
        """What each member says of slates (n, k): the probability of each place, and of no click;
        NaN without a world."""
        if not self.life.valued:
            return [(np.full(slates.shape, np.nan, "f4"), np.full(self.n, np.nan, "f4"))]
        return [
            users.probabilities(own_of[slates])
            for users, own_of in zip(self.members, self.life.own_of, strict=True)
        ]

    def follow(self, slates: IntArray, places: IntArray, active: npt.NDArray[np.bool_]) -> None:
        """See what was logged."""
        for users, own_of in zip(self.members, self.life.own_of, strict=True):
            users.follow(own_of[slates], places, active)


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
