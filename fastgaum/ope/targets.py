"""Whose value is asked for: a policy by its name or from its file, and the world that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import SessionLog
from fastgaum.models.choice_model import Head
from fastgaum.models.user_model import UserModel
from fastgaum.policies.base import Policy
from fastgaum.policies.heuristics import Popular, RandomPolicy
from fastgaum.policies.registry import RULES, load_policy, make_policy
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.replay import world_of
from fastgaum.worlds.world import FloatArray, IntArray, KeyArray, Population, Response, World
from fastgaum.worlds.world_set import WorldSet, world_of_model


@dataclass(frozen=True)
class Target:
    """Whose value is asked for. Raises ConfigError for an epsilon outside [0, 1]."""

    policy: Policy
    epsilon: float = 0.0
    """probability that a display is a random set of the pool instead of the policy's"""
    k: int | None = None
    """size of the displays that are read, for a policy that makes no others; None: all"""
    pool: IntArray | None = None
    """codes of the items that the policy chooses from, where these are not all of the pool"""
    fitted: bool = False
    """whether the policy was made of the choices of the log's training split"""

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ConfigError(f"epsilon is {self.epsilon}, a share from 0 to 1 is required")

    @property
    def random_share(self) -> float:
        """Probability that a display is a random set."""
        return 1.0 if isinstance(self.policy, RandomPolicy) else self.epsilon


def world_over(
    model: UserModel, log: SessionLog, head: Head | None = None
) -> LearnedWorld | WorldSet:
    """The model's users, over all items of a log; the set of its worlds where it has bootstraps.

    Raises:
        ConfigError: the model is not fitted or lacks the head.
        FeatureMismatchError: the log's fields are not the training log's.
    """
    if not model.bootstraps or model.space is None:
        return world_of(model, log, head)
    new = Vocabulary(model.space.categorical[0].values).codes(log.item_ids) < 0
    return WorldSet.of(model, head=head, log=log, further=log.item_ids.filter(new))


def named_target(policy: str, log: SessionLog, world: World | None, epsilon: float = 0.0) -> Target:
    """A policy that was not trained, by its name; what is popular is counted in the log's training
    split.

    Raises:
        ConfigError: the name is none of `registry.RULES`.
    """
    if policy not in RULES:
        raise ConfigError(
            f"no policy '{policy}'{did_you_mean(policy, RULES)}: give a folder written by "
            f"`fastgaum rl train`, or one of {', '.join(RULES)}"
        )
    of_items = LoggedItems(log) if world is None else world
    popularity = Popular.of_log(of_items, log).popularity
    made = make_policy(policy, of_items, popularity)
    return Target(made, epsilon, fitted=policy == Popular.name)


def trained_target(
    path: Path, model: UserModel, log: SessionLog, epsilon: float = 0.0, head: Head | None = None
) -> tuple[Target, LearnedWorld | WorldSet]:
    """A policy of `fastgaum rl train`, for displays of the size that it makes, and the world over
    the log's items in which it follows the logged users.

    It chooses from the items of its own pool that the log knows; where its pools were drawn, from
    all items they were drawn from. One that reads how much of the episode is left acts as at the
    first step.

    Raises:
        CheckpointError: the file is damaged, or of another run.
        ConfigError: the log knows none of its items.
    """
    own, world = world_of_model(model, head=head, log=log), world_over(model, log, head)
    saved = load_policy(path, own)
    policy, k, pool = saved.policy, saved.setting.k, saved.setting.pool
    items = pool.pinned(own.n_items).items or range(own.n_items)
    ids = own.item_ids.gather(list(items))
    codes = Vocabulary(log.item_ids).codes(ids)
    if not (codes >= 0).any():
        raise ConfigError(
            f"log '{log.name}' knows none of the items that {policy.name} chooses from: give the "
            "log of its run"
        )
    # further items of a world come last: the policy's have the same numbers in both, and its users
    # the same states
    return Target(policy, epsilon, k, codes[codes >= 0].astype(np.int32)), world


class LoggedItems(World):
    """A world of which only the items are known, for policies that read nothing of the users."""

    def __init__(self, log: SessionLog) -> None:
        self.item_ids, self.state_dim, self.outside = log.item_ids, 0, log.has_no_click
        self.item_features = np.zeros((log.n_items, 0), np.float32)

    def population(self, n: int) -> Population:
        """Users who cannot be asked."""
        return _Unknown(n)


class _Unknown(Population):
    def __init__(self, n: int) -> None:
        self.n = n

    @property
    def states(self) -> FloatArray:
        return np.zeros((self.n, 0), np.float32)

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        pass

    def follow(
        self, slates: IntArray, places: IntArray, active: npt.NDArray[np.bool_] | None = None
    ) -> None:
        pass

    def step(
        self, slates: IntArray, keys: KeyArray, active: npt.NDArray[np.bool_] | None = None
    ) -> Response:
        raise _no_world()

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        raise _no_world()

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        raise _no_world()


def _no_world() -> ConfigError:
    return ConfigError("this policy asks learned users what they like: give a run (--run)")
