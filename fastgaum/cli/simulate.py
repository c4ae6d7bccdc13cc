"""`fastgaum simulate`: episodes of a trained user model, as a log that can be read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.console import Json, check_outputs, finish
from fastgaum.cli.frames import check_frame_output, write_frames
from fastgaum.cli.progress import EventProgress
from fastgaum.cli.reading import AS_IT_IS, Reading
from fastgaum.cli.settings import set_threads
from fastgaum.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from fastgaum.policies.base import Policy


def simulate(
    run: Annotated[Path, Parameter(help="a run folder, or a model file")],
    /,
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="the table to write: .parquet or .csv")
    ],
    episodes: Annotated[int, Parameter(help="how many")] = 1000,
    slate_size: Annotated[
        int | None,
        Parameter(
            help="items of a slate; 10, or what a trained policy was trained for, if not given"
        ),
    ] = None,
    horizon: Annotated[int, Parameter(help="steps of an episode at most")] = 20,
    leaving: Annotated[
        float | None,
        Parameter(help="probability of leaving after a step; nobody leaves if not given"),
    ] = None,
    pool: Annotated[
        Literal["fixed", "per_user", "per_step"] | None,
        Parameter(
            help="whether all share one pool of items, or when it is drawn; fixed, or a trained"
            " policy's own, if not given"
        ),
    ] = None,
    pool_size: Annotated[
        int | None, Parameter(help="items of a pool; the whole catalogue if not given")
    ] = None,
    policy: Annotated[
        str,
        Parameter(
            help="what makes slates: random, popular, greedy, greedy-click, wd-lr or wd-ccf"
            " (fitted on --log), or a folder written by `fastgaum rl train`"
        ),
    ] = "random",
    head: Annotated[
        Literal["generator", "reward"] | None,
        Parameter(help="who chooses; the generator if the run has one"),
    ] = None,
    starts: Annotated[
        Literal["empty", "logged"],
        Parameter(help="users begin without history, or within a session of --log"),
    ] = "empty",
    log: Annotated[
        str | None,
        Parameter(
            help="a log: for logged starts, fitted policies, or a run that reads further fields"
        ),
    ] = None,
    seed: Annotated[int, Parameter(help="seeds everything")] = 0,
    json: Json = None,
    threads: Annotated[int | None, Parameter(help="threads to use; all cores if not given")] = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Write episodes of a trained user model: session, event, item, chosen, utility, probability.

    One row per displayed candidate: `data audit` and `train` read the file as a log. Episodes are
    written a chunk at a time, and an episode is the same whatever the number of them. A policy that
    was trained plays its own pool and size of slates, and learns no more."""
    check_frame_output(out)
    check_outputs(out, json)
    from fastgaum.policies.policy_file import load_policy
    from fastgaum.policies.registry import POLICIES, TRAINED, Sources, make_policy
    from fastgaum.policies.trajectories import Episodes, trajectories
    from fastgaum.worlds.open_world import open_world

    named = policy in POLICIES and policy not in TRAINED
    if not named and not Path(policy).exists():
        raise ConfigError(
            f"no policy '{policy}'{did_you_mean(policy, POLICIES)}: give a folder written by "
            "`fastgaum rl train`, or one of"
            f" {', '.join(name for name in POLICIES if name not in TRAINED)}"
        )
    plan = Episodes(
        episodes,
        10 if slate_size is None else slate_size,
        horizon,
        pool or "fixed",
        pool_size,
        leaving,
        seed,
    )
    set_threads(threads)
    read = None if log is None else reading.or_of_run(run).load(log)
    world = open_world(run, None, {"head": head, "starts": starts, "log": read})
    made: Policy
    if named:
        made = make_policy(policy, world, Sources.of(world, read), seed)
    else:
        made, k, own = load_policy(Path(policy), world)
        plan = dataclasses.replace(plan, slate_size=k if slate_size is None else slate_size)
        if pool is None and pool_size is None:
            plan = dataclasses.replace(plan, pool=own)
    with EventProgress("simulating") as progress:
        n_rows = write_frames(trajectories(world, plan, made, progress), out)
    facts = {
        "path": str(out),
        "run": str(run),
        "policy": policy,
        "episodes": episodes,
        "candidates": n_rows,
    }
    finish(f"{out}: {episodes} episodes, {n_rows} candidates", json, facts)
