"""Displays that answer: users walk a graph by its links, and a policy shows some of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.arrays import IntArray
from fastgaum.bench.experiments.link_graphs import (
    Display,
    GraphDisplays,
    LinkGraph,
    PlannedLinks,
    RankedLinks,
    linked_items,
    live,
    soonest,
)
from fastgaum.models.context import EncodedContext
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import NO_ITEM, Response, World
from tests.builders import put
from tests.logs.test_context import navigation
from tests.worlds.small_world import SmallWorld
from tests.worlds.test_learned_world import fitted


def table_of(links: dict[str, list[str]]) -> pl.DataFrame:
    return pl.DataFrame({"page": list(links), "links": list(links.values())})


def random_table(item_ids: pl.Series, width: int, seed: int = 0) -> pl.DataFrame:
    """Every item but the last is a page that links to some others; the last links nowhere."""
    rng = np.random.default_rng(seed)
    ids = item_ids.to_list()
    return table_of(
        {page: rng.choice(ids, rng.integers(2, width + 1), False).tolist() for page in ids[:-1]}
    )


def walk(
    world: World, displays: Callable[[int, Response | None], Display], n: int, steps: int = 40
) -> IntArray:
    """Pages that were chosen, -1 after the end, shape (steps taken, n)."""
    lived = live(world.population(n), displays, steps, np.random.default_rng(7))
    return np.stack([response.items for response in lived])


@pytest.fixture(scope="module")
def world() -> LearnedWorld:
    """Players of pages with targets, not far from untrained."""
    log = navigation(60, n_items=30, fixed=True)
    fields = {name: log.columns[name].values for name in ("page", "target")}
    return LearnedWorld(fitted(put(log, event=fields), tower_dim=6))


def test_a_graph_is_its_table_in_the_world_s_numbering() -> None:
    table = table_of({"b": ["a", "c"], "a": ["b"], "e": []})
    graph = LinkGraph.of(table, pl.Series(["a", "b", "c", "d"]))
    assert graph.sizes.tolist() == [1, 2, 0, 0]
    assert graph.shown(np.array([1, 0, 3], np.int32)).tolist() == [[0, 2], [1, -1], [-1, -1]]
    assert graph.shown(np.array([3], np.int32)).tolist() == [[-1]]
    assert linked_items(table).to_list() == ["a", "b", "c"]
    # a row for each target: clicks from each item to it
    assert graph.distances(np.array([2, 0], np.int32)).tolist() == [
        [2, 1, 0, np.inf],
        [0, 1, np.inf, np.inf],
    ]


def test_a_graph_without_a_link_ends_every_life() -> None:
    world = SmallWorld()
    graph = LinkGraph.of(table_of({page: [] for page in world.item_ids}), world.item_ids)
    pages = np.array([0, 3], np.int32)
    assert graph.shown(pages).tolist() == [[-1], [-1]]
    assert graph.distances(pages)[0].tolist() == [0] + [np.inf] * (world.n_items - 1)
    ranked = RankedLinks(graph, np.empty(0, np.float32))
    for policy in (None, ranked):
        rule = GraphDisplays(world, graph, pages, pages[::-1], policy)
        assert live(world.population(2), rule, 5, np.random.default_rng(0)) == []
        assert rule(0, None).slates.tolist() == [[-1], [-1]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_walk_follows_links_until_the_target(seed: int) -> None:
    """Every page is a link of the page before, nothing follows a target or a page without links,
    and who chooses nothing stays."""
    world, rng = SmallWorld(seed=seed), np.random.default_rng(seed)
    graph = LinkGraph.of(random_table(world.item_ids, 4, seed), world.item_ids)
    starts, targets = rng.integers(0, 12, (2, 30)).astype(np.int32)
    chosen = walk(world, GraphDisplays(world, graph, starts, targets), 30)
    for user, page in enumerate(starts.tolist()):
        for item in chosen[:, user].tolist():
            links = graph.links[graph.offsets[page] : graph.offsets[page + 1]].tolist()
            if page == targets[user] or not links:
                assert item == NO_ITEM
            elif item != NO_ITEM:
                assert item in links
                page = item
        assert len(chosen) == 40 or page == targets[user] or graph.sizes[page] == 0


def test_players_are_told_their_page_and_target(world: LearnedWorld) -> None:
    """The context of a step is that of an event on this page with this target."""
    graph = LinkGraph.of(random_table(world.item_ids, 6), world.item_ids)
    assert world.context is not None
    holds = world.context.space.context_holds
    starts, targets = np.array([3, 4], np.int32), np.array([9, 2], np.int32)
    displays = GraphDisplays(world, graph, starts, targets)
    last = Response(np.zeros(2, np.int32), np.array([5, -1], np.int32), np.zeros(2, np.float32))
    for step, response, pages in ((0, None, [3, 4]), (1, last, [5, 4])):
        context = displays(step, response).context
        assert isinstance(context, EncodedContext)
        assert context.items[:, list(holds).index("page")].tolist() == pages
        assert context.items[:, list(holds).index("target")].tolist() == [9, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 4))
def test_the_planned_links_are_the_best_of_all_subsets(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    links = np.arange(7, dtype=np.int32)[None].repeat(3, 0)
    links[1, 5:], links[2, 1:] = NO_ITEM, NO_ITEM
    weights = rng.random((3, 7)).astype(np.float32) + np.float32(0.01)
    to_go = rng.integers(0, 5, (3, 7)).astype(np.float32)
    shown = soonest(links, weights, to_go, k)
    for row in range(3):
        there = links[row][links[row] >= 0].tolist()
        size = min(k, len(there))

        def mean(part: list[int], row: int = row) -> float:
            w, d = weights[row, part].astype(np.float64), to_go[row, part]
            return float((w * d).sum() / w.sum())

        best = min(mean(list(part)) for part in combinations(there, size))
        got = [link for link in shown[row].tolist() if link >= 0]
        assert len(set(got)) == size
        assert mean(got) == pytest.approx(best, abs=1e-5)


def test_planned_links_bring_players_to_their_targets_sooner(world: LearnedWorld) -> None:
    """Their own learned user follows the players, and learns of them what they are."""
    graph = LinkGraph.of(random_table(world.item_ids, 12), world.item_ids)
    rng = np.random.default_rng(1)
    n = 200
    starts, targets = rng.integers(0, world.n_items - 1, (2, n)).astype(np.int32)
    policy = PlannedLinks(world, world.item_ids, graph.distances(targets), k=3)
    clicks = {}
    for name, link_policy in (("all", None), ("planned", policy)):
        displays = GraphDisplays(world, graph, starts, targets, link_policy)
        chosen = walk(world, displays, n)
        clicks[name] = (chosen >= 0).sum() / n
    assert clicks["planned"] < 0.6 * clicks["all"]

    users = world.population(n)
    displays = GraphDisplays(world, graph, starts, targets, policy)
    steps = live(users, displays, 2, np.random.default_rng(7))
    displays(2, steps[-1])
    ours, its = (one.users.states[:, : world.networks.history_dim] for one in (users, policy.users))
    assert np.abs(ours).max() > 0
    np.testing.assert_allclose(its, ours, atol=1e-5)
