"""Paired comparisons of a table's rows: which is ahead, of which other, and by more than chance or
not.

The other row of a comparison is always another model's: the heads of one model are one training,
and the generator that follows its own reward closely is no rival of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastgaum.metrics.intervals import paired_difference
from fastgaum.metrics.precision import micro_mean
from fastgaum.reports.cells import PooledEvents, Row
from fastgaum.reports.table import FLOOR_MODELS

OURS = ("fastgaum", "reward")
"""the row that is compared in words"""


def compare(
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
