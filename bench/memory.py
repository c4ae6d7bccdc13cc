"""What this package holds in memory: one JSON object on one line.

    python bench/memory.py log --events 10_000_000       # bytes an event of a log and its encoding
    python bench/memory.py training                      # peak of an epoch of rounds
    python bench/memory.py growth --epochs 100           # growth over epochs (a soak)

Resident sizes are MB above what `import torch` alone takes; peaks are those of this process, so run
it in one of its own, on Linux."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgaum.game.observers import EpochRow, Observer

if TYPE_CHECKING:
    import polars as pl

    from fastgaum.features.sessions import EncodedSessions
    from fastgaum.logs.log import SessionLog

VIEW_BYTES, INLINE_BYTES = 16, 12
"""polars holds a text as a view, with its bytes inside up to 12 of them"""
ROUNDS: dict[str, Any] = {"players": "adversarial", "warm_start": 0, "catch_up": 0}
SETTLED = 5
"""epochs after which everything that is made once has been made"""


def log_and_encoding(arguments: argparse.Namespace) -> dict[str, Any]:
    from fastgaum.features.encoder import Encoder
    from fastgaum.features.fitting import fit_training
    from fastgaum.logs.synthetic import synthesise

    events, items = arguments.events, arguments.items
    log = synthesise(events, preset="scale", n_items=items, mean_display=7.0)[0]
    space, train = fit_training(log, "identity", relative_numbers=False)
    encoded = [train, Encoder(space, log).encode(log.sessions_in("validation"))]
    return {"resident_bytes_per_event": (log_bytes(log) + held_bytes(encoded)) / log.n_events}


def training(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch  # noqa: F401

    alone = status_mb("VmRSS")
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.models.user_model import UserModel

    log = synthesise(arguments.events, preset="scale", n_items=arguments.items)[0]
    restart_peak()
    rounds = {**ROUNDS, "batch_sessions": 2048}
    table = UserModel.from_preset("paper-lstm", epochs=1, **rounds).fit(log).history_
    return {
        "training_peak_mb": status_mb("VmHWM") - alone,
        "events_per_second": table["events_per_second"][0],
    }


def growth(arguments: argparse.Namespace) -> dict[str, Any]:
    """Growth of resident memory over epochs of a small log, after everything made once has been
    made."""
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.models.user_model import UserModel

    log, _ = synthesise(4_000, preset="scale", n_items=1_000)
    epochs, watch = SETTLED + arguments.epochs, _Watch()
    model = UserModel.from_preset(
        "paper-lstm", epochs=epochs, patience=epochs, search=[], folds=0, **ROUNDS
    )
    model.fit(log, [watch])
    return {"growth_mb": watch.resident[-1] - watch.resident[SETTLED - 1]}


class _Watch(Observer):
    def __init__(self) -> None:
        self.resident: list[float] = []

    def on_epoch_end(self, row: EpochRow) -> None:
        self.resident.append(status_mb("VmRSS"))


def log_bytes(log: SessionLog) -> int:
    names = ("session_offsets", "display_offsets", "items", "choices", "split", "users")
    ids = sum(map(ids_bytes, (log.session_ids, log.event_ids, log.item_ids)))
    return ids + sum(int(getattr(log, name).nbytes) for name in names)


def held_bytes(parts: Sequence[EncodedSessions]) -> int:
    """Bytes that sessions to train on hold besides the log's own; a shared array counts once."""
    values = [getattr(part, field.name) for part in parts for field in fields(part)]
    return sum({id(value): value.nbytes for value in values if hasattr(value, "nbytes")}.values())


def ids_bytes(ids: pl.Series) -> int:
    """Bytes of a column of ids; polars' own estimate leaves out the views of texts."""
    if ids.dtype.is_numeric():
        return int(ids.estimated_size())
    lengths = ids.str.len_bytes()
    return VIEW_BYTES * len(ids) + int(lengths.filter(lengths > INLINE_BYTES).sum())


def status_mb(name: str) -> float:
    """VmRSS (resident) or VmHWM (its peak) of this process, MB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit("the memory of a process is read from /proc/self/status: run this on Linux")


def restart_peak() -> None:
    """Forget the peak so far, where the kernel allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


STAGES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "log": log_and_encoding,
    "training": training,
    "growth": growth,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=100)
    asked = parser.parse_args()
    print(json.dumps(STAGES[asked.stage](asked)))
