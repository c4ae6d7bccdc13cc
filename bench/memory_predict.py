"""Peak memory of `fastgaum predict` on a synthetic log, all of the process included; one JSON line.
The bar is 1,500 MB.

    python bench/memory_predict.py --events 5_000_000                  a log that `fastgaum data
    convert` wrote to a folder python bench/memory_predict.py --events 5_000_000 --form parquet
    the same log as a parquet file

The commands run as a user would run them, each in a process of its own, in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--form", choices=("folder", "parquet"), default="folder")
    print(json.dumps(measure(**vars(parser.parse_args()))))


def measure(events: int, items: int = 10_000, form: str = "folder") -> dict[str, Any]:
    """Peak MB and seconds of `predict` by a model that a small log of the same catalogue has
    trained."""
    with tempfile.TemporaryDirectory(prefix="fastgaum-predict-") as folder:
        home = Path(folder)
        small, big = home / "small", home / ("log" if form == "folder" else "log.parquet")
        shape = ("--items", str(items), "--seed", "1")
        short = [
            part for key in ("epochs", "warm_start", "catch_up") for part in ("--set", f"{key}=1")
        ]
        _run("data", "synth", "--events", str(min(events, 20_000)), *shape, "-o", str(small))
        _run("train", str(small), "-o", str(home / "run"), *short)
        _run("data", "synth", "--events", str(events), *shape, "-o", str(big))
        started = time.perf_counter()
        peak = _run("predict", str(home / "run"), str(big), "-o", str(home / "out.parquet"))
        return {
            "events": events,
            "form": form,
            "peak_mb": peak,
            "seconds": time.perf_counter() - started,
        }


def _run(*arguments: str) -> float:
    """Run a command of ours; returns the process's peak MB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgaum", *arguments], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"fastgaum {' '.join(arguments)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
