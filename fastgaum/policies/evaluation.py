"""Earnings of policies, and paired differences.

Each seed trains every policy once and tests all of them on the same users with the same draws: a
user's difference between two policies is paired."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import t as student

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.errors import ConfigError, as_given
from fastgaum.metrics.intervals import jackknife_error
from fastgaum.policies.advice import Advice
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.registry import LEARNERS, make_policy, popularity_in, untrained
from fastgaum.policies.rollout import EpisodeResult, Setting, first_keys, play
from fastgaum.policies.training import EVALUATION_SEED, train_policy
from fastgaum.policies.transfer import TransferPolicy, item_map, setting_in, shared_items
from fastgaum.worlds.pools import START
from fastgaum.worlds.world import World, displayed
from fastgaum.worlds.world_set import WorldSet

JUDGING_SEED = EVALUATION_SEED << 1
"""seeds of judging users begin here"""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or over the users of one, with its 95 % interval; NaN bounds of a single
    number."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | Float64Array | FloatArray) -> Estimate:
        """Student's interval of independent seeds' values, (n_seeds,), or of their users',
        (n_seeds, n_users).

        Two-stage sampling (Cochran, "Sampling Techniques", 1977, ch. 10): the variance of seeds'
        means is that of seeds plus that of n_users users, σ_seed² + σ_user² / n_users. One seed has
        its users alone, and says nothing of other trainings.

        >>> Estimate.of([1.0, 2.0, 3.0]).mean
        2.0
        """
        drawn = np.asarray(values, np.float64)
        drawn = drawn[0].ravel() if len(drawn) == 1 else drawn.reshape(len(drawn), -1).mean(axis=1)
        mean, n = float(drawn.mean()), len(drawn)
        half = student.ppf(0.975, n - 1) * drawn.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        return cls(mean, float(mean - half), float(mean + half))


@dataclass(frozen=True)
class Earned:
    """Earnings of one policy in one setting."""

    policy: str
    k: int
    by_user: FloatArray
    """cumulative reward of each user who judged, by seed, shape (n_seeds, n_users)"""
    click_rates: Float64Array
    """share of the slates shown with a choice, by seed, (n_seeds,)"""
    members: IntArray | None = None
    """the member of a set of worlds that each of them lives in, likewise; None of one world"""
    displays: Mapping[str, Float64Array] = field(default_factory=dict)
    """of `measure_displays`, by seed, each (n_seeds,)"""
    no_click: bool = True
    """whether the users who judged may choose nothing"""
    folds: int = 0
    """`World.folds` of the set of worlds"""

    @property
    def returns(self) -> Float64Array:
        """Cumulative reward, mean over users, by seed, (n_seeds,)."""
        return np.asarray(self.by_user.mean(axis=1, dtype=np.float64))

    @property
    def by_member(self) -> Float64Array | None:
        """Cumulative reward in each member of a set of worlds that has users, mean over its users
        and seeds; None in one world."""
        return None if self.members is None else member_means(self.by_user, self.members)

    @property
    def lower_bound(self) -> float | None:
        """`lower_bound_of` the members' values; None in one world."""
        return None if self.by_member is None else lower_bound_of(self.by_member, self.folds)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        reward, clicks = Estimate.of(self.by_user), Estimate.of(self.click_rates)
        displays = {name: Estimate.of(values) for name, values in self.displays.items()}
        return {
            "policy": self.policy,
            "k": self.k,
            "seeds": len(self.returns),
            "return": reward.mean,
            "return_ci": [reward.low, reward.high],
            "return_by_seed": self.returns.tolist(),
            "click_rate": clicks.mean,
            "click_rate_ci": [clicks.low, clicks.high],
            **{name: one.mean for name, one in displays.items()},
            **{f"{name}_ci": [one.low, one.high] for name, one in displays.items()},
            **({} if self.lower_bound is None else {"lower_bound": self.lower_bound}),
        }


def lower_bound_of(by_member: Float64Array, folds: int = 0) -> float | None:
    """A lower bound of a policy's value, of its values in the members of a set, (n_members,), if
    they are normal; None with fewer than two. It is mean − t(.95, K − 1) · error of K members.

    folds: `World.folds` of the set. Of members that are fits on so many folds of the same users it
    is a confidence bound: the error is the `jackknife_error` of their mean, and the mean that such
    fits have over samples of users lies above the bound in 95 % of the samples. Of members of logs
    of their own, or of bootstraps, it is the prediction bound of one more member, which 95 % of new
    worlds exceed: the error is sd · √(1 + 1/K) (Geisser, "Predictive Inference", 1993).
    """
    k = len(by_member)
    if k < 2:
        return None
    spread = by_member.std(ddof=1)
    error = jackknife_error(by_member, folds) if folds else spread * np.sqrt(1 + 1 / k)
    return float(by_member.mean() - student.ppf(0.95, k - 1) * error)


def judge_seeds(
    policies: Sequence[Policy],
    world: World,
    setting: Setting,
    n_users: int = 1000,
    own: World | None = None,
) -> Earned:
    """Play one policy's seeds, `policies` in their order, each with users of its own. `own` is the
    world that they were made in, where they play in another (`TransferPolicy`).

    Raises:
        ConfigError: no policy is given, slates and pools do not fit the world, or a policy reads
            the states of another world than `own`, or than `world` without it.
    """
    if not isinstance(policies, Sequence) or not policies:
        raise ConfigError(
            "a policy is judged by a list of its seeds, at least one ([policy]), got "
            f"{as_given(policies)}"
        )
    plain = replace(setting, pessimism=0.0)
    outcomes: list[EpisodeResult] = []
    for seed, policy in enumerate(policies):
        if isinstance(policy, QLearner):
            policy.learning = False
        player = _player(policy, world, setting, own)
        outcomes.append(play(world, player, plain, n_users, JUDGING_SEED + seed))
    clicks = np.array([outcome.click_rate for outcome in outcomes])
    by_user = np.array([outcome.returns for outcome in outcomes])
    members = judging_members(world, n_users, range(len(policies)))
    shown = [measure_displays(outcome, world) for outcome in outcomes]
    displays = {name: np.array([one[name] for one in shown]) for name in shown[0]}
    of_world = members, displays, world.no_click, world.folds
    return Earned(policies[0].name, setting.k, by_user, clicks, *of_world)


def measure_displays(outcome: EpisodeResult, world: World) -> dict[str, float]:
    """What an episode in a world has shown: diversity, the mean of the slates' (NaN where all hold
    one item); coverage, the share of the pools' items that were shown at all (Ge,
    Delgado-Battenfeld & Jannach, RecSys 2010); gini, Σ_j (2j − n − 1) p_j / (n − 1) of these n
    items' shares p of the displays in ascending order, from 0 (each as often) to 1 (a single one)
    (Shani & Gunawardana, "Evaluating Recommendation Systems", 2011); decoys, the share of the
    displayed items whose utility, to their user in this world at that step, lies below the median
    of the pool's. An item that stands in a slate twice is displayed once."""
    lengths = np.linalg.norm(world.item_features, axis=1, keepdims=True)
    vectors = np.asarray(world.item_features / np.where(lengths > 0, lengths, 1), np.float32)
    shown = outcome.shown[:, : len(outcome.slates)]
    slates = [displayed(one) for one in outcome.slates]
    diversity = np.stack([slate_diversity(vectors, one) for one in slates], axis=1)
    known = diversity[shown & ~np.isnan(diversity)]
    items = np.concatenate([one[there] for one, there in zip(slates, shown.T, strict=True)])
    displays = np.bincount(items[items >= 0], minlength=world.n_items)
    shares = np.sort(displays[outcome.offered]) / displays.sum()
    n = len(shares)
    return {
        "diversity": float(known.mean(dtype=np.float64)) if len(known) else float("nan"),
        "coverage": float((shares > 0).mean()),
        "gini": float((2 * np.arange(n) + 1 - n) @ shares / max(n - 1, 1)),
        "decoys": outcome.decoy_share,
    }


def slate_diversity(vectors: FloatArray, slates: IntArray) -> FloatArray:
    """Intra-list diversity of slates (n, k) of items with vectors (n_items, d), each of length 1:
    the mean cosine distance of two items of a slate, from 0 to 2, NaN with fewer than two, shape
    (n,) (Smyth & McClave, "Similarity vs. Diversity", ICCBR 2001)."""
    held = slates >= 0
    own, counts = vectors[slates] * held[:, :, None], held.sum(axis=1)
    similar = (own.sum(axis=1) ** 2).sum(axis=1) - (own**2).sum(axis=(1, 2))
    pairs = np.where(counts > 1, counts * (counts - 1.0), np.nan)
    return np.asarray(1 - similar / pairs, np.float32)


def judging_members(world: World, n_users: int, seeds: Iterable[int]) -> IntArray | None:
    """The member of a set that each user lives in who judges with a seed, (n_seeds, n_users); None
    of one world."""
    if not isinstance(world, WorldSet):
        return None
    keys = [first_keys(n_users, JUDGING_SEED + seed).of(START).copy() for seed in seeds]
    return np.array([world.members_of(one) for one in keys])


def member_means(values: FloatArray, members: IntArray) -> Float64Array:
    """The mean value of the users of each member that has some; `members` has the values' shape."""
    counts = np.bincount(members.ravel())
    sums = np.bincount(members.ravel(), values.ravel())
    return np.asarray(sums[counts > 0] / counts[counts > 0], np.float64)


def advise(judged: Sequence[Earned], n_events: int | None = None) -> list[Advice]:
    """The advice on each policy but greedy slates, which `judge_seeds` has judged by the same users
    of a set of worlds, as those; n_events: of the log. None of one world, which cannot say how
    wrong it is, none where a world of the set has no user, and none without greedy slates."""
    greedy = next((row for row in judged if row.policy == Greedy.name), None)
    if greedy is None or greedy.members is None:
        return []
    paid, found = float(greedy.returns.mean()), []
    for row in judged:
        if row is greedy:
            continue
        leads = member_means(row.by_user - greedy.by_user, greedy.members)
        if len(leads) < max(2, greedy.folds):
            return []
        decoys = 0.0 if row.no_click else float(row.displays["decoys"].mean())
        found.append(Advice(row.policy, tuple(leads.tolist()), paid, n_events, decoys))
    return found


def difference(one: Earned, other: Earned) -> Estimate:
    """The difference of two policies' cumulative rewards, paired by user, of the same seeds. Raises
    ConfigError for different numbers of seeds or users."""
    if one.by_user.shape != other.by_user.shape:
        raise ConfigError(
            "{} was judged by {} seeds of {} users and {} by {} of {}: use the same".format(
                one.policy, *one.by_user.shape, other.policy, *other.by_user.shape
            )
        )
    return Estimate.of(one.by_user - other.by_user)


def _player(policy: Policy, world: World, setting: Setting, own: World | None) -> Policy:
    if own is None or own is world:
        return policy
    return TransferPolicy(policy, own, world, setting.reward)


@dataclass(frozen=True)
class ComparisonPlan:
    """The plan of a comparison. Raises ConfigError without a seed, and for a policy or a size that
    is named twice."""

    names: Sequence[str]
    """of `registry.POLICIES`"""
    sizes: Sequence[int]
    """items of a slate, each a table of its own"""
    seeds: int
    """trainings of each policy, each judged by users of its own"""
    users: int
    """users that judge a policy, per seed"""
    config: PolicyConfig
    own: World
    """the world that policies are made in"""
    judge: World
    """the world that they are judged in"""
    agents: Mapping[str, Callable[[Setting, int], Policy]] = field(default_factory=dict)
    """further policies, by what rows and progress call them: each is made for a setting in `own`
    and a seed"""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"a comparison has at least 1 seed, got {self.seeds}")
        for what, named in (("policy", [*self.names, *self.agents]), ("size", [*self.sizes])):
            if len({*named}) < len(named):
                raise ConfigError(
                    f"a {what} of a comparison is named twice in {', '.join(map(str, named))}: "
                    "give each a name of its own"
                )


def compare_policies(
    plan: ComparisonPlan,
    setting: Callable[[int, tuple[int, ...]], Setting],
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, object]:
    """Make, train and judge; returns the table as a JSON object, a row per policy and size.

    `setting` is called with k and the items that pools are drawn from, and its functions of reward
    and leaving with the items' numbers in the plan's `judge_seeds`; `progress` with trainings done,
    trainings in all, and the present policy.

    Raises:
        ConfigError: slates or pools do not fit, or a policy lacks its source.
        NumericsError: a training diverged.
    """
    items: tuple[int, ...] = ()
    own_items: tuple[int, ...] = ()
    if plan.judge is not plan.own:
        # in one order, so that a fixed pool holds the same items in both
        items = shared_items(plan.own, plan.judge)
        own_items = tuple(item_map(plan.own, plan.judge)[list(items)].tolist())
    settings = [
        (setting_in(plan.own, setting(k, own_items), plan.judge), setting(k, items))
        for k in plan.sizes
    ]
    for met, judged in settings:
        met.pool.check(plan.own.n_items, met.k)
        judged.pool.check(plan.judge.n_items, judged.k)
    table: list[Earned] = []
    names = [*plan.names, *plan.agents]
    trained, total = 0, len(plan.sizes) * len(names) * plan.seeds
    for met, judged in settings:
        for name in names:
            policies: list[Policy] = []
            for seed in range(plan.seeds):
                if progress is not None:
                    progress(trained, total, f"{name}, k = {met.k}")
                trained += 1
                if name in plan.agents:
                    policies.append(plan.agents[name](met, plan.config.seed + seed))
                    continue
                if name not in LEARNERS:
                    policies.append(make_policy(name, popularity_in(plan.own)))
                    continue
                config = plan.config.replace(seed=plan.config.seed + seed)
                learner = untrained(name, plan.own, met.k, met.pool, config)
                train_policy(learner, plan.own, met)
                policies.append(learner)
            earned = judge_seeds(policies, plan.judge, judged, plan.users, plan.own)
            table.append(replace(earned, policy=name))
    some = settings[0][1]
    by_size = {k: [row for row in table if row.k == k] for k in plan.sizes}
    return {
        "rows": [row.to_dict() | {"versus": _versus_best(row, table)} for row in table],
        "seeds": plan.seeds,
        "users": plan.users,
        "reward": some.pays.name,
        "horizon": some.horizon,
        "pool": f"{some.pool.rule} of {some.pool.size or 'all'}",
        "config": plan.config.to_mapping(),
        "advice": [
            {"k": k, **one.to_dict()} for k, rows in by_size.items() for one in advise(rows)
        ],
    }


def _versus_best(row: Earned, table: Sequence[Earned]) -> dict[str, object] | None:
    """The best other policy of the same k, and the paired difference to it; None without one."""
    others = [other for other in table if other.k == row.k and other.policy != row.policy]
    if not others:
        return None
    best = max(others, key=lambda other: float(other.returns.mean()))
    lead = difference(row, best)
    return {"policy": best.policy, "diff": lead.mean, "ci": [lead.low, lead.high]}
