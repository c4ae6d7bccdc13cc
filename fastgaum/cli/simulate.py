"""`fastgaum simulate`: episodes of a trained user model, as a log that can be read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import HeadOption, Json, RunPath, TablePath, Threads, use_threads
from fastgaum.cli.output import check_outputs, check_table_output, finish, note, write_frames
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import AS_IT_IS, Reading
from fastgaum.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from fastgaum.policies.base import Policy


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Simulation:
    """Who plays with whom, and for how long."""

    episodes: int = 1000
    """how many"""
    slate_size: int | None = None
    """items of a slate; 10, or what a trained policy was trained for, if not given"""
    horizon: int | None = None
    """steps of an episode at most; 20, or a trained policy's own, if not given"""
    leaving: float | None = None
    """probability that a user leaves after a step; 0, or a trained policy's own, if not given"""
    pool: Annotated[
        Literal["fixed", "per_user", "per_step"] | None,
        Parameter(
            help="whether all share one pool of items, or when it is drawn; fixed, or a trained"
            " policy's own, if not given"
        ),
    ] = None
    pool_size: int | None = None
    """items of a pool; 0 or not given: the whole catalogue"""
    policy: Annotated[
        str,
        Parameter(
            help="what makes slates: random, popular or greedy, or a folder written by `fastgaum rl"
            " train`"
        ),
    ] = "random"
    head: HeadOption = None
    starts: Literal["empty", "logged"] = "empty"
    """users begin without history, or within a session of --log"""
    log: str | None = None
    """a log: for logged starts, or a run that reads further fields or context"""
    seed: int = 0
    """seeds everything"""


DEFAULT_SIMULATION = Simulation()


def simulate_command(
    run: RunPath,
    /,
    *,
    out: TablePath,
    simulation: Simulation = DEFAULT_SIMULATION,
    json: Json = None,
    threads: Threads = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Write episodes of a trained user model: session, event, item, chosen, utility, probability.

    One row per displayed candidate: `data audit` and `train` read the file as a log. Episodes are
    written a chunk at a time, and an episode is the same whatever the number of them. A policy that
    was trained plays what it was trained with: its pool, size of slates, horizon and leaving; it
    learns no more."""
    check_table_output(out)
    check_outputs(json)
    from fastgaum.policies.registry import RULES, load_policy, make_policy
    from fastgaum.policies.rollout import Setting
    from fastgaum.policies.trajectories import trajectories
    from fastgaum.worlds.pools import Pool
    from fastgaum.worlds.world_set import world_of_run

    asked, policy = simulation, simulation.policy
    if policy not in RULES and not Path(policy).exists():
        raise ConfigError(
            f"no policy '{policy}'{did_you_mean(policy, RULES)}: give a folder written by "
            f"`fastgaum rl train`, or one of {', '.join(RULES)}"
        )
    setting = Setting(
        10 if asked.slate_size is None else asked.slate_size,
        20 if asked.horizon is None else asked.horizon,
        Pool(asked.pool or "fixed", asked.pool_size or 0, seed=asked.seed),
        leaving=asked.leaving,
    )
    use_threads(threads)
    read = None if asked.log is None else reading.or_of_run(run).load(asked.log)
    world = world_of_run(run, head=asked.head, starts=asked.starts, log=read)
    world.require_contexts()
    made: Policy
    notes: list[str] = []
    if policy in RULES:
        made = make_policy(policy, world)
    else:
        saved = load_policy(Path(policy), world)
        made, trained = saved.policy, saved.setting
        setting = Setting(
            trained.k if asked.slate_size is None else setting.k,
            trained.horizon if asked.horizon is None else setting.horizon,
            trained.pool if asked.pool is None and asked.pool_size is None else setting.pool,
            leaving=trained.leaving if asked.leaving is None else setting.leaving,
        )
        notes = saved.notes(setting, ("horizon", "leaving", "pool"))
        for text in notes:
            note(text)
    with Bar("simulating") as progress:
        frames = trajectories(world, made, setting, asked.episodes, asked.seed, progress)
        n_rows = write_frames(frames, out)
    facts = {
        "path": str(out),
        "run": str(run),
        "policy": policy,
        "episodes": asked.episodes,
        "candidates": n_rows,
        "horizon": setting.horizon,
        "notes": notes,
    }
    finish(f"{out}: {asked.episodes} episodes, {n_rows} candidates", json, facts)
