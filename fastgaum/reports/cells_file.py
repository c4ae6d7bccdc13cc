"""The reproduce object as text for machines: one csv line per cell, and JSON with one line per
cell."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

CSV_COLUMNS = (
    "dataset",
    "protocol",
    "model",
    "head",
    "k",
    "mean",
    "sd",
    "ci_low",
    "ci_high",
    "bold",
    "vs_model",
    "vs_head",
    "vs_diff",
    "vs_low",
    "vs_high",
    "published",
    "seeds",
    "splits",
    "n_events",
    "nll",
    "nll_sd",
    "ece",
    "brier",
    "gap",
    "prec_nontrivial",
    "prec_per_user",
    "way_to_oracle",
    "selection",
    "seconds",
)


def to_csv(result: Mapping[str, Any]) -> str:
    """One line per cell under CSV_COLUMNS, in the object's order; what does not exist is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for cell in result["cells"]:
        low, high = cell["ci"]
        versus = cell.get("vs_best_other") or {
            "model": None,
            "head": None,
            "diff": None,
            "ci": (None, None),
        }
        flat = {
            "ci_low": low,
            "ci_high": high,
            "vs_model": versus["model"],
            "vs_head": versus["head"],
            "vs_diff": versus["diff"],
            "vs_low": versus["ci"][0],
            "vs_high": versus["ci"][1],
        }
        writer.writerow(finite({**cell, **flat}))
    return text.getvalue()


def to_json(result: Mapping[str, Any]) -> str:
    """One JSON object with a line per cell, data set and published row, so that two tables differ
    by lines."""
    parts = [f"{json.dumps(key)}: {_lines(value)}" for key, value in finite(result).items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def finite(value: Any) -> Any:
    """The same value with null for a figure that does not exist (NaN), which JSON does not have;
    keys as text."""
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(value: Any) -> str:
    if isinstance(value, dict) and value:
        return (
            "{\n"
            + ",\n".join(f"  {_json(key)}: {_json(one)}" for key, one in value.items())
            + "\n}"
        )
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"  {_json(one)}" for one in value) + "\n]"
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
