"""The slates that a policy would have shown in the events of a log, and a world's value of them.
Before each event the policy makes its slate for the user as the log has made it; then it sees
the logged slate and choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.policies.base import Observation, Policy, Transition, repeats, top_places
from fastgaum.policies.heuristics import Popular, RandomPolicy
from fastgaum.policies.q_learning import QLearner
from fastgaum.worlds.learned_world import ContextPopulation, LearnedWorld, contexts_of
from fastgaum.worlds.pools import draw_distinct
from fastgaum.worlds.replay import tell_logged
from fastgaum.worlds.world import NO_ITEM, Population, Response, World
from fastgaum.worlds.world_set import SetPopulation, WorldSet

UTILITIES_AT_ONCE = 1 << 23
"""users times items of the pool that are lived at once"""
RANDOM_SLATES = 8
"""random slates whose values in the world are averaged"""


@dataclass(frozen=True)
class Target:
    """Whose value is asked for. Raises ConfigError for an epsilon outside [0, 1]."""

    policy: Policy
    epsilon: float = 0.0
    """probability that a display is a random set of the pool"""
    k: int | None = None
    """size of the displays that are read; None: all"""
    pool: IntArray | None = None
    """codes of the items that the policy chooses from; None: those of the log's pool"""

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ConfigError(f"epsilon is {self.epsilon}, a share from 0 to 1 is required")

    @property
    def random_share(self) -> float:
        """Probability that a display is a random set."""
        return 1.0 if isinstance(self.policy, RandomPolicy) else self.epsilon


@dataclass(frozen=True)
class Shown:
    """The target's slate in each event, and the world's expectation of a display; a row per event,
    NaN without a world."""

    slates: IntArray
    """the policy's own items by their codes in the log, -1 after the last and in events that are
    left out, shape (n_events, widest)"""
    own: Float64Array
    """of the policy's own slate; 0 where all displays are random"""
    random: Float64Array
    """of a random set of the pool; 0 where none is shown"""
    logged: Float64Array
    """of the logged display"""


def logged_slates(log: SessionLog, events: npt.NDArray[np.integer]) -> IntArray:
    """Codes of the items that some events display, `NO_ITEM` after the last, shape (n, widest)."""
    starts = log.display_offsets[events]
    sizes = log.display_offsets[events + 1] - starts
    places = np.arange(int(sizes.max(initial=1)))
    there = places < sizes[:, None]
    items = log.items[starts[:, None] + np.where(there, places, 0)]
    return np.where(there, items, NO_ITEM).astype(np.int32)


def replay_policy(
    log: SessionLog,
    target: Target,
    world: World | None,
    pool: IntArray,
    item_values: Float64Array,
    seed: int = 0,
) -> Shown:
    """Let a policy make a slate in every event of a log.

    Args:
        log: whose sessions are lived again.
        target: the policy; it learns nothing here.
        world: follows the logged users from their first event, whatever its `starts`, and values
            slates, a set of worlds by the mean over its members; None: nothing does.
        pool: item codes that slates are made of.
        item_values: the worth of a click on each item, shape (n_items,).
        seed: seeds random slates.

    Raises:
        ConfigError: the policy asks for a world and there is none, reads the states of another one,
            shows an item twice, or cannot choose from its own pool; or the world lacks an item, or
            does not know an action.
        FeatureMismatchError: the log lacks context fields that the world reads.
    """
    policy, share, sizes = target.policy, target.random_share, np.diff(log.display_offsets)
    own_pool = pool if target.pool is None else np.asarray(target.pool)
    if not len(own_pool) or not np.isin(own_pool, pool).all():
        raise ConfigError(
            f"{policy.name} chooses from items that the pool lacks: give a pool that holds them"
        )
    most = int(sizes.max(initial=1)) if target.k is None else target.k
    if (n := len(np.unique(own_pool))) < max(most, len(own_pool)):
        raise ConfigError(
            f"{policy.name} chooses {most} of {len(own_pool)} items, {n} of them different: give "
            f"at least {most} different items, each once"
        )
    if isinstance(policy, RandomPolicy) and len(own_pool) < len(pool):
        raise ConfigError(
            f"{policy.name} chooses from {len(own_pool)} items and random sets are of the "
            f"{len(pool)} of the pool: give it no pool of its own"
        )
    slates = np.full((log.n_events, int(sizes.max(initial=1))), NO_ITEM, np.int32)
    shown = Shown(slates, *np.full((3, log.n_events), np.nan if world is None else 0.0))
    if world is None:
        if isinstance(policy, Popular):
            for k in np.unique(sizes[sizes <= most]).tolist():
                best = top_places(policy.popularity[own_pool][None], k)[0]
                slates[sizes == k, :k] = own_pool[best]
        elif not isinstance(policy, RandomPolicy):
            raise ConfigError("this policy asks learned users what they like: give a run (--run)")
        return shown
    if isinstance(policy, QLearner):
        policy.learning = False
    # further items change no state
    home = world.first if isinstance(world, WorldSet) else world
    if not isinstance(home, LearnedWorld) or policy.made_in != home.trained_fingerprint:
        policy.require_world(world)
    tells_actions = isinstance(home, LearnedWorld) and home.action_ids is not None
    number = Vocabulary(world.item_ids).codes(log.item_ids)
    missing = np.union1d(log.items, pool)
    missing = missing[number[missing] < 0]
    if len(missing):
        raise ConfigError(
            f"the world lacks {len(missing):,} items of log '{log.name}' "
            f"('{log.item_ids[int(missing[0])]}' …): make it with them (worlds.replay.world_of)"
        )
    known = np.flatnonzero(number >= 0)
    code = np.full(world.n_items, NO_ITEM, np.int32)
    code[number[known]] = known
    worth = np.zeros(world.n_items + 1)
    worth[number[known]] = item_values[known]
    number = np.append(number, NO_ITEM).astype(np.int32)
    draws = np.random.default_rng(seed).integers(
        1 << 64, size=(1 + RANDOM_SLATES, log.n_events), dtype=np.uint64
    )
    contexts = contexts_of(world, log)

    def value(users: Population, of: IntArray) -> Float64Array:
        if isinstance(users, SetPopulation):
            chances = users.by_member(of)[:, :, :-1].mean(axis=0)
        else:
            chances, _ = users.probabilities(of)
        return np.asarray((chances * worth[of]).sum(axis=1))

    all_lengths = np.diff(log.session_offsets)
    # by length: users who stand beside each other end about together
    order = np.argsort(-all_lengths, kind="stable")
    step = max(1, UTILITIES_AT_ONCE // max(len(pool), 1))
    for start in range(0, len(order), step):
        some = order[start : start + step]
        first, lengths = log.session_offsets[some], all_lengths[some]
        users = (
            world.population(len(first), follow_all=True)
            if isinstance(world, WorldSet)
            else world.population(len(first))
        )
        policy.start(len(first))
        for t in range(int(lengths.max(initial=0))):
            # a session that is over names its last event
            events, active = first + np.minimum(t, lengths - 1), lengths > t
            if tells_actions:
                tell_logged(users, log, number[:-1], np.where(active, events, -1))
            if contexts is not None:
                assert isinstance(users, ContextPopulation)
                users.take(contexts(events.astype(np.int64)))
            displays = number[np.where(active[:, None], logged_slates(log, events), NO_ITEM)]
            shown.logged[events[active]] = value(users, displays)[active]
            for k in np.unique(sizes[events[active]]).tolist():
                who = active & (sizes[events] == k)
                rows = events[who]
                if target.k not in (None, k):
                    continue
                if share < 1.0:
                    seen = Observation(users.seen, number[own_pool], draws[0, events], 1.0)
                    own = policy.act(seen, k)
                    if repeats(own[who]).any():
                        raise ConfigError(
                            f"{policy.name} shows an item twice in a slate, and a log's displays "
                            "hold different items: make its slates item by item "
                            "(VectorCascadeWrapper, with the masks of MaskablePPO)"
                        )
                    slates[rows, :k] = code[own[who]]
                    shown.own[rows] = value(users, own)[who]
                for keys in draws[1:, events] if share > 0.0 else ():
                    random = number[pool][draw_distinct(keys, len(pool), k)]
                    shown.random[rows] += value(users, random)[who] / RANDOM_SLATES
            places = np.where(active, log.choices[events], -1).astype(np.int32)
            clicked = np.where(places >= 0, displays[np.arange(len(first)), places], NO_ITEM)
            nothing = np.zeros(len(first), np.float32)
            before = users.seen.states.copy()
            users.follow(displays, places, active)
            policy.observe(
                Transition(
                    states=before,
                    left=1.0,
                    slates=displays,
                    response=Response(places, clicked.astype(np.int32), nothing),
                    rewards=(places >= 0).astype(np.float32),
                    next_states=users.seen.states.copy(),
                    next_left=1.0,
                    next_pools=draws[0, events],
                    active=active,
                    ended=np.zeros(len(first), np.bool_),
                    pools=number[pool],
                )
            )
    return shown
