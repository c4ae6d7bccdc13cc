"""Tables and figure of docs/guide/closed-loop.md, made of docs/tables/wikispeedia-loop.json, the
object of `bench/wikispeedia_loop.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgaum.reports.plots import FIGURE_STYLE, check_figure, save_figure
from fastgaum.reports.table import Block, blocks_to_markdown, num, signed, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Json = dict[str, Any]
_HUMANS = "#000000"
_COLOURS = ("#1f6feb", "#d1242f", "#57606a")


def players_block(result: Json) -> Block:
    """Figures of the humans and of each kind of players in the same games, a column each."""
    players: dict[str, Json] = result["players"]
    humans = next(iter(players.values()))
    rows = [
        _row("clicks to the target, mean", "clicks", players),
        (
            "clicks to the target, median",
            num(humans["median"][0], 0),
            *(num(one["median"][1], 0) for one in players.values()),
        ),
        _distance_row("clicks to the target, distribution", "clicks, distribution", players),
        _row("arrive within 10 clicks, %", "soon", players, 100),
        (
            f"arrive within {result['limit']} clicks, %",
            num(100 * result["humans_arrived"], 2),
            *(num(100 * one["arrived"], 2) for one in players.values()),
        ),
        _row("hubs among pages between, %", "hubs", players, 100),
        _row("visits to hubs in a game", "hub visits", players),
        _distance_row("levels of categories", "depth", players),
        _mean_row("levels of categories, mean", "depth", players),
        _distance_row("distance to the target by click", "distance", players),
    ]
    return Block(
        title=f"{result['games']:,} validation games, played by humans and by learned players",
        columns=("figure", "humans", *players),
        rows=tuple(rows),
        notes=(
            "in brackets: p of the permutation test within games, 499 permutations",
            "distribution, levels: largest difference of the cumulated shares; by click: largest "
            "difference of the mean after one click, in clicks",
        ),
    )


def _row(title: str, key: str, players: dict[str, Json], unit: float = 1) -> tuple[str, ...]:
    humans = next(iter(players.values()))
    return (
        title,
        num(unit * humans[key]["logged"][0], 2),
        *(
            f"{num(unit * one[key]['simulated'][0], 2)} ({_p(one[key]['p'])})"
            for one in players.values()
        ),
    )


def _distance_row(title: str, key: str, players: dict[str, Json]) -> tuple[str, ...]:
    def largest(one: Json) -> float:
        if one[key]["test"] == "ks":
            return float(one[key]["distance"])
        return float(max(abs(difference) for difference in one[key]["difference"]))

    cells = (f"{num(largest(one), 3)} ({_p(one[key]['p'])})" for one in players.values())
    return (f"{title}: distance", "0", *cells)


def _mean_row(title: str, key: str, players: dict[str, Json]) -> tuple[str, ...]:
    def mean(one: Json, side: str) -> str:
        labels = map(int, one[key]["labels"])
        return num(sum(a * b for a, b in zip(labels, one[key][side], strict=True)), 2)

    humans = next(iter(players.values()))
    return (title, mean(humans, "logged"), *(mean(one, "simulated") for one in players.values()))


def _p(value: float) -> str:
    return "p = .002" if value <= 0.002 else f"p = {value:.3f}".replace("0.", ".", 1)


def links_block(result: Json) -> Block:
    """What each link policy makes of the clicks of the judging world's players."""
    links: Json = result["links"]
    rows = []
    for name, one in links["policies"].items():
        mean, *ends = one["saved by the planned"]
        saved = "" if mean == 0 else f"{signed(-mean, 2)} ({span([-end for end in ends[::-1]], 2)})"
        rows.append(
            (
                name,
                num(one["clicks"], 2),
                num(one["median"], 0),
                num(100 * one["soon"], 1),
                saved,
            )
        )
    return Block(
        title=f"{links['games']:,} games in a world fitted on other games",
        columns=(
            "links shown",
            "clicks, mean",
            "median",
            "arrive within 10 clicks, %",
            "the planned against it (95 %)",
        ),
        rows=tuple(rows),
        notes=(f"a game that has not arrived counts {result['limit']} clicks",),
    )


def loop_to_markdown(result: Json) -> str:
    """Both tables."""
    return blocks_to_markdown([players_block(result), links_block(result)])


def draw_loop(result: Json, path: Path) -> None:
    """Draw how many clicks games take, and the distance to the target by click.

    Raises:
        OutputError: it is neither .svg nor .png, or cannot be written.
        ConfigError: matplotlib is not installed.
    """
    check_figure(path, "--plot")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = (
        ("clicks, distribution", "clicks to the target", "games, %", 100.0),
        ("depth", "levels of the category", "pages between, %", 100.0),
        ("distance", "click", "distance to the target", 1.0),
    )
    with mpl.rc_context({**FIGURE_STYLE, "font.size": 8}):
        figure = Figure(figsize=(8.1, 2.7), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, (key, across, up, unit) in zip(axes, panels, strict=True):
            _lines(panel, result["players"], key, unit)
            panel.set(xlabel=across, ylabel=up)
            panel.set_ylim(bottom=0)
            panel.spines[["top", "right"]].set_visible(False)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        save_figure(figure, path)


def _lines(panel: Axes, players: dict[str, Json], key: str, unit: float) -> None:
    """Humans as dots, each kind of players as a line."""
    one = next(iter(players.values()))[key]
    at = range(1, len(one["labels"]) + 1)
    panel.plot(at, [unit * v for v in one["logged"]], "o", ms=4, color=_HUMANS, label="humans")
    for (name, found), colour in zip(players.items(), _COLOURS, strict=False):
        panel.plot(at, [unit * v for v in found[key]["simulated"]], color=colour, label=name)
