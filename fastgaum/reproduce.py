"""The grid behind `fastgaum reproduce`: data sets × models × seeds → floors and cells, as one JSON-ready object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from fastgaum.baselines.floors import candidates_of, floor_table
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.metrics.intervals import bootstrap_mean
from fastgaum.metrics.published import authors_code, best_published, published_mean
from fastgaum.sessions.audit import audit
from fastgaum.sessions.packed import IntArray, SessionLog
from fastgaum.sessions.ragged import pick_rows
from fastgaum.training.jobs import Run, RunFigures, run_all
from fastgaum.training.runs import machine_facts

KS = (1, 2)


def plan(
    datasets: Sequence[str], models: Sequence[str], seeds: int, protocol: str, settings: Mapping[str, Any]
) -> list[Run]:
    """List the runs of a grid, in the order of its table; the first seed is the settings' own, or 0.

    Raises:
        ConfigError: an unknown preset or setting, or no seed.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}")
    if "preset" in settings:
        raise ConfigError("--set preset does not fit a grid of presets: name them with --models")
    configs = [Config.from_preset(model, **{"protocol": protocol, **settings}) for model in models]
    return [
        Run(dataset, model, config.replace(seed=config.seed + i))
        for dataset in datasets
        for model, config in zip(models, configs, strict=True)
        for i in range(seeds)
    ]


def reproduce(
    logs: Mapping[str, SessionLog],
    runs: Sequence[Run],
    *,
    oracles: Mapping[str, Mapping[str, float]] | None = None,
    jobs: int = 1,
    device: str = "auto",
    on_start: Callable[[Run], None] = lambda run: None,
    on_done: Callable[[Run, RunFigures, int], None] = lambda run, figures, done: None,
) -> dict[str, Any]:
    """Train and evaluate every run and return {machine, datasets, cells}; prec@k in percent, NLL in nats.

    `oracles` holds {"1": prec@1, "2": prec@2, "nll": NLL} of logs whose true choice probabilities are known. At most
    `jobs` runs at a time; how many does not change a figure.

    Raises:
        NumericsError, LogFormatError, ConfigError: from a run.
    """
    figures: dict[int, RunFigures] = {}
    with closing(run_all(logs, runs, jobs, device, on_start)) as results:
        for index, result in results:
            figures[index] = result
            on_done(runs[index], result, len(figures))
    cells: list[dict[str, Any]] = []
    for (dataset, model), group in _groups(runs).items():
        oracle = (oracles or {}).get(dataset)
        select = runs[group[0]].config.select
        cells += _cells(logs[dataset], dataset, model, select, [figures[i] for i in group], oracle)
    return {
        "machine": machine_facts(),
        "datasets": {name: dataset_facts(name, log, (oracles or {}).get(name)) for name, log in logs.items()},
        "cells": cells,
    }


def dataset_facts(name: str, log: SessionLog, oracle: Mapping[str, float] | None = None) -> dict[str, Any]:
    """What a reader needs beside the cells: test events, floors, shares, best published prec@k, the oracle if known."""
    test = log.sessions_in("test")
    _, offsets, _ = candidates_of(log, test)
    floors = floor_table(log, "test", KS)
    facts: dict[str, Any] = {
        "n_test_events": len(offsets) - 1,
        "n_test_users": len(np.unique(log.users[test])),
        "fingerprint": log.fingerprint,
        "floors": {
            floor.replace(" ", "_"): {str(k): value for k, value in precs.items()} for floor, precs in floors.items()
        },
        "shares": {fact.name: {"percent": fact.percent, "n": fact.n} for fact in audit(log).facts},
        "published_best": best_published(name),
        "authors_code": authors_code(name),
    }
    return facts if oracle is None else facts | {"oracle": dict(oracle)}


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[int]]:
    """Places of the seeds of each data set and model."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault((run.dataset, run.model), []).append(i)
    return groups


def _cells(
    log: SessionLog, dataset: str, model: str, select: str, figures: Sequence[RunFigures],
    oracle: Mapping[str, float] | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """One cell per head and k."""
    users = _users_of_events(log, log.sessions_in("test"))
    gaps = [one.train_gap for one in figures if one.train_gap is not None]
    cells = []
    for head in figures[0].test.heads:
        heads = [one.test.heads[head] for one in figures]
        for k in KS:
            # One value per event, averaged over seeds: users are what the interval is about, seeds have their own ±.
            values = np.mean([one.precision_per_event[k] for one in heads], axis=0)
            interval = bootstrap_mean(values, users)
            random = figures[0].test.random[k]
            cells.append(
                {
                    "dataset": dataset, "model": model, "head": head, "k": k,
                    "mean": interval.mean, "sd": _sd([one.precision[k].mean for one in heads]),
                    "ci": [interval.low, interval.high],
                    "published": published_mean(dataset, model, head, k),
                    "seeds": len(figures), "n_events": interval.n_events,
                    "nll": _mean(one.nll.mean for one in heads), "gap": float(np.mean(gaps)) if gaps else None,
                    "seconds": _mean(one.seconds for one in figures),
                    "nll_sd": _sd([one.nll.mean for one in heads]),
                    "ece": _mean(one.ece for one in heads), "brier": _mean(one.brier for one in heads),
                    "prec_nontrivial": _mean(one.nontrivial[k] for one in heads),
                    "prec_per_user": _mean(one.per_user[k] for one in heads),
                    "selection": select,
                    "way_to_oracle": None if oracle is None else (interval.mean - random) / (oracle[str(k)] - random),
                }
            )  # fmt: skip
    return cells


def _users_of_events(log: SessionLog, rows: IntArray) -> IntArray:
    _, events = pick_rows(log.session_offsets, rows)
    return log.users[log.session_of_event[events]]


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))


def _sd(values: Sequence[float]) -> float:
    """Standard deviation over seeds (n - 1); 0 for a single seed, whose spread nobody knows: see the cell's `seeds`."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
