"""The tables of docs/concepts/cost.md: what was measured as one thing grew, and what the cost model
says of many processes.

    python bench/growth.py > docs/tables/growth.json        # events and items on one thread, by the
    processor's time

The other measurements are those of `make bench` and, on several processes,
docs/tables/processes.json (see cost_model.py)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastgaum.bench.cost_model import (
    HEAD,
    Machine,
    Setting,
    compared,
    cost,
    flops_per_event,
    row_of,
    to_markdown,
)
from fastgaum.bench.cost_model import measured as read

CURVE = Setting(
    "paper-lstm",
    items=10_000,
    batch_events=4096,
    displays=4.5,
    tokens=0.5,
    exponent=0.5,
    changes=(("generator_steps", 1), ("id_dropout", 0.0), ("table_optimiser", "adagrad")),
)
"""what bench/scaling.py trains, whose world shows an item of rank i in proportion to i^−½"""
LONG = replace(CURVE, tokens=0.95)
"""its sessions of 20 events, on which the hidden size grows"""
LAPTOP = Machine(events_per_second=130_000, sends=1e9, moves=4e9)
"""one thread of the machine of docs/performance.md"""
CARD = Machine(events_per_second=2e6, sends=25e9, moves=1e12, latency=1e-5)
"""a card with a network port of 200 Gbit/s: said, not measured"""
DISPLAYS = 1e11
FAR = Setting("large", items=1e8, batch_events=65_536)
"""what is projected: 10^11 displays of 10^8 items, 5 to an event"""
PROCESSES = (1, 2, 4, 8, 16, 32, 64)
EVENTS, ITEMS = (20_000, 80_000, 320_000), (1_000, 10_000, 100_000, 1_000_000)
MEASURED = Path(__file__).resolve().parents[1] / "docs" / "tables" / "growth.json"


def measure(
    events: tuple[int, ...] = EVENTS, items: tuple[int, ...] = ITEMS, repeats: int = 3
) -> dict[str, Any]:
    """Microseconds of processor time per event of rounds on one thread, the least of some epochs.

    Processor time counts what this process did, whatever else the machine does meanwhile.
    """
    from fastgaum import threads
    from fastgaum.bench.scaling import Rounds
    from fastgaum.bench.scaling import Setting as Point
    from fastgaum.machine import machine_facts

    before, rows = threads.get_threads(), []
    threads.set_threads(1)
    try:
        points = [("events", n, Point(n_events=n)) for n in events] + [
            ("items", n, Point(n_items=n)) for n in items
        ]
        for what, n, point in points:
            training = Rounds(point)
            training.epoch()
            times = []
            for _ in range(repeats):
                started = time.process_time()
                training.epoch()
                times.append(time.process_time() - started)
            rows.append(
                {"what": what, "n": n, "us_per_event": 1e6 * min(times) / training.n_events}
            )
    finally:
        threads.set_threads(before)
    return {"machine": machine_facts(), "load": os.getloadavg()[0], "rows": rows}


def measured(result: Mapping[str, Any]) -> str:
    """What `measure` found."""
    machine = result["machine"]
    said = f"{machine['processor']}, one thread, load {result['load']:.1f}\n\n"
    rows = [(f"{row['n']:,} {row['what']}", f"{row['us_per_event']:.1f}") for row in result["rows"]]
    return said + to_markdown(("what grows", "µs of processor time per event"), rows)


def curves(result: Mapping[str, Any]) -> str:
    """Measured events/s beside the model's arithmetic and traffic, where the catalogue and the
    hidden size grow."""
    rows = []
    for curve in result["scaling"]:
        for point in curve["points"]:
            if curve["curve"] == "catalogue size":
                setting = replace(CURVE, items=point["at"])
            elif curve["curve"] == "hidden size":
                setting = replace(LONG, changes=(*LONG.changes, ("history_dim", int(point["at"]))))
            else:
                continue
            said, flops = cost(setting, LAPTOP, 1), flops_per_event(setting)
            rows.append(
                (
                    f"{curve['curve']} {point['at']:,.0f}",
                    f"{flops / 1e3:,.0f}",
                    f"{said.moved_per_event / 1e3:,.1f}",
                    f"{point['rate']:,.0f}",
                    f"{flops * point['rate'] / 1e9:,.0f}",
                )
            )
    return to_markdown(
        ("what grows", "kFLOP per event", "kB of rows per event", "events/s", "GFLOP/s"), rows
    )


def processes(result: dict[str, Any] | None) -> str:
    """What one process and several did beside what the model says of them."""
    if result is None:
        return "Not measured yet: docs/tables/processes.json is not there."
    k = result["processes"]
    head = (
        "preset",
        "sessions of a batch",
        "events/s, 1 process",
        f"{k} processes",
        "ratio",
        "modelled",
        "sent per exchange",
        "modelled",
    )
    return to_markdown(head, compared(result, LAPTOP))


def projection(sharded: bool) -> str:
    """A hundred thousand million displays on cards, every process with all tables or with its share
    of them."""
    costs = [cost(FAR, CARD, k, sharded) for k in PROCESSES]
    rows = [
        (*row_of(one), f"{DISPLAYS / FAR.displays / one.events_per_second / 60:,.0f} min")
        for one in costs
    ]
    return to_markdown((*HEAD, "an epoch"), rows)


def blocks(races: Mapping[str, Any], several: dict[str, Any] | None) -> dict[str, str]:
    """The page's tables by marker; `several`: measured on 1 and 2 processes."""
    return {
        "measured": measured(read(MEASURED) or {}),
        "curves": curves(races),
        "processes": processes(several),
        "replicated": projection(False),
        "sharded": projection(True),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
