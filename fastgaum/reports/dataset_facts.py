"""What a reader needs beside a data set's cells: test events, floors, shares, published figures;
splits pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgaum.baselines.floors import floor_precisions
from fastgaum.logs.audit import audit
from fastgaum.logs.audit_rules import EARLIER_DISPLAYS
from fastgaum.logs.log import SessionLog
from fastgaum.logs.registry import dataset, names
from fastgaum.logs.truth import Truth, oracle_scores
from fastgaum.metrics.precision import micro_mean
from fastgaum.reports.cells import KS, PooledEvents
from fastgaum.reports.jobs import split_log
from fastgaum.reports.published import authors_code, best_published


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
