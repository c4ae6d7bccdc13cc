"""Worlds whose truth is known, by name: what a learned world promises can be compared with what the
true users pay.

Half of the items are bait in each of them. In the first three a model of this package can be right;
in the others it cannot, each for one reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from fastgaum.logs.synthetic import ChoiceRule, SyntheticWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.true_world import Bait, TrueWorld


@dataclass(frozen=True)
class KnownWorld:
    """True users, and what policies meet them with."""

    name: str
    what: str
    make: Callable[[], TrueWorld]
    events: int
    """of its log"""
    pool: Pool = field(default_factory=Pool)


def short_sighted(n_items: int = 10, seed: int = 0) -> TrueWorld:
    """A small world in which greed is short-sighted.

    Bait is worth 1 more now, and each choice of one makes every item worth 1.5 less until two
    events without bait have passed. The taste is that of the last choice (decay 0). Over 20 events
    and slates of 3 the greedy policy earns 77 % of what is possible (10 items, seed 0)."""
    world = SyntheticWorld(
        n_items=n_items,
        seed=seed,
        no_click=0.4,
        decay=0.0,
        affinity=0.5,
        popularity=0.6,
        max_display=n_items,
    )
    return TrueWorld(world, Bait(share=0.5, bonus=1.0, cost=1.5, most=3.0, recovery=0.5))


def _bored(
    n_items: int = 200,
    *,
    rule: ChoiceRule = "shannon",
    dim: int = 2,
    affinity: float = 1.0,
    rivalry: float = 0.0,
) -> TrueWorld:
    """A catalogue whose users have a taste that lasts, and tire of bait."""
    world = SyntheticWorld(
        n_items=n_items,
        seed=1,
        rule=rule,
        no_click=0.4,
        dim=dim,
        decay=0.6,
        affinity=affinity,
        popularity=0.6,
        max_display=50,
    )
    return TrueWorld(world, Bait(share=0.5, bonus=1.0, cost=1.0, most=3.0, recovery=0.5), rivalry)


KNOWN_WORLDS = {
    one.name: one
    for one in (
        KnownWorld("items-10", "10 items", short_sighted, 4_000),
        KnownWorld("items-200", "200 items", _bored, 10_000),
        KnownWorld(
            "items-2000",
            "2,000 items, a pool of 50 for each user",
            lambda: _bored(2_000),
            20_000,
            Pool("per_user", 50),
        ),
        KnownWorld(
            "l2",
            "200 items; users choose by sparsemax, a model by softmax",
            lambda: _bored(rule="l2"),
            10_000,
        ),
        KnownWorld(
            "wide-taste",
            "200 items; a taste of 32 directions, a model's state has 8",
            lambda: _bored(dim=32, affinity=4.0),
            10_000,
        ),
        KnownWorld(
            "rivalry",
            "200 items; items of a slate that are alike take from each other",
            lambda: _bored(rivalry=1.0),
            10_000,
        ),
    )
}


@cache
def true_users(name: str) -> TrueWorld:
    """The world of this name, made once."""
    return KNOWN_WORLDS[name].make()
