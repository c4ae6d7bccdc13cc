"""What training on the `scale` world takes: peak memory above torch's own; one JSON line.

    python bench/memory_training.py --events 10000000 --items 1000000

The paper's sizes, row-wise Adagrad for the tables; one epoch of rounds on the whole log.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastgaum.bench.memory import restart_peak, status_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    arguments = parser.parse_args()
    import torch  # noqa: F401

    alone = status_mb("VmRSS")
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.models.user_model import UserModel

    log = synthesise(arguments.events, preset="scale", n_items=arguments.items)[0]
    size: dict[str, Any] = {
        "batch_sessions": 2048,
        "players": "adversarial",
        "warm_start": 0,
        "catch_up": 0,
        "table_optimiser": "adagrad",
    }
    restart_peak()
    table = UserModel.from_preset("paper-lstm", epochs=1, **size).fit(log)
    result = {
        "events": arguments.events,
        "items": arguments.items,
        "log_mb": status_mb("VmRSS") - alone,
        "training_peak_mb": status_mb("VmHWM") - alone,
        "events_per_second": table["events_per_second"][0],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
