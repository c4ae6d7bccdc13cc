"""Off-policy values: what a policy would have earned, from a log that another one made.

A value is the expected clicks of one display, or an outcome of its choice, of the logged users in
the states that the log left them in. An event has the reward r, the weight w = π(A) / μ(A) of its
logged slate A, and from a world q(A), what it expects of A, and q(π), of the target's slate.

    dr-pi     the world, corrected in the odds    doubly robust, of random displays
    snips     Σ w r / Σ w                         of displays with logged propensities
    dm        mean of q(π)                        direct method: the world alone

(Dudík et al. 2011, Swaminathan & Joachims 2015, Swaminathan et al. 2017.) dr-pi weighs items by the
pseudo-inverse, v = E_π[1_A]ᵀ E_μ[1_A 1_Aᵀ]⁺ 1_A, where 1_A marks the items of A. Of a random set of
k of m items that shares o items with the policy's own, v = m (o (m − 1) − k (k − 1)) / (k (m − k)),
1 where k = m; E[v] = 1 and E[v²] = m. To first order r − q(A) is the world's error in the odds, a
sum over items, times (1 − q(A))². With v′ = v (1 − q(π))² / (1 − q(A))², D the mean of q(π), C that
of v′ (r − q(A)) and t = C / (1 − D), the value is V = (D + t) / (1 + t); for t < −D / 2 it goes on
along its tangent, (4 D − 3 D² + 4 C) / (2 − D)². For the target's random slates, and for outcomes,
v′ = v, V = D + C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.special import comb, factorial
from scipy.stats import binom, chi2
from scipy.stats import t as student

from fastgaum.arrays import Float64Array, FloatArray, IntArray, LongArray
from fastgaum.errors import ConfigError, as_given
from fastgaum.features.outcomes import outcomes_of
from fastgaum.logs.audit_displays import display_dependence
from fastgaum.logs.clicks import refuse_successive
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.metrics.precision import AnyFloats, AnyInts, sums_by_user
from fastgaum.policies.base import Observation, Policy
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.registry import RULE_NAMES, load_policy, make_policy, popularity_in
from fastgaum.worlds.env_options import OF_OUTCOME, StepReward
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import draw_distinct
from fastgaum.worlds.replay import live
from fastgaum.worlds.world import Population, World, repeats
from fastgaum.worlds.world_set import SetPopulation, WorldSet

ENOUGH = 50.0
"""events that the weighted log must be worth; displays of an item that tell if they are even"""
UNEVEN, ROUNDING = 1e-3, 1e-3
"""p below which displays are no random sets; how far off 1 a mean weight may be by rounding"""
RANDOM_SLATES, AT_ONCE = 8, 1 << 23
"""random slates whose chances are averaged; users times items that are lived at once"""
PLACES = {"estimator": None, "value": 4, "low": 4, "high": 4, "effective_events": 0, "why": None}
"""of the columns of a frame of values; None: text"""


@dataclass(frozen=True)
class Target:
    """Whose value is asked for. Raises ConfigError for an epsilon outside [0, 1]."""

    policy: Policy
    epsilon: float = 0.0
    """probability that a display is a random set of the items that the log displays"""
    k: int | None = None
    """size of the displays that are read; None: all"""
    pool: pl.Series | None = None
    """ids of the items that the policy chooses from, of those that the log displays; None: all"""

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ConfigError(f"epsilon is {self.epsilon}, a share from 0 to 1 is required")
        if isinstance(self.policy, RandomPolicy):
            object.__setattr__(self, "epsilon", 1.0)

    @classmethod
    def named(cls, policy: str, epsilon: float, world: World, own: LearnedWorld) -> Target:
        """A rule, or the folder of a policy trained in its own world. Raises CheckpointError."""
        if policy in RULE_NAMES:
            return cls(make_policy(policy, popularity_in(world)), epsilon)
        saved = load_policy(policy, own)
        pool = own.item_ids.gather(list(saved.setting.pool.pinned(own.n_items).items))
        return cls(saved.policy, epsilon, saved.setting.k, pool)


def off_policy_values(
    log: SessionLog,
    target: Target,
    world: World,
    propensities: AnyFloats | None = None,
    seed: int = 0,
    reward: str = "click",
) -> pl.DataFrame:
    """Estimate the value of a policy in the events of a log. Raises ConfigError where the arguments
    do not fit each other, or the log has weights of events, successive choices, only clicks where
    these are the reward, or a choice without the outcome that is.

    Args:
        log: of one split: `slice_sessions(log, log.sessions_in("test"))`.
        target: whose value is asked for.
        world: follows the logged users and values slates; of a set, by the mean over its worlds,
            and the policy reads the users of the first.
        propensities: of each event's slate, (n_events,); None: random sets of its items.
        seed: seeds random slates.
        reward: "click", or "outcome:NAME" as worlds pay it.

    Returns: rows dr-pi or snips, dm, and logged, what the log itself earned: estimator, value, low,
        high, effective_events, the events without weights that it is worth, and why no value is.
    """
    refuse_successive(log.context, "off-policy values are of")
    sizes, name = np.diff(log.display_offsets), f"log '{log.name}'"
    rows = np.flatnonzero(sizes == (target.k or sizes))
    mu = np.ones(log.n_events) if propensities is None else np.asarray(propensities)
    right = mu.shape == (log.n_events,) and mu.dtype.kind == "f" and ((mu > 0) & (mu <= 1)).all()
    label, earned = None, (log.choices >= 0).astype(float)
    if reward != "click":
        label = outcome_column(world, reward)
        earned[log.choices >= 0] = logged_outcomes(log, world)[log.choices >= 0, label]
    for wrong, why in (
        (log.weights is not None, f"{name} has weights of events: read it with weight=''"),
        (
            label is None and not log.has_no_click,
            f"{name} has no display without a click: all values are the same",
        ),
        (
            bool(np.isnan(earned).any()),
            f"{name} has {np.isnan(earned).sum()} choices whose {reward} nobody knows: fill it in, "
            "or leave their sessions out",
        ),
        (not len(rows), f"{name} has no display of {target.k} items"),
        (not right, "propensities are a probability above 0 of each event's display"),
    ):
        if wrong:
            raise ConfigError(why)
    shown, s = replay_policy(log, target, world, seed, label)[:, rows], target.epsilon
    users, rewards = log.users[log.session_of_event[rows]], earned[rows]
    own, at_random, logged = (1.0 - s) * shown[2], s * shown[3], shown[4]
    # of outcomes no odds are corrected
    of_odds = shown if label is None else np.concatenate([shown[:2], np.zeros_like(shown[2:])])
    weights, plain, effective = weigh_events(log, target, rows, of_odds, propensities)
    name, why, terms = "snips", "", [weights * rewards, weights]
    if propensities is None:
        name, why, residual = "dr-pi", not_random(log), rewards - logged
        terms = [own + at_random + weights * residual]
        if label is None:
            terms = [corrected(own, at_random + s * residual, (weights - s) * residual, 1.0 - s)]
    # of a single user the events are the unit: given those before, each weight has the mean 1
    alone = (users == users[0]).all()
    mean, least, most = ratio_interval(np.arange(len(rows)) if alone else users, plain)
    if not why and effective < ENOUGH:
        why = f"no support: the log is worth {effective:.1f} events, {ENOUGH:.0f} are required"
    elif not why and not least - ROUNDING <= 1.0 <= most + ROUNDING:
        why = f"no support: the mean weight is {mean:.3f} ({least:.3f} to {most:.3f}), not 1: "
        why += "propensities are wrong, or the log lacks what the policy shows"

    def row(name: str, why: str, effective: float | None, *terms: Float64Array) -> tuple[Any, ...]:
        if why:
            return name, None, None, None, None, why
        value, low, high = ratio_interval(users, *terms)
        if label is not None:
            return name, value, low, high, effective, ""
        if not -1e-9 <= value <= 1.0 + 1e-9:
            return row(name, f"impossible: {value:.4g} clicks a display, by uneven weights", None)
        return name, value, max(low, 0.0), min(high, 1.0), effective, ""

    estimates = [row(name, why, effective, *terms), row("dm", "", None, own + at_random)]
    estimates.append(row("logged", "", None, rewards))
    schema = {name: pl.String if PLACES[name] is None else pl.Float64 for name in PLACES}
    return pl.DataFrame(estimates, schema, orient="row")


def not_random(log: SessionLog) -> str:
    """Why displays are no random sets of the items that a log displays, by their dependence on
    clicks, a chi-squared test of all items and a binomial one of each; empty if they may be."""
    cure, dependence = "give logged propensities (--propensity)", display_dependence(log)
    if dependence is not None and dependence.found:
        return f"displays depend on clicks (z = {dependence.z:.1f}): {cure}"
    counts = np.unique(log.items, return_counts=True)[1]
    k, m = np.diff(log.display_offsets).astype(np.float64), len(counts)
    n, rate = len(k), k.sum() / (len(k) * m)
    spread = float((k * (m - k)).sum()) / (m * max(m - 1.0, 1.0))
    if spread <= 0.0:
        return ""
    if n * rate < ENOUGH:
        few = f"each item is displayed {n * rate:.0f} times, {ENOUGH:.0f} are required to tell"
        return f"{few} whether displays are random sets: {cure}, or more events (--split all)"
    of_all = chi2.sf(((counts - n * rate) ** 2).sum() / spread, m - 1)
    of_one = min(binom.sf(counts.max() - 1, n, rate), binom.cdf(counts.min(), n, rate))
    if of_all >= UNEVEN / 2 and of_one >= UNEVEN / (4 * m):
        return ""
    return f"displays show some items more often than others (p < {UNEVEN:g}): {cure}"


def outcome_column(world: World, reward: str) -> int:
    """The number of the outcome that a reward names among those of a world. Raises ConfigError for
    another reward."""
    if not reward.startswith(OF_OUTCOME):
        raise ConfigError(
            f"reward is {as_given(reward)}, click or {OF_OUTCOME}NAME is required: a log says "
            "nothing of utilities"
        )
    StepReward(reward).require_world(world)
    return world.outcome_labels.index(reward.removeprefix(OF_OUTCOME))


def logged_outcomes(log: SessionLog, world: World) -> FloatArray:
    """What followed each event of a log, NaN where nobody knows, as the world's users are told,
    (n_events, n_labels)."""
    if not isinstance(world, LearnedWorld | WorldSet):
        return np.empty((log.n_events, 0), np.float32)
    return outcomes_of(world.catalogue.space.outcomes, log)


def replay_policy(
    log: SessionLog, target: Target, world: World, seed: int = 0, label: int | None = None
) -> Float64Array:
    """Let a policy make a slate in every event of a log, for a world's users who lived the logged
    events before. Raises ConfigError where policy, log and world do not fit.

    Returns: of each event, (5, n_events), how many items the slate shares with the logged one, and
        whether it is that; then the world's chance of a click on it (0 where all slates are
        random), on a random set (0 where none is shown) and on the logged display; with `label`,
        the number of an outcome, what it is expected to earn of that."""
    policy, sizes, pool = target.policy, np.diff(log.display_offsets), np.unique(log.items)
    number, shown = Vocabulary(world.item_ids).codes(log.item_ids), np.zeros((5, log.n_events))
    outcomes = logged_outcomes(log, world) if world.outcome_labels else None
    codes = pool if target.pool is None else Vocabulary(log.item_ids).codes(target.pool)
    own_pool, most = codes[np.isin(codes, pool)], target.k or int(sizes.max())
    if len(own_pool) < most:
        raise ConfigError(
            f"{policy.name} makes slates of {most}, and the log displays too few of "
            f"its items ({len(own_pool)})"
        )
    if type(policy).observe not in (Policy.observe, QLearner.observe):
        raise ConfigError(f"{policy.name} follows its users itself, and meets none in a log")
    if isinstance(policy, QLearner):
        policy.learning = False
    # further items change no state
    home = world.first if isinstance(world, WorldSet) else world
    if not isinstance(home, LearnedWorld) or policy.made_in != home.trained_fingerprint:
        policy.require_world(world)
    draws = np.random.default_rng(seed).integers(
        1 << 64, size=(1 + RANDOM_SLATES, log.n_events), dtype=np.uint64
    )

    def users_of(n: int) -> Population:
        policy.start(n)
        every = {"follow_all": True} if isinstance(world, WorldSet) else {}
        return world.population(n, **every)

    for users, events, active, displays in live(world, log, users_of, AT_ONCE // len(pool) + 1):
        shown[4, events[active]] = _earned(users, displays, label)[active]
        for k in np.unique(sizes[events[active]]).tolist():
            who = active & (sizes[events] == k)
            if target.k not in (None, k):
                continue
            if target.epsilon < 1.0:
                seen = Observation(users.seen, number[own_pool], draws[0, events], 1.0)
                own = policy.act(seen, k)
                if repeats(own[who]).any():
                    raise ConfigError(f"{policy.name} shows an item twice in a slate")
                shared = (own[:, :, None] == displays[:, None, :k]).sum(axis=(1, 2))
                same = (own == displays[:, :k]).all(axis=1) if log.ordered else shared == k
                shown[:2, events[who]] = shared[who], same[who]
                shown[2, events[who]] = _earned(users, own, label)[who]
            for keys in draws[1:, events] if target.epsilon > 0.0 else ():
                random = number[pool][draw_distinct(keys, len(pool), k)]
                shown[3, events[who]] += _earned(users, random, label)[who] / RANDOM_SLATES
        places = np.where(active, log.choices[events], -1).astype(np.int32)
        told = None if outcomes is None else outcomes[events]
        users.follow(displays, places, active, outcomes=told)
    return shown


def _earned(users: Population, slates: IntArray, label: int | None) -> Float64Array:
    """Each user's chance of a click on a slate, or what it is expected to earn of an outcome; in a
    set by the mean chances over its worlds."""
    if isinstance(users, SetPopulation):
        chances = users.by_member(slates)[:, :, :-1].mean(axis=0)
    else:
        chances, _ = users.probabilities(slates)
    if label is not None:
        chances = chances * users.outcomes(slates)[:, :, label]
    return np.asarray(np.where(slates >= 0, chances, 0.0).sum(axis=1, dtype=np.float64))


def weigh_events(
    log: SessionLog, target: Target, rows: LongArray, shown: Float64Array, mu: AnyFloats | None
) -> tuple[Float64Array, Float64Array, float]:
    """v′ and v of some events (n,) with what was shown, (5, n), or w twice with propensities
    (n_events,), and how many events without weights the log is worth: n E[v′]² / E[v′²], or (Σ w)²
    / Σ w², but no more than those with the policy's own slate if they are few and matter."""
    (shared, same, own, _, logged), s, m = shown, target.epsilon, float(len(np.unique(log.items)))
    k = np.diff(log.display_offsets)[rows]
    if mu is not None:
        n_sets = comb(m, k) * (factorial(k) if log.ordered else 1.0)
        w = (s / n_sets + (1.0 - s) * same) / np.asarray(mu, np.float64)[rows]
        few = not w.any() or (s < 0.95 and same.sum() < ENOUGH)
        return w, w, float(same.sum() if few else w.sum() ** 2 / (w**2).sum())
    slope, logged = (np.maximum(1.0 - q, 0.01) ** 2 for q in (own, logged))
    v = m * (shared * (m - 1.0) - k * (k - 1.0)) / (k * np.maximum(m - k, 1.0))
    v, square = np.where(k < m, v, 1.0), np.where(k < m, m, 1.0)
    tops, plain = (1.0 - s) * v * slope + s * logged, (1.0 - s) * v + s
    values = tops / logged
    # expected squares are of the tops; those of the division are of the events at hand
    squares = (1.0 - s) ** 2 * square * slope**2 + (s * logged) ** 2
    squares += 2.0 * s * (1.0 - s) * slope * logged
    n, total, mean, of_tops = len(v), plain.sum(), values.sum(), (tops**2).sum()
    if min(total, mean, of_tops) <= 0.0:
        return values, plain, 0.0
    expected = squares.mean() * (values**2).sum() / of_tops
    return values, plain, float(n * min((mean / total) ** 2 / expected, 1.0))


def corrected(
    own: Float64Array, even: Float64Array, corrections: Float64Array, s: float
) -> Float64Array:
    """Terms (n,) whose mean is V, and whose spread is that of V, by its derivatives in D and C of
    the policy's own displays, a share s of all; `even` is added to each."""
    d, c = own.mean(), corrections.mean()
    if not d < s:
        return np.asarray(even + own + corrections)
    one_t, half = 1.0 + c / (s - d), 1.0 - d / s / 2.0
    if one_t >= half:
        value = s - (s - d) / one_t
        by_d, by_c = (2.0 * one_t - 1.0) / one_t**2, 1.0 / one_t**2
    else:
        value = (d - 0.75 * d**2 / s + c) / half**2
        by_d, by_c = (1.0 - (d - c) / s) / half**3, 1.0 / half**2
    return np.asarray(even + value + by_d * (own - d) + by_c * (corrections - c))


def ratio_interval(
    users: AnyInts, tops: Float64Array, bottoms: Float64Array | None = None
) -> tuple[float, float, float]:
    """Σ tops / Σ bottoms over events, and its 95 % interval with users as the unit; (n,) each,
    bottoms None: all 1. The ends are NaN with a single user."""
    sums, counts = sums_by_user(tops, users)
    if bottoms is not None:
        counts = sums_by_user(bottoms, users)[0]
    value, n = float(sums.sum() / counts.sum()), len(sums)
    if n < 2:
        return value, float("nan"), float("nan")
    spread = np.sqrt(n / (n - 1) * ((sums - value * counts) ** 2).sum()) / counts.sum()
    half = float(student.ppf(0.975, n - 1) * spread)
    return value, value - half, value + half
