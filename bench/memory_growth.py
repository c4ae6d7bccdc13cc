"""Whether memory grows over epochs of training (a soak): the slope of resident memory, and its 95 %
interval; one JSON line.

    python bench/memory_growth.py                                   100 epochs by the engine
    python bench/memory_growth.py --epochs 200 --path autograd      200 epochs by autograd

Run it in a process of its own, which has held nothing large before: freed memory would hide what
grows. The log is small, so that an epoch is short; what an epoch leaves behind does not depend on
that. Resident memory moves in steps, and one epoch's is much like the next one's: the interval is
that of a line through the medians of ten blocks of epochs.

An epoch does leave something: its row of the training table, about half a kilobyte. `flat` says
that the interval lies below a page of memory per epoch, the least that resident memory shows; an
array that every epoch leaves, or an object that every batch leaves, would be more."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from fastgaum.bench.memory import status_mb

SETTLED = 5
"""epochs after which everything that is made once has been made"""
BLOCKS = 10
PAGE_MB = 4096 / 1e6
T_95 = 2.306
"""Student's t, two-sided, for BLOCKS − 2 degrees of freedom"""
PATHS: dict[str, dict[str, Any]] = {"engine": {}, "autograd": {"states": "generated"}}
"""generated histories are what the engine leaves to autograd"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--epochs", type=int, default=100, help="epochs over which growth is looked for"
    )
    parser.add_argument("--preset", default="paper-lstm")
    parser.add_argument("--path", choices=PATHS, default="engine")
    parser.add_argument("--events", type=int, default=4_000)
    arguments = parser.parse_args()
    resident = measure(arguments.epochs, arguments.preset, arguments.path, arguments.events)
    low, slope, high = slope_of(resident)
    result = {
        "growth_mb": resident[-1] - resident[0],
        "bytes_per_epoch": [round(1e6 * bound) for bound in (low, slope, high)],
        "flat": high < PAGE_MB,
        "resident_mb": resident[:: max(1, arguments.epochs // 10)],
    }
    print(json.dumps(result))


def measure(
    epochs: int, preset: str = "paper-lstm", path: str = "engine", events: int = 4_000
) -> list[float]:
    """Resident MB after epoch SETTLED, and after each of so many more."""
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.models.user_model import UserModel

    log, _ = synthesise(events, preset="scale", n_items=1_000)
    watch = _Watch()
    changes: dict[str, Any] = {
        "players": "adversarial",
        "warm_start": 0,
        "catch_up": 0,
        "patience": SETTLED + epochs,
    }
    changes |= PATHS[path]
    UserModel.from_preset(preset, epochs=SETTLED + epochs, search=[], **changes).fit(log, watch)
    return watch.resident[SETTLED - 1 :]


def slope_of(resident: Sequence[float]) -> tuple[float, float, float]:
    """Lower bound, estimate and upper bound of the growth per epoch: least squares over the medians
    of BLOCKS blocks.

    Fewer epochs than two per block have no interval.
    """
    import numpy as np

    if len(resident) < 2 * BLOCKS:
        slope = (resident[-1] - resident[0]) / max(len(resident) - 1, 1)
        return slope, slope, slope
    parts = np.array_split(np.arange(len(resident)), BLOCKS)
    x = np.array([part.mean() for part in parts])
    y = np.array([np.median(np.asarray(resident)[part]) for part in parts])
    slope, level = np.polyfit(x, y, 1)
    spread = np.square(y - slope * x - level).sum() / (BLOCKS - 2) / np.square(x - x.mean()).sum()
    half = T_95 * float(np.sqrt(spread))
    return float(slope) - half, float(slope), float(slope) + half


class _Watch:
    """Resident memory after each epoch."""

    def __init__(self) -> None:
        self.resident: list[float] = []

    def on_epoch(self, row: object) -> None:
        self.resident.append(status_mb("VmRSS"))

    def on_batch(self, done: int, total: int) -> None:
        pass

    def on_resume(self, rows: object) -> None:
        pass


if __name__ == "__main__":
    main()
