"""`reproduce`: train the runs of a grid and put their figures together as one JSON-ready object.

A row is one model's head, its seeds averaged and the test events of its splits pooled. A user may
stand in the test part of several splits. The pooled mean is over all test events of all splits, and
the bootstrap draws users with their events from all of them: events of one user never count as
independent.

The other row of a comparison is always another model's: the heads of one model are one training,
and the generator that follows its own reward closely is no rival of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from fastgaum.logs.log import SessionLog
from fastgaum.machine import machine_facts
from fastgaum.metrics.displays import DisplayRanking
from fastgaum.metrics.evaluation import HeadFigures
from fastgaum.metrics.intervals import bootstrap_mean, paired_difference
from fastgaum.metrics.precision import Float64Array, micro_mean, user_mean
from fastgaum.reports.grid import GridRun, Outcome, RunFailure, RunFigures, run_all
from fastgaum.reports.log_facts import (
    KS,
    PooledEvents,
    dataset_facts,
    published_datasets,
    published_mean,
    published_row,
    published_table,
    tuning_budget,
)
from fastgaum.reports.reproduce_table import FLOOR_MODELS
from fastgaum.reports.table import Json

Groups = dict[str, dict[str, dict[int | None, list[Outcome]]]]
"""outcomes by data set, model, split, in the order of their seeds"""


def run_grid(
    logs: Mapping[str, SessionLog],
    runs: Sequence[GridRun],
    *,
    oracles: Mapping[str, Mapping[str, float]] | None = None,
    jobs: int = 1,
    device: str = "auto",
    on_start: Callable[[GridRun], None] = lambda run: None,
    on_done: Callable[[GridRun, Outcome, int], None] = lambda run, outcome, done: None,
) -> Json:
    """Train and evaluate every run; return {machine, datasets, cells, comparison, failed, tuning,
    published_table}.

    `logs` have their own splits. `oracles` holds {"1": prec@1, "2": prec@2, "nll": NLL} of logs
    whose true choice probabilities are known, pooled over the runs' splits. prec@k in percent, NLL
    in nats. At most `jobs` runs at a time; how many does not change a figure. A model one of whose
    runs failed has no cell; `failed` says why.

    Raises:
        LogFormatError, ConfigError: from a run.
    """
    outcomes: dict[int, Outcome] = {}
    with closing(run_all(logs, runs, jobs, device, on_start)) as results:
        for index, outcome in results:
            outcomes[index] = outcome
            on_done(runs[index], outcome, len(outcomes))
    result: Json = {
        "machine": machine_facts(),
        "datasets": {},
        "cells": [],
        "comparison": {},
        "failed": _failed(runs, outcomes),
    }
    for name, models in _groups(runs, outcomes).items():
        oracle = (oracles or {}).get(name)
        facts, cells, comparison = _dataset(name, logs[name], models, oracle)
        result["datasets"][name] = facts
        result["cells"] += cells
        result["comparison"][name] = comparison
    named = {run.model for run in runs}
    # settings were tried on the logs of the published table: of others there is nothing to say
    if published_datasets() & set(logs):
        budget = tuning_budget()
        result["tuning"] = {model: facts for model, facts in budget.items() if model in named}
        result["published_table"] = published_table()
    return result


def _dataset(
    name: str,
    log: SessionLog,
    models: Mapping[str, Mapping[int | None, Sequence[Outcome]]],
    oracle: Mapping[str, float] | None,
) -> tuple[Json, list[Json], Json]:
    """Facts, cells and comparison of one data set."""
    resplits = list(next(iter(models.values())))
    events = PooledEvents.of(log, resplits)
    facts = dataset_facts(name, log, resplits, events, oracle)
    rows = [row for model, splits in models.items() for row in _rows(model, splits)]
    cells = [
        cell
        for row in rows
        for cell in cells_of(row, name, resplits, events, facts["floors"]["random"], oracle)
    ]
    comparison = {}
    for place, k in enumerate(KS if rows else ()):
        parts, comparison[str(k)] = compare_rows(rows, events, k)
        # one cell per row and k, in that order
        for cell, part in zip(cells[place :: len(KS)], parts, strict=True):
            cell |= part
    if rows:
        versus, comparison["nll"] = compare_nll(rows, events)
        for place, difference in enumerate(versus):
            for cell in cells[place * len(KS) : (place + 1) * len(KS)]:
                cell["nll_vs_best_other"] = difference
    return facts, cells, comparison


def _rows(model: str, splits: Mapping[int | None, Sequence[Outcome]]) -> list[Row]:
    """A model's rows; none if one of its runs failed: figures of the seeds that went well would
    flatter it."""
    runs = [[run for run in seeds if isinstance(run, RunFigures)] for seeds in splits.values()]
    whole = all(len(kept) == len(seeds) for kept, seeds in zip(runs, splits.values(), strict=True))
    return rows_of(model, runs) if whole else []


def _groups(runs: Sequence[GridRun], outcomes: Mapping[int, Outcome]) -> Groups:
    groups: Groups = {}
    for i, run in enumerate(runs):
        splits = groups.setdefault(run.dataset, {}).setdefault(run.model, {})
        splits.setdefault(run.resplit, []).append(outcomes[i])
    return groups


def _failed(runs: Sequence[GridRun], outcomes: Mapping[int, Outcome]) -> list[Json]:
    failed = []
    for i, run in enumerate(runs):
        outcome = outcomes[i]
        if isinstance(outcome, RunFailure):
            where = {
                "dataset": run.dataset,
                "model": run.model,
                "resplit": run.resplit,
                "seed": run.seed,
            }
            failed.append(where | dataclasses.asdict(outcome))
    return failed


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
    nll: Float64Array
    """NLL of each event, nats, likewise, shape (n_events,)"""
    displays: DisplayRanking | None
    """how displays are ranked, likewise; None where each has one choice event"""

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
    return [_row(model, head, runs) for head in runs[0][0].test.heads]


def _row(model: str, head: str, runs: Sequence[Sequence[RunFigures]]) -> Row:
    def pooled(values: Callable[[HeadFigures], Float64Array]) -> Float64Array:
        """One value per event, averaged over seeds: users are what an interval is about, seeds have
        their own ±."""
        splits = [[values(run.test.heads[head]) for run in seeds] for seeds in runs]
        return np.concatenate([np.mean(seeds, axis=0) for seeds in splits])

    def ranked(one: HeadFigures) -> DisplayRanking:
        assert one.displays is not None
        return one.displays.per_event

    precision = {k: pooled(lambda one: one.precision_per_event[k]) for k in KS}  # noqa: B023
    nll, displays = pooled(lambda one: one.nll_per_event), None
    if all(run.test.heads[head].displays is not None for seeds in runs for run in seeds):
        recall = {k: pooled(lambda one: ranked(one).recall[k]) for k in KS}  # noqa: B023
        mrr, ndcg = pooled(lambda one: ranked(one).mrr), pooled(lambda one: ranked(one).ndcg)
        displays = DisplayRanking(recall, mrr, ndcg)
    return Row(model, head, tuple(map(tuple, runs)), precision, nll, displays)


def cells_of(
    row: Row,
    dataset: str,
    resplits: Sequence[int | None],
    events: PooledEvents,
    random: Mapping[str, float],
    oracle: Mapping[str, float] | None,
) -> list[Json]:
    """One cell per k, ready for JSON; `random` and `oracle` hold prec@k of the floor and of the
    truth by k as text."""
    runs = [run for seeds in row.runs for run in seeds]
    gaps = [run.train_gap for run in runs if run.train_gap is not None]
    nll = row.by_seed(lambda head: head.nll.mean)
    nll_interval = bootstrap_mean(row.nll, events.users)
    shared = {
        "protocol": runs[0].protocol,
        "selection": runs[0].select,
        "settings_tried": runs[0].settings_tried,
        "seeds": len(row.runs[0]),
        "splits": len(row.runs),
        "nll": _mean(nll),
        "nll_sd": _sd(nll),
        "nll_ci": [nll_interval.low, nll_interval.high],
        "ece": _mean(row.by_seed(lambda head: head.ece)),
        "brier": _mean(row.by_seed(lambda head: head.brier)),
        "gap": _mean(gaps) if gaps else None,
        "seconds": _mean([run.seconds for run in runs]),
        "mrr": None,
        "mrr_ci": None,
        "ndcg": None,
        "ndcg_ci": None,
    }
    if row.displays is not None:
        shared |= _pooled("mrr", row.displays.mrr, events)
        shared |= _pooled("ndcg", row.displays.ndcg, events)
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
            "prec_nontrivial": micro_mean(values[events.sizes > k]),
            "prec_per_user": user_mean(values, events.users),
            "way_to_oracle": way,
            "by_split": _by_split(row, resplits, k),
            "recall": None,
            "recall_ci": None,
        }
        if row.displays is not None:
            cell |= _pooled("recall", row.displays.recall[k], events)
        cells.append(cell | shared)
    return cells


def _pooled(name: str, values: Float64Array, events: PooledEvents) -> Json:
    """A figure and its interval over users."""
    interval = bootstrap_mean(values, events.users)
    return {name: interval.mean, f"{name}_ci": [interval.low, interval.high]}


def _precision_by_seed(row: Row, k: int) -> Float64Array:
    return row.by_seed(lambda head: head.precision[k].mean, lambda head: head.precision[k].n_events)


def _by_split(row: Row, resplits: Sequence[int | None], k: int) -> dict[str, float] | None:
    """Mean over seeds of each split, by its seed as text; None for the log's own split alone."""
    if list(resplits) == [None]:
        return None
    means = [_mean([head.precision[k].mean for head in seeds]) for seeds in row.heads]
    return {str(seed): mean for seed, mean in zip(resplits, means, strict=True)}


def _all_events(head: HeadFigures) -> int:
    return head.nll.n_events


def _mean(values: Sequence[float] | Float64Array) -> float:
    return float(np.mean(values))


def _sd(values: Sequence[float] | Float64Array) -> float:
    """Standard deviation over seeds (n - 1); 0 for a single seed, whose spread is unknown: see
    the cell's `seeds`."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


OURS = ("fastgaum", "reward")
"""the row that is compared in words"""


def is_other(row: Row, than: Row) -> bool:
    """Whether a row is of another model: a preset and the same with exact players are one."""
    return row.model.removesuffix("-exact") != than.model.removesuffix("-exact")


def compare_rows(rows: Sequence[Row], events: PooledEvents, k: int) -> tuple[list[Json], Json]:
    """Compare the rows of one data set at one k.

    Returns:
        For each row {vs_best_other, bold}: its paired difference to the best row of another model
        (for the best row the runner-up), None without one, and whether it is the column's best by
        more than chance; floors never are. And the column's summary: {best, ours}, ours None where
        it is not among the rows.
    """
    means = [micro_mean(row.values[k]) for row in rows]
    ranks = sorted(range(len(rows)), key=lambda i: math.inf if math.isnan(means[i]) else -means[i])
    ordered = [rows[i] for i in ranks]
    parts = []
    for row in rows:
        others = [other for other in ordered if is_other(other, row)]
        versus = _versus(row, others[0], events, k) if others else None
        parts.append(
            {
                "vs_best_other": versus,
                "bold": row is ordered[0] and _is_ahead(row, others, events, k),
            }
        )
    named = [
        {"model": row.model, "head": row.head, "mean": mean, **part}
        for row, mean, part in zip(rows, means, parts, strict=True)
    ]
    ours = next((one for one in named if (one["model"], one["head"]) == OURS), None)
    return parts, {"best": named[ranks[0]], "ours": ours}


def compare_nll(rows: Sequence[Row], events: PooledEvents) -> tuple[list[Json | None], Json]:
    """Compare the NLL of the rows of one data set.

    Returns:
        For each row its paired difference to the row of the lowest NLL of another model (for the
        lowest of all the runner-up), None without one. And the lowest: {model, head, mean,
        vs_best_other}.
    """
    means = [float(row.nll.mean()) for row in rows]
    ordered = sorted(range(len(rows)), key=means.__getitem__)
    parts: list[Json | None] = []
    for row in rows:
        other = next((rows[i] for i in ordered if is_other(rows[i], row)), None)
        parts.append(None if other is None else _difference(row.nll, other.nll, other, events))
    best = ordered[0]
    lowest = {"model": rows[best].model, "head": rows[best].head, "mean": means[best]}
    return parts, lowest | {"vs_best_other": parts[best]}


def _is_ahead(row: Row, others: Sequence[Row], events: PooledEvents, k: int) -> bool:
    """Whether the interval to every other model's row lies above 0, not only to the runner-up's.

    A row that goes wrong on other events than the best one has a wide interval: being third, it may
    still be level with the best when the runner-up is not."""
    if not others or row.model in FLOOR_MODELS.values():
        return False
    return all(_versus(row, other, events, k)["ci"][0] > 0 for other in others)


def _versus(row: Row, other: Row, events: PooledEvents, k: int) -> Json:
    return _difference(row.values[k], other.values[k], other, events)


def _difference(ours: Float64Array, theirs: Float64Array, other: Row, events: PooledEvents) -> Json:
    difference = paired_difference(ours, theirs, events.users)
    return {
        "model": other.model,
        "head": other.head,
        "diff": difference.mean,
        "ci": [difference.low, difference.high],
    }
