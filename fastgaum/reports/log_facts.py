"""A log as a report tells it: sizes by split, what a display holds, floors, published figures, the
audit."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from fastgaum.baselines.floors import Precisions, means_of
from fastgaum.features.selection import select_sessions
from fastgaum.logs.audit import audit
from fastgaum.logs.log import SPLITS, SessionLog, SplitName
from fastgaum.reports.published import authors_code, best_published


def log_facts(
    log: SessionLog, split: SplitName, floors: Precisions, raw: pl.DataFrame | None = None
) -> dict[str, Any]:
    """Facts of one log, for JSON; with its raw rows the audit also looks at their order.

    `floors` are those of the split.

    The audit's own figures of the test split are left out unless the report is of the test split.

    Raises:
        LogFormatError: the raw rows belong to another log.
    """
    found = audit(log, raw).to_dict()
    if split != "test":
        for finding in found["findings"]:
            finding["test_prec_at_1"] = finding["test_floor"] = None
    return {
        "name": log.name,
        "fingerprint": log.fingerprint,
        "n_items": log.n_items,
        "n_candidates": log.n_candidates,
        "splits": [_split_facts(log, name) for name in SPLITS],
        "fields": sorted({*log.candidate_fields, *log.item_fields}),
        "views": log.views is not None,
        "ordered": log.ordered,
        "floors": {
            name: {str(k): value for k, value in by_k.items()}
            for name, by_k in means_of(floors).items()
        },
        "published_best": best_published(log.name),
        "authors_code": authors_code(log.name),
        "audit": found,
    }


def _split_facts(log: SessionLog, name: str) -> dict[str, Any]:
    part = select_sessions(log, log.sessions_in(name))  # type: ignore[arg-type]
    sizes = np.diff(part.display_offsets)
    return {
        "split": name,
        "users": len(np.unique(np.asarray(log.users)[part.rows])),
        "sessions": len(part.rows),
        "events": len(sizes),
        "candidates": int(sizes.sum()),
        "no_click": float((part.choices < 0).mean()) if len(sizes) else None,
        "sizes": [int(value) for value in np.quantile(sizes, [0, 0.5, 1], method="nearest")]
        if len(sizes)
        else None,
    }
