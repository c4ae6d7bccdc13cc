"""Every chart of a page: which facts are drawn, and on which axes. Two runs that are compared share
theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastgaum.reports import charts
from fastgaum.reports.summary import standings

Facts = dict[str, Any]

ACROSS = {
    "popularity": "choices of the item in training",
    "in_session": "the item earlier in the session",
    "in_training": "the item in training",
}
"""the groups of `learned_facts`, and what their axis says"""


def gallery(facts: Facts) -> Facts:
    """SVG text: `standings` a list by log, None where there is nothing to rank; the others a list
    by run of {name: svg}."""
    runs = facts["runs"]
    together = facts["comparison"] is not None
    peers = [runs if together else [run] for run in runs]
    rows = [standings(facts, i) for i in range(len(facts["logs"]))]
    return {
        "standings": [
            charts.standings(one, f"standings{i}") if one else None for i, one in enumerate(rows)
        ],
        "learning": [_learning(run, peers[i], i) for i, run in enumerate(runs)],
        "calibration": [_calibration(run, peers[i], i) for i, run in enumerate(runs)],
        "learned": [_learned(run, peers[i], i) for i, run in enumerate(runs)],
    }


def _learning(run: Facts, peers: Sequence[Facts], i: int) -> dict[str, str]:
    epochs = [peer["epochs"] for peer in peers]
    return {
        figure: charts.learning(
            run["epochs"],
            run["best_epoch"],
            figure,
            charts.learning_limits(epochs, figure),
            f"{figure}{i}",
        )
        for figure in ("loss", "prec", "gap", "speed")
        if figure != "gap" or any((row["gap"] or 0) > 0 for row in run["epochs"])
    }


def _calibration(run: Facts, peers: Sequence[Facts], i: int) -> dict[str, str]:
    every = [peer["calibration"] for peer in peers]
    heads = run["calibration"]
    return {
        which: charts.reliability(
            heads, which, charts.reliability_limits(every, which), f"{which}{i}"
        )
        for which in ("candidates", "no_click")
        if all(curves[which] for curves in heads.values())
    }


def _learned(run: Facts, peers: Sequence[Facts], i: int) -> dict[str, str]:
    drawn: dict[str, str] = {}
    for name, across in ACROSS.items():
        groups = [group for peer in peers for group in peer["learned"][name] if group["n"]]
        if any(group["n"] for group in run["learned"][name]):
            mine = run["learned"][name]
            drawn[name] = charts.utilities(
                mine, across, charts.utility_limits(groups), f"{name}{i}"
            )
            drawn[f"{name}_shares"] = charts.shares(
                mine, across, charts.share_limits(groups), f"{name}shares{i}"
            )
    return drawn
