"""Rows and cells: one model's head on one data set, its seeds averaged and the test events of its
splits pooled.

A user may stand in the test part of several splits. The pooled mean is over all test events of all
splits, and the bootstrap draws users with their events from all of them: events of one user never
count as independent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgaum.baselines.registry import BASELINES, baseline_class
from fastgaum.features.selection import select_sessions
from fastgaum.logs.log import IntArray, SessionLog
from fastgaum.metrics.evaluation import HeadFigures
from fastgaum.metrics.intervals import bootstrap_mean
from fastgaum.metrics.precision import Float64Array, micro_mean, user_mean
from fastgaum.reports.jobs import RunFigures, split_log
from fastgaum.reports.published import preset_row, published_mean

KS = (1, 2)


@dataclass(frozen=True)
class PooledEvents:
    """The test events of a log under each of its splits, split after split."""

    users: IntArray
    """user of each event, shape (n_events,)"""
    sizes: IntArray
    """candidates of each event, shape (n_events,)"""
    counts: tuple[int, ...]
    """events of each split"""

    @classmethod
    def of(cls, log: SessionLog, resplits: Sequence[int | None]) -> PooledEvents:
        """Collect them; `log` has its own split, None in `resplits` stands for it."""
        users, sizes = [], []
        for seed in resplits:
            split = split_log(log, seed)
            part = select_sessions(split, split.sessions_in("test"))
            users.append(part.users(split))
            sizes.append(np.diff(part.display_offsets))
        return cls(np.concatenate(users), np.concatenate(sizes), tuple(map(len, users)))


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    model: str
    head: str
    runs: tuple[tuple[RunFigures, ...], ...]
    """by split, then by seed"""
    values: Mapping[int, Float64Array]
    """prec@k of each event, percent, averaged over seeds, splits one after the other; by k, shape
    (n_events,)"""

    @property
    def heads(self) -> list[list[HeadFigures]]:
        """This head's figures, by split, then by seed."""
        return [[run.test.heads[self.head] for run in seeds] for seeds in self.runs]

    def by_seed(
        self,
        value: Callable[[HeadFigures], float],
        events: Callable[[HeadFigures], int] | None = None,
    ) -> Float64Array:
        """Each seed's mean of a figure over splits, weighted by `events` (all events if not given),
        shape (n_seeds,)."""
        values = np.array([[value(one) for one in seeds] for seeds in self.heads], dtype=np.float64)
        weights = np.array([(events or _all_events)(seeds[0]) for seeds in self.heads])
        counted = weights > 0
        if not counted.any():
            return np.full(values.shape[1], np.nan)
        return np.asarray(
            np.average(values[counted], axis=0, weights=weights[counted]), dtype=np.float64
        )


def rows_of(model: str, runs: Sequence[Sequence[RunFigures]]) -> list[Row]:
    """One row per head of a model; `runs` by split, then by seed."""
    return [
        Row(model, head, tuple(map(tuple, runs)), {k: _pooled(runs, head, k) for k in KS})
        for head in runs[0][0].test.heads
    ]


def cells_of(
    row: Row,
    dataset: str,
    resplits: Sequence[int | None],
    events: PooledEvents,
    random: Mapping[str, float],
    oracle: Mapping[str, float] | None,
) -> list[dict[str, Any]]:
    """One cell per k, ready for JSON; `random` and `oracle` hold prec@k of the floor and of the
    truth by k as text."""
    runs = [run for seeds in row.runs for run in seeds]
    gaps = [run.train_gap for run in runs if run.train_gap is not None]
    nll = row.by_seed(lambda head: head.nll.mean)
    shared = {
        "protocol": runs[0].protocol,
        "selection": runs[0].select,
        "settings_tried": runs[0].settings_tried,
        "seeds": len(row.runs[0]),
        "splits": len(row.runs),
        "nll": _mean(nll),
        "nll_sd": _sd(nll),
        "ece": _mean(row.by_seed(lambda head: head.ece)),
        "brier": _mean(row.by_seed(lambda head: head.brier)),
        "gap": _mean(gaps) if gaps else None,
        "seconds": _mean([run.seconds for run in runs]),
    }
    cells = []
    for k in KS:
        values = row.values[k]
        interval = bootstrap_mean(values, events.users)
        way = (
            None
            if oracle is None
            else (interval.mean - random[str(k)]) / (oracle[str(k)] - random[str(k)])
        )
        cell = {
            "dataset": dataset,
            "model": row.model,
            "head": row.head,
            "k": k,
            "mean": interval.mean,
            "sd": _sd(_precision_by_seed(row, k)),
            "ci": [interval.low, interval.high],
            "published": published_mean(dataset, published_row(row.model, row.head), k),
            "n_events": interval.n_events,
            "prec_nontrivial": micro_mean(values[events.sizes > k]).value,
            "prec_per_user": user_mean(values, events.users).value,
            "way_to_oracle": way,
            "by_split": _by_split(row, resplits, k),
        }
        cells.append(cell | shared)
    return cells


def published_row(model: str, head: str) -> str | None:
    """The row of the published table that a model's head repeats, None if there is none."""
    return baseline_class(model).published_name if model in BASELINES else preset_row(model, head)


def _precision_by_seed(row: Row, k: int) -> Float64Array:
    return row.by_seed(lambda head: head.precision[k].mean, lambda head: head.precision[k].n_events)


def _by_split(row: Row, resplits: Sequence[int | None], k: int) -> dict[str, float] | None:
    """Mean over seeds of each split, by its seed as text; None for the log's own split alone."""
    if list(resplits) == [None]:
        return None
    means = [_mean([head.precision[k].mean for head in seeds]) for seeds in row.heads]
    return {str(seed): mean for seed, mean in zip(resplits, means, strict=True)}


def _pooled(runs: Sequence[Sequence[RunFigures]], head: str, k: int) -> Float64Array:
    """One value per event, averaged over seeds: users are what an interval is about, seeds have
    their own ±."""
    splits = [
        np.mean([run.test.heads[head].precision_per_event[k] for run in seeds], axis=0)
        for seeds in runs
    ]
    return np.concatenate(splits)


def _all_events(head: HeadFigures) -> int:
    return head.nll.n_events


def _mean(values: Sequence[float] | Float64Array) -> float:
    return float(np.mean(values))


def _sd(values: Sequence[float] | Float64Array) -> float:
    """Standard deviation over seeds (n - 1); 0 for a single seed, whose spread nobody knows: see
    the cell's `seeds`."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
