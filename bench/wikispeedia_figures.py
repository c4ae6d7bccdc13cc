"""What is compared of games that humans and simulated players played, and the bars that it has to
reach: figures of `bench/wikispeedia_loop.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from typing import Any, Literal

import numpy as np

from fastgaum.arrays import Float64Array
from fastgaum.bench.experiments.link_graphs import PlannedLinks
from fastgaum.bench.wikispeedia_games import N_HUBS, Games, Site
from fastgaum.metrics.intervals import AnyArray, draw_users, percentile_interval, ratio

SOON = 10
CLICKS = 8
NEAR, NEAR_SHARE = 0.1, 0.05
"""largest difference from the humans: of clicks, as a share of theirs; of the share that arrives
soon"""
DRAWS = 499
TOLD_APART = 0.05


CHUNK = 1 << 22
"""entries that are gathered at once"""
Test = Literal["mean", "chi2", "ks"]


@dataclass(frozen=True)
class Statistic:
    """Ratios of sums over games, one per group, of the humans (version 0) and of the players."""

    name: str
    what: str
    test: Test
    labels: tuple[str, ...]
    sums: Float64Array
    """shape (n_versions, n_games, n_groups)"""
    counts: Float64Array


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


def compare_sides(statistic: Statistic, draws: int = 1999, seed: int = 0) -> dict[str, Any]:
    """Both sides of a statistic, their intervals over games and the test.

    Returns: `distance` and `p`, NaN where a side counts nothing; and `groups`,
        each with its label, `logged`, `simulated` (of all replicas together), `difference`
        (simulated − logged), and their ends `…_ci`, of the same drawn users on both sides.
    """
    n_users = statistic.sums.shape[1]
    weights = [np.ones((1, n_users)), *draw_users(n_users, draws, seed)]
    # the first row is of all users once, the others are draws
    logged, simulated = map(
        np.concatenate, zip(*(sides(statistic, one) for one in weights), strict=True)
    )
    figures = {"logged": logged, "simulated": simulated, "difference": simulated - logged}
    ends = {name: percentile_interval(values[1:]) for name, values in figures.items()}
    observed, p = permutation_test(statistic, draws, seed)
    groups = [
        {"label": label}
        | {name: float(values[0, i]) for name, values in figures.items()}
        | {f"{name}_ci": both[:, i].tolist() for name, both in ends.items()}
        for i, label in enumerate(statistic.labels)
    ]
    return {"distance": observed, "p": p, "groups": groups}


def sides(statistic: Statistic, weights: AnyArray) -> tuple[Float64Array, Float64Array]:
    """Logged and simulated ratios, (n_draws, n_groups) each, of users that count `weights`
    (n_draws, n_users) times."""
    (sums, more_sums), (counts, more_counts) = (
        (part[0], part[1:].sum(axis=0)) for part in (statistic.sums, statistic.counts)
    )
    simulated = ratio(weights @ more_sums, weights @ more_counts)
    return ratio(weights @ sums, weights @ counts), simulated


def permutation_test(statistic: Statistic, draws: int, seed: int) -> tuple[float, float]:
    """Distance of the two sides, and p; NaN both where a side counts nothing."""
    observed = distance(*next(permute_sides(statistic, 0, seed)), statistic.test)
    if np.isnan(observed[0]):
        return float("nan"), float("nan")
    others = np.concatenate(
        [distance(*part, statistic.test) for part in permute_sides(statistic, draws, seed)]
    )
    # sums that are equal may differ by rounding; a permutation that counts nothing on a side is no
    # evidence
    below = np.count_nonzero(others < observed[0] - 1e-9 * abs(observed[0]))
    return float(observed[0]), float((len(others) - below) / len(others))


Side = tuple[AnyArray, AnyArray]
"""sums and counts, (n_draws, n_groups) each"""


def permute_sides(statistic: Statistic, draws: int, seed: int) -> Iterator[tuple[Side, Side]]:
    """The sides of the log and of the world, then of `draws` permutations within users."""
    sums, counts = statistic.sums, statistic.counts
    n_versions, n_users, n_groups = sums.shape
    totals = sums.sum(axis=(0, 1)), counts.sum(axis=(0, 1))
    rng = np.random.default_rng([seed, 1])
    everyone = np.arange(n_users)
    step = max(1, CHUNK // (n_users * n_groups))
    for start in range(0, draws + 1, step):
        size = min(step, draws + 1 - start)
        picked = rng.integers(n_versions, size=(size, n_users))
        if start == 0:
            picked[0] = 0
        one = sums[picked, everyone].sum(axis=1), counts[picked, everyone].sum(axis=1)
        yield one, (totals[0] - one[0], totals[1] - one[1])


def distance(logged: Side, simulated: Side, test: Test) -> Float64Array:
    """How far two sides are apart, (n_draws,). NaN if one counts nothing."""
    one, other = ratio(*logged), ratio(*simulated)
    if test == "mean":
        return np.abs(one - other)[:, 0]
    if test == "ks":
        return np.asarray(np.abs(np.cumsum(one - other, axis=1)).max(axis=1), np.float64)
    together = ratio(logged[0] + simulated[0], logged[1] + simulated[1])
    terms = logged[1] * (one - other) ** 2 / np.where(together > 0, together, 1.0)
    # a group that one side lacks says nothing; where all do, there is nothing to compare
    apart = np.where(np.isnan(terms).all(axis=1), np.nan, np.nansum(terms, axis=1))
    return np.asarray(apart, np.float64)
