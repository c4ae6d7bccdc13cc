"""Tables and figure of docs/guide/fidelity.md, made of the object of
`bench/wikispeedia_loop.py`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from fastgaum.reports.plots import colour, panels_in_file
from fastgaum.reports.table import Block, Json, blocks_to_markdown, num, signed, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = (("reward", "-"), ("generator", "-"), ("generator", "--"), ("muted", ":"), ("floor", "-."))
"""colour and style of each kind of players, in their order"""
BARS = {
    "clicks, mean": "clicks to the target, mean: within {:.0f} % of the humans'",
    "clicks, median": "clicks to the target, median: within {:.0f} % of the humans'",
    "soon": "arrive within 10 clicks: within {:.0f} points of the humans",
    "hub visits": "visits to hubs: the test does not tell them from the humans'",
    "depth": "levels of categories: the test does not tell them from the humans'",
}
"""what is asked of players, by the bar's name"""


def players_block(result: Json) -> Block:
    """Figures of the humans and of each kind of players in the same games, a column each."""
    players: dict[str, Json] = result["players"]
    humans = next(iter(players.values()))
    soon = int(humans["median"][0])

    def row(
        title: str, human: str, own: Callable[[Json], str], key: str | None = None
    ) -> tuple[str, ...]:
        """With a key the p of its test stands behind a cell."""
        tests = [f" ({_p(one[key]['p'])})" if key else "" for one in players.values()]
        cells = map(own, players.values())
        return (title, human, *(a + b for a, b in zip(cells, tests, strict=True)))

    def first(title: str, key: str, unit: float = 1) -> tuple[str, ...]:
        def cell(one: Json, side: str) -> str:
            return num(_times(one[key][side][0], unit), 2)

        return row(title, cell(humans, "logged"), lambda one: cell(one, "simulated"), key)

    def distance(title: str, key: str) -> tuple[str, ...]:
        return row(f"{title}: distance", "0", lambda one: num(_largest(one[key]), 3), key)

    def mean(title: str, key: str, groups: int | None = None) -> tuple[str, ...]:
        """Of the groups' numbers, their labels; of the first so many groups alone."""

        def cell(one: Json, side: str) -> str:
            shares = one[key][side][:groups]
            if None in shares or not sum(shares):
                return num(None)
            numbers = map(int, one[key]["labels"][:groups])
            return num(sum(a * b for a, b in zip(numbers, shares, strict=True)) / sum(shares), 2)

        return row(title, cell(humans, "logged"), lambda one: cell(one, "simulated"))

    def up_to(one: Json, side: str) -> str:
        shares = one["clicks, distribution"][side][:soon]
        return num(None if None in shares else 100 * sum(shares), 1)

    rows = [
        first("clicks to the target, mean", "clicks"),
        row(
            "clicks to the target, median",
            num(humans["median"][0]),
            lambda one: num(one["median"][1]),
        ),
        row(
            f"at most {soon} clicks, % of arrived games",
            up_to(humans, "logged"),
            lambda one: up_to(one, "simulated"),
        ),
        mean("clicks of games of at most 10, mean", "clicks, distribution", 10),
        distance("clicks to the target, distribution", "clicks, distribution"),
        first("arrive within 10 clicks, %", "soon", 100),
        row(
            f"arrive within {result['limit']} clicks, %",
            num(100 * result["humans_arrived"], 2),
            lambda one: num(100 * one["arrived"], 2),
        ),
        first("hubs among pages between, %", "hubs", 100),
        first("visits to hubs in a game", "hub visits"),
        distance("levels of categories", "depth"),
        mean("levels of categories, mean", "depth"),
        distance("distance to the target by click", "distance"),
    ]
    return Block(
        title=f"{result['games']:,} games that no fit has seen, played by humans and by players",
        columns=("figure", "humans", *players),
        rows=tuple(rows),
        notes=(
            "in brackets: p of the permutation test within games, 499 permutations",
            "distribution, levels: largest difference of the cumulated shares; by click: largest "
            "difference of the mean after one click, in clicks",
        ),
    )


def _times(value: float | None, unit: float) -> float | None:
    return None if value is None else unit * value


def _largest(figure: Json) -> float | None:
    if figure["test"] == "ks":
        return None if figure["distance"] is None else float(figure["distance"])
    apart = [abs(value) for value in figure["difference"] if value is not None]
    return max(apart, default=None)


def _p(value: float | None) -> str:
    if value is None:
        return "no test"
    return "p = .002" if value <= 0.002 else f"p = {value:.3f}".replace("0.", ".", 1)


def bars_block(result: Json) -> Block:
    """What each kind of players reaches of each bar; what holds is bold."""
    players: dict[str, Json] = result["bars"]
    first = next(iter(players.values()))
    rows, bold = [], set()
    for i, (name, asked) in enumerate(BARS.items()):
        title = asked.format(100 * first[name]["bound"])
        rows.append((title, *(_reached(one[name]) for one in players.values())))
        bold |= {(i, j) for j, one in enumerate(players.values(), 1) if one[name]["holds"]}
    return Block(
        title="Bars",
        columns=("bar", *players),
        rows=tuple(rows),
        notes=(
            "bold: holds",
            "clicks and arrivals: difference from the humans, in percent of their value or in "
            "points, with its 95 % interval over games; hubs and levels: distance and p",
        ),
        bold=frozenset(bold),
    )


def _reached(bar: Json) -> str:
    if "p" in bar:
        return f"{num(bar['value'], 3)} ({_p(bar['p'])})"
    value = signed(_times(bar["value"], 100))
    if not bar["ci"] or None in bar["ci"]:
        return value
    return f"{value} ({span([100 * end for end in bar['ci']])})"


def links_block(name: str, links: Json, limit: int) -> Block:
    rows = []
    for policy, one in links["policies"].items():
        mean, *ends = one["saved by the planned"]
        saved = "" if mean == 0 else f"{signed(-mean, 2)} ({span([-end for end in ends[::-1]], 2)})"
        rows.append(
            (
                policy,
                num(one["clicks"], 2),
                num(one["median"], 0),
                num(100 * one["soon"], 1),
                num(100 * one["arrived"], 1),
                saved,
            )
        )
    return Block(
        title=f"Players of {name}, links by policies of the other half",
        columns=(
            "links shown",
            "clicks, mean",
            "median",
            "arrive within 10 clicks, %",
            f"within {limit}, %",
            "the planned against it (95 %)",
        ),
        rows=tuple(rows),
        notes=(
            f"{links['games']:,} games; one that has not arrived counts {limit} clicks",
            "the planned against all links: the bar, an interval below 0, "
            + ("holds" if links["holds"] else "is missed"),
        ),
    )


def loop_to_markdown(result: Json) -> str:
    links = (links_block(name, one, result["limit"]) for name, one in result["links"].items())
    return blocks_to_markdown([bars_block(result), players_block(result), *links])


def draw_loop(result: Json, path: Path) -> None:
    """Draw how many clicks games take, and the distance to the target by click. Raises OutputError
    for another ending than .svg or .png, ConfigError without matplotlib."""
    drawn = (
        ("clicks, distribution", "clicks to the target (20: and more)", "games, %", 100.0),
        ("depth", "levels of the category", "pages between, %", 100.0),
        ("distance", "click", "distance to the target", 1.0),
    )
    with panels_in_file(path, (8.1, 2.9), len(drawn), font=8) as panels:
        for panel, (key, across, up, unit) in zip(panels, drawn, strict=True):
            _lines(panel, result["players"], key, unit)
            panel.set(xlabel=across, ylabel=up)
            panel.set_ylim(bottom=0)
            panel.locator_params(axis="x", integer=True)


def _lines(panel: Axes, players: dict[str, Json], key: str, unit: float) -> None:
    one = next(iter(players.values()))[key]
    at = range(1, len(one["labels"]) + 1)
    logged = [nan if v is None else unit * v for v in one["logged"]]
    panel.plot(at, logged, "o", ms=4, color=colour("ink"), label="humans")
    for (name, found), (role, style) in zip(players.items(), cycle(_LINES), strict=False):
        # a group that no player reached has no value, and the line a gap
        values = [nan if v is None else unit * v for v in found[key]["simulated"]]
        panel.plot(at, values, style, color=colour(role), linewidth=1.3, label=name)
