"""`fastgaum rl`: policies trained in a learned user, and their rewards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import (
    NO_FILES,
    ONE_THREAD,
    FewThreads,
    JsonFile,
    Settings,
    TableFiles,
    given,
    parse_settings,
    use_threads,
)
from fastgaum.cli.output import check_outputs, finish, show_block, write_tables
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import log_of_run
from fastgaum.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from fastgaum.policies.rollout import Setting
    from fastgaum.worlds.learned_world import LearnedWorld
    from fastgaum.worlds.world_set import WorldSet

Run = Annotated[Path, Parameter(help="a run folder written by `fastgaum train`, or a model file")]
Other = Annotated[
    Path | None,
    Parameter(
        name="--in",
        help="a run of other users, on whom policies are tested; RUN if not given",
    ),
]
RewardOption = Literal["utility", "contrast", "surplus", "click"]


@Parameter(name="*", group="The world")
@dataclass(frozen=True)
class Play:
    """What policies meet, and what slates are made of."""

    horizon: int = 20
    """steps of an episode"""
    reward: RewardOption = "utility"
    """what a step earns: the utility; the same less the mean of the pool (contrast); what the whole
    slate is worth (surplus), right where users always choose; a click"""
    leaving: float | None = None
    """probability that a user leaves after a step; 0 if not given"""
    log: str | None = None
    """the run's log, if the run reads fields or context"""
    pool: Literal["fixed", "per_user", "per_step"] = "fixed"
    """the items to choose from: the same for all, or drawn for each user, or for each step"""
    pool_size: int = 0
    """items of a pool; 0: all items"""
    pessimism: float = 0.0
    """penalty on slates about which the models of a set disagree (0: none)"""

    def from_items(self, seed: int, k: int, items: tuple[int, ...] = ()) -> Setting:
        """The same as the library takes it; `seed` draws a fixed pool, others from `items`."""
        from fastgaum.policies.rollout import Setting
        from fastgaum.worlds.pools import Pool

        pool = Pool(self.pool, self.pool_size, items, seed)
        return Setting(k, self.horizon, pool, self.reward, self.leaving, self.pessimism)


DEFAULT_PLAY = Play()


def rl_train_command(
    run: Run,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the folder to write the policy to")],
    policy: str = "slateq",
    k: Annotated[int, Parameter(name=["--k", "-k"])] = 3,
    settings: Settings = (),
    seed: int | None = None,
    play: Play = DEFAULT_PLAY,
    json: JsonFile = None,
    threads: FewThreads = ONE_THREAD,
) -> None:
    """Train a policy on the users of a run; write policy.safetensors and curve.parquet.

    A training that is stopped writes neither: start it again.

    Args:
        policy: slateq or cascade-dqn
        k: items of a slate
        seed: seed of everything random
    """
    check_outputs(json)
    from fastgaum.files import atomic
    from fastgaum.locks import folder_lock, require_free
    from fastgaum.policies.config import PolicyConfig
    from fastgaum.policies.evaluation import advise, judge_seeds
    from fastgaum.policies.heuristics import Greedy
    from fastgaum.policies.registry import POLICY_FILE, require_trained, save_policy, untrained
    from fastgaum.policies.training import train_policy
    from fastgaum.worlds.world_set import WorldSet, require_set

    require_trained(policy)
    config = PolicyConfig.from_mapping(parse_settings(settings) | given(seed=seed))
    setting = play.from_items(config.seed, k)
    require_free(out)
    if out.is_file():
        raise OutputError(f"'{out}' is a file: a policy needs a folder")
    check_outputs(out / POLICY_FILE)
    use_threads(threads)
    world, _ = _worlds(play.log, run)
    setting.pool.check(world.n_items, setting.k)
    if setting.pessimism:
        require_set(world)
    made = untrained(policy, world, setting.k, setting.pool, config)
    with folder_lock(out):
        with Bar("training") as bar:

            def show(done: int, total: int, row: dict[str, object]) -> None:
                bar(done, total, f"cumulative reward {row['return']:.3f}" if row else "")

            table = train_policy(made, world, setting, show)
        save_policy(made, out / POLICY_FILE, setting)
        with atomic(out / "curve.parquet") as beside:
            table.write_parquet(beside)
    last = table.row(-1, named=True)
    figures = f"cumulative reward {last['return']:.3f}, click rate {last['click_rate']:.3f}, "
    figures += f"decoys {last['decoys']:.1%}"
    facts = {"path": str(out), "run": str(run), "policy": policy, "k": k, "last": last}
    advice = "one world cannot say whether greedy slates earn more: train a run with folds=5"
    if isinstance(world, WorldSet):
        (found,) = advise([judge_seeds([one], world, setting) for one in (made, Greedy())])
        facts["advice"], advice = found.to_dict(), str(found)
    elif made.not_recommended:
        advice += f"; not recommended: {made.not_recommended}"
    finish(f"{out}: {policy}, {last['steps']:,} steps: {figures}; {advice}", json, facts)


def rl_evaluate_command(
    run: Run,
    /,
    *,
    policies: str = "all",
    k: Annotated[str, Parameter(name=["--k", "-k"])] = "3,5",
    seeds: int = 5,
    users: int = 1000,
    other: Other = None,
    settings: Settings = (),
    files: TableFiles = NO_FILES,
    play: Play = DEFAULT_PLAY,
    threads: FewThreads = ONE_THREAD,
) -> None:
    """Train each policy on the users of a run, once per seed, and print what it earns from them, or
    from the users of another run (--in).

    Args:
        policies: names, separated by commas, or all
        k: sizes of slates, separated by commas
        seeds: how often each policy is trained and tested
        users: users on whom a policy is tested, per seed
    """
    values = parse_settings(settings)
    try:
        # each once
        sizes = [*dict.fromkeys(int(part) for part in k.split(","))]
    except ValueError as error:
        raise ConfigError(f"-k takes whole numbers separated by commas (3,5), got '{k}'") from error
    if min(sizes) < 1:
        raise ConfigError(f"slates have at least 1 item, got -k {k}")
    check_outputs(files.json, files.markdown)
    from fastgaum.machine import machine_facts
    from fastgaum.policies.config import PolicyConfig
    from fastgaum.policies.evaluation import ComparisonPlan, compare_policies
    from fastgaum.policies.registry import chosen_names
    from fastgaum.reports.world_tables import policy_blocks
    from fastgaum.worlds.world_set import require_set

    config, names = PolicyConfig.from_mapping(values), chosen_names(policies.split(","))
    use_threads(threads)
    own, judge = _worlds(play.log, run, other)
    if play.pessimism:
        require_set(own)
    plan = ComparisonPlan(names, sizes, seeds, users, config, own, judge)
    with Bar("policies") as progress:
        result = compare_policies(plan, partial(play.from_items, config.seed), progress)
    result |= {
        "world": str(run) if other is None else f"{other}, policies of {run}",
        "machine": machine_facts(config.seed),
    }
    blocks = policy_blocks(result)
    write_tables(files, result, blocks)
    for block in blocks:
        show_block(block)


def _worlds(
    log: str | None, run: Path, other: Path | None = None
) -> tuple[LearnedWorld | WorldSet, LearnedWorld | WorldSet]:
    """Worlds, or sets of them, of a run and the other one; both read the log as RUN does."""
    from fastgaum.models.user_model import UserModel
    from fastgaum.worlds.world_set import world_of_model

    read, worlds = None if log is None else log_of_run(run, log, None, "train"), []
    for one in (run, other or run):
        model = UserModel.load(one)
        reads = model.space is not None and model.space.reads_columns
        worlds.append(world_of_model(model, log=read if reads else None))
        worlds[-1].require_contexts()
        if other is None:
            break
    return worlds[0], worlds[-1]
