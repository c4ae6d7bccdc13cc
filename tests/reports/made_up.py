"""Figures of runs that nobody trained: what pooling and comparing need of them."""

from __future__ import annotations

import numpy as np

from fastgaum.metrics.evaluation import Evaluation, HeadFigures
from fastgaum.metrics.intervals import Interval
from fastgaum.reports.grid import RunFigures
from fastgaum.reports.log_facts import PooledEvents
from fastgaum.reports.reproduce import Row, rows_of


def run_of(
    values: np.ndarray, nll: float = 1.0, heads: tuple[str, ...] = ("reward",)
) -> RunFigures:
    """A run with these prec@1 per event, percent, NaN without a choice; prec@2 is the same."""
    counted = ~np.isnan(values)
    mean = float(values[counted].mean()) if counted.any() else float("nan")
    precision = Interval(mean, mean, mean, int(counted.sum()), 1)
    head = HeadFigures(
        precision={1: precision, 2: precision},
        per_user={},
        nontrivial={},
        nll=Interval(nll, nll, nll, len(values), 1),
        brier=0.5,
        ece=0.1,
        no_click=None,
        precision_per_event={1: values, 2: values},
    )
    test = Evaluation(dict.fromkeys(heads, head), len(values), 1, {1: 0.0, 2: 0.0}, None)
    return RunFigures(test, None, 1.0, "bags", "loss", None)


def events_of(users: list[list[int]]) -> PooledEvents:
    """Test events by split, each of two candidates, by their users."""
    every = np.concatenate([np.array(one, np.int32) for one in users])
    return PooledEvents(every, np.full(len(every), 2, np.int32), tuple(map(len, users)))


def row(
    model: str, values: list[float] | np.ndarray, heads: tuple[str, ...] = ("reward",)
) -> list[Row]:
    """Rows of a model with one split and one seed."""
    return rows_of(model, [[run_of(np.asarray(values, np.float64), heads=heads)]])
