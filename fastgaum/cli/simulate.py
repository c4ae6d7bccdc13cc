"""`fastgaum simulate`: episodes of a trained user model, as a log that can be read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastgaum.cli.options import (
    DataDir,
    EpisodesPath,
    HeadOption,
    JsonFile,
    RunPath,
    Threads,
    given,
    use_threads,
)
from fastgaum.cli.output import check_outputs, check_table_output, finish, note, write_frames
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import log_of_run

if TYPE_CHECKING:
    from fastgaum.policies.base import Policy

MINARI = ".minari"
"""ending of a folder for Minari"""


def simulate_command(
    run: RunPath,
    /,
    *,
    out: EpisodesPath,
    episodes: int = 1000,
    slate_size: int | None = None,
    horizon: int | None = None,
    leaving: float | None = None,
    pool: Literal["fixed", "per_user", "per_step"] | None = None,
    pool_size: int | None = None,
    policy: str = "random",
    head: HeadOption = None,
    starts: Literal["empty", "logged"] = "empty",
    log: str | None = None,
    seed: int = 0,
    json: JsonFile = None,
    threads: Threads = None,
    data_dir: DataDir = None,
) -> None:
    """Write episodes of a trained user model.

    Args:
        episodes: how many
        slate_size: items of a slate; 10, or a trained policy's own, if not given
        horizon: steps of an episode at most; 20, or a trained policy's own, if not given
        leaving: probability that a user leaves after a step; 0, or a policy's own, if not given
        pool: whether all share one pool of items, or when it is drawn; fixed, or a policy's own
        pool_size: items of a pool; 0 or not given: the whole catalogue
        policy: makes slates: random, popular, greedy, or a folder written by `fastgaum rl train`
        starts: users begin without history, or within a session of --log
        log: for logged starts, or a run that reads further fields or context
        seed: seeds everything
    """
    check_table_output(out, MINARI)
    check_outputs(json)
    from fastgaum.policies import registry
    from fastgaum.policies.rollout import Setting
    from fastgaum.policies.trajectories import trajectories
    from fastgaum.worlds.pools import Pool
    from fastgaum.worlds.world_set import world_of_run

    if policy not in registry.RULE_NAMES:
        registry.find_policy(Path(policy))
    use_threads(threads)
    read = None if log is None else log_of_run(run, log, data_dir)
    world = world_of_run(run, head=head, starts=starts, log=read)
    world.require_contexts()
    changes = given(k=slate_size, horizon=horizon, leaving=leaving)
    if pool is not None or pool_size is not None or policy in registry.RULE_NAMES:
        changes["pool"] = Pool(pool or "fixed", pool_size or 0, seed=seed)
    made: Policy
    notes: list[str] = []
    if policy in registry.RULE_NAMES:
        made = registry.make_policy(policy, registry.popularity_in(world))
        setting = replace(Setting(10, 20), **changes)
    else:
        saved = registry.load_policy(Path(policy), world)
        made, own = saved.policy, saved.setting
        setting = replace(own, **changes)
        notes = saved.notes(setting, ("horizon", "leaving", "pool"))
        for text in notes:
            note(text)
    with Bar("simulating") as progress:
        if out.suffix == MINARI:
            from fastgaum.policies.minari_export import write_minari

            n, what = write_minari(world, made, setting, episodes, out, seed, progress), "steps"
        else:
            frames = trajectories(world, made, setting, episodes, seed, progress)
            n, what = write_frames(frames, out), "candidates"
    facts = {"path": str(out), "run": str(run), "policy": policy, "episodes": episodes}
    facts |= {what: n, "horizon": setting.horizon, "notes": notes}
    finish(f"{out}: {episodes} episodes, {n} {what}", json, facts)
