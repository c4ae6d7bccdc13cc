"""All charts: those of a page, each from the facts alone, and those in files. Two runs that are
compared share their axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from fastgaum.reports.plots import Chart, colour, panels_in_file, percent, picture_of
from fastgaum.reports.published_figures import rows_of_others
from fastgaum.reports.reproduce_table import FLOOR_MODELS, OURS, label_of, rows_by_model
from fastgaum.reports.table import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARK = {"reward": "o", "generator": "s", "baseline": "o", "floor": "|", "published": "D"}
_DASHED, _DOTTED = (0, (4, 1.5)), (0, (1, 1.5))

ACROSS = {
    "popularity": "choices of the item in training",
    "in_session": "the item earlier in the session",
    "in_training": "the item in training",
}
"""the groups of `learned_facts`, and what their axis says"""
_LEARNING = {
    "loss": ("loss of the reward", {"training": "loss", "validation": "val_loss"}),
    "prec": ("prec@1, %", {"reward": "val_prec1", "generator": "val_generator_prec1"}),
    "gap": ("optimality gap", {"training": "gap", "validation": "val_gap"}),
}
"""axis, and the column of each line, of a chart by epoch"""
_LINE = {
    "training": ("muted", _DASHED),
    "validation": ("reward", "-"),
    "reward": ("reward", "-"),
    "generator": ("generator", _DASHED),
}


def page_charts(facts: Json, standings: Sequence[Sequence[Json]]) -> Json:
    """Draw the pictures of a page: `standings` a list by log, None where there is nothing to rank;
    `runs` a list by run of {name: picture}."""
    of_runs = [dict(_charts_of(run)) for run in facts["runs"]]
    compared = of_runs if facts["comparison"] is not None else []
    return {
        "standings": [picture_of(standings_of(rows)) if rows else None for rows in standings],
        "runs": [
            {
                name: picture_of(chart, [other[name] for other in compared if name in other])
                for name, chart in own.items()
            }
            for own in of_runs
        ],
    }


def _charts_of(run: Json) -> Iterator[tuple[str, Chart]]:
    if run["epochs"]:
        yield from charts_of_epochs(run["epochs"], run["best_epoch"])
    for which in ("candidates", "no_click"):
        if all(curves[which] for curves in run["calibration"].values()):
            yield which, _reliability(run["calibration"], which)
    for name, across in ACROSS.items():
        groups = run["learned"][name]
        if any(group["n"] for group in groups):
            yield name, _utilities(groups, across)
    for field, points in run["fields"]["curves"].items():
        yield f"response to {field}", chart_of_response(field, points)


def standings_of(rows: Sequence[Json]) -> Chart:
    """Prec@1 of models, floors and published figures, the best first."""
    ordered = sorted(rows, key=lambda row: float(row["prec"]["1"]["mean"]))

    def fill(panel: Axes) -> None:
        for place, row in enumerate(ordered):
            one, role = row["prec"]["1"], row["kind"]
            own = colour("muted" if role == "baseline" else role)
            if one["ci"]:
                panel.hlines(place, *one["ci"], color=own, linewidth=2)
            panel.plot(
                one["mean"],
                place,
                _MARK[role],
                color=own,
                markerfacecolor="none" if role == "published" else own,
                markersize=6,
                markeredgewidth=2 if role == "floor" else 1.5,
            )
            panel.annotate(
                f"{one['mean']:.1f}",
                (max([one["mean"], *(one["ci"] or [])]), place),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
            )
        panel.set_yticks(range(len(ordered)), [_short(row["label"]) for row in ordered])
        for text, row in zip(panel.get_yticklabels(), ordered, strict=True):
            text.set_color(colour("ink" if row["kind"] in ("reward", "generator") else "muted"))
        panel.set(xmargin=0.15, ylim=(-0.6, len(ordered) - 0.4), xlabel="prec@1, %")
        panel.grid(False)

    said = "; ".join(f"{row['label']} {row['prec']['1']['mean']:.1f}" for row in reversed(ordered))
    size = (3.6, 0.6 + 0.26 * len(ordered))
    return Chart(fill, f"prec@1 in percent, best first: {said}", size)


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"


def _by_epoch(epochs: Sequence[Json], best: int | None, name: str) -> Chart:
    up, columns = _LEARNING[name]

    def fill(panel: Axes) -> None:
        if name == "gap":
            from matplotlib.ticker import LogFormatter

            # epochs of exact players have no gap: a logarithmic axis leaves them out
            panel.set_yscale("log", nonpositive="mask")
            panel.yaxis.set_major_formatter("{x:g}")
            # less than a decade may hold no power of ten
            panel.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        for label, column in columns.items():
            role, dash = _LINE[label]
            # in rounds the training loss is the game's value, which is on another scale
            left_out = "rounds" if column == "loss" else ""
            values = [None if row["phase"] == left_out else row[column] for row in epochs]
            panel.plot(
                [row["epoch"] for row in epochs],
                np.array(values, np.float64),
                linestyle=dash,
                marker="o" if len(epochs) < 3 else "",
                color=colour(role),
                label=label,
            )
        _phases(panel, epochs)
        if best is not None:
            panel.axvline(best, color=colour("accent"), linewidth=1, linestyle=_DOTTED)
        panel.set(xlabel="epoch", ylabel=up)

    return Chart(fill, f"{up} by epoch; epoch {best} is the one kept")


def _phases(panel: Axes, epochs: Sequence[Json]) -> None:
    starts = [i for i, row in enumerate(epochs) if i == 0 or row["phase"] != epochs[i - 1]["phase"]]
    for start, end in zip(starts, [*starts[1:], len(epochs)], strict=True):
        first, last = epochs[start]["epoch"], epochs[end - 1]["epoch"]
        if start > 0:
            panel.axvline(first - 0.5, color=colour("line"), linewidth=0.8)
        if end - start >= 0.14 * len(epochs):
            panel.text(
                (first + last) / 2,
                1.02,
                "catch-up" if epochs[start]["phase"] == "generator" else epochs[start]["phase"],
                transform=panel.get_xaxis_transform(),
                ha="center",
                va="bottom",
                color=colour("muted"),
            )
    panel.set_xlim(epochs[0]["epoch"] - 0.5, epochs[-1]["epoch"] + 0.5)
    panel.locator_params(axis="x", integer=True)


def _reliability(heads: Json, which: str) -> Chart:
    def fill(panel: Axes) -> None:
        for name, curves in heads.items():
            curve = {key: [one[key] for one in curves[which]] for key in curves[which][0]}
            _points(panel, curve, name, _MARK[name], name)
        ends = [*panel.get_xlim(), *panel.get_ylim()]
        low, high = max(-2.0, min(ends)), min(102.0, max(ends))
        up = "no click, %" if which == "no_click" else "chosen, %"
        panel.set(xlim=(low, high), ylim=(low, high), xlabel="predicted probability, %", ylabel=up)
        panel.axline((0, 0), slope=1, color=colour("muted"), linewidth=0.8)

    what = "no click" if which == "no_click" else "a candidate's choice"
    return Chart(fill, f"Calibration of {what}: predicted against observed")


def _utilities(groups: Sequence[Json], across: str) -> Chart:
    """Mean utility of each group against its display set's mean, and the middle 80 % as a band."""

    def fill(panel: Axes) -> None:
        panel.axhline(0, color=colour("muted"), linewidth=0.8)
        labels = ["\n".join(wrap(group["label"], 12)) for group in groups]
        slanted: Json = {"rotation": 40, "ha": "right"} if len(labels) > 6 else {}
        panel.set_xticks(range(len(groups)), labels, **slanted)
        panel.set_xlim(-0.6, len(groups) - 0.4)
        places = [place for place, group in enumerate(groups) if group["n"]]
        low, high, mean = ([groups[i][key] for i in places] for key in ("low", "high", "utility"))
        panel.vlines(places, low, high, color=colour("reward"), linewidth=9, alpha=0.22)
        panel.plot(places, mean, "o", color=colour("reward"), markersize=6)
        panel.set(xlabel=across, ylabel="relative utility")

    said = "; ".join(f"{one['label']} {one['utility']:.2f}" for one in groups if one["n"])
    what = f"Mean utility against the display set's mean by {across}: {said}"
    return Chart(fill, what)


def chart_of_response(field: str, points: Sequence[Json]) -> Chart:
    """Log-odds over the numbers of a field, the rows of `response_curve`."""
    keys = ("value", "share", "log_odds", "log_odds_low", "log_odds_high")
    value, share, mean, low, high = (
        np.array([point[key] for point in points], np.float64) for key in keys
    )

    def fill(panel: Axes) -> None:
        edges = np.concatenate((value[:1], (value[1:] + value[:-1]) / 2, value[-1:]))
        density = share / np.diff(edges)
        panel.bar(
            edges[:-1],
            0.3 * density / density.max(),
            np.diff(edges),
            align="edge",
            transform=panel.get_xaxis_transform(),
            color=colour("floor"),
            alpha=0.35,
        )
        panel.fill_between(value, low, high, color=colour("reward"), alpha=0.22, linewidth=0)
        panel.plot(value, mean, marker="o", markersize=3.5, color=colour("reward"))
        panel.set(xlabel=_short(field), ylabel="log-odds")

    said = "; ".join(f"{one['value']:.3g} {one['log_odds']:.2f}" for one in points)
    return Chart(fill, f"Mean log-odds of a candidate by its {field}: {said}")


def _points(panel: Axes, curve: Json, role: str, mark: str, label: str = "") -> None:
    """Draw the observed shares of a curve against the predicted ones, with their intervals."""
    x, y, ends = (percent(curve[key]) for key in ("predicted", "observed", "ci"))
    panel.vlines(x, *ends.T, color=colour(role), linewidth=1.2, alpha=0.6)
    panel.plot(x, y, mark, color=colour(role), markersize=4, label=label)


def charts_of_epochs(epochs: Sequence[Json], best: int | None) -> Iterator[tuple[str, Chart]]:
    """Charts of the figures of a fit by epoch, by name; `best` is the epoch that is kept."""
    for name in _LEARNING:
        if name != "gap" or any((row["gap"] or 0) > 0 for row in epochs):
            yield name, _by_epoch(epochs, best, name)


def chart_of_shares(rows: Sequence[Json]) -> Chart:
    """Shares of items before and after a change, the rows of `what_if`; no click is an item."""
    places = range(len(rows))
    names = ["no click" if row["item"] is None else _short(row["item"]) for row in rows]

    def fill(panel: Axes) -> None:
        for what, role, at in (("before", "muted", 0.2), ("after", "reward", -0.2)):
            ys, shares = [place + at for place in places], percent(row[what] for row in rows)
            panel.barh(ys, shares, 0.4, color=colour(role), alpha=0.75, label=what)
            ends = percent((row[f"{what}_low"], row[f"{what}_high"]) for row in rows)
            panel.hlines(ys, *ends.T, color=colour("ink"), linewidth=1)
        panel.set_yticks(places, names)
        panel.set(xlabel="share, %", ylim=(len(rows) - 0.5, -0.5))
        panel.grid(False, axis="y")

    said = "; ".join(
        f"{name} {100 * row['before']:.1f} to {100 * row['after']:.1f}"
        for name, row in zip(names, rows, strict=True)
    )
    size = (3.6, 1.0 + 0.34 * len(rows))
    return Chart(fill, f"Shares in percent, before and after: {said}", size)


def draw_precision(result: Json, path: Path) -> None:
    """Draw `standings` of a reproduce object and write it as `panels_in_file`."""
    charts = standings(result)
    n, high = max(len(charts), 1), max((one.size[1] for one in charts.values()), default=1.0)
    with panels_in_file(path, (4.2 * n, high + 0.3), n) as panels:
        for panel, (name, chart) in zip(panels, charts.items(), strict=False):
            chart.fill(panel)
            panel.set_title(name)


def standings(result: Json) -> dict[str, Chart]:
    """Prec@1 of the models, floors and published figures of a reproduce object, a chart per data
    set."""
    charts = {}
    for name, facts in result["datasets"].items():
        rows = rows_by_model(result["cells"], name)
        found = [*rows_of_others(facts)]
        for key, by_k in rows.items():
            kind = "reward" if key[0] == OURS[0] else "baseline"
            if key[0] not in FLOOR_MODELS.values():
                found.append({"label": label_of(key, rows), "kind": kind, "prec": by_k})
        known = [one for one in found if one["prec"]["1"]["mean"] is not None]
        charts[name] = standings_of(known)
    return charts


def draw_fidelity(report: Json, path: Path) -> None:
    """Draw a fidelity report and write it as `panels_in_file`: what simulated differs from logged,
    as a share of the logged figure, and the reliability of the model on logged histories."""
    rows = [one for one in report["statistics"] if one["logged"]]
    with panels_in_file(path, (7.0, 2.7), 2, font=8) as (shares, predicted):
        for at, one in enumerate(rows):
            own = percent([value / one["logged"] for value in one["difference_ci"]])
            shares.hlines(at, *own, color=colour("generator"), linewidth=1)
            difference = 100 * one["difference"] / one["logged"]
            shares.plot(difference, at, "o", color=colour("reward"), markersize=3)
        shares.axvline(0, color=colour("floor"), linewidth=1)
        shares.set_yticks(range(len(rows)), [one["name"] for one in rows])
        shares.set(
            xlabel="world − log, % of the log, 95 % over users", ylim=(len(rows) - 0.5, -0.5)
        )
        shares.set_title(f"{report['log']['name']}, {report['split']} split", loc="left")
        _points(predicted, report["calibration"]["curve"], "generator", "o")
        predicted.set(xlabel="predicted probability, %", ylabel="chosen in the log, %")
        predicted.axline((0, 0), slope=1, color=colour("floor"), linewidth=1)
