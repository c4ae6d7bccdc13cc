"""A data set of the grid: rows and cells, their paired comparisons, and the facts beside them.

A row is one model's head, its seeds averaged and the test events of its splits pooled. A user may
stand in the test part of several splits. The pooled mean is over all test events of all splits, and
the bootstrap draws users with their events from all of them: events of one user never count as
independent.

The other row of a comparison is always another model's: the heads of one model are one training,
and the generator that follows its own reward closely is no rival of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgaum.baselines.floors import floor_precisions
from fastgaum.baselines.registry import BASELINES, baseline_class
from fastgaum.features.selection import select_sessions
from fastgaum.logs.audit import audit
from fastgaum.logs.audit_rules import EARLIER_DISPLAYS
from fastgaum.logs.log import IntArray, SessionLog
from fastgaum.logs.registry import dataset, names
from fastgaum.logs.truth import Truth, oracle_scores
from fastgaum.metrics.evaluation import HeadFigures
from fastgaum.metrics.intervals import bootstrap_mean, paired_difference
from fastgaum.metrics.precision import Float64Array, micro_mean, user_mean
from fastgaum.reports.grid import RunFigures, split_log
from fastgaum.reports.log_facts import authors_code, best_published, preset_row, published_mean
from fastgaum.reports.reproduce_table import FLOOR_MODELS

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
    """Standard deviation over seeds (n - 1); 0 for a single seed, whose spread is unknown: see
    the cell's `seeds`."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


OURS = ("fastgaum", "reward")
"""the row that is compared in words"""


def compare_rows(
    rows: Sequence[Row], events: PooledEvents, k: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare the rows of one data set at one k.

    Returns:
        For each row {vs_best_other, bold}: its paired difference to the best row of another model
        (for the best row the runner-up), None without one, and whether it is the column's best by
        more than chance; floors never are. And the column's summary: {best, ours}, ours None where
        it is not among the rows.
    """
    means = [micro_mean(row.values[k]).value for row in rows]
    ranks = sorted(range(len(rows)), key=lambda i: math.inf if math.isnan(means[i]) else -means[i])
    ordered = [rows[i] for i in ranks]
    parts = []
    for row in rows:
        others = [other for other in ordered if other.model != row.model]
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


def _is_ahead(row: Row, others: Sequence[Row], events: PooledEvents, k: int) -> bool:
    """Whether the interval to every other model's row lies above 0, not only to the runner-up's.

    A row that goes wrong on other events than the best one has a wide interval: being third, it may
    still be level with the best when the runner-up is not."""
    if not others or row.model in FLOOR_MODELS.values():
        return False
    return all(_versus(row, other, events, k)["ci"][0] > 0 for other in others)


def _versus(row: Row, other: Row, events: PooledEvents, k: int) -> dict[str, Any]:
    difference = paired_difference(row.values[k], other.values[k], events.users)
    return {
        "model": other.model,
        "head": other.head,
        "diff": difference.mean,
        "ci": [difference.low, difference.high],
    }


def dataset_facts(
    name: str,
    log: SessionLog,
    resplits: Sequence[int | None],
    events: PooledEvents,
    oracle: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Facts of a log under its splits, ready for JSON; `oracle` holds what the truth scores, where
    it is known."""
    splits = [split_log(log, seed) for seed in resplits]
    facts: dict[str, Any] = {
        "n_test_events": len(events.users),
        "n_test_users": len(np.unique(events.users)),
        "fingerprint": log.fingerprint,
        "floors": _floors(splits),
        "shares": _shares(splits),
        "published_best": best_published(name),
        "authors_code": authors_code(name),
    }
    if name in names() and dataset(name).simulated:
        facts["simulated"] = {"rule": dataset(name).build["name"], "trace": _trace(splits)}
    return facts if oracle is None else facts | {"oracle": dict(oracle)}


def _trace(splits: Sequence[SessionLog]) -> float:
    """prec@1, percent, of "fewest displays earlier in the session" on the test events of all
    splits: the rule's trace."""
    found = [
        (one.test_prec_at_1, len(split.sessions_in("test")))
        for split in splits
        for one in audit(split).findings
        if one.rule.startswith(EARLIER_DISPLAYS) and one.test_prec_at_1 is not None
    ]
    return weighted_mean([value for value, _ in found], [n for _, n in found])


def _floors(splits: Sequence[SessionLog]) -> dict[str, dict[str, float]]:
    """prec@k, percent, of each floor fitted on each split, over the test events of all."""
    parts = [floor_precisions(split, "test", KS) for split in splits]
    return {
        floor.replace(" ", "_"): {
            str(k): micro_mean(np.concatenate([part[floor][k] for part in parts])).value for k in KS
        }
        for floor in parts[0]
    }


def _shares(splits: Sequence[SessionLog]) -> dict[str, dict[str, Any]]:
    """The audit's shares, each over what it counts in all splits."""
    parts = zip(*(audit(split).facts for split in splits), strict=True)
    shares: dict[str, dict[str, Any]] = {}
    for facts in parts:
        n = [fact.n for fact in facts]
        percent = weighted_mean([fact.percent or 0.0 for fact in facts], n)
        shares[facts[0].name] = {"percent": percent if sum(n) else None, "n": sum(n)}
    return shares


def pooled_oracle(
    log: SessionLog, truth: Truth, resplits: Sequence[int | None]
) -> dict[str, float]:
    """What the truth scores on the test events of all splits: {"1": prec@1, "2": prec@2} in
    percent, "nll" in nats."""
    scores = [oracle_scores(split_log(log, seed), truth, ks=KS) for seed in resplits]
    choices, events = [one.n_choices for one in scores], [one.n_events for one in scores]
    precision = {
        str(k): 100 * weighted_mean([one.precision[k] for one in scores], choices) for k in KS
    }
    return {**precision, "nll": weighted_mean([one.nll for one in scores], events)}


def weighted_mean(values: Sequence[float], counts: Sequence[int]) -> float:
    """Mean of means over what they count; NaN if that is nothing.

    >>> weighted_mean([1.0, 4.0, float("nan")], [2, 1, 0])
    2.0
    """
    pairs = [(value, n) for value, n in zip(values, counts, strict=True) if n > 0]
    total = sum(n for _, n in pairs)
    return sum(value * n for value, n in pairs) / total if total else float("nan")
