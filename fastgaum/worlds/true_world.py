"""TrueWorld: the users of the synthetic world, and a variant in which greed is short-sighted.

    u(s, a) = base[a] + bonus · [a is bait] + affinity ⟨s, z_a⟩ + repeat · [a was chosen before] +
    intercept − cost · boredom

Each choice of a bait leaves the user more bored; any other event lets boredom fall."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from fastgaum.arrays import BoolArray, Float64Array, FloatArray, IntArray, KeyArray, LongArray
from fastgaum.errors import ConfigError
from fastgaum.kernels.shown_slates import draw_choices
from fastgaum.logs.synthetic import SyntheticUsers, SyntheticWorld, item_names
from fastgaum.worlds.world import (
    NO_ITEM,
    Population,
    Response,
    World,
    checked_reset,
    checked_rows,
    checked_slates,
)

MOST_MARKS = 1 << 30
"""bytes of marks of earlier choices, which only `repeat` needs"""


@dataclass(frozen=True)
class Bait:
    """Items that are chosen now at the price of later; `Bait(share=0)`: none."""

    share: float = 0.5
    """share of the items that are bait, those of highest base, in [0, 1]"""
    bonus: float = 0.5
    """added to a bait's utility"""
    cost: float = 1.0
    """taken from every item's utility per unit of boredom; no click stays at 0"""
    most: float = 3.0
    """boredom is at most so much"""
    recovery: float = 1.0
    """how much boredom falls after an event whose choice was not bait"""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("share", 0.0, 1.0),
            ("cost", 0.0, 100.0),
            ("most", 0.0, 1000.0),
            ("recovery", 0.0, 1000.0),
            ("bonus", -100.0, 100.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    f"{name} of bait is {value!r}, a number from {low} to {high} is required"
                )


class TrueWorld(World):
    """The synthetic world's users. The state is the taste s and, with bait, boredom.

    Attributes:
        base: base, bonus and intercept of each item's utility, shape (n_items,).
        latents: direction of each item, shape (n_items, dim).
        is_bait: shape (n_items,).
    """

    def __init__(self, world: SyntheticWorld, bait: Bait | None = None) -> None:
        self.world, self.bait = world, bait
        _, base, latents = world.items
        self.is_bait = np.zeros(world.n_items, bool)
        bonus = 0.0
        if bait is not None:
            n_bait = round(bait.share * world.n_items)
            self.is_bait[np.argsort(-base, kind="stable")[:n_bait]] = True
            bonus = bait.bonus
        self.base: Float64Array = base + world.intercept + bonus * self.is_bait
        self.latents = latents
        self.no_click = world.no_click > 0.0
        self.is_logit = world.rule == "shannon" and world.eta == 1
        self.state_dim = world.dim + (bait is not None)
        self.item_ids: pl.Series = item_names(world.n_items)
        bait_column = self.is_bait[:, None] if bait is not None else np.zeros((world.n_items, 0))
        features = np.concatenate((base[:, None], latents, bait_column), axis=1)
        self.item_features = features.astype(np.float32)

    def _marks(self) -> Iterator[bytes]:
        yield f"{self.world} {self.bait}".encode()
        yield self.base.tobytes()

    def population(self, n: int) -> TruePopulation:
        """Make n users without history. Raises ConfigError unless n is positive, or if `repeat`
        would need too much memory."""
        if n < 1:
            raise ConfigError(f"a population has at least one user, got n = {n}")
        if self.world.repeat != 0.0 and n * self.n_items > MOST_MARKS:
            raise ConfigError(
                f"repeat marks what {n:,} users have chosen of {self.n_items:,} items, at most "
                f"{MOST_MARKS:,} marks fit: take fewer users at once, or repeat = 0"
            )
        return TruePopulation(self, n)


class TruePopulation(Population):
    """Users of a `TrueWorld`."""

    def __init__(self, world: TrueWorld, n: int) -> None:
        self.world, self.n = world, n
        self.truth = SyntheticUsers(world.world, world.base, n)
        self.boredom = np.zeros(n)
        self._everyone = np.arange(n)
        self._states = np.zeros((n, world.state_dim), np.float32)
        self._seen = self._states.view()
        self._seen.flags.writeable = False

    @property
    def states(self) -> FloatArray:
        """As the base says: taste, then boredom where there is bait."""
        return self._seen

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """As the base says: no taste yet and not bored; nothing is drawn."""
        _, rows = checked_reset(keys, rows, self.n)
        for part in (self.truth.taste, self.truth.chosen_before, self.boredom, self._states):
            part[rows] = 0

    def step(self, slates: IntArray, keys: KeyArray, active: BoolArray | None = None) -> Response:
        """As the base says. Raises ConfigError for another shape, or what is no item."""
        slates = checked_slates(slates, self.n, self.world.n_items)
        keys = np.ascontiguousarray(checked_rows("keys", keys, self.n), np.uint64)
        who = self._everyone
        if active is not None:
            who = np.flatnonzero(checked_rows("active users", active, self.n, "b"))
            slates, keys = slates[who], keys[who]
        utilities, probs, none = self._weigh(who, slates)
        offsets = np.arange(len(who) + 1, dtype=np.int32) * slates.shape[1]
        chosen = np.empty(len(who), np.int32)
        draw_choices(offsets, slates.ravel(), probs.ravel(), none, keys, chosen)
        # the entry behind the last place is that of no click
        items = np.append(slates, np.int32(NO_ITEM))[chosen]
        response = Response.none(self.n)
        response.places[who] = np.where(chosen < 0, -1, chosen - offsets[:-1])
        response.items[who] = items
        response.utilities[who] = np.append(utilities, 0.0)[chosen]
        self.truth.move(who, items)
        if (bait := self.world.bait) is not None:
            baited = (items >= 0) & self.world.is_bait[items]
            moved = self.boredom[who] + np.where(baited, 1.0, -bait.recovery)
            self.boredom[who] = np.clip(moved, 0.0, bait.most)
            self._states[:, -1] = self.boredom
        self._states[:, : self.world.world.dim] = self.truth.taste
        return response

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        """As the base says, 0 at an empty place."""
        pools = np.atleast_2d(checked_slates(pools, self.n, self.world.n_items, any_rows=True))
        return self._utilities(self._everyone, pools).astype(np.float32)

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """As the base says."""
        slates = checked_slates(slates, self.n, self.world.n_items)
        _, probs, none = self._weigh(self._everyone, slates)
        return probs.astype(np.float32), none.astype(np.float32)

    def _weigh(
        self, who: LongArray, slates: IntArray
    ) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Utilities and probabilities of slates of some users, (len(who), k), and the probability
        of no click, (len(who),)."""
        utilities = self._utilities(who, slates)
        return utilities, *self.world.world.probabilities(utilities, _displayed(slates))

    def _utilities(self, who: LongArray, items: IntArray) -> Float64Array:
        values = self.truth.utilities(who, items)
        if self.world.bait is not None:
            values -= self.world.bait.cost * self.boredom[who, None]
        return np.where(items >= 0, values, 0.0)


def _displayed(slates: IntArray) -> BoolArray:
    """Whether each place of slates (n, k) shows an item that does not stand earlier in it."""
    shown = slates >= 0
    for place in range(1, slates.shape[1]):
        shown[:, place] &= (slates[:, :place] != slates[:, place, None]).all(axis=1)
    return shown
