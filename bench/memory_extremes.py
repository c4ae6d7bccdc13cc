"""What extreme logs take to train on, to evaluate and to predict for: peak memory and seconds; one
JSON line per case.

    python bench/memory_extremes.py                     every case at full size, each in a process
    of its own python bench/memory_extremes.py long --size 1000    one case, smaller, in this
    process

Cases: `long` (sessions of `size` events), `wide` (displays of `size` candidates), `single` (`size`
sessions of one event), `catalogue` (`size` items). Peaks are MB of this process, above what `import
torch` alone takes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgaum.bench.memory import restart_peak, status_mb

if TYPE_CHECKING:
    from fastgaum.logs.log import SessionLog

SIZES = {"long": 100_000, "wide": 100_000, "single": 200_000, "catalogue": 10_000_000}
N_FEW = 8
"""sessions of the long log, and of the wide one, where each has two events; half of them train"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", nargs="?", choices=SIZES)
    parser.add_argument("--size", type=int)
    parser.add_argument("--preset", default="fastgaum")
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(arguments.case, arguments.size, arguments.preset)), flush=True)
        return
    for case in SIZES:
        subprocess.run([sys.executable, __file__, case, "--preset", arguments.preset], check=True)


def measure(case: str, size: int | None = None, preset: str = "fastgaum") -> dict[str, Any]:
    """Peak MB and seconds of `fit` (an epoch of each phase), `evaluate` and `predict`."""
    import torch  # noqa: F401

    alone = status_mb("VmRSS")
    from fastgaum.models.user_model import UserModel

    log = log_of(case, size or SIZES[case])
    changes: dict[str, Any] = {"epochs": 1, "warm_start": 1, "catch_up": 1} | (
        {"batch_sessions": 512} if case == "single" else {}
    )
    if case == "wide":
        # relations count pairs within a display set, and say so where there are too many
        changes |= {"relations": False}
    model = UserModel.from_preset(
        preset, players="adversarial", table_optimiser="adagrad", **changes
    )
    verbs: dict[str, Callable[[], object]] = {
        "train": lambda: model.fit(log),
        "evaluate": lambda: model.evaluate(log, "test"),
        "predict": lambda: sum(part.height for part in model.predict_parts(log)),
    }
    result: dict[str, Any] = {
        "case": case,
        "preset": preset,
        "events": log.n_events,
        "candidates": log.n_candidates,
        "items": log.n_items,
        "log_mb": status_mb("VmRSS") - alone,
    }
    for name, verb in verbs.items():
        restart_peak()
        started = time.perf_counter()
        verb()
        result |= {
            f"{name}_s": time.perf_counter() - started,
            f"{name}_peak_mb": status_mb("VmHWM") - alone,
        }
    return {
        key: round(value, 1) if isinstance(value, float) else value for key, value in result.items()
    }


def log_of(case: str, size: int) -> SessionLog:
    """An extreme log of chance; low item numbers are chosen more often."""
    from fastgaum.logs.synthetic import synthesise

    if case == "catalogue":
        return synthesise(max(size // 100, 1_000), preset="scale", n_items=size)[0]
    lengths = {"long": (N_FEW, size), "wide": (N_FEW, 2), "single": (size, 1)}[case]
    return _by_chance(
        *lengths, n_candidates=size if case == "wide" else 4, n_items=max(2 * size, 100)
    )


def _by_chance(n_sessions: int, n_events: int, n_candidates: int, n_items: int) -> SessionLog:
    """Sessions and display sets that are all alike in size."""
    import numpy as np
    import polars as pl

    from fastgaum.logs.log import SessionLog
    from fastgaum.logs.synthetic import item_names

    rng = np.random.default_rng(0)
    total = n_sessions * n_events
    # distinct within a display set: a start and a stride of its own, in order
    start = rng.integers(0, n_items, total)
    items = np.sort((start[:, None] + np.arange(n_candidates)) % n_items, axis=1).astype(np.int32)
    return SessionLog(
        session_offsets=np.arange(0, total + 1, n_events, dtype=np.int32),
        display_offsets=np.arange(0, total * n_candidates + 1, n_candidates, dtype=np.int32),
        items=items.reshape(-1),
        choices=np.minimum(
            rng.integers(0, n_candidates, total), rng.integers(0, n_candidates, total)
        ).astype(np.int32),
        split=np.tile(np.array([0, 0, 1, 2], np.int8), -(-n_sessions // 4))[:n_sessions],
        users=np.arange(n_sessions, dtype=np.int32),
        session_ids=pl.Series([f"s{i}" for i in range(n_sessions)]),
        event_ids=pl.Series(np.tile(np.arange(n_events, dtype=np.int32), n_sessions)),
        item_ids=item_names(n_items),
        name=Path(__file__).stem,
    )


if __name__ == "__main__":
    main()
