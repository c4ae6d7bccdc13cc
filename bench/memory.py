"""What a log and its encoded sessions hold in memory, and what making them takes: one JSON object
on one line.

    python bench/memory.py --events 10_000_000 --items 1_000_000

Run it in a process of its own: peaks are the process's. Sizes are bytes per event; resident sizes
are MB above what `import torch` alone takes. Linux only (it reads /proc/self/status)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from fastgaum.features.batches import Sessions
    from fastgaum.logs.log import SessionLog

VIEW_BYTES, INLINE_BYTES = 16, 12
"""polars holds a text as a view, with its bytes inside up to 12 of them"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument(
        "--candidates", type=float, default=None, help="mean per event; default: the world's own"
    )
    print(json.dumps(measure(**vars(parser.parse_args()))))


def measure(events: int, items: int, candidates: float | None = None) -> dict[str, Any]:
    """Sizes and peaks of loading, fitting and encoding the `scale` world."""
    import torch  # noqa: F401

    torch_alone = status_mb("VmRSS")
    from fastgaum.features.space import FeatureSpace
    from fastgaum.logs.synthetic import synthesise

    more = {} if candidates is None else {"mean_display": candidates}
    log = synthesise(events, preset="scale", n_items=items, **more)[0]
    peaks = {"load": status_mb("VmHWM") - torch_alone}
    restart_peak()
    space = FeatureSpace.fit(log, "identity", set_context=False)
    peaks["fit"] = status_mb("VmHWM") - torch_alone
    restart_peak()
    encoder = space.encoder(log)
    encoded = [encoder.for_training(log.sessions_in(split)) for split in ("train", "validation")]
    del encoder
    peaks["encode"] = status_mb("VmHWM") - torch_alone
    of_log, of_encoded = log_bytes(log), held_bytes(encoded)
    return {
        "events": log.n_events,
        "items": log.n_items,
        "candidates_per_event": log.n_candidates / log.n_events,
        "log_bytes_per_event": of_log / log.n_events,
        "encoded_bytes_per_event": of_encoded / sum(part.n_events for part in encoded),
        "resident_bytes_per_event": (of_log + of_encoded) / log.n_events,
        "torch_mb": torch_alone,
        "resident_mb": status_mb("VmRSS") - torch_alone,
        "peak_mb": peaks,
    }


def log_bytes(log: SessionLog) -> int:
    """Bytes of a log's arrays and ids."""
    arrays: list[np.ndarray] = [
        log.session_offsets,
        log.display_offsets,
        log.items,
        log.choices,
        log.split,
        log.users,
    ]
    return sum(array.nbytes for array in arrays) + sum(
        map(ids_bytes, (log.session_ids, log.event_ids, log.item_ids))
    )


def held_bytes(parts: Sequence[Sessions]) -> int:
    """Bytes that sessions to train on hold besides the log's own; an array that several share
    counts once."""
    arrays: dict[int, np.ndarray] = {}
    for part in parts:
        names = [field.name for field in fields(part)]
        each = [
            value for value in (getattr(part, name) for name in names) if hasattr(value, "nbytes")
        ]
        arrays |= {id(array): array for array in each}
    return sum(array.nbytes for array in arrays.values())


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


if __name__ == "__main__":
    main()
