"""How training speed scales: events per second against catalogue size, session length, hidden size
and threads.

Each point is a short measurement of whole epochs, batches assembled inside the time; every curve
changes one thing of the same base setting. `measure_curves` takes any maker of trainings, so that
two engines can be drawn alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from fastgaum import threads
from fastgaum.bench.report import short
from fastgaum.bench.training import Run, config_of, world

COLUMNS = ("curve", "at", "events/s", "spread")

CATALOGUES = (10_000, 100_000, 1_000_000)
LENGTHS = (2, 20, 100)
SIZES = (20, 64, 128, 512)

BATCH_EVENTS = 4_096
"""events of a batch: alike for all session lengths, so that a curve over them shows the lengths
alone"""
LEAST_EPOCHS, SECONDS = 3, 1.0
"""epochs timed at each point: so many at least, and more while so much time has not passed"""


@dataclass(frozen=True)
class Setting:
    """What a point trains: adversarial rounds at the paper's sizes, but for what its curve
    changes."""

    n_items: int = 10_000
    mean_length: int = 2
    size: int = 20
    """hidden size of the LSTM"""
    threads: int = field(default_factory=threads.get_threads)
    n_events: int = 20_000


class Training(Protocol):
    """Whatever trains on a log, an epoch at a time."""

    @property
    def n_events(self) -> int:
        """Events of an epoch."""

    def epoch(self) -> float:
        """Train on every session once; returns a loss."""


Maker = Callable[[Setting], Training]


class Rounds:
    """Rounds of the game over shuffled batches, each epoch as many as hold the training sessions
    once."""

    def __init__(self, setting: Setting) -> None:
        data = world("tail", setting.n_events, setting.n_items, float(setting.mean_length))
        batch_sessions = max(1, BATCH_EVENTS // setting.mean_length)
        config = config_of(
            "paper-lstm",
            history_dim=setting.size,
            batch_sessions=batch_sessions,
            table_optimiser="adagrad",
        )
        self.run = Run(data, config)
        self.n_steps = -(-data.train.n_sessions // batch_sessions)

    @property
    def n_events(self) -> int:
        """Events of an epoch."""
        return self.run.data.train.n_events

    def epoch(self) -> float:
        """Train on every session once; returns the first batch's loss."""
        return float(self.run.steps(self.n_steps)["first loss"])


def settings(small: bool = False) -> Iterator[tuple[str, int, Setting]]:
    """Each point: its curve's name, its place on it, and what it trains."""
    base = Setting(n_items=200, n_events=400) if small else Setting()
    catalogues, lengths, sizes = (
        ((200, 400), LENGTHS[:2], SIZES[:2]) if small else (CATALOGUES, LENGTHS, SIZES)
    )
    yield from (("catalogue size", n, replace(base, n_items=n)) for n in catalogues)
    yield from (("mean session length", n, replace(base, mean_length=n)) for n in lengths)
    # long sessions, so that the recurrence has its share of a step
    yield from (("hidden size", n, replace(base, mean_length=20, size=n)) for n in sizes)
    yield from (
        ("threads", n, replace(base, threads=n)) for n in _powers_of_two(os.cpu_count() or 1)
    )


def _powers_of_two(most: int) -> list[int]:
    return sorted({*(2**k for k in range(most.bit_length()) if 2**k <= most), most})


def measure_curves(
    make: Maker = Rounds, *, small: bool = False, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Events per second of every point, curve by curve; the number of threads is afterwards what it
    was before.

    The same setting is measured once, though it may be a point of several curves.
    """
    before = threads.get_threads()
    measured: dict[Setting, tuple[float, float]] = {}
    curves: dict[str, list[dict[str, float]]] = {}
    try:
        for name, at, setting in settings(small):
            if setting not in measured:
                threads.set_threads(setting.threads)
                measured[setting] = events_per_second(make(setting), 0.0 if small else SECONDS)
            rate, spread = measured[setting]
            say(f"{name} {at:,}: {short(rate)} events/s")
            curves.setdefault(name, []).append({"at": at, "rate": rate, "spread": spread})
    finally:
        threads.set_threads(before)
    return [
        {"curve": name, "unit": "events/s", "points": points} for name, points in curves.items()
    ]


def events_per_second(training: Training, seconds: float = SECONDS) -> tuple[float, float]:
    """Rate of the median epoch after one that compiles, and the spread of the epochs' times."""
    training.epoch()
    times: list[float] = []
    while len(times) < LEAST_EPOCHS or sum(times) < seconds:
        started = time.perf_counter()
        training.epoch()
        times.append(time.perf_counter() - started)
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    return training.n_events / middle, (high - low) / middle


def curve_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Text cells of the curves by COLUMNS."""
    return [
        (curve["curve"], f"{point['at']:,}", short(point["rate"]), f"{point['spread']:.0%}")
        for curve in result.get("scaling", ())
        for point in curve["points"]
    ]
