"""What policies are promised by a learned world, and what they are paid among other users: a policy
that is trained in that world, and nine others from bad to good, `ten_testers`.

The users who pay may be true ones, or those of a world that was learned from other users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from scipy.stats import kendalltau

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.config import Config
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.policies.base import Observation, Policy, Transition
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import (
    JUDGING_SEED,
    Estimate,
    Recommendation,
    judging_members,
    lower_bound_of,
    member_means,
    recommend,
)
from fastgaum.policies.explore import Explore
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.registry import require_trained, untrained
from fastgaum.policies.rollout import EpisodeResult, Setting, play
from fastgaum.policies.training import train_policy
from fastgaum.policies.transfer import TransferPolicy, item_map, shared_items
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import Past, World
from fastgaum.worlds.world_set import WorldSet

LOGGING = ("random", "popular", "greedy")
"""policies that log: every slate of the first is random, half of the others' are"""
HALF = 0.5
APART = 3.0
"""standard errors by which the truth tells two policies apart"""


class Alternating(Policy):
    """Two policies in turn. Made of greedy and the least popular items it gives users a rest."""

    name = "alternating"

    def __init__(self, even: Policy, odd: Policy) -> None:
        self.policies, self.step = (even, odd), 0

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        events = list(past)
        self.step = 0
        for policy in self.policies:
            policy.start(n, events)

    def act(self, observation: Observation, k: int) -> IntArray:
        return self.policies[self.step % 2].act(observation, k)

    def observe(self, transition: Transition) -> None:
        self.step += 1
        for policy in self.policies:
            policy.observe(transition)


def ten_testers(trained: Policy, popularity: FloatArray) -> list[Policy]:
    """A trained policy, greedy, popular and unpopular slates, each also with half of its slates
    random, random ones, and greedy in turn with the unpopular; `popularity` of each item, shape
    (n_items,)."""
    unpopular = Popular(-np.asarray(popularity))
    unpopular.name = "unpopular"
    plain: Sequence[Policy] = (trained, Greedy(), Popular(popularity), unpopular)
    return [
        *plain,
        *(Explore(one, HALF) for one in plain),
        RandomPolicy(),
        Alternating(Greedy(), unpopular),
    ]


def rank_agreement(promised: Sequence[float], paid: Sequence[FloatArray]) -> float:
    """Kendall's tau of promises and of what was paid, over those pairs of policies that the truth
    tells apart: (agreeing − disagreeing) / pairs, NaN without such a pair.

    A pair is told apart where the mean difference of the same users' returns, (n_users,) by policy,
    is more than `APART` standard errors."""
    signs = []
    for (one, a), (other, b) in combinations(zip(promised, paid, strict=True), 2):
        difference = np.subtract(a, b, dtype=np.float64)
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
        if abs(difference.mean()) > APART * error:
            signs.append(np.sign(one - other) * np.sign(difference.mean()))
    return float(np.mean(signs)) if signs else float("nan")


def logging_policy(name: str, popularity: FloatArray) -> Policy:
    """A policy of `LOGGING` for the users themselves; `popularity` of their items, shape
    (n_items,)."""
    return {
        "random": RandomPolicy(),
        "popular": Explore(Popular(popularity), HALF),
        "greedy": Explore(Greedy(), HALF),
    }[name]


MODEL: dict[str, object] = {"set_context": False, "relations": False}
"""what changes of the preset `fastgaum`: utilities then know no set"""
FITTED = (0.75, 0.25, 0.0)
"""shares of a log's users who train, validate and test"""
ONE_WORLD = "one world"


@dataclass(frozen=True)
class Learner:
    """What is trained, and how many users judge it in each world. Raises ConfigError for a policy
    that is not trained."""

    policy: str
    config: PolicyConfig
    """of its training; its seed is that of the judging users too"""
    users: int

    def __post_init__(self) -> None:
        require_trained(self.policy)

    def trained(self, world: World, setting: Setting) -> Policy:
        """The policy, trained among a world's users."""
        policy = untrained(self.policy, world, setting.k, setting.pool, self.config)
        train_policy(policy, world, setting)
        return policy

    def episode(self, policy: Policy, world: World, setting: Setting) -> EpisodeResult:
        """An episode of new users, the same for every policy of a seed."""
        return play(world, policy, setting, self.users, JUDGING_SEED + self.config.seed)

    def returns(self, policy: Policy, world: World, setting: Setting) -> FloatArray:
        """Returns of these users, shape (users,)."""
        return self.episode(policy, world, setting).returns


@dataclass(frozen=True)
class Worth:
    """The worth of policies that were made in one world, by name."""

    world: str
    """where they were made: `ONE_WORLD`, a set of so many, or the truth"""
    paid: dict[str, float]
    """mean return of the users who pay"""
    promised: dict[str, float] = field(default_factory=dict)
    """the same of the world's own users; empty of the truth"""
    bound: dict[str, float] = field(default_factory=dict)
    """lower bound of the same by a set of worlds; empty of one"""
    decoys: dict[str, float] = field(default_factory=dict)
    """share of decoys in what the world's own users saw; empty of the truth"""
    agreement: float = float("nan")
    recommended: Recommendation | None = None
    """the trained policy or greedy slates, by a set; None of one world"""

    @property
    def deployed(self) -> str:
        """What is recommended: greedy slates by one world, which cannot say how wrong it is."""
        return Greedy.name if self.recommended is None else self.recommended.policy

    @property
    def kendall(self) -> float:
        """Kendall's tau of promised and paid, over all pairs of policies."""
        pairs = [(promised, self.paid[name]) for name, promised in self.promised.items()]
        return float(kendalltau(*zip(*pairs, strict=True)).statistic)


@dataclass(frozen=True)
class Promises:
    """Ten policies that were made in one world, and what its users promise of them."""

    world: str
    own: World
    items: tuple[int, ...]
    """what pools are drawn from, in the numbers of `own`"""
    policies: Sequence[Policy]
    promised: dict[str, float]
    bound: dict[str, float]
    decoys: dict[str, float]
    recommended: Recommendation | None

    @classmethod
    def of(
        cls,
        own: tuple[str, World, SessionLog],
        truth: World,
        setting: Setting,
        learner: Learner,
    ) -> Promises:
        """Train the learner in the world `own` (its name, itself, its log) and play all ten there,
        with pools of items that `truth`, whose users will pay, knows too.

        Raises:
            ConfigError: too few items are in both worlds.
            NumericsError: the training diverged.
        """
        label, world, log = own
        # in one order, so that one key draws the same pool in both worlds
        items = tuple(item_map(world, truth)[list(shared_items(world, truth))].tolist())
        home = _with_items(setting, items)
        trained = learner.trained(world, home)
        policies = ten_testers(trained, Popular.of_log(world, log).popularity)
        episodes = {one.name: learner.episode(one, world, home) for one in policies}
        at_home = {name: one.returns for name, one in episodes.items()}
        decoys = {name: one.decoy_share for name, one in episodes.items()}
        bound: dict[str, float] = {}
        members = judging_members(world, learner.users, [learner.config.seed])
        if members is not None:
            for name, found in at_home.items():
                least = lower_bound_of(member_means(found, members), world.folds)
                # few judging users may all live in one member
                bound[name] = float("nan") if least is None else least
        two = {name: at_home[name] for name in (trained.name, Greedy.name)}
        chosen = recommend(
            two,
            None if members is None else members[0],
            decoys=None if world.outside else decoys,
            folds=world.folds,
        )
        return cls(label, world, items, policies, mean_returns(at_home), bound, decoys, chosen)

    def paid_in(self, truth: World, setting: Setting, learner: Learner) -> Worth:
        """What the same policies earn among other users. Raises ConfigError unless they know all
        items."""
        met = _with_items(setting, tuple(item_map(truth, self.own)[list(self.items)].tolist()))
        returns = {
            one.name: learner.returns(TransferPolicy(one, self.own, truth), truth, met)
            for one in self.policies
        }
        agreement = rank_agreement(list(self.promised.values()), list(returns.values()))
        paid = mean_returns(returns)
        home = self.promised, self.bound, self.decoys
        return Worth(self.world, paid, *home, agreement, self.recommended)


def learner_worlds(log: SessionLog, seed: int, members: int) -> dict[str, World]:
    """The worlds that policies are trained in, by what the table calls them: one fit, and a set of
    so many, each of which left out a fold of users, whose first member is that fit."""
    folds = members if members > 1 else 0
    model = UserModel(Config.from_preset("fastgaum", **MODEL, seed=seed, folds=folds))
    model.fit(log)
    worlds: dict[str, World] = {ONE_WORLD: LearnedWorld(model)}
    if members > 1:
        worlds[f"set of {members}"] = WorldSet.of(model)
    return worlds


def mean_returns(returns: Mapping[str, FloatArray]) -> dict[str, float]:
    return {name: float(found.mean(dtype=np.float64)) for name, found in returns.items()}


def seeds_figure(name: str, by_seed: Float64Array) -> dict[str, object]:
    """A figure with its interval over seeds and its value of each seed."""
    one = Estimate.of(by_seed)
    return {name: one.mean, f"{name}_ci": [one.low, one.high], f"{name}_by_seed": by_seed.tolist()}


def _with_items(setting: Setting, items: tuple[int, ...]) -> Setting:
    return replace(setting, pool=replace(setting.pool, items=items))
