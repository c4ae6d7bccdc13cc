"""Figures of whole processes: memory per event and of training, cold start."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from fastgaum.bench.races import Group, Race, SkippedError

MEMORY = {
    # the bar is set at seven candidates per event, the world's own mean is below five
    "memory-bytes-per-event": ("log", "resident_bytes_per_event", "bytes/event", 64.0),
    "memory-training-scale": ("training", "training_peak_mb", "MB above torch", 2_000.0),
    "memory-growth-over-100-epochs": ("growth", "growth_mb", "MB", 8.0),
}
COLD = {
    "cold-import": ("import_seconds_above_torch", "s above torch", 0.2),
    "cold-first-step-empty-cache": ("first_step_empty_cache_seconds", "s", 10.0),
    "cold-first-step-warm-cache": ("first_step_warm_cache_seconds", "s", 0.6),
    "cold-compiled-after-first-step": ("compiled_after_first_step", "kernels", 0.0),
}


@cache
def printed(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that a script of this folder prints last, in a process of its own."""
    command = [sys.executable, str(Path(__file__).parent / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def memory(race: Race) -> None:
    stage, name, unit, at_most = MEMORY[race.group]
    if not race.full and stage == "training":
        raise SkippedError("its growth trains too, and is enough for a smoke test")
    sizes = () if race.full else ("--events=2000", "--items=100", "--epochs=1")
    race.record(printed("memory.py", stage, *sizes)[name], unit, bar=8, at_most=at_most)


def cold_start(race: Race) -> None:
    if not race.full:
        raise SkippedError("compiling every kernel anew takes too long for a smoke test")
    name, unit, at_most = COLD[race.group]
    race.record(printed("coldstart.py")[name], unit, bar=10, at_most=at_most)


GROUPS = {
    **dict.fromkeys(MEMORY, Group(memory)),
    **dict.fromkeys(COLD, Group(cold_start)),
}
