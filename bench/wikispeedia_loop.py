"""Learned players walk Wikispeedia's links on their own, beside the humans of the same games.

    python bench/wikispeedia_loop.py fit MODELS          # four fits, each kept in the folder
    python bench/wikispeedia_loop.py play MODELS --json docs/tables/wikispeedia-loop.json

Every second validation game is judged, and no fit sees it; by the others fits choose their epoch.
Test games are not read. Players never give up: a game that has not arrived after `LIMIT` clicks is
left out of all figures but the share that arrives.

`fit` makes: exact, with exact players (behaviour cloning is its reward head's best response);
adversarial, the preset's rounds; and half-0, half-1: exact players on every second of those games,
for link policies that are made of one half and judged in the other."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.bench.experiments.link_graphs import (
    Crossing,
    GraphDisplays,
    LinkGraph,
    LinkPolicy,
    PlannedLinks,
    RankedLinks,
    first_places,
    live,
)
from fastgaum.bench.experiments.loop_table import loop_to_markdown
from fastgaum.bench.report import write_object
from fastgaum.bench.wikispeedia_figures import SOON, bars_of, compare
from fastgaum.bench.wikispeedia_games import LIMIT, Games, Site
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.machine import machine_facts
from fastgaum.metrics.intervals import paired_difference
from fastgaum.models.choice_model import Head
from fastgaum.models.user_model import UserModel
from fastgaum.reports.table import Json, finite
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import NO_ITEM

K = 10
AT_ONCE = 1024
PLAYERS: tuple[tuple[str, str, Head], ...] = (
    ("behaviour cloning", "exact", "reward"),
    ("generator", "adversarial", "generator"),
    ("adversarial reward", "adversarial", "reward"),
)
FLOORS = {"any link": False, "target, else any link": True}
"""players that have learned nothing, and whether they see the target among the links"""
HALVES = ("half-0", "half-1")


def fit(folder: Path) -> None:
    """Make the models that the folder lacks."""
    site = Site.read()
    exact: dict[str, Any] = {"players": "exact"}
    for name, log, options in (
        *((half, site.half(i), exact) for i, half in enumerate(HALVES)),
        ("exact", site.log, exact),
        ("adversarial", site.log, {}),
    ):
        file, started = folder / f"{name}.safetensors", time.perf_counter()
        if not file.exists():
            model = UserModel.from_preset("fastgaum", **options)
            model.fit(log)
            model.save(file)
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


PolicyOf = Callable[[LinkGraph, IntArray, IntArray], LinkPolicy]
"""policy_of(graph, targets, pages of the world's items)"""


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


def shorten(
    site: Site, policy_model: UserModel, judge: UserModel, log: SessionLog, k: int = K
) -> Json:
    """Clicks of a judging world's players under each policy of k links; games that do not arrive
    count `LIMIT` clicks. `log` holds the games that the policies are made of."""
    games = site.judged
    world, guide = site.world(judge, "reward"), site.world(policy_model, "reward")
    clicked = site.clicked(log)

    def table_of(numbers: FloatArray) -> PolicyOf:
        def ranked(graph: LinkGraph, targets: IntArray, pages: IntArray) -> LinkPolicy:
            # a page's links stand in the order of the table in both numberings
            start = site.graph.offsets[pages]
            at = np.repeat(start - graph.offsets[:-1], graph.sizes) + np.arange(len(graph.links))
            return RankedLinks(graph, numbers[at], k)

        return ranked

    def planned(graph: LinkGraph, targets: IntArray, pages: IntArray) -> LinkPolicy:
        return PlannedLinks(guide, world.item_ids, site.distances(targets)[:, pages], k)

    def nearest(graph: LinkGraph, targets: IntArray, pages: IntArray) -> LinkPolicy:
        to_go = np.minimum(site.distances(targets)[:, pages], PlannedLinks.FAR)

        def shown(at: Crossing) -> IntArray:
            distance = np.take_along_axis(to_go, np.maximum(at.links, 0), axis=1)
            return first_places(at.links, distance, k)

        return shown

    by_chance = np.random.default_rng(0).random(len(clicked), np.float32)
    policies: dict[str, PolicyOf | None] = {
        "all links": None,
        f"{k} at random": table_of(by_chance),
        f"{k} most clicked": table_of(clicked),
        f"{k} nearest": nearest,
        f"{k} planned": planned,
    }
    played = {name: walk(site, world, games, policy) for name, policy in policies.items()}
    counted = {
        n: np.where(g.arrived, g.clicks, LIMIT).astype(np.float64) for n, g in played.items()
    }
    best = counted[f"{k} planned"]
    return {
        "games": len(games.starts),
        "policies": {
            name: {
                "clicks": float(clicks.mean()),
                "median": float(np.median(clicks)),
                "arrived": float(played[name].arrived.mean()),
                "soon": float((played[name].arrived & (clicks <= SOON)).mean()),
                "saved by the planned": _interval(clicks, best),
            }
            for name, clicks in counted.items()
        },
        "holds": _interval(counted["all links"], best)[1] > 0,
    }


def _interval(clicks: Float64Array, others: Float64Array) -> list[float]:
    found = paired_difference(clicks, others, np.arange(len(clicks)))
    return [found.mean, found.low, found.high]


def play(site: Site, models: dict[str, UserModel], told: Callable[[str], None] = print) -> Json:
    """All figures of the page. Raises ConfigError if a model is missing."""
    if missing := {*HALVES, *(model for _, model, _ in PLAYERS)} - set(models):
        raise ConfigError(
            f"the folder has no {min(missing)}.safetensors: run `fit` first, until its end"
        )
    humans = site.judged
    players: Json = {}
    for name, model, head in PLAYERS:
        told(f"{name} play {len(humans.starts):,} games")
        simulated = walk(site, site.world(models[model], head), humans)
        players[name] = compare(site, humans, simulated)
    for name, sees_target in FLOORS.items():
        players[name] = compare(site, humans, site.wander(humans, sees_target=sees_target))
    links = {}
    for i, (own, other) in enumerate((HALVES, HALVES[::-1])):
        told(f"players of {other} are shown links by policies of {own}")
        links[other] = shorten(site, models[own], models[other], site.half(i))
    return {
        "games": len(humans.starts),
        "limit": LIMIT,
        "humans_arrived": float(humans.arrived.mean()),
        "players": players,
        "bars": {name: bars_of(figures) for name, figures in players.items()},
        "links": links,
        "machine": machine_facts(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("fit", "play"))
    parser.add_argument("models", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    started = time.perf_counter()
    if asked.what == "fit":
        asked.models.mkdir(parents=True, exist_ok=True)
        fit(asked.models)
    else:
        files = sorted(asked.models.glob("*.safetensors"))
        models = {file.stem: UserModel.load(file) for file in files}
        result = finite(play(Site.read(), models, functools.partial(print, flush=True)))
        print(loop_to_markdown(result))
        write_object(asked.json, result)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
