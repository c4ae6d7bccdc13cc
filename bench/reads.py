"""How often the test split of each log was read: docs/tables/test-reads.json, and the line below
a table of test figures.

A read is an occasion on which somebody saw test figures of models: a table was made, or models were
scored by hand. `python bench/readme.py` counts those that wrote a table, others are written into
the file by hand. Validation figures, floors of an audit and games of learned worlds are no reads."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastgaum.reports.table import Json

TEST_READS = "test-reads"
"""name of the file, as of an object"""
OWN, DRAWN = "own", "drawn"
"""test users of the log's usual split, and of splits of the users that seeds draw"""
SAME_USERS = {"lpmc-persons": "lpmc"}
"""logs whose test events are those of another log, read in another way"""

Reads = dict[str, list[Json]]
"""by log, its reads in the order of time: `date`, `by` what command or where it is written, `why`,
`models`, `evaluations` of a fit on a test split, `split`, `times` if more than one; of a table also
`table`, the `commit` that its object names, and the hash of its `figures`"""


@dataclass(frozen=True)
class FiguresOfTest:
    """What an object holds of the test split of one log."""

    log: str
    split: str
    """OWN or DRAWN"""
    models: tuple[str, ...]
    evaluations: int
    """fits, each scored once on a test split"""
    figures: str
    """hash of the figures alone: the same after an object got keys or other names"""

    def is_of(self, read: Json) -> bool:
        return (read["split"], read.get("figures")) == (self.split, self.figures)


def figures_of_test(result: Json) -> list[FiguresOfTest]:
    """What an object of docs/tables holds of test splits: a comparison, a report on fidelity or
    the table of click models; of other objects nothing."""
    if "cells" in result and "datasets" in result:
        splits = result["resplit"] or ()
        fits = result["seeds"] * (len(splits) or 1)
        found = []
        for log in result["datasets"]:
            cells = [cell for cell in result["cells"] if cell["dataset"] == log]
            models = [cell["model"] for cell in cells]
            figures = [(cell["mean"], cell.get("nll")) for cell in cells]
            n = fits * len(set(models))
            found.append(_figures(log, DRAWN if splits else OWN, models, n, figures))
        return found
    if "statistics" in result and result["split"] == "test":
        log, models, figures = result["log"]["name"], [result["preset"]], result["statistics"]
        return [_figures(log, OWN, models, 1, figures)]
    if "dataset" in result:
        rows = [row for row in result["rows"] if row["split"] == "test"]
        models = [row["model"] + ", session flags" * row["flags"] for row in rows]
        figures = [(row["prec1"], row["nll"]) for row in rows]
        n = sum(row["seeds"] for row in rows)
        return [_figures(result["dataset"], OWN, models, n, figures)] if rows else []
    return []


def _figures(
    log: str, split: str, models: Iterable[str], evaluations: int, figures: Iterable[object]
) -> FiguresOfTest:
    # sorted: rows of a table may change places
    text = "\n".join(sorted(json.dumps(one, sort_keys=True) for one in figures))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    named = tuple(dict.fromkeys(models))
    return FiguresOfTest(SAME_USERS.get(log, log), split, named, evaluations, digest)


def count_reads(reads: Reads, objects: Mapping[str, Json], date: str) -> list[str]:
    """Add a read for all that an object holds of a test split and no read has yet.

    Args:
        reads: changed in place
        objects: by name, as "logs/lpmc"
        date: of the new reads, as 2026-12-01

    Returns:
        a line of text for each new read
    """
    said = []
    for name, result in objects.items():
        machine = result.get("machine", {})
        argv = machine.get("argv") or result.get("argv")
        for one in figures_of_test(result):
            of_log = reads.setdefault(one.log, [])
            if any(one.is_of(read) for read in of_log):
                continue
            of_log.append(
                {
                    "date": date,
                    "by": shlex.join(argv) if argv else f"the command of docs/tables/{name}.json",
                    "why": "a table",
                    "models": list(one.models),
                    "evaluations": one.evaluations,
                    "split": one.split,
                    "table": name,
                    "commit": machine.get("commit"),
                    "figures": one.figures,
                }
            )
            said.append(f"counted: {name} reads the test split of {one.log} ({one.split})")
    return said


def reads_to_text(reads: Reads) -> str:
    """The file's text: a line a read, so that a change of the file shows what was added."""
    logs = [
        f"{json.dumps(log)}: [\n"
        + ",\n".join(f"  {json.dumps(read, ensure_ascii=False)}" for read in of_log)
        + "\n]"
        for log, of_log in sorted(reads.items())
    ]
    return "{\n" + ",\n".join(logs) + "\n}\n"


def reads_before(reads: Reads, results: Iterable[Json]) -> str:
    """The line below a table: how often the test splits that it shows were read before it was made,
    and nothing if it shows none. All numbers are lower bounds: not every read is written down.

    Raises:
        ValueError: a test split is shown by an object whose read is not counted.
    """
    own: dict[str, int] = {}
    drawn: dict[str, tuple[int, int]] = {}
    for one in (one for result in results for one in figures_of_test(result)):
        of_log = reads.get(one.log, [])
        made = [at for at, read in enumerate(of_log) if one.is_of(read)]
        if not made:
            raise ValueError(
                f"no read of docs/tables/{TEST_READS}.json has the test figures of {one.log} that "
                "a table shows: run `python bench/readme.py`, which counts it"
            )
        earlier = of_log[: made[-1]]
        n_own, n_drawn = (
            sum(read.get("times", 1) for read in earlier if read["split"] == split)
            for split in (OWN, DRAWN)
        )
        # several objects with one log: before the last of them
        if one.split == OWN:
            own[one.log] = max(n_own, own.get(one.log, 0))
        else:
            drawn[one.log] = max((n_drawn, n_own), drawn.get(one.log, (0, 0)))
    lines = [
        _sentence("The test split", {log: (n, "") for log, n in own.items()}),
        _sentence(
            "A test split that seeds drew",
            {
                log: (n, f" (its own test split {_times(n_own)})" if n_own else "")
                for log, (n, n_own) in drawn.items()
            },
        ),
    ]
    return " ".join(filter(None, lines))


def _sentence(what: str, counts: Mapping[str, tuple[int, str]]) -> str:
    """Of each log how often its split was read, and what else is said of it."""
    said = [f"{log} at least {_times(n)}{also}" for log, (n, also) in counts.items() if n or also]
    if said:
        return f"{what} was read before this table: {', '.join(said)}."
    return f"No read of {what.lower()} before this table is written down." if counts else ""


def _times(n: int) -> str:
    return f"{n} time{'s' * (n != 1)}"
