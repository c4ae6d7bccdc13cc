"""The options of `fastgaum rl`: what is trained, what policies meet, and who judges them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import Settings, parse_settings

if TYPE_CHECKING:
    from fastgaum.policies.rollout import Setting
    from fastgaum.worlds.pools import Pool

Other = Annotated[
    Path | None,
    Parameter(
        name="--in",
        help="a run fitted on other users, in whose world policies play; RUN if not given",
    ),
]


@Parameter(name="*", group="The world")
@dataclass(frozen=True)
class Play:
    """What policies meet."""

    horizon: Annotated[int, Parameter(help="steps of an episode")] = 20
    reward: Annotated[
        Literal["utility", "contrast", "click"],
        Parameter(
            help="what a step earns; contrast: utility less the mean of the pool in the same state"
        ),
    ] = "utility"
    leaving: Annotated[
        float | None,
        Parameter(help="probability that a user leaves after a step; 0 if not given"),
    ] = None

    def setting(self, k: int, pool: Pool) -> Setting:
        """What policies meet, as the library takes it: slates of k items of a pool."""
        from fastgaum.policies.rollout import Setting

        return Setting(k, self.horizon, pool, self.reward, self.leaving)


@Parameter(name="*", group="The world")
@dataclass(frozen=True)
class PlayFromPool(Play):
    """What policies meet, and what slates are made of."""

    pool: Annotated[
        Literal["fixed", "per_user", "per_step"],
        Parameter(help="whether all share one pool of items, or when it is drawn"),
    ] = "fixed"
    pool_size: Annotated[int, Parameter(help="items of a pool; 0: the whole catalogue")] = 0

    def from_items(self, k: int, items: tuple[int, ...] = ()) -> Setting:
        """The same as the library takes it; pools are drawn from `items`, or the catalogue."""
        from fastgaum.worlds.pools import Pool

        return self.setting(k, Pool(self.pool, self.pool_size, items))


@Parameter(name="*")
@dataclass(frozen=True)
class Learning:
    """What is trained."""

    policy: Annotated[str, Parameter(help="cascade-dqn, dqn, slateq or linucb")] = "cascade-dqn"
    k: Annotated[int, Parameter(name=["--k", "-k"], help="items of a slate")] = 3
    settings: Settings = ()
    seed: Annotated[int | None, Parameter(help="seeds every random stream")] = None

    def values(self) -> dict[str, object]:
        """The configuration keys that were given."""
        own = {} if self.seed is None else {"seed": self.seed}
        return parse_settings(self.settings) | own


@Parameter(name="*")
@dataclass(frozen=True)
class Trial:
    """Which policies are compared, where, and how often."""

    policies: Annotated[str, Parameter(help="names, by comma, or all")] = "all"
    k: Annotated[str, Parameter(name=["--k", "-k"], help="sizes of slates, by comma")] = "3,5"
    seeds: Annotated[int, Parameter(help="how often each policy is trained and judged")] = 5
    users: Annotated[int, Parameter(help="users that judge a policy, per seed")] = 1000
    other: Other = None
    log: Annotated[
        str | None, Parameter(help="the run's log, on which wd-lr and wd-ccf are fitted")
    ] = None
    settings: Settings = ()


@Parameter(name="*")
@dataclass(frozen=True)
class NewUsers:
    """Whom a policy adapts to."""

    other: Other = None
    episodes: Annotated[int, Parameter(help="episodes, each with new users")] = 10
    users: Annotated[int, Parameter(help="new users per episode")] = 100
    seeds: Annotated[int, Parameter(help="how often the users are drawn")] = 5
