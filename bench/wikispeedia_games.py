"""Wikispeedia's games without those of the test split, its link graph, and what is known of its
pages: what `bench/wikispeedia_loop.py` plays on. And walkers that have learned nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.bench.experiments.link_graphs import LinkGraph, linked_items
from fastgaum.errors import DatasetError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.datasets import find_log
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.models.choice_model import Head
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import NO_ITEM

LIMIT = 60
"""clicks after which a game that has not arrived is left, a human's too"""
N_HUBS = 50


@dataclass(frozen=True)
class Games:
    """Starts, targets and pages chosen of some games, as items of a numbering."""

    starts: IntArray
    targets: IntArray
    paths: IntArray
    """page after each click, `NO_ITEM` after the last, shape (n_games, LIMIT)"""

    @property
    def clicks(self) -> IntArray:
        return np.asarray((self.paths >= 0).sum(axis=1), np.int32)

    @property
    def arrived(self) -> npt.NDArray[np.bool_]:
        return np.asarray((self.paths == self.targets[:, None]).any(axis=1))


@dataclass(frozen=True)
class Site:
    """The games, the graph, and what is known of its pages; test games are left out.

    Attributes:
        log: the training games, and every second validation game, by which a fit chooses its epoch.
        judged: the other validation games, as humans played them; no fit has seen them.
        ids: every page and link; all numbers of pages are rows of it.
    """

    log: SessionLog
    judged: Games
    table: pl.DataFrame
    ids: pl.Series
    graph: LinkGraph
    depths: FloatArray
    """level of each page's subcategory, 1 the most general, NaN for a page without one"""
    hubs: npt.NDArray[np.bool_]
    cached: dict[int, FloatArray] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Site:
        """Read the registered log and the two tables beside it."""
        file = find_log("wikispeedia")
        if file is None:
            raise DatasetError("wikispeedia is in no data folder: set FASTGAUM_DATA_DIR")
        links, items = (
            pl.read_parquet(file.parent / f"{name}.parquet") for name in ("links", "items")
        )
        return cls.of(load("wikispeedia"), links, items)

    @classmethod
    def of(cls, log: SessionLog, table: pl.DataFrame, items: pl.DataFrame) -> Site:
        """The games of a log, with the tables `page`, `links` and `item`, `subcategory`."""
        ids = linked_items(table)
        validation = log.sessions_in("validation")
        judged = _games_of(slice_sessions(log, validation[::2]), ids)
        fitted = np.sort(np.concatenate([log.sessions_in("train"), validation[1::2]]))
        graph = LinkGraph.of(table, ids)
        depths = np.full(len(ids), np.nan, np.float32)
        at = Vocabulary(ids).codes(items["item"].cast(pl.String))
        levels = items["subcategory"].str.count_matches(r"\.").cast(pl.Float32).to_numpy() + 1
        depths[at[at >= 0]] = levels[at >= 0]
        linked = np.bincount(graph.links, minlength=len(ids))
        hubs = np.zeros(len(ids), np.bool_)
        hubs[np.argsort(-linked, kind="stable")[:N_HUBS]] = True
        return cls(slice_sessions(log, fitted), judged, table, ids, graph, depths, hubs)

    def half(self, which: int) -> SessionLog:
        """Every second game of those that models are fitted on, of each split."""
        parts = [self.log.sessions_in(split)[which::2] for split in ("train", "validation")]
        return slice_sessions(self.log, np.sort(np.concatenate(parts)))

    def distances(self, targets: IntArray) -> FloatArray:
        """Clicks from every page to each target, shape (n, n_pages)."""
        if new := sorted(set(targets.tolist()) - set(self.cached)):
            found = self.graph.distances(np.array(new, np.int32))
            self.cached.update(zip(new, found, strict=True))
        return np.stack([self.cached[target] for target in targets.tolist()])

    def world(self, model: UserModel, head: Head) -> LearnedWorld:
        assert model.space is not None
        known = model.space.categorical[0].values
        return LearnedWorld(model, head, further=self.ids.filter(~self.ids.is_in(known.implode())))

    def clicked(self, log: SessionLog) -> FloatArray:
        """Training clicks on each link of the graph, shape (n_links,); clicks on the page from
        anywhere decide between equals."""
        own = slice_sessions(log, log.sessions_in("train"))
        codes = Vocabulary(self.ids).codes(own.item_ids)
        chosen = codes[own.items[own.display_offsets[:-1] + own.choices]].astype(np.int64)
        page = own.columns["page"]
        pages = Vocabulary(self.ids).codes(page.categories)[page.values]
        n = len(self.ids)
        links = np.repeat(np.arange(n), self.graph.sizes) * n + self.graph.links
        pairs, counts = np.unique(pages * np.int64(n) + chosen, return_counts=True)
        at = np.minimum(np.searchsorted(pairs, links), len(pairs) - 1)
        here = np.where(pairs[at] == links, counts[at], 0)
        anywhere = np.bincount(chosen, minlength=n)[self.graph.links]
        return np.asarray(here + anywhere / (1.0 + anywhere.max()), np.float32)

    def wander(self, games: Games, seed: int = 0, *, sees_target: bool = False) -> Games:
        """The same games by players who click any link of a page, or with `sees_target` the target
        where the page links to it."""
        rng, n = np.random.default_rng(seed), len(self.ids)
        links = np.repeat(np.arange(n), self.graph.sizes) * n + self.graph.links
        paths = np.full((len(games.starts), LIMIT), NO_ITEM, np.int32)
        pages = games.starts.copy()
        for step in range(LIMIT):
            sizes = self.graph.sizes[pages]
            active = np.flatnonzero((pages != games.targets) & (sizes > 0))
            place = rng.integers(sizes[active])
            chosen = self.graph.links[self.graph.offsets[pages[active]] + place]
            if sees_target:
                target = games.targets[active]
                linked = np.isin(pages[active] * np.int64(n) + target, links)
                chosen = np.where(linked, target, chosen)
            paths[active, step] = pages[active] = chosen
        return Games(games.starts, games.targets, paths)


def _games_of(log: SessionLog, ids: pl.Series) -> Games:
    """A log's games as humans played them, in pages of `ids`."""
    chosen = Vocabulary(ids).codes(log.item_ids)[log.items[log.display_offsets[:-1] + log.choices]]
    first = log.session_offsets[:-1]
    sessions = np.repeat(np.arange(log.n_sessions), np.diff(log.session_offsets))
    clicks = np.arange(log.n_events) - first[sessions]
    paths = np.full((log.n_sessions, LIMIT), NO_ITEM, np.int32)
    seen = clicks < LIMIT
    paths[sessions[seen], clicks[seen]] = chosen[seen]
    page, target = (
        Vocabulary(ids).codes(log.columns[name].categories)[log.columns[name].values[first]]
        for name in ("page", "target")
    )
    return Games(page, target, paths)
