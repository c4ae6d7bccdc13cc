"""Whether memory grows over 100 epochs of training: resident MB after epoch 105 less those after epoch 5; one JSON line.

    python bench/memory_growth.py

Run it in a process of its own, which has held nothing large before: freed memory would hide what grows. The log is small,
so that an epoch is short; what an epoch leaves behind does not depend on that.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastgaum.bench.memory import status_mb

SETTLED = 5
"""epochs after which everything that is made once has been made"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100, help="epochs over which growth is looked for")
    parser.add_argument("--preset", default="paper-lstm")
    arguments = parser.parse_args()
    resident = measure(arguments.epochs, arguments.preset)
    print(
        json.dumps(
            {"growth_mb": resident[-1] - resident[0], "resident_mb": resident[:: max(1, arguments.epochs // 10)]}
        )
    )


def measure(epochs: int, preset: str = "paper-lstm") -> list[float]:
    """Resident MB after epoch SETTLED, and after each of so many more."""
    from fastgaum.models.user_model import UserModel
    from fastgaum.sessions.synthetic import synthesise

    log, _ = synthesise(4_000, preset="scale", n_items=1_000)
    watch = _Watch()
    changes: dict[str, Any] = {"players": "adversarial", "warm_start": 0, "catch_up": 0, "patience": SETTLED + epochs}
    UserModel.from_preset(preset, epochs=SETTLED + epochs, search=[], **changes).fit(log, watch)
    return watch.resident[SETTLED - 1 :]


class _Watch:
    """Resident memory after each epoch."""

    def __init__(self) -> None:
        self.resident: list[float] = []

    def on_epoch(self, row: object) -> None:
        self.resident.append(status_mb("VmRSS"))

    def on_batch(self, done: int, total: int) -> None:
        pass


if __name__ == "__main__":
    main()
