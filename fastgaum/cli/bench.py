"""`fastgaum bench`: races against rivals on the same data and weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fastgaum.cli.options import NO_FILES, Flag, TableFiles, Threads, use_threads
from fastgaum.cli.output import check_outputs, note, say, show_table, write_json, write_text
from fastgaum.errors import ConfigError, require_whole


def bench_command(
    *groups: str,
    list_: Annotated[Flag, Parameter(name="--list")] = False,
    strict: Flag = False,
    smoke: Flag = False,
    units: Path | None = None,
    seeds: int = 9,
    files: TableFiles = NO_FILES,
    threads: Threads = None,
) -> int:
    """Measure speeds on this machine, beside other libraries; `decisions`: how often advice is
    right.

    Exit code 1 if a result was wrong; with --strict also if a target was missed.

    Args:
        groups: groups to run, or the first letters of their names; all if not given. `decisions`
            alone: no race, but the table of decisions, half a minute for each unit
        list_: print the names of the groups and stop
        strict: exit code 1 also if a target is missed
        smoke: use small sizes, to see that everything runs; the figures mean nothing
        units: file of the units of `decisions`, a line each; those that it holds are not run again
        seeds: seeds of `decisions`, 25 units each
    """
    json, markdown = files.json, files.markdown
    check_outputs(json, markdown)
    from fastgaum.bench import report
    from fastgaum.bench.races import choose, run

    if "decisions" in groups:
        return _decide(groups, units, seeds, files, threads)
    if units is not None:
        raise ConfigError("--units is of `fastgaum bench decisions`: races have none")
    chosen = choose(groups)
    if list_:
        write_json(json, {"groups": chosen})
        for group in (*chosen, "decisions"):
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


def _decide(
    groups: Sequence[str], units: Path | None, seeds: int, files: TableFiles, threads: Threads
) -> int:
    from fastgaum.bench.experiments import decisions
    from fastgaum.reports.table import rows_to_markdown

    if len(groups) > 1 or units is None:
        raise ConfigError(
            "the table of decisions is no race and takes hours: run it alone, with the file that "
            "keeps its units, `fastgaum bench decisions --units decisions.jsonl`"
        )
    require_whole("--seeds", seeds, 1)
    use_threads(threads)
    result = decisions.decisions_object(decisions.run(units, seeds, note))
    write_json(files.json, result)
    columns, *rows = lines = decisions.lines_of(result)
    if files.markdown is not None:
        write_text(files.markdown, rows_to_markdown(lines))
    show_table(columns, rows)
    return 0
