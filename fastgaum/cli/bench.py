"""`fastgaum bench`: races against rivals on the same data and weights, and promised and paid in
rounds."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fastgaum.cli.options import (
    NO_FILES,
    Flag,
    Settings,
    TableFiles,
    Threads,
    given,
    parse_settings,
    use_threads,
)
from fastgaum.cli.output import (
    check_outputs,
    note,
    say,
    show_block,
    show_table,
    write_json,
    write_tables,
    write_text,
)
from fastgaum.cli.progress import Bar


def bench_command(
    *groups: str,
    list_: Annotated[Flag, Parameter(name="--list")] = False,
    strict: Flag = False,
    smoke: Flag = False,
    files: TableFiles = NO_FILES,
    threads: Threads = None,
) -> int:
    """Time ours against its rivals.

    Args:
        groups: groups to run, or the first letters of their names; all if not given
        list_: print the names of the groups and stop
        strict: exit code 1 also if a target is missed
        smoke: use small sizes, to see that everything runs; the figures mean nothing
    """
    json, markdown = files.json, files.markdown
    check_outputs(json, markdown)
    from fastgaum.bench import report
    from fastgaum.bench.races import choose, run

    chosen = choose(groups)
    if list_:
        write_json(json, {"groups": chosen})
        for group in chosen:
            say(group)
        return 0
    use_threads(threads)
    result = report.races_object(run(chosen, smoke=smoke, say=note))
    write_json(json, result)
    if markdown is not None:
        write_text(markdown, report.to_markdown(result))
    for line in report.machine_lines(result):
        say(line)
    for columns, rows in (
        (report.COLUMNS, report.rows_of(result)),
        (report.FIGURE_COLUMNS, report.figure_rows(result)),
    ):
        if rows:
            show_table(columns, rows)
    for skip in result["skipped"]:
        say(f"not run, {skip['race']}: {skip['reason']}")
    for name in result["failed"]:
        say(f"failed, no speed counts: {name}")
    for line in report.missed(result):
        say(f"missed, {line}")
    return 1 if result["failed"] or (strict and report.missed(result)) else 0


def bench_transfer_command(
    world: str = "items-200",
    /,
    *,
    rounds: int = 8,
    round_events: int = 5000,
    explore: float = 0.1,
    members: int = 3,
    policy: str = "slateq",
    seeds: int = 5,
    seed: int | None = None,
    users: int = 1000,
    settings: Settings = (),
    jobs: int = 1,
    files: TableFiles = NO_FILES,
) -> None:
    """Play rounds among known users.

    Args:
        world: of which true users
        rounds: how often slates are shown, a model fitted and a policy trained; 1: random slates
        round_events: events of a round
        explore: share of the places that are random while a policy is deployed
        members: worlds of the set; 1: one world
        policy: slateq or cascade-dqn
        seeds: how often all of it is done
        seed: the first of them
        users: users that judge a policy, per seed
        jobs: seeds side by side, a thread each
    """
    check_outputs(files.json, files.markdown)
    from fastgaum.bench.experiments.rounds import RoundsPlan, rounds_against_random, rounds_block
    from fastgaum.policies.config import PolicyConfig

    asked = {"evaluations": 1} | parse_settings(settings) | given(seed=seed)
    config = PolicyConfig.from_mapping(asked)
    plan = RoundsPlan(world, rounds, round_events, explore, members, seeds, users, config, policy)
    with Bar("rounds") as progress:
        result = rounds_against_random(plan, jobs, progress)
    block = rounds_block(result)
    write_tables(files, result, [block])
    show_block(block)
