"""What is compared of games that humans and simulated players played, and the bars that it has to
reach: figures of `bench/wikispeedia_loop.py`."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from fastgaum.arrays import Float64Array
from fastgaum.bench.experiments.link_graphs import PlannedLinks
from fastgaum.bench.wikispeedia_games import N_HUBS, Games, Site
from fastgaum.metrics.intervals import Statistic
from fastgaum.reports.permutation_test import compare_sides

SOON = 10
CLICKS = 8
NEAR, NEAR_SHARE = 0.1, 0.05
"""largest difference from the humans: of clicks, as a share of theirs; of the share that arrives
soon"""
DRAWS = 499
TOLD_APART = 0.05


def statistics(site: Site, versions: list[Games]) -> list[Statistic]:
    paths = np.stack([games.paths for games in versions])
    arrived = np.stack([games.arrived for games in versions])
    clicks = np.stack([games.clicks for games in versions]).astype(np.float64)
    targets = versions[0].targets
    # the last click is the target's, by the rule of the game
    between = (paths >= 0) & (paths != targets[:, None]) & arrived[:, :, None]
    pages = np.maximum(paths, 0)
    ones = np.ones_like(arrived, np.float64)[:, :, None]
    shown = arrived.astype(np.float64)[:, :, None]
    soon = (arrived & (clicks <= SOON)).astype(np.float64)[:, :, None]
    numbers = np.minimum(clicks, 20).astype(np.int64)
    by_clicks = ((numbers[:, :, None] == np.arange(1, 21)) & arrived[:, :, None]).astype(np.float64)
    hubs = (site.hubs[pages] & between).sum(axis=2, dtype=np.float64)[:, :, None]
    n_between = between.sum(axis=2, dtype=np.float64)[:, :, None]
    depth = np.where(between, site.depths[pages], np.nan)
    levels = np.arange(1, int(np.nanmax(site.depths)) + 1)
    by_depth = np.stack([(depth == level).sum(axis=2, dtype=np.float64) for level in levels], 2)
    all_depths = np.repeat(by_depth.sum(axis=2, keepdims=True), len(levels), axis=2)
    to_go = np.take_along_axis(
        np.minimum(site.distances(targets), PlannedLinks.FAR)[None], pages[:, :, :CLICKS], axis=2
    )
    there = ((paths[:, :, :CLICKS] >= 0) & arrived[:, :, None]).astype(np.float64)
    one, of = ("",), "games that arrived"
    up_to_20 = (*map(str, range(1, 20)), "20 and more")
    level_names, numbers_of_clicks = (
        tuple(map(str, some)) for some in (levels, range(1, CLICKS + 1))
    )

    def mean(name: str, what: str, sums: Float64Array, counts: Float64Array) -> Statistic:
        return Statistic(name, what, "mean", one, sums, counts)

    counts = np.repeat(shown, 20, axis=2)
    spread = f"share of {of} with so many clicks"
    linked = f"share of pages between start and target that are among the {N_HUBS} most linked"
    deep = "share of pages between start and target with a category of so many levels"
    far = f"mean distance to the target after a click of {of}"
    return [
        mean("clicks", f"mean clicks of {of}", clicks[:, :, None] * shown, shown),
        Statistic("clicks, distribution", spread, "ks", up_to_20, by_clicks, counts),
        mean("soon", f"share of all games that arrived within {SOON} clicks", soon, ones),
        mean("hubs", linked, hubs, n_between),
        mean("hub visits", f"mean visits to those pages in {of}", hubs * shown, shown),
        Statistic("depth", deep, "ks", level_names, by_depth, all_depths),
        Statistic("distance", far, "chi2", numbers_of_clicks, to_go * there, there),
    ]


def compare(site: Site, humans: Games, simulated: Games) -> dict[str, Any]:
    """The figures of one kind of players beside the humans'."""
    sides = (humans, simulated)
    figures: dict[str, Any] = {
        "arrived": float(simulated.arrived.mean()),
        "median": [
            float(np.median(g.clicks[g.arrived])) if g.arrived.any() else nan for g in sides
        ],
    }
    for statistic in statistics(site, list(sides)):
        found = compare_sides(statistic, draws=DRAWS)
        sides_of = {
            side: np.round([group[side] for group in found["groups"]], 5).T.tolist()
            for side in ("logged", "simulated", "difference", "difference_ci")
        }
        figures[statistic.name] = {
            "what": statistic.what,
            "labels": list(statistic.labels),
            "test": statistic.test,
            "distance": found["distance"],
            "p": found["p"],
            **sides_of,
        }
    return figures


def bars_of(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What one kind of players reaches of each bar, by its name."""
    human, own = figures["median"]
    clicks, soon = figures["clicks"], figures["soon"]
    mean = clicks["logged"][0]
    parts = {
        "clicks, mean": (
            clicks["difference"][0] / mean,
            [end / mean for (end,) in clicks["difference_ci"]],
            NEAR,
        ),
        "clicks, median": ((own - human) / human, None, NEAR),
        "soon": (soon["difference"][0], [end for (end,) in soon["difference_ci"]], NEAR_SHARE),
    }
    bars: dict[str, dict[str, Any]] = {
        name: {"value": value, "ci": ends, "bound": bound, "holds": abs(value) <= bound}
        for name, (value, ends, bound) in parts.items()
    }
    for name in ("hub visits", "depth"):
        found = figures[name]
        bars[name] = {
            "value": found["distance"],
            "p": found["p"],
            "bound": TOLD_APART,
            "holds": found["p"] >= TOLD_APART,
        }
    return bars
