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
    runs: Sequence[Sequence[RunFigures]]
    """by split, then by seed"""
    by_seed: Mapping[str, Float64Array]
    """figures of each event, splits one after the other, each of shape (n_seeds, n_events): prec1
    and prec2 in percent, nll in nats; recall1, recall2, mrr and ndcg where displays have several
    choices"""

    def pooled(self, figure: str) -> Float64Array:
        """A figure of each event, shape (n_events,). It is averaged over seeds: users are what an
        interval is about, seeds have their own ±."""
        return np.asarray(self.by_seed[figure].mean(axis=0), np.float64)


def rows_of(model: str, runs: Sequence[Sequence[RunFigures]]) -> list[Row]:
    """One row per head of a model; `runs` by split, then by seed."""
    return [_row(model, head, runs) for head in runs[0][0].test.heads]


def _row(model: str, head: str, runs: Sequence[Sequence[RunFigures]]) -> Row:
    splits = [[_figures_of_events(run.test.heads[head]) for run in seeds] for seeds in runs]
    known = [figure for figure in splits[0][0] if all(figure in one for s in splits for one in s)]
    by_seed = {
        figure: np.concatenate([[one[figure] for one in seeds] for seeds in splits], axis=1)
        for figure in known
    }
    return Row(model, head, runs, by_seed)


def _figures_of_events(head: HeadFigures) -> dict[str, Float64Array]:
    found = {f"prec{k}": head.precision_per_event[k] for k in KS} | {"nll": head.nll_per_event}
    if head.displays is None:
        return found
    ranked = head.displays.per_event
    recall = {f"recall{k}": ranked.recall[k] for k in KS}
    return found | recall | {"mrr": ranked.mrr, "ndcg": ranked.ndcg}


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
    heads = [[run.test.heads[row.head] for run in seeds] for seeds in row.runs]
    gaps = [run.train_gap for run in runs if run.train_gap is not None]
    ece, brier = (
        np.average([[getattr(one, name) for one in seeds] for seeds in heads], 0, events.counts)
        for name in ("ece", "brier")
    )
    shared = {
        "protocol": runs[0].protocol,
        "selection": runs[0].select,
        "settings_tried": runs[0].settings_tried,
        "seeds": len(row.runs[0]),
        "splits": len(row.runs),
        **_interval(row, "nll", "nll", events),
        "nll_sd": _sd(row.by_seed["nll"].mean(axis=1)),
        "ece": float(ece.mean()),
        "brier": float(brier.mean()),
        "gap": float(np.mean(gaps)) if gaps else None,
        "seconds": float(np.mean([run.seconds for run in runs])),
        **_interval(row, "mrr", "mrr", events),
        **_interval(row, "ndcg", "ndcg", events),
    }
    cells = []
    for k in KS:
        values = row.pooled(f"prec{k}")
        interval = bootstrap_mean(values, events.users)
        way = None
        if oracle is not None:
            floor = random[str(k)]
            way = (interval.mean - floor) / (oracle[str(k)] - floor)
        by_split = None
        if list(resplits) != [None]:
            means = [[head.precision[k].mean for head in seeds] for seeds in heads]
            by_split = {
                str(seed): float(np.mean(one)) for seed, one in zip(resplits, means, strict=True)
            }
        cell = {
            "dataset": dataset,
            "model": row.model,
            "head": row.head,
            "k": k,
            "mean": interval.mean,
            "sd": _sd([micro_mean(seed) for seed in row.by_seed[f"prec{k}"]]),
            "ci": [interval.low, interval.high],
            "published": published_mean(dataset, published_row(row.model, row.head), k),
            "n_events": interval.n_events,
            "prec_nontrivial": micro_mean(values[events.sizes > k]),
            "prec_per_user": user_mean(values, events.users),
            "way_to_oracle": way,
            "by_split": by_split,
            **_interval(row, f"recall{k}", "recall", events),
        }
        cells.append(cell | shared)
    return cells


def _interval(row: Row, figure: str, name: str, events: PooledEvents) -> Json:
    """A figure under its name in a cell, with its interval over users; None where it is unknown."""
    if figure not in row.by_seed:
        return {name: None, f"{name}_ci": None}
    found = bootstrap_mean(row.pooled(figure), events.users)
    return {name: found.mean, f"{name}_ci": [found.low, found.high]}


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
    figure = f"prec{k}"
    means = [micro_mean(row.pooled(figure)) for row in rows]
    ranks = sorted(range(len(rows)), key=lambda i: math.inf if math.isnan(means[i]) else -means[i])
    versus = _versus_best([rows[i] for i in ranks], rows, figure, events)
    parts = [
        {
            "vs_best_other": difference,
            "bold": row is rows[ranks[0]] and _is_ahead(row, rows, figure, events),
        }
        for row, difference in zip(rows, versus, strict=True)
    ]
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
    means = [float(row.pooled("nll").mean()) for row in rows]
    ranks = sorted(range(len(rows)), key=means.__getitem__)
    versus = _versus_best([rows[i] for i in ranks], rows, "nll", events)
    best = ranks[0]
    lowest = {"model": rows[best].model, "head": rows[best].head, "mean": means[best]}
    return versus, lowest | {"vs_best_other": versus[best]}


def _versus_best(
    ordered: Sequence[Row], rows: Sequence[Row], figure: str, events: PooledEvents
) -> list[Json | None]:
    """Each row's difference to the first of the ordered rows that is another model's."""
    rivals = [next((one for one in ordered if is_other(one, row)), None) for row in rows]
    return [
        None if rival is None else _difference(row, rival, figure, events)
        for row, rival in zip(rows, rivals, strict=True)
    ]


def _is_ahead(row: Row, rows: Sequence[Row], figure: str, events: PooledEvents) -> bool:
    """Whether the interval to every other model's row lies above 0, not only to the runner-up's.

    A row that goes wrong on other events than the best one has a wide interval: being third, it may
    still be level with the best when the runner-up is not."""
    others = [one for one in rows if is_other(one, row)]
    if not others or row.model in FLOOR_MODELS.values():
        return False
    return all(_difference(row, one, figure, events)["ci"][0] > 0 for one in others)


def _difference(row: Row, other: Row, figure: str, events: PooledEvents) -> Json:
    difference = paired_difference(row.pooled(figure), other.pooled(figure), events.users)
    return {
        "model": other.model,
        "head": other.head,
        "diff": difference.mean,
        "ci": [difference.low, difference.high],
    }
