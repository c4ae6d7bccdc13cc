"""Drawings of the docs that no command makes, of the objects of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgaum.reports.plots import colour, panels_in_file, percent
from fastgaum.reports.table import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLAYERS = {
    "generator": ("generator", "-", "generator"),
    "adversarial reward": ("generator", "--", "reward's best response"),
    "behaviour cloning": ("reward", "-", "behaviour cloning"),
    "any link": ("floor", ":", "any link"),
    "target, else any link": ("floor", "-.", "target, else any link"),
}
"""role of the colour, line and name of each player of the games"""
FEWEST = 40
"""per cent of the gap, where the axis of rounds begins"""


def draw_transfer(transfer: Json, path: Path, narrow: bool = False) -> None:
    """Policies by name, in each world: what was promised and what was paid on one scale, per cent
    of the gap between random slates and a policy that was trained on the truth."""
    worlds = transfer["settings"]
    size = (3.6, 8.1) if narrow else (8.8, 3.1)
    with panels_in_file(path, size, len(worlds), narrow=narrow, font=8) as panels:
        for number, (panel, world) in enumerate(zip(panels, worlds, strict=True)):
            _draw_world(panel, world, names=narrow or number == 0)


def _draw_world(panel: Axes, world: Any, names: bool) -> None:
    of_truth = {row["policy"]: row for row in world["rows"] if row["world"] == "the truth"}
    least, most = of_truth["random"]["paid"], of_truth["slateq"]["paid"]
    rows = {row["policy"]: row for row in world["rows"] if row["world"] == "set of 5"}
    order = list(rows)[::-1]
    paid = percent([rows[name]["gap_closed"] for name in order])
    low, high = percent([rows[name]["gap_closed_ci"] for name in order]).T
    promised = percent([(rows[name]["promised"] - least) / (most - least) for name in order])
    at = np.arange(len(order))
    greedy = paid[order.index("greedy")]
    panel.axvline(greedy, color=colour("generator"), lw=1, label="what greedy slates are paid")
    panel.plot(promised, at, "o", mfc="none", mec=colour("muted"), ms=4, label="promised")
    panel.errorbar(
        paid,
        at,
        xerr=[paid - low, high - paid],
        fmt="o",
        ms=4,
        color=colour("reward"),
        label="paid",
    )
    items = world["what"].partition(", a pool")[0]
    panel.set_title(f"{items}, {world['events']:,} events")
    panel.set_yticks(at, order if names else [""] * len(order))
    panel.set_xlabel("gap closed, %")
    panel.grid(axis="y")


def draw_rounds(table: Json, path: Path) -> None:
    """Gap closed and optimism by events logged, beside random slates."""
    rows = table["rows"]
    rounds = [row for row in rows if row["log"] == "rounds"]
    (alone,) = (row for row in rows if row["log"] != "rounds")
    events = np.array([row["events"] for row in rounds]) / 1000
    with panels_in_file(path, (7.2, 2.9), 2) as (closed, optimism):
        for name, label, role in (
            ("gap_closed", "plan", "reward"),
            ("greedy_gap_closed", "greedy slates", "generator"),
        ):
            _draw_interval(closed, events, rounds, name, label, role)
            closed.axhline(
                100 * alone[name], color=colour(role), ls=":", label=f"{label}, no rounds"
            )
        _draw_interval(optimism, events, rounds, "optimism", "plan", "reward")
        optimism.axhline(100 * alone["optimism"], color=colour("reward"), ls=":")
        optimism.axhline(0, color=colour("line"))
        closed.set(xlabel="events logged, thousands", ylabel="gap closed, %", ylim=(FEWEST, None))
        optimism.set(xlabel="events logged, thousands", ylabel="optimism, %")


def _draw_interval(
    panel: Axes, events: Any, rows: Sequence[Any], name: str, label: str, role: str
) -> None:
    mean = percent([row[name] for row in rows])
    low, high = percent([row[f"{name}_ci"] for row in rows]).T
    panel.errorbar(
        events, mean, yerr=[mean - low, high - mean], fmt="o-", color=colour(role), label=label
    )


def draw_games(loop: Json, path: Path) -> None:
    """Clicks to the target, and the distance to it by click, of people and players."""
    games = loop["players"]
    with panels_in_file(path, (7.2, 2.9), 2) as panels:
        for panel, name in zip(panels, ("clicks, distribution", "distance"), strict=True):
            scale = 100 if name.startswith("clicks") else 1
            for player, (role, line, label) in PLAYERS.items():
                made = scale * np.array(games[player][name]["simulated"])
                clicks = np.arange(1, len(made) + 1)
                panel.plot(clicks, made, line, color=colour(role), label=label)
            logged = scale * np.array(games["generator"][name]["logged"])
            panel.plot(clicks, logged, "o", color=colour("ink"), ms=4, label="people")
        clicked, distance = panels
        clicked.set(xlabel="clicks to the target (20: and more)", ylabel="games, %", ylim=(0, None))
        distance.set(xlabel="click", ylabel="distance to the target", ylim=(0, None))
        muted = colour("muted")
        arrow = {"arrowstyle": "-", "color": muted}
        distance.annotate(
            "players get lost", (6, 1.38), (5.2, 1.75), color=muted, arrowprops=arrow, fontsize=8
        )


def draw_calibration(*reports: Json, path: Path) -> None:
    """Predicted probabilities beside observed frequencies, of reports of several logs."""
    with panels_in_file(path, (8.8, 2.5), len(reports), font=8) as panels:
        for panel, report in zip(panels, reports, strict=True):
            curve = report["calibration"]["curve"]
            predicted, observed = percent(curve["predicted"]), percent(curve["observed"])
            low, high = percent(curve["ci"]).T
            panel.plot([0, 100], [0, 100], color=colour("line"))
            panel.errorbar(
                predicted,
                observed,
                yerr=[observed - low, high - observed],
                fmt="o",
                ms=3,
                color=colour("generator"),
            )
            panel.set(
                title=report["log"]["name"], xlabel="predicted, %", xlim=(-4, 104), ylim=(-4, 104)
            )
        panels[0].set_ylabel("chosen, %")
