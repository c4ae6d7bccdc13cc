"""Lives on a link graph: users see the links of the page that they chose last, and a policy may
show some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from fastgaum.arrays import BoolArray, FloatArray, IntArray
from fastgaum.errors import ConfigError
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.models.context import EncodedContext
from fastgaum.worlds.learned_world import ContextPopulation, LearnedWorld
from fastgaum.worlds.world import NO_ITEM, Population, Response, World


@dataclass(frozen=True)
class Display:
    """What n users are shown in one step."""

    slates: IntArray
    """items, `NO_ITEM` at an empty place, shape (n, k)"""
    active: BoolArray
    """who is shown anything, shape (n,); the others' lives are over"""
    context: EncodedContext | None = None
    """None: users need none, or have one of their world's log"""


def live(
    users: Population, rule: GraphDisplays, steps: int, rng: np.random.Generator
) -> list[Response]:
    """Let users live on a graph until no user is shown anything, or for so many steps; the response
    to each display."""
    responses: list[Response] = []
    for step in range(steps):
        display = rule(step, responses[-1] if responses else None)
        if not display.active.any():
            break
        keys = rng.integers(0, 2**64, users.n, dtype=np.uint64)
        shown = display.slates, keys, display.active
        if isinstance(users, ContextPopulation):
            responses.append(users.step(*shown, display.context))
        else:
            responses.append(users.step(*shown))
    return responses


@dataclass(frozen=True)
class LinkGraph:
    """Pages and their links, as items of a world."""

    offsets: IntArray
    """start of each page's links, shape (n_items + 1,)"""
    links: IntArray
    """items that pages link to, page by page"""

    @classmethod
    def of(cls, table: pl.DataFrame, item_ids: pl.Series) -> LinkGraph:
        """The graph of a table with the columns `page` and `links`, a list. Raises ConfigError if
        one is no item of `item_ids`."""
        pairs = _pairs(table)
        vocabulary = Vocabulary(item_ids)
        pages, links = (vocabulary.codes(pairs[name]) for name in ("page", "links"))
        if (unknown := (pages < 0) | (links < 0)).any():
            page, link = pairs.row(int(unknown.argmax()))
            raise ConfigError(
                f"the page '{page}' or its link '{link}' is no item of the world: make the world "
                "with them (further=…)"
            )
        order = np.argsort(pages, kind="stable")
        sizes = np.bincount(pages, minlength=len(item_ids))
        return cls(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32), links[order])

    @property
    def sizes(self) -> IntArray:
        """Links of each item, shape (n_items,)."""
        return np.diff(self.offsets)

    def shown(self, pages: IntArray) -> IntArray:
        """The links of pages (n,) as slates, as wide as the widest; shape (n, k)."""
        sizes = self.sizes[pages]
        places = np.arange(max(int(sizes.max(initial=1)), 1))
        at = np.minimum(self.offsets[pages][:, None] + places, len(self.links))
        # one entry more: the graph may have no link at all
        shown = np.append(self.links, np.int32(NO_ITEM))[at]
        return np.where(places < sizes[:, None], shown, np.int32(NO_ITEM)).astype(np.int32)

    def distances(self, targets: IntArray) -> FloatArray:
        """Least number of clicks from each item to each target, inf where there is no way; shape
        (n_targets, n_items)."""
        n = len(self.offsets) - 1
        to_from = sparse.csr_matrix(
            (np.ones(len(self.links)), self.links, self.offsets), shape=(n, n)
        ).T.tocsr()
        return np.asarray(dijkstra(to_from, unweighted=True, indices=targets), np.float32)


def linked_items(table: pl.DataFrame) -> pl.Series:
    """Ids of all pages and links of a table, as text, each once."""
    pairs = _pairs(table)
    return pl.concat([pairs["page"], pairs["links"].alias("page")]).unique().sort()


def _pairs(table: pl.DataFrame) -> pl.DataFrame:
    """A row for each link, both ends as text, each once."""
    pairs = table.select("page", "links").explode("links").drop_nulls()
    return pairs.select(pl.all().cast(pl.String)).unique(maintain_order=True)


@dataclass(frozen=True)
class Crossing:
    """Where n players of a link graph stand."""

    pages: IntArray
    targets: IntArray
    links: IntArray
    """all links of the pages, shape (n, m)"""
    active: BoolArray
    last: Response | None
    """to the display before, None at the start"""


LinkPolicy = Callable[[Crossing], IntArray]
"""policy(crossing): slates (n, k) of links of the pages"""


class GraphDisplays:
    """A display rule: users see the links of the page that they chose last, until that page is
    their target, or has no link. Users who choose nothing stay where they are."""

    def __init__(
        self,
        world: World,
        graph: LinkGraph,
        starts: IntArray,
        targets: IntArray,
        policy: LinkPolicy | None = None,
    ) -> None:
        """Take the first page and the target of each user, shape (n,); without a policy all links
        are shown. Raises ConfigError for a world that reads other context fields than page and
        target."""
        self.world, self.graph, self.policy = world, graph, policy
        self.starts, self.targets = (np.asarray(part, np.int32) for part in (starts, targets))
        self.pages = self.starts.copy()
        page_context(world, self.starts, self.targets)

    def __call__(self, step: int, last: Response | None) -> Display:
        if last is None:
            self.pages = self.starts.copy()
        else:
            self.pages = np.where(last.items >= 0, last.items, self.pages)
        active = (self.pages != self.targets) & (self.graph.sizes[self.pages] > 0)
        slates = self.graph.shown(np.where(active, self.pages, self.starts))
        slates[~active] = NO_ITEM
        if self.policy is not None:
            slates = self.policy(Crossing(self.pages, self.targets, slates, active, last))
        return Display(slates, active, page_context(self.world, self.pages, self.targets))


def page_context(world: World, pages: IntArray, targets: IntArray) -> EncodedContext | None:
    """The context of users on some pages with some targets; None if the world reads none. Raises
    ConfigError if it reads other fields."""
    if not isinstance(world, LearnedWorld) or world.context is None:
        return None
    ids = world.item_ids
    return world.context_of(
        {"page": ids.gather(pages).to_list(), "target": ids.gather(targets).to_list()}
    )


class RankedLinks:
    """A link policy: the k links of a page with the highest number in a table, shape (n_links,)."""

    def __init__(self, graph: LinkGraph, table: FloatArray, k: int = 10) -> None:
        self.graph, self.table, self.k = graph, table, k

    def __call__(self, at: Crossing) -> IntArray:
        places = np.arange(at.links.shape[1])
        rows = np.minimum(self.graph.offsets[at.pages][:, None] + places, len(self.table))
        # one entry more, as in `LinkGraph.shown`
        return first_places(at.links, -np.append(self.table, 0)[rows], self.k)


class PlannedLinks:
    """A link policy: the k links that bring a learned user soonest to the target.

    The learned user chooses link j with a probability in proportion to w_j, and link j has d_j
    clicks to go at least, its distance. Shown are the k links of least Σ w_j d_j / Σ w_j, by
    Dinkelbach's rule. The user is one of the policy's own world, and follows what is chosen."""

    FAR = 20.0
    """clicks to go from where there is no way"""

    def __init__(
        self, guide: LearnedWorld, item_ids: pl.Series, distances: FloatArray, k: int = 10
    ) -> None:
        """Take the policy's own world, the items of the players' world, and the clicks from each of
        these to each player's target, shape (n, n_items). Raises ConfigError if the guide's world
        lacks an item."""
        self.guide, self.k = guide, k
        self.rows = Vocabulary(guide.item_ids).codes(item_ids)
        if (self.rows < 0).any():
            raise ConfigError(
                f"the policy's world lacks the item '{item_ids[int(self.rows.argmin())]}': make "
                "both worlds with the same items (further=…)"
            )
        self.distances = np.minimum(distances, np.float32(self.FAR))
        self.users = guide.population(len(distances))
        self.slates: IntArray = np.empty((0, 0), np.int32)
        self.active: BoolArray = np.empty(0, np.bool_)

    def __call__(self, at: Crossing) -> IntArray:
        if at.last is None:
            self.users.reset(np.zeros(self.users.n, np.uint64))
        else:
            self.users.follow(self._own(self.slates), at.last.places, self.active)
        context = page_context(self.guide, self.rows[at.pages], self.rows[at.targets])
        weights, _ = self.users.probabilities(self._own(at.links), context)
        to_go = np.take_along_axis(self.distances, np.maximum(at.links, 0), axis=1)
        self.slates, self.active = soonest(at.links, weights, to_go, self.k), at.active
        return self.slates

    def _own(self, slates: IntArray) -> IntArray:
        return np.where(slates >= 0, self.rows[slates], np.int32(NO_ITEM))


def soonest(links: IntArray, weights: FloatArray, to_go: FloatArray, k: int) -> IntArray:
    """The k of each row's links with the least Σ weight · to_go / Σ weight, weights positive; shape
    (n, k). An empty place, `NO_ITEM`, is taken last."""
    weights = np.maximum(weights, np.float32(1e-12))
    shown = first_places(links, to_go, k, places=True)
    mean = np.full(len(links), np.inf)
    while True:
        w, d = (np.take_along_axis(part, shown, axis=1) for part in (weights, to_go))
        w = np.where(np.take_along_axis(links, shown, axis=1) >= 0, w, 0).astype(np.float64)
        now = (w * d).sum(axis=1) / np.maximum(w.sum(axis=1), 1e-12)
        if not (now < mean - 1e-6).any():
            return np.take_along_axis(links, shown, axis=1)
        mean = np.minimum(mean, now)
        shown = first_places(links, weights * (to_go - mean[:, None]), k, places=True)


def first_places(
    links: IntArray, costs: npt.NDArray[np.floating], k: int, places: bool = False
) -> IntArray:
    """The k links of each row with the least cost, in the order of the row, or their places; an
    empty place is taken last. Shape (n, min(k, m))."""
    costs = np.where(links >= 0, costs, np.inf)
    chosen = np.sort(np.argsort(costs, axis=1, kind="stable")[:, :k], axis=1)
    return chosen.astype(np.int32) if places else np.take_along_axis(links, chosen, axis=1)
