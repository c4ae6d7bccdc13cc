"""The users of a log as a world for planning, and advice by users whom the plan has not met.

    home, away = fg.halves(fg.load("clicks.csv"), seed=0)
    users = fg.users(home)
    plan = users.train("slateq", k=3)
    print(plan.advice())
    print(fg.judge([plan, "greedy", "random"], among=fg.users(away)))
    plan.save("plan")

A plan is trained in a set of worlds, each a fit without one fold of the users, and is paid in each.
How far these leads over greedy slates lie apart says how far the log decides."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fastgaum.errors import ConfigError, as_given, require_path, require_type, require_whole
from fastgaum.html_view import html_view
from fastgaum.logs.log import SessionLog, require_log
from fastgaum.logs.splits import split_to_fit
from fastgaum.models.user_model import UserModel
from fastgaum.policies import evaluation
from fastgaum.policies.advice import Advice
from fastgaum.policies.base import Policy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import Earned, difference
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.registry import (
    LEARNERS,
    POLICY_FILE,
    make_policy,
    popularity_in,
    require_trained,
    save_policy,
    untrained,
)
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train_policy
from fastgaum.policies.transfer import setting_in, shared_pool
from fastgaum.worlds.env_options import Leaving, Reward
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet

MakePolicy = Callable[[WorldSet, Setting], Policy]


def users(
    log: SessionLog,
    *,
    folds: int = 5,
    seed: int = 0,
    progress: bool | None = None,
    **settings: Any,
) -> LearnedUsers:
    """Learn the users of a log for planning: all of its sessions, whatever their split.

    Args:
        log: of users; its ids of items name them in pools.
        folds: worlds, each of which leaves out one part of the users, from 2.
        seed: of the folds and of every fit.
        progress: whether a bar shows how far it is; None: on a terminal and in a notebook.
        settings: of the preset `planning`, by name.

    Raises:
        ConfigError: an impossible setting, or a log with context, which the users of another world
            do not have.
    """
    return LearnedUsers(log, folds, seed, settings, progress)


class LearnedUsers:
    """The users of a log as a set of worlds for planning.

    Attributes:
        world: the set; each member is a fit that left out a fold of the users.
        reward: what a step pays unless it is said: `click`, or `surplus` where users always choose.
    """

    def __init__(
        self,
        log: SessionLog,
        folds: int,
        seed: int,
        settings: dict[str, Any],
        progress: bool | None = None,
    ) -> None:
        """As `users`."""
        require_log(log)
        require_whole("folds", folds, 2)
        require_whole("seed", seed)
        if log.context:
            raise ConfigError(
                f"the log has the context fields {', '.join(log.context)}, which users of another "
                "world do not have: read it without them (context=())"
            )
        self.seed = seed
        self.reward: Reward = "click" if log.has_no_click else "surplus"
        self.log = log.with_split(split_to_fit(log.user_hashes, seed))
        values = {"folds": folds, "seed": seed, **settings}
        self.model = UserModel.from_preset("planning", **values)
        self.model.fit(self.log, progress=progress)
        self.world = WorldSet.of(self.model, log=self.log)

    def __repr__(self) -> str:
        n = len(self.world.worlds)
        return f"LearnedUsers({self.log!r}, {n} worlds, paid in {self.reward})"

    def setting(
        self,
        k: int = 3,
        *,
        horizon: int = 20,
        pool: Sequence[object] | pl.Series | Pool | None = None,
        reward: Reward | None = None,
        leaving: Leaving | None = None,
    ) -> Setting:
        """The terms that policies meet: slates of k items, from a pool of items named by their ids,
        a `Pool`, or all. Raises ConfigError for an impossible value or an unknown item."""
        if not isinstance(pool, Pool):
            pool = Pool(items=() if pool is None else self._numbers_of(pool))
        made = Setting(k, horizon, pool, self.reward if reward is None else reward, leaving)
        made.pool.check(self.world.n_items, k)
        made.pays.require_world(self.world)
        return made

    def _numbers_of(self, ids: Sequence[object] | pl.Series) -> tuple[int, ...]:
        number = {item: at for at, item in enumerate(self.world.item_ids.to_list())}
        unknown = [str(item) for item in ids if str(item) not in number]
        if unknown or not len(ids):
            raise ConfigError(
                f"a pool names items of the log, and it names {', '.join(unknown[:5]) or 'none'}: "
                f"they are {', '.join([*number][:5])}, …"
            )
        return tuple(number[str(item)] for item in ids)

    def train(
        self,
        policy: str | MakePolicy = "slateq",
        k: int = 3,
        *,
        horizon: int = 20,
        pool: Sequence[object] | pl.Series | Pool | None = None,
        reward: Reward | None = None,
        leaving: Leaving | None = None,
        **config: object,
    ) -> Plan:
        """Train a policy in the set of worlds.

        Args:
            policy: slateq or cascade-dqn, or a function of a world and a setting that makes one.
            k: items of a slate.
            horizon: steps of an episode.
            pool: ids of the items that slates are made of, or a `Pool`; None: all.
            reward: as `EnvOptions`; None: the users' own.
            leaving: probability of leaving after a step.
            config: of `PolicyConfig`, by name.

        Raises:
            ConfigError: an impossible value, or a learner's setting for a policy of one's own.
        """
        setting = self.setting(k, horizon=horizon, pool=pool, reward=reward, leaving=leaving)
        if isinstance(policy, str):
            require_trained(policy)
            values = PolicyConfig.from_mapping({"seed": self.seed, **config})
            made = untrained(policy, self.world, k, setting.pool, values)
            train_policy(made, self.world, setting)
            return Plan(self, setting, made)
        if config or not callable(policy):
            raise ConfigError(
                f"policy is {as_given(policy)}: {', '.join(LEARNERS)}, or a function of a world "
                f"and a setting, which takes no setting of theirs ({', '.join(config)})"
            )
        return Plan(self, setting, policy(self.world, setting))

    def env(self, num_envs: int = 1, **options: Any) -> UserVectorEnv:
        """The users as a vector environment; options as `UserVectorEnv`."""
        return UserVectorEnv(num_envs, world=self.world, **{"reward": self.reward, **options})


@dataclass(frozen=True)
class Plan:
    """A policy that was trained on learned users."""

    users: LearnedUsers
    setting: Setting
    policy: Policy

    def advice(self, n_users: int = 2000) -> Advice:
        """Whether to deploy it in place of greedy slates, by `n_users` of its own worlds. Raises
        ConfigError for fewer users than worlds."""
        world, setting = self.users.world, self.setting
        judged = [
            evaluation.judge_seeds([one], world, setting, n_users)
            for one in (self.policy, Greedy())
        ]
        found = evaluation.advise(judged, self.users.log.n_events)
        if not found:
            raise ConfigError(
                f"{n_users} users do not live in each of {len(world.worlds)} worlds: take more"
            )
        return found[0]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the policy and the model of its world into a folder, which `fastgaum rl` and
        `load_policy` read. Raises ConfigError for a policy that no file keeps, OutputError."""
        require_path("folder", folder)
        if not isinstance(self.policy, QLearner):
            raise ConfigError(
                f"{self.policy.name} is a policy of your own: save it yourself; files keep "
                f"{', '.join(LEARNERS)}"
            )
        path = Path(folder)
        self.users.model.save(path / "model.safetensors")
        save_policy(self.policy, path / POLICY_FILE, self.setting)


@dataclass(frozen=True)
class Judged:
    """What policies are paid by the same users, beside greedy slates where these were judged."""

    rows: tuple[Earned, ...]
    setting: Setting
    trained_otherwise: tuple[str, ...] = ()
    """plans that were trained for another reward or horizon, and for which"""

    @property
    def reward(self) -> str:
        """What a policy was paid in."""
        return self.setting.pays.name

    def to_frame(self) -> pl.DataFrame:
        """A row per policy: paid an episode; lead over greedy with its 95 % interval, paired by
        user; share of clicks, decoys, diversity and coverage (`measure_displays`)."""
        return pl.DataFrame([*self._rows()])

    def _rows(self) -> Iterator[dict[str, object]]:
        base = next((row for row in self.rows if row.policy == Greedy.name), None)
        for row in self.rows:
            lead = None if base is None or base is row else difference(row, base)
            yield {
                "policy": row.policy,
                self.reward: float(row.returns.mean()),
                "lead": None if lead is None else lead.mean,
                "low": None if lead is None else lead.low,
                "high": None if lead is None else lead.high,
                "clicks": float(row.click_rates.mean()),
                **{name: float(row.displays[name].mean()) for name in ("decoys", "diversity")},
                "coverage": float(row.displays["coverage"].mean()),
            }

    def _texts(self) -> tuple[list[str], list[list[str]]]:
        frame = self.to_frame()
        cells = [
            ["" if one is None else one if isinstance(one, str) else f"{one:.3f}" for one in row]
            for row in frame.rows()
        ]
        return frame.columns, cells

    def __str__(self) -> str:
        columns, cells = self._texts()
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [columns, *cells]
        ]
        return "\n".join([*lines, self._note()])

    def _note(self) -> str:
        paid = _paid_in(self.setting)
        paid = "; ".join([paid, *self.trained_otherwise])
        if all(row.policy != Greedy.name for row in self.rows):
            return paid
        return (
            f"{paid}; lead over greedy slates, 95 % interval over users of these worlds: what "
            "another fit would say is in Plan.advice"
        )

    def _repr_html_(self) -> str:
        columns, cells = self._texts()
        return html_view("Policies, judged by learned users", columns, cells, [self._note()])


def judge(
    policies: Sequence[Plan | Policy | str],
    among: LearnedUsers | World,
    *,
    n_users: int = 1000,
    setting: Setting | None = None,
    own: LearnedUsers | World | None = None,
) -> Judged:
    """Play plans, policies and rules by name (greedy, popular, random) with the same users.

    Greedy slates and policies read the utilities of the first plan's world, without a plan those of
    `own` or of `among`. Items that the other world does not know are left out. The interval is over
    users of one pair of worlds: what another fit would say is in `Plan.advice`.

    Args:
        policies: at least one; an agent of Stable-Baselines3 as `Sb3Policy(agent)`.
        among: who chooses: learned users, or a world.
        n_users: users who play.
        setting: terms in the policies' world; None: those of the first plan's training, else of
            `LearnedUsers.setting`, by `own` or `among`, else `Setting()`.
        own: where policies were made, if none is a plan.

    Raises:
        ConfigError: no policy, an unknown name, or worlds without a common item.
    """
    met = among.world if isinstance(among, LearnedUsers) else among
    home = met if own is None else own.world if isinstance(own, LearnedUsers) else own
    require_type("among", met, World)
    require_type("own", home, World)
    if not isinstance(policies, Sequence) or isinstance(policies, str) or not policies:
        raise ConfigError(
            "policies are judged as a list of plans, policies and names, at least one, got "
            f"{as_given(policies)}"
        )
    for one in policies:
        if not isinstance(one, Plan | Policy | str):
            raise ConfigError(
                f"{as_given(one)} is no plan, policy or name: give an agent of Stable-Baselines3 "
                "as Sb3Policy(agent), of fastgaum.policies.sb3"
            )
    plans = [one for one in policies if isinstance(one, Plan)]
    made_in = plans[0].users.world if plans else home
    terms = setting or (plans[0].setting if plans else _terms_of(own, among))
    pool = shared_pool(terms.pool, made_in, met)[1]
    judged = dataclasses.replace(setting_in(met, terms, made_in), pool=pool)
    rows: list[Earned] = []
    otherwise = []
    for one in policies:
        world = one.users.world if isinstance(one, Plan) else made_in
        if isinstance(one, str):
            played: Policy = make_policy(one, popularity_in(made_in))
        else:
            played = one.policy if isinstance(one, Plan) else one
        row = evaluation.judge_seeds([played], met, judged, n_users, world)
        alike = sum(row.policy == one.policy.partition(" ")[0] for one in rows)
        rows.append(dataclasses.replace(row, policy=f"{row.policy} {alike + 1}") if alike else row)
        if isinstance(one, Plan) and _paid_in(one.setting) != _paid_in(terms):
            otherwise.append(f"{rows[-1].policy} was trained for {_paid_in(one.setting)}")
    return Judged(tuple(rows), terms, tuple(otherwise))


def _paid_in(setting: Setting) -> str:
    return f"{setting.pays.name} an episode of {setting.horizon} steps"


def _terms_of(*users: LearnedUsers | World | None) -> Setting:
    found = next((one for one in users if isinstance(one, LearnedUsers)), None)
    return Setting() if found is None else found.setting()
