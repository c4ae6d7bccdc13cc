"""`fastgaum simulate`: episodes of a trained user model, as a log that can be read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastgaum.cli.options import (
    DataDir,
    HeadOption,
    JsonFile,
    RunPath,
    TablePath,
    Threads,
    given,
    use_threads,
)
from fastgaum.cli.output import check_outputs, check_table_output, finish, note, write_frames
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import log_of_run

if TYPE_CHECKING:
    from fastgaum.policies.base import Policy


def simulate_command(
    run: RunPath,
    /,
    *,
    out: TablePath,
    episodes: int = 1000,
    slate_size: int | None = None,
    horizon: int | None = None,
    leaving: float | None = None,
    pool: Literal["fixed", "per_user", "per_step"] | None = None,
    pool_size: int | None = None,
    policy: str = "random",
    explore: float = 0.0,
    head: HeadOption = None,
    starts: Literal["empty", "logged"] = "empty",
    log: str | None = None,
    seed: int = 0,
    json: JsonFile = None,
    threads: Threads = None,
    data_dir: DataDir = None,
) -> None:
    """Simulate sessions of a trained user model and write them as a log.

    The first N episodes are the same, however many you ask for. A trained policy plays with the
    settings of its training and does not learn.

    Args:
        episodes: number of episodes
        slate_size: items of a slate; if not given 10, or as the policy was trained
        horizon: most steps of an episode; if not given 20, or as the policy was trained
        leaving: probability of leaving after a step; if not given 0, or as the policy was trained
        pool: the items to choose from: the same for all, or drawn for each user, or for each step
        pool_size: items of a pool; 0 or not given: all items
        policy: what is shown: random, popular, greedy, or a folder written by `fastgaum rl train`
        explore: share of the slates that are random sets of the pool
        starts: where users start: without a history, or within a session of --log
        log: a log for logged starts, and for a run that reads fields or context
        seed: seed of everything random
    """
    check_table_output(out)
    check_outputs(json)
    from fastgaum.policies import registry
    from fastgaum.policies.explore import Explore
    from fastgaum.policies.rollout import Setting
    from fastgaum.policies.trajectories import trajectories
    from fastgaum.worlds.pools import Pool
    from fastgaum.worlds.world_set import world_of_run

    if policy not in registry.RULE_NAMES:
        registry.find_policy(Path(policy))
    use_threads(threads)
    read = None if log is None else log_of_run(run, log, data_dir, "train")
    world = world_of_run(run, head=head, starts=starts, log=read)
    world.require_contexts()
    changes = given(k=slate_size, horizon=horizon, leaving=leaving)

    def asked(own: Setting) -> Setting:
        pool_asked = replace(own.pool, **given(rule=pool, size=pool_size))
        return replace(own, pool=pool_asked, **changes)

    made: Policy
    notes: list[str] = []
    if policy in registry.RULE_NAMES:
        made = registry.make_policy(policy, registry.popularity_in(world))
        setting = asked(Setting(10, 20, Pool(seed=seed)))
    else:
        saved = registry.load_policy(Path(policy), world)
        made, setting = saved.policy, asked(saved.setting)
        notes = saved.notes(setting)
        for text in notes:
            note(text)
    if starts == "logged":
        notes.append(
            "the rows begin after each user's logged start, which is not written: a fit, predict "
            "or ope on them treats every user as new"
        )
        note(notes[-1])
    if explore:
        made = Explore(made, explore)
    with Bar("simulating") as progress:
        n = write_frames(trajectories(world, made, setting, episodes, seed, progress), out)
    facts = {"path": str(out), "run": str(run), "policy": policy, "episodes": episodes}
    facts |= {"candidates": n, "horizon": setting.horizon, "notes": notes}
    finish(f"{out}: {episodes} episodes, {n} candidates", json, facts)
