"""`fastgaum rl`: policies trained in a learned user, what they earn, and how they adapt to new
users."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fastgaum.cli.manual import command, epilogue
from fastgaum.cli.options import (
    COMMON,
    ONE_THREAD,
    FewThreads,
    Flag,
    Json,
    TableFiles,
    parse_settings,
    use_threads,
)
from fastgaum.cli.output import (
    check_outputs,
    finish,
    note,
    show_block,
    show_table,
    write_json,
    write_tables,
)
from fastgaum.cli.play import Learning, NewUsers, PlayAsTrained, PlayFromPool, Trial
from fastgaum.cli.progress import PartsProgress
from fastgaum.cli.reading import AS_IT_IS, Reading
from fastgaum.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import polars as pl

    from fastgaum.cli.reading import LogReading
    from fastgaum.interrupts import Interrupted
    from fastgaum.logs.log import SessionLog
    from fastgaum.policies.base import LearningPolicy
    from fastgaum.policies.evaluation import ComparisonPlan
    from fastgaum.policies.rollout import Setting
    from fastgaum.policies.training import TrainingTerms
    from fastgaum.worlds.learned_world import LearnedWorld
    from fastgaum.worlds.world_set import WorldSet

app = App(
    name="rl",
    help="Policies in a learned user: train, evaluate, adapt.",
    help_epilogue=epilogue("rl"),
)

Run = Annotated[Path, Parameter(help="a run folder written by `fastgaum train`, or a model file")]
AS_TRAINED, PLAY_FROM_POOL = PlayAsTrained(), PlayFromPool()
DEFAULT_LEARNING, DEFAULT_TRIAL, NO_FILES = Learning(), Trial(), TableFiles()
DEFAULT_USERS = NewUsers()


@command(app, "train")
def train_policy_command(
    run: Run,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the folder to write the policy to")],
    learning: Learning = DEFAULT_LEARNING,
    resume: Annotated[
        Flag,
        Parameter(
            help="go on with a training that was cut off, with the options it was begun with"
        ),
    ] = False,
    play: PlayFromPool = PLAY_FROM_POOL,
    json: Json = None,
    threads: FewThreads = ONE_THREAD,
) -> None:
    """Train a policy in a run's world and leave policy.safetensors and curve.parquet.

    While it trains, resume.safetensors holds how far it is; with --resume a training that was cut
    off goes on from there and ends, with as many threads, in the files that it would have left.
    Where no training has begun, --resume begins one."""
    values, policy = learning.values(), learning.policy
    check_outputs(json, resumed=resume)
    from fastgaum.files import atomic
    from fastgaum.locks import folder_lock, require_free
    from fastgaum.policies.config import PolicyConfig
    from fastgaum.policies.registry import POLICY_FILE, require_trained, save_policy, untrained
    from fastgaum.policies.training import TRAINING_FILE, TrainingTerms
    from fastgaum.worlds.world_set import require_set

    require_trained(policy)
    terms = TrainingTerms(policy, play.from_items(learning.k), PolicyConfig.from_mapping(values))
    require_free(out)
    resume = _check_folder(out, resume)
    if resume:
        terms = _begun(out / TRAINING_FILE, terms, values)
    use_threads(threads)
    log = _log(play.log, AS_IT_IS.or_of_run(run))
    world, setting = _world(run, log), terms.setting
    setting.pool.check(world.n_items, setting.k)
    if setting.pessimism:
        require_set(world)
    made = untrained(terms.policy, world, setting.k, setting.pool, terms.config)
    with folder_lock(out):
        table = _trained(
            made,
            world,
            setting,
            out / TRAINING_FILE,
            resume,
            ["rl", "train", str(run), "-o", str(out), *(["--log", play.log] if play.log else [])],
            _sources(run, world, log),
        )
        save_policy(made, out / POLICY_FILE, setting)
        with atomic(out / "curve.parquet") as beside:
            table.write_parquet(beside)
        (out / TRAINING_FILE).unlink()
    last = table.row(-1, named=True)
    figures = f"cumulative reward {last['return']:.3f}, click rate {last['click_rate']:.3f}"
    facts = {
        "path": str(out),
        "run": str(run),
        "policy": terms.policy,
        "k": setting.k,
        "last": last,
    }
    finish(f"{out}: {terms.policy}, {last['steps']:,} steps: {figures}", json, facts)


@command(app, "evaluate")
def evaluate_policies_command(
    run: Run,
    /,
    *,
    trial: Trial = DEFAULT_TRIAL,
    files: TableFiles = NO_FILES,
    play: PlayFromPool = PLAY_FROM_POOL,
    threads: FewThreads = ONE_THREAD,
    reading: Reading = AS_IT_IS,
) -> None:
    """Train each policy in a run's world, seed by seed, and print what they earn there, or in
    another run's world (--in).

    Ctrl-C and SIGTERM end it with a table of the policies that are done."""
    values, sizes = parse_settings(trial.settings), trial.sizes()
    check_outputs(files.json, files.markdown)
    from fastgaum.machine import machine_facts
    from fastgaum.policies.config import PolicyConfig
    from fastgaum.policies.evaluation import ComparisonPlan
    from fastgaum.policies.registry import FITTED, Sources, chosen_names
    from fastgaum.reports.world_tables import policy_blocks
    from fastgaum.worlds.world_set import require_set

    config, names = PolicyConfig.from_mapping(values), chosen_names(trial.policies.split(","))
    use_threads(threads)
    log, other = _log(play.log, reading.or_of_run(run)), trial.other
    own = _world(run, log)
    judge = own if other is None else _world(other, log)
    if play.pessimism:
        require_set(own)
    sources, why = Sources.of(own, log), ""
    if log is None:
        why = "for they are fitted on a log (--log)"
    elif own.catalogue.space.reads_columns:
        why = "for they cannot read the log's columns of simulated candidates"
    missing = [name for name in names if name in FITTED and why]
    if missing and trial.policies != "all":
        raise ConfigError(f"{missing[0]} cannot be played, {why}: give other --policies")
    names = [name for name in names if name not in missing]
    plan = ComparisonPlan(names, sizes, trial.seeds, trial.users, config, own, judge, sources)
    result, interrupted = _compared(plan, play)
    result |= {
        "world": str(run) if other is None else f"{other}, policies of {run}",
        "machine": machine_facts(config.seed),
    }
    result["notes"] = [f"left out, {why}: {', '.join(missing)}"] if missing else []
    if interrupted is not None:
        result["notes"] += [interrupted.cure]
    blocks = policy_blocks(result)
    write_tables(files, result, blocks)
    for block in blocks:
        show_block(block)
    if interrupted is not None:
        raise interrupted


@command(app)
def adapt_command(
    policy: Annotated[Path, Parameter(help="a folder written by `fastgaum rl train`")],
    run: Run,
    /,
    *,
    new: NewUsers = DEFAULT_USERS,
    json: Json = None,
    play: PlayAsTrained = AS_TRAINED,
    threads: FewThreads = ONE_THREAD,
) -> None:
    """Let a policy trained in RUN's world learn from new users, beside an untrained one: the
    adaptation curve.

    Both meet what the policy was trained with: its reward, horizon, leaving and pool, less what the
    other world (--in) does not know of it. They learn from what a site can see: choices, and what
    the users of RUN's world who follow them think of these."""
    check_outputs(json)
    from fastgaum.policies.evaluation import adaptation, adaptation_summary
    from fastgaum.policies.q_learning import QLearner
    from fastgaum.policies.registry import load_policy, untrained
    from fastgaum.policies.transfer import shared_pool
    from fastgaum.reports.table import span

    seeds, other = new.seeds, new.other
    if seeds < 1 or new.episodes < 1:
        raise ConfigError(f"seeds and episodes must be at least 1, got {seeds} and {new.episodes}")
    use_threads(threads)
    log = _log(play.log, AS_IT_IS.or_of_run(run))
    own = _world(run, log)
    judge = own if other is None else _world(other, log)
    loaded = [load_policy(policy, own) for _ in range(seeds)]
    made, trained = [one.policy for one in loaded], loaded[0].setting
    pool, met = shared_pool(trained.pool, own, judge)
    fresh = [
        untrained(one.name, own, trained.k, pool, one.config.replace(seed=i))
        for i, one in enumerate(made)
    ]
    for one in made:
        if isinstance(one, QLearner):
            one.pool = pool
    setting = dataclasses.replace(play.setting(trained), pool=met)
    notes = loaded[0].notes(setting)
    for text in notes:
        note(text)
    policies = {"pre-trained": made, "untrained": fresh}
    curve = adaptation(policies, judge, setting, episodes=new.episodes, n_users=new.users, own=own)
    rows = adaptation_summary(curve)
    if json is not None:
        facts = {
            "policy": str(policy),
            "run": str(run),
            "in": None if other is None else str(other),
            **{name: getattr(setting, name) for name in ("reward", "horizon", "leaving")},
            "notes": notes,
            "rows": rows,
        }
        write_json(json, facts)
    show_table(
        ["policy", "users met", "cumulative reward", "95 %"],
        [
            [row["policy"], f"{row['users']:,}", f"{row['return']:.3f}", span(row["ci"], 3)]
            for row in rows
        ],
        title=f"{made[0].name} in {other or run}, k = {setting.k}, {setting.reward} of "
        f"{setting.horizon} steps",
    )


def _compared(
    plan: ComparisonPlan, play: PlayFromPool
) -> tuple[dict[str, Any], Interrupted | None]:
    """The comparison, and what interrupted it; its rows are then those that were done.

    Raises:
        Interrupted: before the first row.
    """
    from fastgaum.interrupts import Interrupted
    from fastgaum.policies.evaluation import Earned, compare_policies, comparison_facts

    done: list[Earned] = []
    try:
        with PartsProgress("policies", "seeds", lines=True) as progress:
            return compare_policies(plan, play.from_items, progress, done), None
    except Interrupted as interrupted:
        if not done:
            raise
        rows = len(plan.names) * len(plan.sizes)
        interrupted.cure = f"the table has {len(done)} of {rows} rows, the same command makes all"
        return comparison_facts(plan, play.from_items, done), interrupted


def _trained(
    made: LearningPolicy,
    world: LearnedWorld | WorldSet,
    setting: Setting,
    file: Path,
    resume: bool,
    command: list[str],
    sources: dict[str, str],
) -> pl.DataFrame:
    """Train, kept in a file; a signal ends it after the present episode and says how to go on."""
    from fastgaum.interrupts import Interrupted, stop_on_signals
    from fastgaum.policies.training import TrainingFile, train_policy

    with stop_on_signals() as stop:
        kept = TrainingFile(file, made, setting, stop, sources)
        start = kept.load() if resume else None
        try:
            with PartsProgress("training", "episodes", lines=True) as progress, stop.deferred():
                return train_policy(
                    made,
                    world,
                    setting,
                    lambda done, total, row: progress(
                        done, total, f"cumulative reward {row['return']:.3f}" if row else ""
                    ),
                    kept,
                    start,
                )
        except Interrupted as interrupted:
            done = f"{kept.saved.episodes} of {made.config.episodes} episodes are kept"
            cure = f"{done}; go on with: {shlex.join(['fastgaum', *command, '--resume'])}"
            raise Interrupted(interrupted.signum, cure) from None


def _log(name: str | None, reading: LogReading) -> SessionLog | None:
    return None if name is None else reading.load(name)


def _world(run: Path, log: SessionLog | None) -> LearnedWorld | WorldSet:
    """A run's world, or set of worlds, which reads the log if the run reads more of one than items
    and choices."""
    from fastgaum.models.user_model import UserModel
    from fastgaum.worlds.world_set import world_of_model

    model = UserModel.load(run)
    reads = model.space is not None and model.space.reads_columns
    world = world_of_model(model, log=log if reads else None)
    world.require_contexts()
    return world


def _sources(run: Path, world: LearnedWorld | WorldSet, log: SessionLog | None) -> dict[str, str]:
    """Fingerprints of what a run's world was made of: its model, and the log if it reads it."""
    model = run / "model.safetensors" if run.is_dir() else run
    with model.open("rb") as file:
        found = {"run": hashlib.file_digest(file, "sha256").hexdigest()}
    if log is not None and world.catalogue.space.reads_columns:
        found["log"] = log.fingerprint
    return found


def _check_folder(folder: Path, resume: bool) -> bool:
    """Whether a training goes on in a folder: `resume` is asked for, and one has begun. Raises
    OutputError or ConfigError unless it may begin, or go on."""
    from fastgaum.policies.registry import POLICY_FILE
    from fastgaum.policies.training import TRAINING_FILE

    if resume and COMMON.overwrite:
        raise ConfigError("--resume goes on, --overwrite begins a new training: pass one of them")
    if folder.is_file():
        raise OutputError(f"'{folder}' is a file: a policy needs a folder")
    finished, begun = (folder / POLICY_FILE).exists(), (folder / TRAINING_FILE).exists()
    if resume and finished and not begun:
        raise OutputError(f"the training in '{folder}' is done: there is nothing to resume")
    if begun and not resume and not COMMON.overwrite:
        raise OutputError(
            f"'{folder}' holds a training that was cut off: pass --resume or --overwrite"
        )
    check_outputs(folder / POLICY_FILE, folder / TRAINING_FILE, resumed=resume)
    if resume and not begun:
        note(f"{folder}: there is no training to go on with, this one begins")
    return resume and begun


def _begun(file: Path, asked: TrainingTerms, values: dict[str, object]) -> TrainingTerms:
    """What a training was begun with; an option given with --resume must be the same or its
    default."""
    from fastgaum.policies.training import TrainingTerms

    begun = TrainingTerms.load(file)
    start = TrainingTerms(
        DEFAULT_LEARNING.policy, PLAY_FROM_POOL.from_items(DEFAULT_LEARNING.k), asked.config
    )
    before, given, default = (_options(begun, values), _options(asked, values), _options(start, ()))
    for name, value in given.items():
        if value not in (before[name], default.get(name)):
            raise ConfigError(
                f"the training in '{file.parent}' was begun with {name} {before[name]}, not "
                f"{value}: leave it out"
            )
    return begun


def _options(terms: TrainingTerms, keys: Iterable[str]) -> dict[str, object]:
    """Terms as the command line gives them, with these keys of the configuration."""
    setting = terms.setting
    return {
        "--policy": terms.policy,
        "-k": setting.k,
        "--horizon": setting.horizon,
        "--reward": setting.reward,
        "--leaving": setting.leaving,
        "--pool": setting.pool.rule,
        "--pool-size": setting.pool.size,
        "--pessimism": setting.pessimism,
        **{f"--set {key}": getattr(terms.config, key) for key in keys},
    }
