"""Every attack in a process that may die of it, and one line of what came of them."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.attack.attacks import HANG, RIGHT, SILENT, TRACEBACK, WRONG, judge
from tests.attack.table import TABLES
from tests.cli import test_bad_log_files, test_bad_runs, test_bad_saved_logs, test_bad_trainings
from tests.cli.bad_input import Seeds, made_store, made_trained, sample_frame

SEGFAULT, STUCK = "segmentation fault", "no answer"
PATIENCE = 60.0
"""seconds that this process waits for a verdict: a hang that takes no processor time"""
ALL: Mapping[str, Mapping[str, Any]] = TABLES | {
    "log files": test_bad_log_files.ROWS,
    "damaged runs": test_bad_runs.ROWS,
    "saved logs": test_bad_saved_logs.ROWS,
    "trainings": test_bad_trainings.ROWS,
}


def serve(pipe: Connection, folder: Path) -> None:
    """Judge each row that is asked for, in an empty folder."""
    frame = sample_frame()
    log = folder / "world.parquet"
    frame.write_parquet(log)
    run, store = made_trained(log, folder / "run"), made_store(log, folder / "store")
    pipe.send(None)
    while True:
        table, name = pipe.recv()
        with tempfile.TemporaryDirectory(dir=folder) as place:
            pipe.send(judge(ALL[table][name], Seeds(frame, log, run, store, Path(place))))


class Worker:
    """A process that judges; another takes its place where it dies."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=serve, args=(theirs, Path(self.folder.name)))
        self.process.start()
        theirs.close()
        # until the good files are made
        self.pipe.recv()

    def judge(self, table: str, name: str) -> tuple[str, str]:
        """The verdict on a row, and what was seen."""
        self.pipe.send((table, name))
        try:
            if self.pipe.poll(PATIENCE):
                found: tuple[str, str] = self.pipe.recv()
                return found
        except EOFError:
            self.process.join()
            return SEGFAULT, f"exit code {self.process.exitcode}"
        return STUCK, f"no answer in {PATIENCE:.0f} s"

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.folder.cleanup()


def verdicts(words: list[str]) -> Iterator[str]:
    """The verdict on each row; what is not right is printed."""
    rows = [(table, name) for table, each in ALL.items() for name in each]
    rows = [row for row in rows if not words or any(word in " ".join(row) for word in words)]
    worker = Worker()
    for table, name in rows:
        verdict, seen = worker.judge(table, name)
        if verdict == HANG:
            # once more: the first time kernels may have been compiled
            verdict, seen = worker.judge(table, name)
        if verdict != RIGHT:
            print(f"{verdict.upper()}  {table}: {name}\n    {seen}", flush=True)
        if verdict in (SEGFAULT, STUCK):
            worker.end()
            worker = Worker()
        yield verdict
    worker.end()


def main() -> int:
    """Run what the command line asks for; exit code 0 if all is right."""
    found = Counter(verdicts(sys.argv[1:]))
    print(
        f"{found.total()} attacks; silent {found[SILENT]}; segmentation faults {found[SEGFAULT]}; "
        f"hangs over 5 s {found[HANG] + found[STUCK]}; tracebacks {found[TRACEBACK]}; other words or files changed "
        f"{found[WRONG]}"
    )
    return int(found[RIGHT] != found.total())
