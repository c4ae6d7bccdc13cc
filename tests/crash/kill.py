"""The kill test: SIGKILL at random moments of train, data get, data convert and reproduce, while a
reader polls.

    python -m tests.crash.kill --kills 100 --seed 0

Each job is started, killed at a random moment of its work, started again (and killed again, up to
three times), and then left to end. It must end with the hash of an uninterrupted job; whatever the
reader finds at any moment must be whole."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.jobs import JOBS, Job, Report
from tests.crash.zygote import Zygote

MOST_KILLS = 3
"""in a row, of one job"""


def kill_test(job: type[Job], kills: int, seed: int, most_in_a_row: int = MOST_KILLS) -> Report:
    """Kill one kind of job so many times; the report says what went wrong."""
    report, rng = Report(), random.Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="fastgaum-kill-") as folder,
        Zygote(Path(folder)) as zygote,
    ):
        work = job(zygote, Path(folder) / "work")
        done = threading.Event()
        reader = threading.Thread(target=_read, args=(work, report, done))
        reader.start()
        try:
            while report.kills < kills and not report.wrong:
                work.chain(rng, min(rng.randint(1, most_in_a_row), kills - report.kills), report)
        finally:
            done.set()
            reader.join()
    return report


def _read(job: Job, report: Report, done: threading.Event) -> None:
    look: Callable[[], int] = job.look
    while not done.wait(0.02):
        try:
            report.reads += look()
        except Exception as error:
            # a run's next attempt may remove what it had not yet earned, between the look and the
            # read; the library names the file in an error of its own
            is_gone = isinstance(error.__cause__ or error, FileNotFoundError)
            if not is_gone or job.always_there:
                report.wrong.append(f"{job.name}: a reader found {type(error).__name__}: {error}")


def main() -> int:
    """Run the whole test and print what it saw, a line per job."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--kills", type=int, default=100, help="in all, shared evenly among the jobs"
    )
    parser.add_argument(
        "--jobs", nargs="+", default=[job.name for job in JOBS], help="which, by name"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    wrong = 0
    jobs = [job for job in JOBS if job.name in options.jobs]
    for job in jobs:
        started = time.perf_counter()
        report = kill_test(job, options.kills // len(jobs), options.seed)
        print(f"{job.name}: {report} ({time.perf_counter() - started:.0f} s)", flush=True)
        for line in report.wrong:
            print(f"  {line}")
        wrong += len(report.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
