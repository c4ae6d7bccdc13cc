"""The options of `fastgaum rl`: what is trained, what policies meet, and who judges them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import Settings, given, parse_settings
from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from fastgaum.policies.rollout import Setting

Other = Annotated[
    Path | None,
    Parameter(
        name="--in",
        help="a run fitted on other users, in whose world policies play; RUN if not given",
    ),
]


RewardOption = Literal["utility", "contrast", "click"]


@Parameter(name="*", group="The world")
@dataclass(frozen=True)
class PlayAsTrained:
    """What a trained policy meets: what it was trained with, unless told."""

    horizon: int | None = None
    """steps of an episode; the policy's own if not given"""
    reward: RewardOption | None = None
    """what a step earns; the policy's own if not given"""
    leaving: float | None = None
    """probability that a user leaves after a step; the policy's own if not given"""
    log: str | None = None
    """the run's log: for a run that reads further fields or context"""

    def setting(self, trained: Setting) -> Setting:
        """The same as the library takes it."""
        asked = {
            name: value
            for name in ("horizon", "reward", "leaving")
            if (value := getattr(self, name)) is not None
        }
        return dataclasses.replace(trained, **asked)


@Parameter(name="*", group="The world")
@dataclass(frozen=True)
class PlayFromPool:
    """What policies meet, and what slates are made of."""

    horizon: int = 20
    """steps of an episode"""
    reward: RewardOption = "utility"
    """what a step earns; contrast: utility less the mean of the pool in the same state"""
    leaving: float | None = None
    """probability that a user leaves after a step; 0 if not given"""
    log: str | None = None
    """the run's log: for a run that reads further fields or context"""
    pool: Literal["fixed", "per_user", "per_step"] = "fixed"
    """whether all share one pool of items, or when it is drawn"""
    pool_size: int = 0
    """items of a pool; 0: the whole catalogue"""
    pessimism: float = 0.0
    """of a run with worlds above 1: while a policy is trained, a step earns less by so much times
    the disagreement of the worlds about its slate"""

    def from_items(self, k: int, items: tuple[int, ...] = ()) -> Setting:
        """The same as the library takes it; pools are drawn from `items`, or the catalogue."""
        from fastgaum.policies.rollout import Setting
        from fastgaum.worlds.pools import Pool

        pool = Pool(self.pool, self.pool_size, items)
        return Setting(k, self.horizon, pool, self.reward, self.leaving, self.pessimism)


@Parameter(name="*")
@dataclass(frozen=True)
class Learning:
    """What is trained."""

    policy: str = "slateq"
    """slateq or cascade-dqn"""
    k: Annotated[int, Parameter(name=["--k", "-k"])] = 3
    """items of a slate"""
    settings: Settings = ()
    seed: int | None = None
    """seeds every random stream"""

    def values(self) -> dict[str, object]:
        """The configuration keys that were given."""
        return parse_settings(self.settings) | given(seed=self.seed)


@Parameter(name="*")
@dataclass(frozen=True)
class Trial:
    """Which policies are compared, where, and how often."""

    policies: str = "all"
    """names, by comma, or all"""
    k: Annotated[str, Parameter(name=["--k", "-k"])] = "3,5"
    """sizes of slates, by comma"""
    seeds: int = 5
    """how often each policy is trained and judged"""
    users: int = 1000
    """users that judge a policy, per seed"""
    other: Other = None
    settings: Settings = ()

    def sizes(self) -> list[int]:
        """The sizes of slates. Raises ConfigError unless they are whole numbers from 1."""
        try:
            sizes = [int(part) for part in self.k.split(",")]
        except ValueError as error:
            raise ConfigError(f"-k takes whole numbers by comma (3,5), got '{self.k}'") from error
        if min(sizes) < 1:
            raise ConfigError(f"slates have at least 1 item, got -k {self.k}")
        return sizes


@Parameter(name="*")
@dataclass(frozen=True)
class NewUsers:
    """Whom a policy adapts to."""

    other: Other = None
    episodes: int = 10
    """episodes, each with new users"""
    users: int = 100
    """new users per episode"""
    seeds: int = 5
    """how often the users are drawn"""
