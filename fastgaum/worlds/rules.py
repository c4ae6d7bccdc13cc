"""The options of an environment; what it pays and when a user leaves: the named rules, and the
check of a user's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, NumericsError, as_given, did_you_mean, require_whole
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.models.choice_model import Head
from fastgaum.worlds.observations import ObservationKind
from fastgaum.worlds.pools import Pool, PoolKind
from fastgaum.worlds.world import FloatArray, IntArray, Response

RewardRule = Callable[[Response, IntArray, FloatArray], npt.NDArray[np.generic]]
"""reward(response, slates, states): response of n users to slates (n, k) of items, states after it
(n, state_dim); returns one finite number per user, shape (n,). Arrays are the environment's own:
read them, keep copies."""
LeavingRule = Callable[[Response, IntArray, FloatArray], npt.NDArray[Any]]
"""leaving(response, steps, states): response of n users, steps that their episodes have taken with
this one (n,), states after it (n, state_dim); returns each user's probability of leaving now, shape
(n,)."""
Reward = Literal["utility", "click"] | RewardRule
Leaving = float | Sequence[float] | npt.NDArray[np.generic] | LeavingRule


@dataclass(frozen=True)
class EnvOptions:
    """What an environment shows, pays and ends by. Raises ConfigError for an impossible value."""

    slate_size: int = 10
    """places of a slate"""
    pool: PoolKind | Sequence[int] | IntArray | Pool = "fixed"
    """fixed: one for all users and episodes; per_user: one per user and episode; per_step; the item
    numbers of a fixed pool; or a `Pool`, the rule that policies are trained with"""
    pool_size: int | None = None
    """items of a pool; None or 0: the whole catalogue, or all the items given"""
    pool_seed: int = 0
    """what a fixed pool is drawn by; `reset(seed=…)` does not change it"""
    reward: Reward = "utility"
    """utility, click, or a function"""
    horizon: int | None = 20
    """steps of an episode; None: until the user leaves"""
    leaving: Leaving | None = None
    """probability of leaving after a step; None: no user leaves"""
    observation: ObservationKind = "flat"
    """flat or dict"""
    features: bool | None = None
    """observe the pool's item features; None: if pools are not fixed"""
    strict: bool = False
    """a place named twice in a slate is an error"""
    copy: bool = True
    """return new observations; False: views that the next step overwrites"""
    disagreement: bool = False
    """say in `info` how far the members of a set of worlds disagree about each slate; a step then
    costs as much as one in each member. The two options below say it too"""
    pessimism: float = 0.0
    """the reward is less by so much times the disagreement"""
    truncate_above: float | None = None
    """an episode ends, as a truncation, with a step of more disagreement than this"""

    def __post_init__(self) -> None:
        require_whole("slate_size", self.slate_size, 1)
        if self.horizon is None and self.leaving is None:
            raise ConfigError(
                "horizon and leaving are both None: an episode would never end, give one of them"
            )
        if self.horizon is not None:
            require_whole("horizon", self.horizon, 1)
        for name in ("pessimism", "truncate_above"):
            if not isinstance(getattr(self, name), int | float | None):
                raise ConfigError(
                    f"{name} is {as_given(getattr(self, name))}, a number is required"
                )
        check_pessimism(self.pessimism)
        if self.truncate_above is not None and not 0 <= self.truncate_above <= 1:
            raise ConfigError(
                f"truncate_above is {self.truncate_above}, and a disagreement is from 0 to 1: give "
                "such a number"
            )

    @property
    def follow_all(self) -> bool:
        """Whether the disagreement of a set of worlds is needed."""
        return self.disagreement or self.pessimism > 0 or self.truncate_above is not None


class EnvKeywords(TypedDict, total=False):
    """The fields of `EnvOptions` and the options of `LearnedWorld`, as an environment takes
    them by name; here for type checkers."""

    slate_size: int
    pool: PoolKind | Sequence[int] | IntArray | Pool
    pool_size: int | None
    pool_seed: int
    reward: Reward
    horizon: int | None
    leaving: Leaving | None
    observation: ObservationKind
    features: bool | None
    strict: bool
    copy: bool
    disagreement: bool
    pessimism: float
    truncate_above: float | None
    head: Head | None
    log: str | os.PathLike[str] | SessionLog | None
    starts: Literal["empty", "logged"]
    split: SplitName
    n_features: int
    further: pl.Series | None


def check_pessimism(value: float) -> None:
    """Raise ConfigError unless it is a finite number of at least 0."""
    # a NaN fails the comparison
    if not 0 <= value < np.inf:
        raise ConfigError(
            f"pessimism is {value}, a number of at least 0 is required: what a step loses per unit "
            "of disagreement"
        )


def utility(response: Response, slates: IntArray, states: FloatArray) -> FloatArray:
    """The learned utility of the choice, 0 for no click."""
    return response.utilities


def click(response: Response, slates: IntArray, states: FloatArray) -> npt.NDArray[np.generic]:
    """1 for a choice, 0 for none."""
    return response.places >= 0


REWARDS: dict[str, RewardRule] = {"utility": utility, "click": click}


def reward_rule(reward: Reward) -> RewardRule:
    """The rule of a name, or the user's own. Raises ConfigError for an unknown name."""
    if callable(reward):
        return _checked(reward, "reward")
    if reward not in REWARDS:
        raise ConfigError(
            f"reward is '{reward}', one of {', '.join(REWARDS)} or a function is "
            f"required{did_you_mean(reward, REWARDS)}"
        )
    return REWARDS[reward]


def leaving_rule(leaving: Leaving) -> LeavingRule:
    """The rule of a constant probability, of one per step (the last holds for all later ones), or
    the user's own.

    Raises:
        ConfigError: a probability is not in [0, 1].
    """
    if callable(leaving):
        return _checked(leaving, "leaving")
    hazards = np.atleast_1d(np.asarray(leaving, np.float64))
    # a NaN fails the comparison
    if hazards.ndim != 1 or len(hazards) == 0 or not np.all((hazards >= 0) & (hazards <= 1)):
        raise ConfigError(
            f"leaving is {leaving!r}: a probability in [0, 1], or a row of them by step, is "
            "required"
        )

    def by_step(response: Response, steps: IntArray, states: FloatArray) -> npt.NDArray[np.generic]:
        return np.asarray(hazards[np.minimum(steps, len(hazards)) - 1])

    return by_step


def session_leaving(log: SessionLog, split: SplitName = "train") -> npt.NDArray[np.float64]:
    """Learn when users leave from a log: of the sessions with an event t, the share whose last it
    is.

    Lengths 1, 2, 2 → [1/3, 1]. Raises ConfigError if the split has no session.

    Returns:
        leaving probability after event 1, 2, … of a session, shape (longest session,): `leaving` of
        an environment.
    """
    lengths = np.diff(log.session_offsets)[log.sessions_in(split)]
    if len(lengths) == 0:
        raise ConfigError(
            f"the log has no {split} session to learn leaving from: choose another split"
        )
    ended = np.bincount(lengths)[1:]
    return np.asarray(ended / np.cumsum(ended[::-1])[::-1])


def _checked(
    rule: Callable[[Response, IntArray, FloatArray], npt.NDArray[np.generic]], what: str
) -> RewardRule:
    """A user's own rule that raises NumericsError unless it gives one finite number per user."""

    def rule_checked(
        response: Response, second: IntArray, states: FloatArray
    ) -> npt.NDArray[np.generic]:
        values, n = np.asarray(rule(response, second, states)), len(response.places)
        if values.shape != (n,):
            raise NumericsError(
                f"the {what} function returned shape {values.shape}, one number per user, ({n},), "
                "is required"
            )
        if not np.isfinite(values).all():
            user = int(np.flatnonzero(~np.isfinite(values))[0])
            raise NumericsError(
                f"the {what} function returned {values[user]} for user {user}, a finite one is "
                "required"
            )
        return values

    return rule_checked
