"""`python -m tests.fuzz --inputs 10000`: mutated inputs through the commands of the command line.

Counts tracebacks and exit codes other than 0 and 2, hangs, memory growth, files outside the output
folder, and characters that a terminal obeys; exit code 0 if all are 0. An input is repeated by its
number: `python -m tests.fuzz --seed S --only N`."""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.targets import make_seeds
from tests.fuzz.worker import prepare

ROOT = Path(__file__).resolve().parents[2]
HANG = 30.0
"""seconds of wall time after which a worker is ended: 5 of its own may take that long on a busy
machine"""
APART = 400
"""every so many inputs, one runs in a process of its own with its address space limited"""


class Worker:
    """A process that runs inputs; started again after each that it does not survive."""

    def __init__(self, seed: str, seeds: Path, folder: Path, apart: int) -> None:
        self.command = [
            sys.executable,
            "-m",
            "tests.fuzz.worker",
            seed,
            str(seeds),
            str(folder),
            str(apart),
        ]
        self.apart, self.fresh = apart, True
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "2",
        }
        return subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def run(self, index: int, patience: float) -> dict[str, Any]:
        """What became of an input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{index}\n")
        self.process.stdin.flush()
        # imports and the warm-up, or a process of its own, come on top
        patience *= 10 if self.fresh or (self.apart and index % self.apart == self.apart - 1) else 1
        self.fresh = False
        ready = select.select([self.process.stdout], [], [], patience)[0]
        line = self.process.stdout.readline() if ready else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.end()
        shutil.rmtree(self.command[5], ignore_errors=True)
        wrong = "crash" if ready else "hang"
        code = self.process.returncode
        self.process, self.fresh = self._start(), True
        lost = {"file": "?", "argv": [], "code": None, "err": "", "seconds": patience, "growth": 0}
        return {"index": index, "wrong": [f"{wrong} ({code})"], **lost}

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def fuzz(
    seed: str,
    inputs: range,
    folder: Path,
    kept: Path,
    apart: int = APART,
    budget: float | None = None,
) -> list[dict[str, Any]]:
    """Run inputs one after the other, for so many seconds after the first if a budget is given;
    what fails is kept, a folder each."""
    seeds = folder / "seeds"
    make_seeds(seeds)
    worker = Worker(seed, seeds, folder / "case", apart)
    answers: list[dict[str, Any]] = []
    started = 0.0
    try:
        for i, index in enumerate(inputs):
            if budget is not None and answers and time.monotonic() - started > budget:
                break
            answer = worker.run(index, HANG)
            started = started if answers else time.monotonic()
            answers.append(answer)
            if answer["wrong"]:
                _keep(seed, answer, seeds, kept)
            if i % 500 == 499:
                print(
                    f"{i + 1} inputs, {sum(bool(one['wrong']) for one in answers)} failed",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        worker.end()
    return answers


def _keep(seed: str, answer: dict[str, Any], seeds: Path, kept: Path) -> None:
    index = answer["index"]
    shutil.rmtree(kept / str(index), ignore_errors=True)
    target, argv = prepare(seed, index, seeds, kept / str(index))
    print(
        f"FAILED input {index} ({target.file}): {', '.join(answer['wrong'])}\n  "
        f"{answer['err'].strip()[-400:]}\n"
        f"  kept: cd {kept / str(index)} && python -m fastgaum {' '.join(argv)}\n"
        f"  again: python -m tests.fuzz --seed {seed} --only {index}",
        file=sys.stderr,
        flush=True,
    )


def summary(answers: list[dict[str, Any]]) -> str:
    """What was run and what broke, by kind."""
    codes = Counter(str(one["code"]) for one in answers)
    wrong = Counter(reason.split(" (")[0] for one in answers for reason in one["wrong"])
    apart = sum(one.get("apart", False) for one in answers)
    by_file = Counter(one["file"].split("/")[0] for one in answers)
    slowest, largest = max(one["seconds"] for one in answers), max(one["growth"] for one in answers)
    return (
        f"{len(answers)} inputs ({apart} in processes of their own) through "
        f"{', '.join(f'{k} {n}' for k, n in sorted(by_file.items()))}\n"
        f"exit codes: {', '.join(f'{code}: {n}' for code, n in sorted(codes.items()))}\n"
        f"slowest {slowest:.2f} s of processor time, largest growth {largest >> 20} MB\n"
        f"failed: {sum(bool(one['wrong']) for one in answers)} {dict(wrong) or ''}"
    )


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", type=int, help="this input alone")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path(tempfile.gettempdir()) / "fastgaum-fuzz",
        help="where failures stay",
    )
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.inputs)
    if options.only is not None:
        numbers = range(options.only, options.only + 1)
    folder = Path(tempfile.mkdtemp(prefix="fastgaum-fuzz-"))
    try:
        answers = fuzz(options.seed, numbers, folder, options.keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(summary(answers))
    return int(any(one["wrong"] for one in answers))


if __name__ == "__main__":
    sys.exit(main())
