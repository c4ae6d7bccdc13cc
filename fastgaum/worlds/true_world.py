"""TrueWorld: the users of the synthetic world, and a variant in which greed is short-sighted.

    u(s, a) = base[a] + bonus · [a is bait] + affinity ⟨s, z_a⟩ + repeat · [a was chosen before] +
    intercept − cost · boredom

Each choice of a bait leaves the user more bored; any other event lets boredom fall. With `rivalry`
an item also loses rivalry · Σ_b max(0, ⟨z_a, z_b⟩) over the other items b of the slate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError
from fastgaum.kernels import synthetic as kernels
from fastgaum.logs.synthetic import SyntheticWorld, item_names
from fastgaum.worlds.world import (
    Population,
    Response,
    World,
    checked_reset,
    checked_rows,
    checked_slates,
)

USERS_OF_PART = 1024
"""users per part"""
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

    def __init__(
        self, world: SyntheticWorld, bait: Bait | None = None, rivalry: float = 0.0
    ) -> None:
        self.world, self.bait, self.rivalry = world, bait, rivalry
        _, base, latents = world.items
        self.is_bait = np.zeros(world.n_items, bool)
        bonus = 0.0
        if bait is not None:
            n_bait = round(bait.share * world.n_items)
            self.is_bait[np.argsort(-base, kind="stable")[:n_bait]] = True
            bonus = bait.bonus
        self.base: npt.NDArray[np.float64] = base + world.intercept + bonus * self.is_bait
        self.latents = latents
        cost, recovery, most = (bait.cost, bait.recovery, bait.most) if bait else (0.0, 0.0, 0.0)
        self.law = kernels.TrueLaw(
            world.utility_law(self.base, latents),
            self.is_bait,
            *(float(cost), float(recovery), float(most)),
        )
        self.outside = world.no_click > 0.0
        self.state_dim = world.dim + (bait is not None)
        self.item_ids: pl.Series = item_names(world.n_items)
        bait_column = self.is_bait[:, None] if bait is not None else np.zeros((world.n_items, 0))
        columns: list[npt.NDArray[np.generic]] = [base[:, None], latents, bait_column]
        self.item_features = np.concatenate(columns, axis=1).astype(np.float32)

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
        dim = world.latents.shape[1]
        marked = world.n_items if world.world.repeat != 0.0 else 0
        self.truth = kernels.TrueUsers(np.zeros((n, dim)), np.zeros(n), np.zeros((n, marked), bool))
        self._states = np.zeros((n, world.state_dim), np.float32)
        self._seen = self._states.view()
        self._seen.flags.writeable = False
        self._cuts = [
            (first, min(first + USERS_OF_PART, n)) for first in range(0, n, USERS_OF_PART)
        ]

    @property
    def states(self) -> FloatArray:
        """As the base says: taste, then boredom where there is bait."""
        return self._seen

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """As the base says: no taste yet and not bored; nothing is drawn."""
        _, users = checked_reset(keys, rows, self.n)
        for part in (*self.truth, self._states):
            part[users] = 0

    def step(
        self, slates: IntArray, keys: KeyArray, active: npt.NDArray[np.bool_] | None = None
    ) -> Response:
        """As the base says. Raises ConfigError for another shape, or what is no item."""
        slates = checked_slates(slates, self.n, self.world.n_items)
        keys = np.ascontiguousarray(checked_rows("keys", keys, self.n), np.uint64)
        rows = np.arange(self.n)
        if active is not None:
            rows = np.flatnonzero(checked_rows("active users", active, self.n, "b"))
        weights = self.weigh(slates)
        response = Response.none(self.n)
        choices = kernels.TrueChoices(response.places, response.items, response.utilities)
        fixed = slates, keys, weights, self.world.law, self.truth, choices
        threads.run(kernels.true_step, [(rows[a:b], *fixed) for a, b in self._cuts])
        self._show()
        return response

    def take(self, taste: npt.NDArray[np.float64], boredom: npt.NDArray[np.float64]) -> None:
        """Put the users in such states: tastes (n, dim) and boredom (n,)."""
        self.truth.taste[:], self.truth.boredom[:] = taste, boredom
        self._show()

    def _show(self) -> None:
        self._states[:, : self.truth.taste.shape[1]] = self.truth.taste
        if self.world.bait is not None:
            self._states[:, -1] = self.truth.boredom

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        """As the base says, 0 at an empty place."""
        pools = checked_slates(pools, self.n, self.world.n_items, any_rows=True)
        return (self._utilities(pools) - self._lost(pools, k)).astype(np.float32)

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """As the base says."""
        weights = self.weigh(checked_slates(slates, self.n, self.world.n_items))
        return weights.probs.astype(np.float32), weights.none.astype(np.float32)

    def _utilities(self, pools: IntArray) -> npt.NDArray[np.float64]:
        result = np.empty((self.n, pools.shape[-1]))
        fixed = np.atleast_2d(pools), self.truth, self.world.law, result
        threads.run(kernels.true_utilities, [(*cut, *fixed) for cut in self._cuts])
        return result

    def weigh(self, slates: IntArray) -> kernels.TrueWeights:
        """Utilities and probabilities of checked slates, float64."""
        weights = kernels.TrueWeights(
            self._utilities(slates) - self._lost(slates), np.empty(slates.shape), np.empty(self.n)
        )
        fixed = slates, self.world.world.choice_law, weights
        threads.run(kernels.true_probabilities, [(*cut, *fixed) for cut in self._cuts])
        return weights

    def _lost(self, slates: IntArray, k: int | None = None) -> npt.NDArray[np.float64] | float:
        """What rivalry takes from each place of slates (…, m), 0 at a place that shows nothing; of
        pools what it takes on average in a slate of k."""
        if self.world.rivalry == 0.0:
            return 0.0
        shown = slates >= 0
        for place in range(1, slates.shape[-1]):
            shown[..., place] &= (slates[..., :place] != slates[..., place, None]).all(axis=-1)
        latents = self.world.latents[np.maximum(slates, 0)].astype(np.float64)
        alike = np.maximum(latents @ latents.swapaxes(-1, -2), 0.0) * shown[..., None, :]
        alike[..., np.arange(slates.shape[-1]), np.arange(slates.shape[-1])] = 0.0
        lost: npt.NDArray[np.float64] = self.world.rivalry * alike.sum(axis=-1) * shown
        if k is not None:
            others = np.maximum(shown.sum(axis=-1, keepdims=True) - 1, 1)
            lost *= np.minimum((k - 1) / others, 1.0)
        return lost
