"""Figures of whole processes: memory per event and of training, batch assembly, cold start."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum import threads
from fastgaum.bench.training import Run, config_of, world
from fastgaum.features.batches import batches

HERE = Path(__file__).parent

MEMORY = {
    # the bar is set at seven candidates per event, the world's own mean is below five
    "memory-bytes-per-event": (
        "memory.py",
        ("--candidates", "7"),
        "resident_bytes_per_event",
        "bytes/event",
        64.0,
    ),
    "memory-training-scale": (
        "memory_training.py",
        (),
        "training_peak_mb",
        "MB above torch",
        2_000.0,
    ),
    "memory-growth-over-100-epochs": ("memory_growth.py", (), "growth_mb", "MB", 8.0),
}
COLD = {
    "cold-import": ("import_seconds_above_torch", "s above torch", 0.2),
    "cold-first-step-empty-cache": ("first_step_empty_cache_seconds", "s", 15.0),
    "cold-first-step-warm-cache": ("first_step_warm_cache_seconds", "s", 1.0),
    "cold-compiled-after-first-step": ("compiled_after_first_step", "kernels", 0.0),
}
ASSEMBLY = ("assembly-rate", "assembly-share")
GROUPS = dict.fromkeys([*MEMORY, *COLD, *ASSEMBLY])


@cache
def printed(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that a script of this folder prints last, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


@pytest.mark.parametrize("group", MEMORY)
def test_memory(record: Callable[..., None], full: bool, group: str) -> None:
    script, sizes, name, unit, at_most = MEMORY[group]
    if script == "memory_growth.py":
        sizes = () if full else ("--epochs", "1")
    else:
        sizes = (
            *sizes,
            *(
                ("--events", "10000000", "--items", "1000000")
                if full
                else ("--events", "2000", "--items", "100")
            ),
        )
    record(printed(script, *sizes)[name], unit, bar=8, at_most=at_most)


@pytest.mark.parametrize("group", COLD)
def test_cold_start(record: Callable[..., None], full: bool, group: str) -> None:
    if not full:
        pytest.skip("compiling every kernel anew takes too long for a smoke test")
    name, unit, at_most = COLD[group]
    record(printed("coldstart.py")[name], unit, bar=11, at_most=at_most)


@pytest.mark.parametrize("group", ASSEMBLY)
def test_assembly(record: Callable[..., None], full: bool, group: str) -> None:
    data = world("scale", 1_000_000 if full else 400, 1_000_000 if full else 50)
    count = threads.get_threads()
    threads.set_threads(1)
    try:
        size = 2048
        epochs = [_epoch_seconds(data.train, size) for _ in range(5 if full else 1)]
        rate = data.train.n_events / sorted(epochs)[len(epochs) // 2]
        if group == "assembly-rate":
            record(rate, "events/s on one core", bar=7, at_least=10e6)
            return
        run = Run(data, config_of("paper-lstm", batch_sessions=size, table_optimiser="adagrad"))
        threads.set_threads(count)
        run.steps(2)
        started = time.perf_counter()
        n_events = 0
        for _ in range(20 if full else 1):
            run.steps(1)
            n_events += run.n_events
        step = (time.perf_counter() - started) / n_events
        record(100 / rate / step, "% of a step", bar=7, at_most=2.0)
    finally:
        threads.set_threads(count)


def _epoch_seconds(train: Any, size: int) -> float:
    order = np.random.default_rng(0)
    started = time.perf_counter()
    for _ in batches(train, size, order):
        pass
    return time.perf_counter() - started
