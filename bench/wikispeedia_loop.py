"""Learned players walk Wikispeedia's links on their own, beside the humans of the same games.

    python bench/wikispeedia_loop.py fit MODELS          # four fits, each kept in the folder
    python bench/wikispeedia_loop.py play MODELS --json docs/tables/wikispeedia-loop.json

Validation games give starts, targets and human paths; test games are not read. Every game of the
log was finished, so a simulated game that has not arrived after `LIMIT` clicks is left out of all
figures but the share that arrives. Players never give up.

`fit` makes: exact, with exact players (behaviour cloning is its reward head's best response);
adversarial, the preset's rounds; and half-0, half-1: exact players on every second game of training
and validation, for link policies that are made of one half and judged in the other."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastgaum.bench.wikispeedia_games import LIMIT, N_HUBS, Games, Site
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.intervals import Statistic, paired_difference
from fastgaum.metrics.precision import Float64Array
from fastgaum.models.choice_model import Head
from fastgaum.models.user_model import UserModel
from fastgaum.reports.permutation import compare_sides
from fastgaum.worlds.displays import (
    Crossing,
    GraphDisplays,
    LinkGraph,
    LinkPolicy,
    PlannedLinks,
    RankedLinks,
    first_places,
    live,
)
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import NO_ITEM, IntArray

SOON = 10
"""clicks within which the share that arrives is counted"""
K = 10
"""links that a policy shows"""
AT_ONCE = 1024
"""players of one population"""
CLICKS = 8
"""clicks whose distance to the target is compared"""
PLAYERS: tuple[tuple[str, str, Head], ...] = (
    ("behaviour cloning", "exact", "reward"),
    ("generator", "adversarial", "generator"),
    ("adversarial reward", "adversarial", "reward"),
)
"""name of a kind of players, its model, and the head that chooses"""


def fit(folder: Path) -> None:
    """Make the models that the folder lacks."""
    site = Site.read()
    exact: dict[str, Any] = {"players": "exact"}
    for name, log, options in (
        ("half-0", site.half(0), exact),
        ("half-1", site.half(1), exact),
        ("exact", site.log, exact),
        ("adversarial", site.log, {}),
    ):
        file = folder / f"{name}.safetensors"
        if not file.exists():
            model = UserModel.from_preset("fastgaum", **options)
            print(name, model.fit(log).tail(3), flush=True)
            model.save(file)


PolicyOf = Callable[[LinkGraph, IntArray, IntArray], LinkPolicy]
"""policy_of(graph, targets, pages): the world's graph, the targets of some games and each item of
the world, both as pages of the site"""


def walk(
    site: Site, world: LearnedWorld, games: Games, policy_of: PolicyOf | None = None, seed: int = 0
) -> Games:
    """Let a world's players play games; `policy_of` makes the policy that picks what they see."""
    to_world = Vocabulary(world.item_ids).codes(site.ids)
    to_site = Vocabulary(site.ids).codes(world.item_ids)
    graph = LinkGraph.of(site.table, world.item_ids)
    paths = np.full((len(games.starts), LIMIT), NO_ITEM, np.int32)
    rng = np.random.default_rng(seed)
    for first in range(0, len(paths), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        starts, targets = to_world[games.starts[part]], to_world[games.targets[part]]
        policy = policy_of(graph, games.targets[part], to_site) if policy_of else None
        displays = GraphDisplays(world, graph, starts, targets, policy)
        steps = live(world.population(len(starts)), displays, LIMIT, rng)
        for step, response in enumerate(steps):
            clicked = response.items >= 0
            paths[part, step] = np.where(clicked, to_site[response.items], NO_ITEM)
    return Games(games.starts, games.targets, paths)


def statistics(site: Site, versions: list[Games]) -> list[Statistic]:
    """What is compared, of the human games and simulated ones beside each other."""
    paths = np.stack([games.paths for games in versions])
    arrived = np.stack([games.arrived for games in versions])
    clicks = np.stack([games.clicks for games in versions]).astype(np.float64)
    targets = versions[0].targets
    # the last click is the target's, by the rule of the game
    between = (paths >= 0) & (paths != targets[:, None]) & arrived[:, :, None]
    pages = np.maximum(paths, 0)
    ones = np.ones_like(arrived, np.float64)[:, :, None]
    of_arrived = "games that arrived"
    soon = (arrived & (clicks <= SOON)).astype(np.float64)[:, :, None]
    numbers = np.minimum(clicks, 20).astype(np.int64)
    by_clicks = (numbers[:, :, None] == np.arange(1, 21)) & arrived[:, :, None]
    hubs = (site.hubs[pages] & between).sum(axis=2, dtype=np.float64)[:, :, None]
    n_between = between.sum(axis=2, dtype=np.float64)[:, :, None]
    depth = np.where(between, site.depths[pages], np.nan)
    levels = np.arange(1, int(np.nanmax(site.depths)) + 1)
    by_depth = np.stack([(depth == level).sum(axis=2, dtype=np.float64) for level in levels], 2)
    all_depths = np.repeat(by_depth.sum(axis=2, keepdims=True), len(levels), axis=2)
    to_go = np.take_along_axis(
        np.minimum(site.distances(targets), PlannedLinks.FAR)[None], pages[:, :, :CLICKS], axis=2
    )
    there = (paths[:, :, :CLICKS] >= 0) & arrived[:, :, None]
    shown = arrived.astype(np.float64)[:, :, None]
    return [
        Statistic(
            "clicks",
            f"mean clicks of {of_arrived}",
            "mean",
            ("",),
            clicks[:, :, None] * shown,
            shown,
        ),
        Statistic(
            "clicks, distribution",
            f"share of {of_arrived} with so many clicks",
            "ks",
            (*map(str, range(1, 20)), "20 and more"),
            by_clicks.astype(np.float64),
            np.repeat(shown, 20, axis=2),
        ),
        Statistic(
            "soon",
            f"share of all games that arrived within {SOON} clicks",
            "mean",
            ("",),
            soon,
            ones,
        ),
        Statistic(
            "hubs",
            f"share of pages between start and target that are among the {N_HUBS} most linked",
            "mean",
            ("",),
            hubs,
            n_between,
        ),
        Statistic(
            "hub visits",
            f"mean visits to those pages in {of_arrived}",
            "mean",
            ("",),
            hubs * shown,
            shown,
        ),
        Statistic(
            "depth",
            "share of pages between start and target with a category of so many levels",
            "ks",
            tuple(map(str, levels)),
            by_depth,
            all_depths,
        ),
        Statistic(
            "distance",
            f"mean distance to the target after a click of {of_arrived}",
            "chi2",
            tuple(map(str, range(1, CLICKS + 1))),
            to_go * there,
            there.astype(np.float64),
        ),
    ]


def compare(site: Site, humans: Games, simulated: Games) -> dict[str, Any]:
    """The figures of one kind of players beside the humans'."""
    figures: dict[str, Any] = {"arrived": float(simulated.arrived.mean())}
    figures["median"] = [float(np.median(g.clicks[g.arrived])) for g in (humans, simulated)]
    for statistic in statistics(site, [humans, simulated]):
        found = compare_sides(statistic, draws=499)
        figures[statistic.name] = {
            "what": statistic.what,
            "labels": list(statistic.labels),
            "test": statistic.test,
            "distance": found.distance,
            "p": found.p,
            **{
                side: np.round(np.asarray(getattr(found, side)), 5).tolist()
                for side in ("logged", "simulated", "difference", "difference_ci")
            },
        }
    return figures


def shorten(
    site: Site, policy_model: UserModel, judge: UserModel, log: SessionLog
) -> dict[str, Any]:
    """Clicks of a judging world's players under each link policy; games that do not arrive count
    `LIMIT` clicks. `log` holds the games that the policies are made of."""
    games = site.games(site.half(1))
    world, guide = site.world(judge, "reward"), site.world(policy_model, "reward")
    clicked = site.clicked(log)

    def most_clicked(graph: LinkGraph, targets: IntArray, pages: IntArray) -> LinkPolicy:
        # a page's links stand in the order of the table in both numberings
        start = site.graph.offsets[pages]
        sizes = graph.sizes
        at = np.repeat(start - graph.offsets[:-1], sizes) + np.arange(len(graph.links))
        return RankedLinks(graph, clicked[at], K)

    def planned(graph: LinkGraph, targets: IntArray, pages: IntArray) -> LinkPolicy:
        return PlannedLinks(guide, world.item_ids, site.distances(targets)[:, pages], K)

    def nearest(graph: LinkGraph, targets: IntArray, pages: IntArray) -> LinkPolicy:
        to_go = np.minimum(site.distances(targets)[:, pages], PlannedLinks.FAR)

        def shown(at: Crossing) -> IntArray:
            distance = np.take_along_axis(to_go, np.maximum(at.links, 0), axis=1)
            return first_places(at.links, distance, K)

        return shown

    played: dict[str, Games] = {
        name: walk(site, world, games, policy)
        for name, policy in (
            ("all links", None),
            (f"{K} most clicked", most_clicked),
            (f"{K} nearest", nearest),
            (f"{K} planned", planned),
        )
    }
    counted = {
        n: np.where(g.arrived, g.clicks, LIMIT).astype(np.float64) for n, g in played.items()
    }
    best = counted[f"{K} planned"]
    return {
        "games": len(games.starts),
        "policies": {
            name: {
                "clicks": float(clicks.mean()),
                "median": float(np.median(clicks)),
                "arrived": float(played[name].arrived.mean()),
                "soon": float((clicks <= SOON).mean()),
                "saved by the planned": _interval(clicks, best),
            }
            for name, clicks in counted.items()
        },
    }


def _interval(clicks: Float64Array, others: Float64Array) -> list[float]:
    found = paired_difference(clicks, others, np.arange(len(clicks)))
    return [found.mean, found.low, found.high]


def play(folder: Path, n_games: int | None = None) -> dict[str, Any]:
    """All figures of the page."""
    site = Site.read()
    models = {file.stem: UserModel.load(str(file)) for file in sorted(folder.glob("*.safetensors"))}
    humans = site.games(site.log)
    if n_games is not None:
        humans = Games(*(part[:n_games] for part in (humans.starts, humans.targets, humans.paths)))
    result: dict[str, Any] = {
        "games": len(humans.starts),
        "limit": LIMIT,
        "humans_arrived": float(humans.arrived.mean()),
        "players": {},
    }
    for name, model, head in PLAYERS:
        if model in models:
            simulated = walk(site, site.world(models[model], head), humans)
            result["players"][name] = compare(site, humans, simulated)
            print(name, json.dumps(result["players"][name])[:600], flush=True)
    if {"half-0", "half-1"} <= set(models):
        result["links"] = shorten(site, models["half-0"], models["half-1"], site.half(0))
        print(json.dumps(result["links"], indent=1), flush=True)
    return result


def main() -> None:
    """Fit, or play and write the object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("fit", "play"))
    parser.add_argument("models", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--games", type=int, help="of the first so many; all without")
    asked = parser.parse_args()
    if asked.what == "fit":
        asked.models.mkdir(exist_ok=True)
        fit(asked.models)
        return
    result = play(asked.models, asked.games)
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
