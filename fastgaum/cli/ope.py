"""`fastgaum ope`: what a policy would have earned in a log that another one made."""

from __future__ import annotations

from pathlib import Path

from fastgaum.cli.options import NO_FILES, AllowSeenUsers, ScoredSplit, TableFiles
from fastgaum.cli.output import check_outputs, show_block, write_tables
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import AS_IT_IS, Log, Reading, checked_users


def ope_command(
    source: Log,
    /,
    *,
    policy: str,
    run: Path,
    epsilon: float = 0.0,
    reward: str = "click",
    propensity: str | None = None,
    split: ScoredSplit = "test",
    files: TableFiles = NO_FILES,
    allow_seen_users: AllowSeenUsers = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Estimate what a policy would have earned in a log (off-policy evaluation).

    Args:
        policy: random, popular, greedy, or a folder written by `fastgaum rl train`
        run: a run folder or a model file, whose users follow the logged ones
        epsilon: probability that the policy shows a random set instead of its own
        reward: click, or outcome:NAME, what followed the choice
        propensity: the column with the probability of each display; random sets if not given
    """
    check_outputs(files.json, files.markdown)
    from fastgaum.logs.cut import slice_sessions
    from fastgaum.logs.options import ReadOptions
    from fastgaum.machine import machine_facts
    from fastgaum.models.user_model import UserModel
    from fastgaum.ope import PLACES, Target, off_policy_values
    from fastgaum.reports.table import TableColumn, table_of
    from fastgaum.worlds.learned_world import LearnedWorld
    from fastgaum.worlds.replay import world_of

    model, reading = UserModel.load(run, device="cpu"), reading.or_of_run(run, source)
    with Bar(f"replaying {source}"):
        log = reading.load(source)
        mu, rows = None, log.sessions_in(split)
        if propensity is not None:
            options = ReadOptions.of(context_fields=(propensity,)).over(reading.options)
            part = slice_sessions(reading.with_options(options).load(source), rows)
            mu = part.columns[propensity].values
        seen, world = checked_users(model, log, split, allow_seen_users), world_of(model, log)
        target = Target.named(policy, epsilon, world, LearnedWorld(model, log=log))
        part = slice_sessions(log, rows)
        estimates = off_policy_values(part, target, world, mu, reward=reward).to_dicts()
    facts: dict[str, object] = {"machine": machine_facts(), "split": split, "policy": policy}
    facts |= {
        "epsilon": epsilon,
        "reward": reward,
        "propensity": propensity,
        "seen_users": seen.to_dict(),
    }
    columns = [TableColumn(name, name, digits, none="-") for name, digits in PLACES.items()]
    block = table_of(f"{policy} on {log.name}, 95 % intervals", columns, estimates, [str(seen)])
    write_tables(files, {**facts, "estimates": estimates}, [block])
    show_block(block)
