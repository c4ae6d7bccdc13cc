"""The options of an environment; what it pays and when a user leaves."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from fastgaum.arrays import FloatArray, IntArray, KeyArray
from fastgaum.errors import (
    ConfigError,
    NumericsError,
    as_given,
    did_you_mean,
    require_known,
    require_path,
    require_type,
    require_whole,
)
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import CandidateRule, Pool, PoolKind, draw_distinct
from fastgaum.worlds.world import Population, Response, World
from fastgaum.worlds.world_set import WorldSet, world_of_run

ObservationKind = Literal["flat", "dict"]
End = Literal["truncation", "termination"]
RewardRule = Callable[[Response, IntArray, FloatArray], npt.NDArray[np.generic]]
"""reward(response, slates, states): response of n users to slates (n, k), states after it (n,
state_dim); returns one finite number per user, (n,). Copy the arrays to keep them."""
LeavingRule = Callable[[Response, IntArray, FloatArray], npt.NDArray[Any]]
"""leaving(response, steps, states): steps of each user's episode with this one, (n,), states after
it (n, state_dim); returns each user's probability of leaving now, (n,)."""
RewardName = Literal["utility", "contrast", "surplus", "click"]
Reward = RewardName | str | RewardRule
OF_OUTCOME = "outcome:"
"""before the name of an outcome that is paid"""
OF_MEAN = 8
"""items of a pool whose mean stands for that of the pool"""
Leaving = float | Sequence[float] | npt.NDArray[np.generic] | LeavingRule


@dataclass(frozen=True)
class EnvOptions:
    """What an environment shows, pays and ends by. Raises ConfigError for an impossible value."""

    slate_size: int = 10
    """places of a slate"""
    pool: PoolKind | Sequence[int] | IntArray | Pool | CandidateRule = "fixed"
    """fixed: one for all users and episodes; per_user: one per user and episode; per_step; the item
    numbers of a fixed pool; a `Pool`; or a function from states, (n, state_dim), to the items of
    pools, (n, pool_size), asked anew in every step (`LearnedWorld.user_vectors`)"""
    pool_size: int | None = None
    """items of a pool; None or 0: the whole catalogue, or all the items given"""
    reward: Reward = "utility"
    """utility: the user's utility of the choice, 0 for none; contrast: the same less the mean
    utility of the pool in the same state, which choices identify even where the log never offers no
    click; surplus: what the whole slate is worth to the user (`Population.surplus`), and where
    users always choose less that mean; click: 1 for a choice; outcome:NAME: the number that
    followed the choice, or for outcome:NAME=VALUE 1 where this did, 0 without a choice; or a
    function. Where users always
    choose, take surplus: utility and contrast pay most for one good item among items that nobody
    picks"""
    horizon: int | None = 20
    """steps of an episode; None: until the user leaves"""
    end: End = "truncation"
    """truncation: the horizon cuts the episode off, and an agent counts what would have followed.
    termination: nothing follows, and the flat observation has the time left; it is `time = true` of
    the learners (`PolicyConfig`)"""
    leaving: Leaving | None = None
    """probability of leaving after a step; None: no user leaves"""
    observation: ObservationKind = "flat"
    """flat: the state; dict: all that utilities depend on"""
    features: bool | None = None
    """observe the pool's item features; None: if pools are not fixed"""
    strict: bool = False
    """a place named twice in a slate is an error"""
    disagreement: bool = False
    """say in `info` how far the members of a set of worlds disagree about each slate; a step then
    costs as much as one in each member, as with `pessimism`"""
    pessimism: float = 0.0
    """the reward is less by so much times the disagreement"""

    def __post_init__(self) -> None:
        require_whole("slate_size", self.slate_size, 1)
        if self.horizon is None and self.leaving is None:
            raise ConfigError(
                "horizon and leaving are both None: an episode would never end, give one of them"
            )
        if self.horizon is not None:
            require_whole("horizon", self.horizon, 1)
        for name, kind in (("observation", ObservationKind), ("end", End)):
            require_known(name, getattr(self, name), get_args(kind))
        if self.end == "termination" and self.horizon is None:
            raise ConfigError("end is termination and horizon is None: give the steps after which")
        StepReward(self.reward)
        check_pessimism(self.pessimism)

    @property
    def follow_all(self) -> bool:
        """Whether the disagreement of a set of worlds is needed."""
        return self.disagreement or self.pessimism > 0


def check_pessimism(value: float) -> None:
    """Raise ConfigError unless it is a finite number of at least 0."""
    # a NaN fails the comparison
    if not isinstance(value, int | float) or not 0 <= value < np.inf:
        raise ConfigError(
            f"pessimism is {as_given(value)}, a number of at least 0 is required: what a step "
            "loses per unit of disagreement"
        )


class StepReward:
    """The reward of a step; `name` is the reward's, of a function its own."""

    def __init__(self, reward: Reward) -> None:
        """Take a reward. Raises ConfigError for an unknown name or other parameters."""
        names = get_args(RewardName)
        self.name, self._rule = "", None
        if callable(reward):
            self._rule = _checked(reward, "reward", "response, slates, states")
            self.name = str(getattr(reward, "__name__", type(reward).__name__))
        elif reward in names or (isinstance(reward, str) and reward.startswith(OF_OUTCOME)):
            self.name = reward
        else:
            raise ConfigError(
                f"reward is {as_given(reward)}, one of {', '.join(names)}, {OF_OUTCOME}NAME or a "
                f"function is required{did_you_mean(str(reward), names)}"
            )
        self._label = ""
        if self._rule is None and self.name.startswith(OF_OUTCOME):
            self._label = self.name.removeprefix(OF_OUTCOME)
        self._column = 0

    @property
    def is_surplus(self) -> bool:
        """Whether it pays what a whole slate is worth."""
        return self._rule is None and self.name == "surplus"

    def require_world(self, world: World) -> None:
        """Raise ConfigError for the surplus of users who do not choose by the softmax of their
        utilities, and for an outcome that the world does not draw."""
        if self._label:
            labels = world.outcome_labels
            if self._label not in labels:
                raise ConfigError(
                    f"reward is {self.name}, and no outcome of this world is '{self._label}': "
                    f"{', '.join(labels) or 'it draws none'}"
                    f"{did_you_mean(self._label, labels)}; train on a log with that outcome "
                    "(--outcome COLUMN)"
                )
            self._column = labels.index(self._label)
        if self.is_surplus and not world.is_logit:
            raise ConfigError(
                "the reward surplus is the value of a slate to users who choose by the softmax of "
                f"their utilities, and those of this {type(world).__name__} do not: train with "
                "regulariser = shannon and eta = 1, or take another reward"
            )

    def before(
        self,
        users: Population,
        slates: IntArray,
        pools: IntArray,
        no_click: bool,
        keys: KeyArray | None = None,
        known: FloatArray | None = None,
    ) -> FloatArray | float:
        """What a step pays before its choice from slates (n, k): the slate's surplus, less the
        mean utility of each user's pool, (m,) or (n, m), where the reward is one of them; else 0.
        Shape (n,).

        Args:
            users: before the choice.
            slates: items shown.
            pools: the items that slates were made of.
            no_click: whether users may choose nothing.
            keys: of the users' draws of OF_MEAN items that stand for a larger pool, so that the
                mean is right in expectation; None: it is that of all.
            known: the utilities of the pools, (n, m), where they were asked for already.
        """
        paid: FloatArray | float = 0.0
        if self.is_surplus:
            paid = users.surplus(slates, no_click)
        of_pool = self._rule is None and self.name == "contrast"
        if of_pool or (self.is_surplus and not no_click):
            k, m = slates.shape[1], pools.shape[-1]
            if known is None:
                if keys is not None and m > OF_MEAN:
                    places = draw_distinct(keys, m, OF_MEAN)
                    pools = (
                        pools[places] if pools.ndim == 1 else np.take_along_axis(pools, places, 1)
                    )
                known = users.utilities(pools, min(k, m))
            paid = paid - np.asarray(known.mean(axis=1, dtype=np.float64), np.float32)
        return paid

    def of(
        self,
        response: Response,
        slates: IntArray,
        states: FloatArray,
        before: FloatArray | float,
    ) -> FloatArray:
        """Each user's reward, shape (n,), a new array, of items shown (n, k) and states after the
        choice (n, state_dim); `before`: what `before` says. Raises NumericsError unless a function
        gives one finite number per user."""
        if self._rule is not None:
            return np.array(self._rule(response, slates, states), np.float32)
        if self._label:
            assert response.outcomes is not None
            return np.nan_to_num(response.outcomes[:, self._column], nan=0.0)
        if self.name == "click":
            return (response.places >= 0).astype(np.float32)
        of_choice = np.float32(0) if self.is_surplus else response.utilities
        return np.array(of_choice + before, np.float32)


def leaving_rule(leaving: Leaving, world: World | None = None) -> LeavingRule:
    """The rule of a constant probability, of one per step (the last holds for all later ones), or
    the user's own. Raises ConfigError for a probability outside [0, 1], and for one per step where
    the world's users start within logged sessions."""
    if callable(leaving):
        return _checked(leaving, "leaving", "response, steps, states")
    try:
        hazards = np.atleast_1d(np.asarray(leaving, np.float64))
    except (TypeError, ValueError):
        hazards = np.full(1, np.nan)
    # a NaN fails the comparison
    if hazards.ndim != 1 or len(hazards) == 0 or not np.all((hazards >= 0) & (hazards <= 1)):
        raise ConfigError(
            f"leaving is {leaving!r}: a probability in [0, 1], or a row of them by step, is "
            "required"
        )
    first = world.first if isinstance(world, WorldSet) else world
    if len(hazards) > 1 and isinstance(first, LearnedWorld) and first.starts is not None:
        raise ConfigError(
            f"leaving is a row of {len(hazards)} probabilities by step, and users start within "
            "logged sessions, whose events are no steps: make the world with starts='empty', or "
            "give one probability or a function"
        )
    return lambda response, steps, states: hazards[np.minimum(steps, len(hazards)) - 1]


def session_leaving(log: SessionLog, split: SplitName = "train") -> npt.NDArray[np.float64]:
    """Leaving probability after event 1, 2, … of a log's sessions: the share of those with that
    event whose last it is (lengths 1, 2, 2 → [1/3, 1]). Raises ConfigError for a split without a
    session."""
    lengths = np.diff(log.session_offsets)[log.sessions_in(split)]
    if len(lengths) == 0:
        raise ConfigError(
            f"the log has no {split} session to learn leaving from: choose another split"
        )
    ended = np.bincount(lengths)[1:]
    return np.asarray(ended / np.cumsum(ended[::-1])[::-1])


def _checked(
    rule: Callable[[Response, IntArray, FloatArray], npt.NDArray[np.generic]],
    what: str,
    parameters: str,
) -> RewardRule:
    """A user's own rule that raises NumericsError unless it gives one finite number per user, of
    leaving a probability."""
    name = getattr(rule, "__name__", type(rule).__name__)
    try:
        signature = inspect.signature(rule)
    except (TypeError, ValueError):  # one written in C need not say what it takes
        signature = None
    try:
        if signature is not None:
            signature.bind(*parameters.split(", "))
    except TypeError:
        raise ConfigError(
            f"a {what} function is called with ({parameters}), and {name} takes {signature}: "
            f"write def {name}({parameters})"
        ) from None

    def rule_checked(
        response: Response, second: IntArray, states: FloatArray
    ) -> npt.NDArray[np.generic]:
        values, n = np.asarray(rule(response, second, states)), len(response.places)
        if values.shape != (n,):
            raise NumericsError(
                f"the {what} function returned shape {values.shape}, one number per user, ({n},), "
                "is required"
            )
        fits, kind = np.isfinite(values), "finite one"
        if what == "leaving":
            fits, kind = (values >= 0) & (values <= 1), "probability in [0, 1]"
        if not fits.all():
            user = int(fits.argmin())
            raise NumericsError(
                f"the {what} function returned {values[user]} for user {user}, a {kind} is required"
            )
        return values

    return rule_checked


def world_of_options(
    run: str | os.PathLike[str] | None,
    world: World | None,
    options: dict[str, object],
    others: list[str],
) -> World:
    """The world given, or that of a run with these options; `others` are further known names."""
    if (run is None) == (world is None):
        raise ConfigError(
            "an environment is made of a run or of a world: pass run='RUN' or world=…, one of them"
        )
    known = [] if run is None else list(inspect.signature(LearnedWorld).parameters)[1:]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"an environment has no option '{name}'{did_you_mean(name, [*others, *known])}"
            )
    if world is not None:
        require_type("world", world, World)
        return world
    assert run is not None
    require_path("run", run)
    return world_of_run(run, **options)


def mode_of(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode of a name. Raises ConfigError for an unknown one."""
    known = {name: one for one in AutoresetMode for name in (one.name, one.value)}
    if isinstance(mode, AutoresetMode):
        return mode
    require_known("autoreset_mode", mode, known)
    return known[mode]
