"""Rounds: deploy, log, refit, retrain, judge, and again. A log of random slates does not show the
states that a plan leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.config import Config
from fastgaum.errors import ConfigError, LogFormatError, as_given
from fastgaum.logs.columns import parse_flags
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.logs.splits import shuffled_split
from fastgaum.models.user_model import UserModel
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import (
    JUDGING_SEED,
    judging_members,
    lower_bound_of,
    member_means,
    recommend,
)
from fastgaum.policies.explore import Explore
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.registry import require_trained, untrained
from fastgaum.policies.rollout import EpisodeResult, Setting, play
from fastgaum.policies.slateq import SlateQ
from fastgaum.policies.training import train_policy
from fastgaum.policies.trajectories import trajectories
from fastgaum.policies.transfer import TransferPolicy, item_map, setting_in
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet, world_of_model

ShowSlates = Callable[[Policy, World | None, int, int], pl.DataFrame]
"""A site, called with a policy, the learned world whose users it reads (None for random slates), a
number of sessions and a seed; returns a frame of session, event, item, chosen, of user if users
come again, and of more if it likes."""
ROWS = ("session", "event", "item", "chosen")
PLAN = "plan"
MODEL: dict[str, object] = {"set_context": False, "relations": False, "folds": 3}
"""what changes of the preset `fastgaum`"""
FITTED = (0.75, 0.25, 0.0)
"""shares of the log's users who train, validate and test: the next round is the test"""
APART = 32
"""bits by which seeds of rounds lie apart"""


@dataclass(frozen=True)
class Round:
    """What one round has seen, made and measured. Returns are by policy: `plan`, the trained one,
    and `greedy` slates, of the same users, each (users,)."""

    number: int
    """from 1"""
    shown: pl.DataFrame
    """what the site returned in this round"""
    log: SessionLog
    """of all rounds so far"""
    world: LearnedWorld | WorldSet
    policy: QLearner
    """trained in the world, with `setting`"""
    setting: Setting
    at_home: Mapping[str, FloatArray]
    """returns of the world's own new users"""
    members: IntArray | None
    """the member of a set that each of these lives in, (users,); None of one world"""
    at_site: Mapping[str, FloatArray]
    """returns of new users of the site, also of `random` slates; empty where that is no world"""
    decoys: Mapping[str, float]
    """share of decoys in what the world's own users saw (`measure_displays`)"""

    def to_dict(self) -> dict[str, Any]:
        """Figures for JSON: events so far, clicks of a session of this round, and by policy the
        mean return that is promised, its `lower_bound_of` the members, what was paid, and the
        share of decoys."""
        bound = {}
        if self.members is not None:
            for name, returns in self.at_home.items():
                bound[name] = lower_bound_of(member_means(returns, self.members), self.world.folds)
        decoys, folds = None if self.world.outside else self.decoys, self.world.folds
        advice = recommend(self.at_home, self.members, decoys=decoys, folds=folds)
        clicks = parse_flags(self.shown["chosen"], "0 or 1 is required").sum()
        return {
            "round": self.number,
            "events": self.log.n_events,
            "clicks": float(clicks / self.shown["session"].n_unique()),
            "promised": _means(self.at_home),
            "bound": bound,
            "paid": _means(self.at_site),
            "decoys": dict(self.decoys),
            "recommended": Greedy.name if advice is None else advice.policy,
        }


def rounds(
    site: World | ShowSlates,
    setting: Setting,
    *,
    n_rounds: int = 8,
    round_events: int = 5000,
    explore: float = 0.1,
    log: pl.DataFrame | None = None,
    model: Config | None = None,
    learner: str = SlateQ.name,
    training: PolicyConfig | None = None,
    users: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Iterator[Round]:
    """Deploy, log, refit, retrain and judge, so many times; yields a record per round.

        for one in fastgaum.rounds(world, Setting(k=3, reward="click")):
            print(one.to_dict())

    Args:
        site: whose users are met: a world, or a function (`ShowSlates`) that shows slates to users
            of one's own and returns the log.
        setting: terms of training and judging, whose functions of reward and leaving are told a
            world's own numbers of items, and among learned users the learned world's states. Of a
            function's site pools name no items, and numbers are the learned world's too.
        n_rounds: how many.
        round_events: events of a round, in sessions of the setting's horizon.
        explore: share of the places that are random while the plan is deployed.
        log: what has been logged before, in place of the first round's random slates.
        model: what is fitted to all that was logged; the preset `fastgaum` without set context and
            relations, as a set of three worlds, if not given.
        learner: slateq or cascade-dqn.
        training: of the policy.
        users: that judge, in the learned world and at the site.
        seed: of all logs, fits, trainings and judging users.
        progress: is called with rounds done, rounds in all, and what is done now.

    Raises:
        ConfigError: a number is impossible, or slates or pools do not fit the site.
        LogFormatError: the site returned no log.
        NumericsError: a fit or a training diverged.
    """
    if n_rounds < 1 or round_events < setting.horizon or users < 1 or seed < 0:
        raise ConfigError(
            f"at least 1 round of {setting.horizon} events (a session), 1 user and a seed from 0 "
            f"are required, got {n_rounds} rounds of {round_events} events, {users} users and "
            f"seed {seed}"
        )
    require_trained(learner)
    if isinstance(site, World):
        setting.pool.check(site.n_items, setting.k)
        show = shows_in(site, setting)
    elif callable(site) and setting.pool.items:
        raise ConfigError(
            f"the setting's pool names {len(setting.pool.items)} items by number, and a site that "
            "is a function has no item numbers: name none, or give a world as the site"
        )
    elif callable(site):
        show = site
    else:
        raise ConfigError(f"a site is a world or a function that shows, got {as_given(site)}")
    # a share that is none is refused before anything is shown
    Explore(RandomPolicy(), explore)
    config = (model or Config.from_preset("fastgaum", **MODEL)).replace(seed=seed)
    lessons = (training or PolicyConfig(evaluations=1)).replace(seed=seed)
    judges, met = (users, JUDGING_SEED + seed), replace(setting, pessimism=0.0)

    def play_rounds() -> Iterator[Round]:
        deployed: Policy = RandomPolicy()
        own: LearnedWorld | WorldSet | None = None
        frames: list[pl.DataFrame] = []
        chance = {}
        if isinstance(site, World):
            chance = {RandomPolicy.name: play(site, RandomPolicy(), met, *judges).returns}
        for number in range(1, n_rounds + 1):
            progress(number - 1, n_rounds, "showing slates")
            if log is not None and number == 1:
                shown = log
            else:
                n_sessions, at = round_events // setting.horizon, (number - 1) << APART
                shown = show(deployed, own, n_sessions, seed + at)
            frames.append(logged_rows(shown, number, frames[0].columns if frames else None))
            read = read_log(pl.concat(frames, how="vertical_relaxed"), name=f"{number} rounds")
            of_users = shuffled_split(int(read.users.max()) + 1, seed, FITTED)
            read = replace(read, split=of_users[read.users])
            progress(number - 1, n_rounds, f"fitting {read.n_events:,} events")
            fitted = UserModel(config)
            fitted.fit(read)
            own, home = world_at(site, fitted, setting)
            progress(number - 1, n_rounds, "training")
            plan = untrained(learner, own, setting.k, home.pool, lessons)
            train_policy(plan, own, home)
            deployed = Explore(plan, explore, "place")
            progress(number - 1, n_rounds, "judging")
            judged = {PLAN: plan, Greedy.name: Greedy()}
            promised = episodes_of(judged, own, own, replace(home, pessimism=0.0), judges)
            at_home = {name: one.returns for name, one in promised.items()}
            decoys = {name: one.decoy_share for name, one in promised.items()}
            members = judging_members(own, users, [seed])
            lives_in, at_site = None if members is None else members[0], dict(chance)
            if isinstance(site, World):
                paid = episodes_of(judged, own, site, met, judges)
                at_site |= {name: one.returns for name, one in paid.items()}
            yield Round(number, shown, read, own, plan, home, at_home, lives_in, at_site, decoys)
        progress(n_rounds, n_rounds, "done")

    return play_rounds()


def episodes_of(
    policies: Mapping[str, Policy],
    own: World,
    world: World,
    setting: Setting,
    judges: tuple[int, int],
) -> dict[str, EpisodeResult]:
    """An episode of the same new users of a world, by policy; `judges` are their number and their
    seed."""
    found = {}
    for name, policy in policies.items():
        player = policy if world is own else TransferPolicy(policy, own, world)
        found[name] = play(world, player, setting, *judges)
    return found


def shows_in(world: World, setting: Setting) -> ShowSlates:
    """A site whose users are those of a world."""

    def show(policy: Policy, own: World | None, n_sessions: int, seed: int) -> pl.DataFrame:
        player = policy if own is None else TransferPolicy(policy, own, world)
        return pl.concat(trajectories(world, player, setting, n_sessions, seed))

    return show


def logged_rows(shown: pl.DataFrame, number: int, former: list[str] | None) -> pl.DataFrame:
    """The rows of a round, whose sessions are others than those of any other round, and whose users
    stay who they are; `former`: columns of the rounds before. Raises LogFormatError for anything
    else than a frame with these columns."""
    columns = getattr(shown, "columns", ())
    wanted = former or [*ROWS, *(["user"] if "user" in columns else [])]
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise LogFormatError(
            f"the site returned {as_given(shown)} without {', '.join(missing)} in round {number}: "
            f"return a polars frame of {', '.join(wanted)}"
        )
    if "user" in columns and "user" not in wanted:
        raise LogFormatError(
            f"the site returned a column user in round {number} and none before: name users in "
            "each round, or in none"
        )
    return shown.select(
        pl.format("{}: {}", pl.lit(number), "session").alias("session"),
        "event",
        pl.col("item").cast(pl.String),
        "chosen",
        *[pl.col(name).cast(pl.String) for name in wanted if name == "user"],
    )


def world_at(
    site: World | ShowSlates, fitted: UserModel, setting: Setting
) -> tuple[LearnedWorld | WorldSet, Setting]:
    """The learned world of a site, and the setting in its numbers of items. It knows every item of
    a site that is a world, those too that were not shown yet."""
    if not isinstance(site, World):
        return world_of_model(fitted), setting
    new = ~site.item_ids.is_in(LearnedWorld(fitted).item_ids.implode())
    own = world_of_model(fitted, further=site.item_ids.filter(new))
    among = setting.pool.among(site.n_items)
    items = tuple(item_map(own, site)[among].tolist())
    home = setting_in(own, setting, site)
    return own, replace(home, pool=replace(setting.pool, items=items))


def _means(returns: Mapping[str, FloatArray]) -> dict[str, float]:
    return {name: float(found.mean(dtype=np.float64)) for name, found in returns.items()}
