"""The scaling curves: what a point trains, how it is timed, and that any engine can be plugged
in."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum import threads
from fastgaum.bench.scaling import (
    LEAST_EPOCHS,
    Setting,
    curve_rows,
    events_per_second,
    measure_curves,
    settings,
)
from fastgaum.bench.training import catalogue_ids


class Counted:
    """A training that only counts its epochs."""

    n_events = 1000

    def __init__(self) -> None:
        self.epochs = 0

    def epoch(self) -> float:
        self.epochs += 1
        return 0.0


def test_ids_are_spread_over_the_catalogue() -> None:
    ids, n_rows = catalogue_ids(50, 1000)
    assert n_rows == 1002
    assert ids[0] == 0
    assert len(set(ids.tolist())) == 50
    assert ids.max() < n_rows
    assert ids.std() > 100
    # a catalogue smaller than the space holds the space
    ids, n_rows = catalogue_ids(50, 10)
    assert sorted(ids.tolist()) == list(range(50))
    assert n_rows == 50


def test_the_first_epoch_is_not_timed() -> None:
    training = Counted()
    rate, spread = events_per_second(training, seconds=0.0)
    assert training.epochs == 1 + LEAST_EPOCHS
    assert rate > 0
    assert spread >= 0


def test_any_engine_can_be_measured_and_no_setting_twice() -> None:
    made: list[Setting] = []

    def make(setting: Setting) -> Counted:
        assert threads.get_threads() == setting.threads
        made.append(setting)
        return Counted()

    before = threads.get_threads()
    curves = measure_curves(make, small=True)
    assert threads.get_threads() == before
    assert len(made) == len(set(made))
    points = list(settings(small=True))
    assert sum(len(curve["points"]) for curve in curves) == len(points) > len(made)
    rows = curve_rows({"scaling": curves})
    assert [row[:2] for row in rows] == [(name, f"{at:,}") for name, at, _ in points]
    assert curve_rows({}) == []


@pytest.mark.parametrize(
    "name", ["catalogue size", "mean session length", "hidden size", "threads"]
)
def test_a_curve_changes_one_thing(name: str) -> None:
    curve = [setting for curve, _, setting in settings() if curve == name]
    values = [
        set(column) for column in np.array([list(vars(setting).values()) for setting in curve]).T
    ]
    assert sum(len(column) > 1 for column in values) == (len(curve) > 1)
