"""`reproduce`: train a plan's runs and put their figures together as one JSON-ready object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from fastgaum.logs.log import SessionLog
from fastgaum.machine import machine_facts
from fastgaum.reports.cells import (
    KS,
    PooledEvents,
    Row,
    cells_of,
    compare_rows,
    dataset_facts,
    rows_of,
)
from fastgaum.reports.grid import GridRun, Outcome, RunFailure, RunFigures, run_all
from fastgaum.reports.log_facts import published_datasets, published_table, tuning_budget

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
) -> dict[str, Any]:
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
    result: dict[str, Any] = {
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
    result["tuning"] = {model: facts for model, facts in tuning_budget().items() if model in named}
    if published_datasets() & set(logs):
        result["published_table"] = published_table()
    return result


def _dataset(
    name: str,
    log: SessionLog,
    models: Mapping[str, Mapping[int | None, Sequence[Outcome]]],
    oracle: Mapping[str, float] | None,
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
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


def _failed(runs: Sequence[GridRun], outcomes: Mapping[int, Outcome]) -> list[dict[str, Any]]:
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
            failed.append(where | {"reason": outcome.reason})
    return failed
