"""`fastgaum transfer`: what learned worlds promise of policies, and what the true users, who are
known, then pay."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from fastgaum.cli.options import PlotFiles, Settings, parse_settings
from fastgaum.cli.output import check_outputs, say, show_block, write_tables
from fastgaum.cli.progress import Bar, note_compiling
from fastgaum.errors import ConfigError


@Parameter(name="*")
@dataclass(frozen=True)
class Logged:
    """What the worlds are learned from, and how often all is done."""

    logging: str = "random"
    """who made the slates of the log, by comma: random, popular, greedy; half of the slates of the
    last two are random"""
    events: str | None = None
    """events of the log, by comma; each world's own number if not given"""
    seeds: int = 3
    """logs, fits and trainings of each setting"""
    users: int = 1000
    """users that judge a policy in each world, per seed"""
    members: int = 5
    """worlds of the set in which policies are trained too; 1: one world alone"""
    policy: str = "slateq"
    """what is trained: slateq or cascade-dqn"""
    settings: Settings = ()


DEFAULT_LOGGED, NO_FILES = Logged(), PlotFiles()


def transfer_command(
    *worlds: Annotated[
        str,
        Parameter(
            help="items-10, items-200, items-2000; l2, wide-taste and rivalry, which no model of"
            " this package can learn wholly; or all. The first three if none is given"
        ),
    ],
    logged: Logged = DEFAULT_LOGGED,
    files: PlotFiles = NO_FILES,
    jobs: Annotated[
        int | None, Parameter(help="tasks side by side, one thread each; all cores if not given")
    ] = None,
) -> None:
    """Learn worlds from logs of known users, train policies in them, and compare what they promise
    with what the known users pay. Ctrl-C keeps the seeds that are done."""
    values, events = parse_settings(logged.settings), _numbers(logged.events)
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {jobs}")
    check_outputs(files.json, files.markdown, files.plot)
    from fastgaum.interrupts import Interrupted
    from fastgaum.policies.config import PolicyConfig
    from fastgaum.reports.plots import check_figure
    from fastgaum.reports.promises import Worth
    from fastgaum.reports.table import finite
    from fastgaum.reports.transfer import (
        Task,
        TransferPlan,
        transfer,
        transfer_facts,
        whole_seeds,
    )
    from fastgaum.reports.transfer_table import (
        draw_transfer,
        transfer_blocks,
        transfer_sentence,
    )
    from fastgaum.worlds.known_worlds import WELL_SPECIFIED, known_worlds

    check_figure(files.plot, "--plot")
    plan = TransferPlan(
        known_worlds(worlds or WELL_SPECIFIED),
        tuple(dict.fromkeys(name.strip() for name in logged.logging.split(","))),
        events,
        logged.seeds,
        logged.users,
        PolicyConfig.from_mapping({"evaluations": 1, **values}),
        logged.members,
        logged.policy,
    )
    note_compiling()
    with Bar("learning, training and judging") as progress:

        def on_progress(done: int, total: int, what: str) -> None:
            progress(done, total)
            progress.line(f"[{done}/{total}] {what}")

        done: dict[Task, list[Worth]] = {}
        interrupted = None
        try:
            result = finite(transfer(plan, jobs or os.cpu_count() or 1, on_progress, done))
        except Interrupted as signal:
            whole = len(whole_seeds(plan, done))
            if not whole:
                raise
            signal.cure = f"{whole} of {plan.seeds} seeds are done, the same command makes all"
            result, interrupted = finite(transfer_facts(plan, done)), signal
    blocks = transfer_blocks(result)
    write_tables(files, result, blocks)
    if files.plot is not None:
        draw_transfer(result, files.plot)
    for block in blocks:
        show_block(block)
        say("")
    say(transfer_sentence(result))
    if interrupted is not None:
        raise interrupted


def _numbers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(
            f"--events takes whole numbers by comma (2000,20000), got '{text}'"
        ) from error
