"""The policy table from its JSON object: blocks of text cells, one for each size of slates; and the
adaptation curve's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastgaum.reports.figures_text import num
from fastgaum.reports.table import Block

SHOWN = (1, 2, 5, 10)
"""episodes of an adaptation curve that its table shows"""
COLUMNS = ("policy", "cumulative reward", "95 %", "click rate", "95 %", "vs best other", "95 %")


def policy_blocks(result: Mapping[str, Any]) -> list[Block]:
    """One block per k, rows by cumulative reward; bold where the interval of the lead excludes
    0."""
    blocks = []
    for k in dict.fromkeys(row["k"] for row in result["rows"]):
        rows = sorted(
            (row for row in result["rows"] if row["k"] == k), key=lambda row: -row["return"]
        )
        bold = {
            (i, 1) for i, row in enumerate(rows) if row.get("versus") and row["versus"]["ci"][0] > 0
        }
        blocks.append(
            Block(
                f"{result['world']}, k = {k}",
                COLUMNS,
                tuple(map(_cells, rows)),
                _notes(result),
                frozenset(bold),
            )
        )
    return blocks


def adaptation_block(result: Mapping[str, Any]) -> Block:
    """The curve of `fastgaum rl adapt`: a row per number of users met, some of them, the
    pre-trained beside the untrained."""
    met = {(row["policy"], row["users"]): row for row in result["rows"]}
    users = sorted({users for _, users in met})
    rows = []
    for at in (users[episode - 1] for episode in SHOWN if episode <= len(users)):
        one, other = met["pre-trained", at], met["untrained", at]
        rows.append(
            (
                f"{at:,}",
                num(one["return"], 3),
                _span(one["ci"]),
                num(other["return"], 3),
                _span(other["ci"]),
            )
        )
    columns = ("users met", "pre-trained", "95 %", "untrained", "95 %")
    return Block(
        f"{result['policy']} meets the users of {result['in']}",
        columns,
        tuple(rows),
        (),
        frozenset(),
    )


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    versus = row.get("versus")
    lead = (
        ("", "")
        if versus is None
        else (f"{versus['diff']:+.3f} ({versus['policy']})", _span(versus["ci"]))
    )
    return (
        row["policy"],
        num(row["return"], 3),
        _span(row["return_ci"]),
        num(row["click_rate"], 3),
        _span(row["click_rate_ci"]),
        *lead,
    )


def _notes(result: Mapping[str, Any]) -> tuple[str, ...]:
    seeds = result["seeds"]
    return (
        f"reward: {result['reward']}, {result['horizon']} steps, pool {result['pool']}, {seeds} "
        f"seeds of {result['users']} users;"
        " intervals: Student's, over seeds",
        "vs best other: paired difference of cumulative reward on the same users; bold: its "
        "interval lies above 0",
        *result["notes"],
    )


def _span(ci: list[float]) -> str:
    return (
        ""
        if any(value is None or math.isnan(value) for value in ci)
        else f"{num(ci[0], 3)} to {num(ci[1], 3)}"
    )
