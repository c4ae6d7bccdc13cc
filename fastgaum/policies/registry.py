"""Policies by name, made for a world: what the command line and the policy table choose from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fastgaum.baselines.registry import baseline_class
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.logs.log import SessionLog
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.policies.base import LearningPolicy, Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.dqn import CascadeDqn, Dqn
from fastgaum.policies.heuristics import Greedy, GreedyClick, Popular, RandomPolicy
from fastgaum.policies.linucb import LinUcbPolicy
from fastgaum.policies.model_policy import ModelPolicy
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.slateq import SlateQ
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import FloatArray, World

LEARNERS: dict[str, type[QLearner]] = {policy.name: policy for policy in (CascadeDqn, Dqn, SlateQ)}
"""Q-learning policies"""
TRAINED: dict[str, type[QLearner] | type[LinUcbPolicy]] = {
    **LEARNERS,
    LinUcbPolicy.name: LinUcbPolicy,
}
"""policies that `train` trains and a file keeps"""
FITTED = ("wd-lr", "wd-ccf")
"""published models whose utilities are ranked; they are fitted on a log"""
POLICIES = (
    RandomPolicy.name,
    Popular.name,
    Greedy.name,
    GreedyClick.name,
    *FITTED,
    LinUcbPolicy.name,
    Dqn.name,
    SlateQ.name,
    CascadeDqn.name,
)
"""all names, in the order of the table"""


@dataclass(frozen=True)
class Sources:
    """What policies that are not trained in the world are made of."""

    popularity: FloatArray | None = None
    """by item of the world, shape (n_items,)"""
    log: SessionLog | None = None
    """what the published models are fitted on"""

    @classmethod
    def of(cls, world: World, log: SessionLog | None = None) -> Sources:
        """What a world says itself: how often the training of a learned one chose each item."""
        if not isinstance(world, LearnedWorld):
            return cls(None, log)
        popularity = np.zeros(world.n_items, np.float32)
        counts = np.expm1(world.catalogue.statistics[:, 1])
        # further items come last, and training chose none of them
        popularity[: len(counts)] = counts
        return cls(popularity, log)


def chosen_names(asked: Iterable[str]) -> list[str]:
    """The policies asked for, or every one for `all`, in the order of the table.

    Raises:
        ConfigError: an unknown name.
    """
    names = list(asked)
    for name in names:
        if name not in (*POLICIES, "all"):
            raise ConfigError(
                f"no policy '{name}'{did_you_mean(name, POLICIES)}; policies are "
                f"{', '.join(POLICIES)}, or all"
            )
    return [name for name in POLICIES if name in names or "all" in names]


def untrained(
    name: str,
    world: World,
    k: int,
    pool: Pool,
    config: PolicyConfig,
    weights: Mapping[str, Tensor] | None = None,
) -> LearningPolicy:
    """A policy that `train` can train, or that takes the weights of a file.

    Raises:
        ConfigError: a name that is none.
        ValueError: the weights are not those that the configuration asks for.
    """
    require_trained(name)
    return (
        LEARNERS[name](world, k, pool, config, weights=weights)
        if name in LEARNERS
        else LinUcbPolicy(world, config)
    )


def require_trained(name: str) -> None:
    """Raise ConfigError unless a policy of that name is one that is trained."""
    if name not in TRAINED:
        raise ConfigError(
            f"policy '{name}' is not trained in a world{did_you_mean(name, TRAINED)}; "
            f"{', '.join(TRAINED)} are"
        )


def make_policy(name: str, world: World, sources: Sources, seed: int = 0) -> Policy:
    """A policy that needs no training in the world.

    Raises:
        ConfigError: a name that is none, or its source is missing.
    """
    if name == RandomPolicy.name:
        return RandomPolicy()
    if name == Greedy.name:
        return Greedy()
    if name == GreedyClick.name:
        return GreedyClick()
    if name == Popular.name:
        if sources.popularity is None:
            raise ConfigError("popular needs a popularity per item, and this world has none")
        return Popular(np.asarray(sources.popularity))
    if name in FITTED:
        if sources.log is None:
            raise ConfigError(f"{name} is fitted on a log: give one (--log)")
        return ModelPolicy(name, fitted_model(name, sources.log, seed), world)
    chosen_names([name])
    raise ConfigError(
        f"policy '{name}' is trained: use untrained() and train(), or a file that holds it"
    )


def fitted_model(name: str, log: SessionLog, seed: int) -> ChoiceModel:
    """A published model fitted on a log, protocol bags; without places, for it ranks a pool that
    has none."""
    model = baseline_class(name).from_mapping({"protocol": "bags", "seed": seed})
    model.fit(dataclasses.replace(log, ordered=False))
    return model
