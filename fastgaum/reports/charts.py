"""The charts of a page, each from the facts alone, and which of them a page has. Shape and dash say
what colour says, for those who see no colour. Two runs that are compared share their axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

from fastgaum.reports.headline import standings
from fastgaum.reports.plots import colour, inline_svg

Facts = dict[str, Any]
Limits = tuple[float, float] | None

_DASH = {"reward": "-", "generator": (0, (4, 1.5))}
_MARK = {"reward": "o", "generator": "s"}
_PHASE = {"exact": "exact", "generator": "catch-up", "rounds": "rounds"}

ACROSS = {
    "popularity": "choices of the item in training",
    "in_session": "the item earlier in the session",
    "in_training": "the item in training",
}
"""the groups of `learned_facts`, and what their axis says"""


def standings_chart(rows: Sequence[Facts], key: str) -> str:
    """prec@1 of everything in the first table, best on top: dots with intervals, floors hollow,
    published diamonds."""
    ordered = sorted(rows, key=lambda row: row["prec"]["1"]["mean"])
    marks = {"reward": "o", "generator": "s", "floor": "|", "published": "D"}

    def fill(panel: Any) -> None:
        for place, row in enumerate(ordered):
            one, role = row["prec"]["1"], row["kind"]
            if one.get("ci"):
                panel.plot(
                    one["ci"],
                    [place, place],
                    color=colour(role),
                    linewidth=2,
                    solid_capstyle="butt",
                )
            hollow = colour(role) if role in ("reward", "generator", "floor") else "none"
            panel.plot(
                one["mean"],
                place,
                marks[role],
                color=colour(role),
                markerfacecolor=hollow,
                markersize=6,
                markeredgewidth=2 if role == "floor" else 1.5,
            )
            panel.annotate(
                f"{one['mean']:.1f}",
                (max([one["mean"], *(one.get("ci") or [])]), place),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
        panel.set_yticks(range(len(ordered)), [_short(row["label"]) for row in ordered])
        for text, row in zip(panel.get_yticklabels(), ordered, strict=True):
            text.set_color(colour("ink" if row["kind"] in _MARK else "muted"))
        panel.set_ylim(-0.6, len(ordered) - 0.4)
        panel.set_xlim(
            *_room([value for row in ordered for value in _ends(row["prec"]["1"])], 0.0, 0.2)
        )
        panel.set_xlabel("prec@1, %")
        panel.grid(False)
        panel.spines["left"].set_visible(False)

    said = "; ".join(f"{row['label']} {row['prec']['1']['mean']:.1f}" for row in reversed(ordered))
    return inline_svg(
        fill, f"prec@1 in percent, best first: {said}", key, (4.3, 0.6 + 0.29 * len(ordered))
    )


def learning_chart(
    epochs: Sequence[Facts], best: int | None, figure: str, limits: Limits, key: str
) -> str:
    """One figure by epoch: "loss", "prec", "gap" or "speed"; phases are named at the top, the kept
    epoch is marked."""
    series, up, log = _LEARNING[figure]

    def fill(panel: Any) -> None:
        shown = False
        for column, label, role, dash in series:
            points = [(row["epoch"], _or_nan(row[column])) for row in epochs]
            if figure == "gap":
                points = [(x, y) for x, y in points if y > 0]
            if any(not math.isnan(y) for _, y in points):
                shown = True
                mark = "o" if len(points) < 3 else ""
                panel.plot(
                    *zip(*points, strict=True),
                    linestyle=dash,
                    marker=mark,
                    color=colour(role),
                    label=label,
                )
        if log and shown:
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.yaxis.set_minor_formatter(lambda *_: "")
        if limits is not None:
            panel.set_ylim(*limits)
        _phases(panel, epochs, best)
        panel.set_xlabel("epoch")
        panel.set_ylabel(up)
        if figure == "speed":
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", "\u202f"))
        if len(series) > 1 and shown:
            panel.legend(loc="best", handlelength=1.8)

    return inline_svg(fill, f"{up} by epoch; epoch {best} is the one kept", key)


_LEARNING: dict[str, tuple[tuple[tuple[str, str, str, Any], ...], str, bool]] = {
    "loss": (
        (
            ("loss", "training", "muted", _DASH["generator"]),
            ("val_loss", "validation", "reward", "-"),
        ),
        "loss of the reward",
        False,
    ),
    "prec": (
        (
            ("val_prec1", "reward", "reward", "-"),
            ("val_generator_prec1", "generator", "generator", _DASH["generator"]),
        ),
        "validation prec@1, %",
        False,
    ),
    "gap": (
        (
            ("gap", "training", "muted", _DASH["generator"]),
            ("val_gap", "validation", "generator", "-"),
        ),
        "optimality gap",
        True,
    ),
    "speed": (
        (("events_per_second", "events/s", "accent", "-"),),
        "training events per second",
        False,
    ),
}


def learning_limits(runs: Iterable[Sequence[Facts]], figure: str) -> Limits:
    """Limits of an axis that several runs share, so that two charts side by side can be compared by
    eye."""
    values = [
        _or_nan(row[name]) for epochs in runs for row in epochs for name, *_ in _LEARNING[figure][0]
    ]
    finite = [value for value in values if not math.isnan(value) and (value > 0 or figure != "gap")]
    if not finite or figure == "speed":
        return (0.0, 1.08 * max(finite)) if finite else None
    if figure == "gap":
        return 0.7 * min(finite), 1.4 * max(finite)
    return _room(finite, 0.06, 0.1)


def _phases(panel: Any, epochs: Sequence[Facts], best: int | None) -> None:
    """A line where a phase ends, its name above, and a line at the kept epoch."""
    starts = [
        row["epoch"]
        for i, row in enumerate(epochs)
        if i == 0 or row["phase"] != epochs[i - 1]["phase"]
    ]
    ends = [*starts[1:], epochs[-1]["epoch"] + 1]
    names = [_PHASE.get(row["phase"], row["phase"]) for row in epochs if row["epoch"] in starts]
    total = ends[-1] - starts[0]
    for name, start, end in zip(names, starts, ends, strict=True):
        if start > starts[0]:
            panel.axvline(start - 0.5, color=colour("line"), linewidth=0.8)
        if end - start >= 0.14 * total:
            panel.text(
                (start + end - 1) / 2,
                1.02,
                name,
                transform=panel.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=9.5,
                color=colour("muted"),
            )
    if best is not None:
        panel.axvline(best, color=colour("accent"), linewidth=1, linestyle=(0, (1, 1.5)))
    panel.set_xlim(starts[0] - 0.5, ends[-1] - 0.5)
    panel.xaxis.get_major_locator().set_params(integer=True)


def reliability_chart(heads: Facts, which: str, limits: Limits, key: str) -> str:
    """Predicted probability against the share that came true, both heads, 95 % intervals over
    users."""
    up = "no click, %" if which == "no_click" else "chosen, %"

    def fill(panel: Any) -> None:
        low, high = limits or (0.0, 100.0)
        panel.plot([low, high], [low, high], color=colour("muted"), linewidth=0.8)
        for name, curves in heads.items():
            points = curves[which]
            x = [100 * point["predicted"] for point in points]
            for at, point in zip(x, points, strict=True):
                panel.plot(
                    [at, at],
                    [100 * end for end in point["ci"]],
                    color=colour(name),
                    linewidth=1.2,
                    alpha=0.6,
                )
            y = [100 * point["observed"] for point in points]
            panel.plot(x, y, _MARK[name], color=colour(name), markersize=5, label=name)
        panel.set_xlim(low, high)
        panel.set_ylim(low, high)
        panel.set_xlabel("predicted probability, %")
        panel.set_ylabel(up)
        panel.legend(loc="upper left", handlelength=1)

    what = "no click" if which == "no_click" else "a candidate's choice"
    return inline_svg(fill, f"Calibration of {what}: predicted against observed", key, (3.9, 3.1))


def reliability_limits(every: Iterable[Facts], which: str) -> Limits:
    """Square limits that hold the curves of all runs."""
    points = [
        point for heads in every for curves in heads.values() for point in curves[which] or []
    ]
    ends = [
        100 * value
        for point in points
        for value in (point["predicted"], *point["ci"])
        if value is not None
    ]
    return None if not ends else _room(ends, 0.04, 0.04, floor=-2.0, top=102.0)


def utility_chart(groups: Sequence[Facts], across: str, limits: Limits, key: str) -> str:
    """Mean utility of each group against its display set's mean, the middle 80 % of its candidates
    as a band."""

    def fill(panel: Any) -> None:
        panel.axhline(0, color=colour("muted"), linewidth=0.8)
        for place, group in enumerate(groups):
            if group["n"]:
                panel.plot(
                    [place, place],
                    [group["low"], group["high"]],
                    color=colour("reward"),
                    linewidth=9,
                    alpha=0.22,
                    solid_capstyle="butt",
                )
                panel.plot(place, group["utility"], "o", color=colour("reward"), markersize=6)
        _groups(panel, groups, across)
        panel.set_ylabel("relative utility")
        panel.set_ylim(limits)

    said = "; ".join(f"{one['label']} {one['utility']:.2f}" for one in groups if one["n"])
    return inline_svg(
        fill, f"Mean utility against the display set's mean by {across}: {said}", key, (3.9, 2.4)
    )


def utility_limits(groups: Sequence[Facts]) -> Limits:
    """Limits that hold the bands of all groups."""
    ends = [group[name] for group in groups for name in ("low", "high", "utility")]
    return _room([0.0, *ends], 0.03, 0.06)


def share_limits(groups: Sequence[Facts]) -> Limits:
    """From 0 to the largest share, with room for the legend."""
    return 0.0, 1.3 * max(
        1.0, *(100 * group[name] for group in groups for name in ("chosen", "predicted"))
    )


def share_chart(groups: Sequence[Facts], across: str, limits: Limits, key: str) -> str:
    """What share of each group was chosen, and what the reward expected."""
    places = [place for place, group in enumerate(groups) if group["n"]]
    chosen, expected = (
        [100 * groups[place][name] for place in places] for name in ("chosen", "predicted")
    )

    def fill(panel: Any) -> None:
        panel.bar(places, chosen, width=0.62, color=colour("floor"), alpha=0.45, label="logged")
        panel.plot(places, expected, "o", color=colour("reward"), markersize=6, label="expected")
        _groups(panel, groups, across)
        panel.set_ylabel("of candidates, %")
        panel.set_ylim(limits)
        panel.legend(loc="upper left", handlelength=1.2, ncols=2, columnspacing=1)

    said = "; ".join(
        f"{groups[place]['label']} {c:.0f} and {e:.0f}"
        for place, c, e in zip(places, chosen, expected, strict=True)
    )
    return inline_svg(
        fill, f"Chosen and expected, percent of candidates, by {across}: {said}", key, (3.9, 2.4)
    )


def _groups(panel: Any, groups: Sequence[Facts], across: str) -> None:
    labels = ["\n".join(wrap(group["label"], 12)) for group in groups]
    crowded = len(labels) > 6
    panel.set_xticks(
        range(len(groups)),
        labels,
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
    )
    panel.set_xlim(-0.6, len(groups) - 0.4)
    panel.set_xlabel(across)


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"


def _ends(one: Facts) -> list[float]:
    return [one["mean"], *(one.get("ci") or [])]


def _room(
    values: Sequence[float],
    below: float,
    above: float,
    floor: float = -math.inf,
    top: float = math.inf,
) -> tuple[float, float]:
    """The range of values with a share of itself as room at each end."""
    low, high = min(values), max(values)
    size = (high - low) or abs(high) or 1.0
    return max(floor, low - (below + 0.03) * size), min(top, high + above * size)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def page_charts(facts: Facts) -> Facts:
    """SVG text: `standings` a list by log, None where there is nothing to rank; the others a list
    by run of {name: svg}."""
    runs = facts["runs"]
    together = facts["comparison"] is not None
    peers = [runs if together else [run] for run in runs]
    rows = [standings(facts, i) for i in range(len(facts["logs"]))]
    return {
        "standings": [
            standings_chart(one, f"standings{i}") if one else None for i, one in enumerate(rows)
        ],
        "learning": [_learning(run, peers[i], i) for i, run in enumerate(runs)],
        "calibration": [_calibration(run, peers[i], i) for i, run in enumerate(runs)],
        "learned": [_learned(run, peers[i], i) for i, run in enumerate(runs)],
    }


def _learning(run: Facts, peers: Sequence[Facts], i: int) -> dict[str, str]:
    epochs = [peer["epochs"] for peer in peers]
    return {
        figure: learning_chart(
            run["epochs"],
            run["best_epoch"],
            figure,
            learning_limits(epochs, figure),
            f"{figure}{i}",
        )
        for figure in ("loss", "prec", "gap", "speed")
        if figure != "gap" or any((row["gap"] or 0) > 0 for row in run["epochs"])
    }


def _calibration(run: Facts, peers: Sequence[Facts], i: int) -> dict[str, str]:
    every = [peer["calibration"] for peer in peers]
    heads = run["calibration"]
    return {
        which: reliability_chart(heads, which, reliability_limits(every, which), f"{which}{i}")
        for which in ("candidates", "no_click")
        if all(curves[which] for curves in heads.values())
    }


def _learned(run: Facts, peers: Sequence[Facts], i: int) -> dict[str, str]:
    drawn: dict[str, str] = {}
    for name, across in ACROSS.items():
        groups = [group for peer in peers for group in peer["learned"][name] if group["n"]]
        if any(group["n"] for group in run["learned"][name]):
            mine = run["learned"][name]
            drawn[name] = utility_chart(mine, across, utility_limits(groups), f"{name}{i}")
            drawn[f"{name}_shares"] = share_chart(
                mine, across, share_limits(groups), f"{name}shares{i}"
            )
    return drawn
