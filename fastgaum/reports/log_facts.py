"""Facts of a log for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.baselines.floors import Precisions, floor_precisions, means_of
from fastgaum.features.sessions import event_weights, select_sessions
from fastgaum.logs.audit import audit
from fastgaum.logs.audit_rules import EARLIER_DISPLAYS
from fastgaum.logs.datasets import dataset, names
from fastgaum.logs.fold import Rows
from fastgaum.logs.log import SPLITS, SessionLog, SplitName, effective_events
from fastgaum.logs.synthetic import Truth
from fastgaum.metrics.precision import KS, micro_mean
from fastgaum.reports.grid import split_log
from fastgaum.reports.published_figures import facts_of_others
from fastgaum.reports.table import Json
from fastgaum.worlds.oracle import oracle_scores


def title_of(log: SessionLog) -> str:
    """A log's name, marked if it is that of another data set of the registry."""
    if log.name not in names():
        return log.name
    known = dataset(log.name).counts
    same = all(getattr(log, f"n_{what}", None) == n for what, n in known.items())
    return log.name if same else f"{log.name} (another log)"


def log_facts(
    log: SessionLog, split: SplitName, floors: Precisions, raw: Rows | None = None
) -> Json:
    """Facts of one log, for JSON; with its raw rows the audit also looks at their order. Raises
    LogFormatError if the raw rows belong to another log."""
    found = audit(log, raw).to_dict()
    # every look at figures of the test split makes them worth less
    if split != "test":
        for finding in found["findings"]:
            finding["test_prec_at_1"] = None
    part = select_sessions(log, log.sessions_in(split))
    return {
        "name": log.name,
        "fingerprint": log.fingerprint,
        "n_items": log.n_items,
        "n_candidates": log.n_candidates,
        "n_actions": log.n_actions,
        "splits": [_split_facts(log, name) for name in SPLITS],
        "fields": sorted(log.columns),
        "views": log.views is not None,
        "ordered": log.ordered,
        "weighted": log.weights is not None,
        "floors": {
            name: {str(k): value for k, value in by_k.items()}
            for name, by_k in means_of(floors, log.weight_of_event[part.events]).items()
        },
        **facts_of_others(title_of(log)),
        "audit": found,
    }


def _split_facts(log: SessionLog, name: str) -> Json:
    part = select_sessions(log, log.sessions_in(name))  # type: ignore[arg-type]
    sizes = np.diff(part.display_offsets)
    weights = event_weights(log, part.events)
    return {
        "effective_events": effective_events(weights),
        "split": name,
        "users": len(np.unique(np.asarray(log.users)[part.rows])),
        "sessions": len(part.rows),
        "events": len(sizes),
        "candidates": int(sizes.sum()),
        "actions": log.count("actions", name),  # type: ignore[arg-type]
        "no_click": float((part.choices < 0).mean()) if len(sizes) else None,
        "sizes": [int(value) for value in np.quantile(sizes, [0, 0.5, 1], method="nearest")]
        if len(sizes)
        else None,
    }


@dataclass(frozen=True)
class PooledEvents:
    """The test events of a log under each of its splits, split after split."""

    users: IntArray
    """user of each event, shape (n_events,)"""
    sizes: IntArray
    """candidates of each event, shape (n_events,)"""
    counts: tuple[int, ...]
    """events of each split"""
    weights: Float64Array
    """of each event, shape (n_events,)"""

    @property
    def totals(self) -> list[float]:
        """The summed weights of each split."""
        return [one.sum() for one in np.split(self.weights, np.cumsum(self.counts)[:-1])]

    @classmethod
    def of(cls, log: SessionLog, resplits: Sequence[int | None]) -> PooledEvents:
        """Collect them; None in `resplits` stands for the log's own split."""
        users, sizes, weights = [], [], []
        for seed in resplits:
            split = split_log(log, seed)
            part = select_sessions(split, split.sessions_in("test"))
            users.append(np.repeat(split.users[part.rows], np.diff(part.session_offsets)))
            sizes.append(np.diff(part.display_offsets))
            weights.append(log.weight_of_event[part.events])
        joined = [np.concatenate(parts) for parts in (users, sizes, weights)]
        return cls(joined[0], joined[1], tuple(map(len, users)), joined[2])


def dataset_facts(
    name: str,
    log: SessionLog,
    resplits: Sequence[int | None],
    events: PooledEvents,
    oracle: Mapping[str, float] | None = None,
) -> Json:
    """Facts of a log under its splits, for JSON; `oracle` holds the scores of the truth."""
    splits = [split_log(log, seed) for seed in resplits]
    audits = [audit(split) for split in splits]
    floors = [floor_precisions(split) for split in splits]
    shares: Json = {}
    for parts in zip(*(one.facts for one in audits), strict=True):
        n = [part.n for part in parts]
        percent = weighted_mean([part.percent or 0.0 for part in parts], n)
        shares[parts[0].name] = {"percent": percent if sum(n) else None, "n": sum(n)}
    entry = dataset(name) if name in names() else None
    facts: Json = {
        "unit": "users" if entry is None else entry.unit,
        "n_train_events": round(np.mean([one.count("events", "train") for one in splits])),
        "display_size": log.n_candidates / log.n_events,
        "holds": log_holds(log),
        "n_test_events": len(events.users),
        "n_test_users": len(np.unique(events.users)),
        "weighted": log.weights is not None,
        "fingerprint": log.fingerprint,
        "floors": {
            floor.replace(" ", "_"): {
                str(k): micro_mean(
                    np.concatenate([part[floor][k] for part in floors]), events.weights
                )
                for k in KS
            }
            for floor in floors[0]
        },
        "shares": shares,
        **facts_of_others(name),
    }
    if entry is not None and entry.simulated:
        # what the rule's trace alone scores: fewest displays earlier in the session
        traces = [
            (one.test_prec_at_1, split.count("choices", "test"))
            for split, found in zip(splits, audits, strict=True)
            for one in found.findings
            if one.rule.startswith(EARLIER_DISPLAYS) and one.test_prec_at_1 is not None
        ]
        trace = weighted_mean([value for value, _ in traces], [n for _, n in traces])
        facts["simulated"] = {"rule": "nearest", "trace": trace}
    return facts if oracle is None else facts | {"oracle": dict(oracle)}


def log_holds(log: SessionLog) -> list[str]:
    """What a log holds beside identities, in words."""
    kinds = {column.holds for column in log.columns_of("candidate", "item").values()}
    found = {
        "context": log.context,
        "numbers": "number" in kinds,
        "categories": "category" in kinds,
        "vectors": log.vectors,
        "order": log.ordered,
        "no click": log.has_no_click,
        "actions": log.n_actions,
    }
    return [what for what, there in found.items() if there]


def pooled_oracle(
    log: SessionLog, truth: Truth, resplits: Sequence[int | None]
) -> dict[str, float]:
    """Scores of the truth on the test events of all splits: {"1": prec@1, "2": prec@2} in percent,
    "nll" in nats."""
    scores = [oracle_scores(split_log(log, seed), truth) for seed in resplits]
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
