"""Paired differences: a run against the best floor of its log, and two runs of one log against each
other."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgaum.baselines.floors import Precisions, means_of
from fastgaum.errors import ConfigError
from fastgaum.metrics.intervals import Interval, paired_difference
from fastgaum.reports.opened_run import Run
from fastgaum.reports.scored_split import Float64Array, Scored


def versus_floor(scored: Scored, floors: Precisions) -> dict[str, Any]:
    """The reward's prec@1 against that of the best floor on the same events: {floor, percent, diff,
    ci}."""
    means = {name: by_k[1] for name, by_k in means_of(floors).items()}
    if np.isnan(means["random"]):
        return {"floor": None, "percent": None, "diff": None, "ci": [None, None]}
    best = max(means, key=lambda name: means[name])
    ours = scored.evaluation.heads["reward"].precision_per_event[1]
    return {
        "floor": best,
        "percent": means[best],
        **_plain(paired_difference(ours, floors[best][1], scored.encoded.user_of_event)),
    }


def compared(runs: tuple[Run, Run], scored: tuple[Scored, Scored]) -> dict[str, Any]:
    """Two runs on the same events: differences first − second of each figure, and the settings that
    differ.

    Raises:
        ConfigError: they were scored on different events.
    """
    if not scored[0].has_events_of(scored[1]):
        about = [
            f"'{run.folder}' has {one.encoded.n_events} events of log '{one.log.name}' "
            f"(fingerprint {run.fingerprint[:12]})"
            for run, one in zip(runs, scored, strict=True)
        ]
        raise ConfigError(
            f"--compare needs two runs that are scored on the same events: {' and '.join(about)}: "
            "train both on one log with one split, or leave --compare out"
        )
    both = [head for head in scored[0].scores.heads if head in scored[1].scores.heads]
    return {
        "differences": [
            _difference(scored, head, what, unit) for head in both for what, unit in _FIGURES
        ],
        "settings": _settings(runs),
    }


_FIGURES = (("prec@1", "points"), ("prec@2", "points"), ("NLL", "nats"))


def _difference(scored: tuple[Scored, Scored], head: str, what: str, unit: str) -> dict[str, Any]:
    ours, theirs = (_per_event(one, head, what) for one in scored)
    interval = paired_difference(ours, theirs, scored[0].encoded.user_of_event)
    better = interval.high < 0 if what == "NLL" else interval.low > 0
    worse = interval.low > 0 if what == "NLL" else interval.high < 0
    verdict = "first is better" if better else "second is better" if worse else "not told apart"
    return {"head": head, "figure": what, "unit": unit, **_plain(interval), "verdict": verdict}


def _per_event(scored: Scored, head: str, what: str) -> Float64Array:
    if what == "NLL":
        return scored.nll(head)
    return np.asarray(scored.evaluation.heads[head].precision_per_event[int(what[-1])], np.float64)


def _settings(runs: tuple[Run, Run]) -> list[dict[str, Any]]:
    first, second = (run.model.config.to_mapping() for run in runs)
    return [
        {"key": key, "first": first[key], "second": second[key]}
        for key in first
        if first[key] != second[key]
    ]


def _plain(interval: Interval) -> dict[str, Any]:
    return {"diff": interval.mean, "ci": [interval.low, interval.high], "n_users": interval.n_users}
