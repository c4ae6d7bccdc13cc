"""The synthetic world: users whose reward and choice rule are known.

An item a has a popularity value base[a] and a latent direction z_a of length 1 in `dim` dimensions.
A session starts in the state s = 0. An event shows a display set, more popular items more often,
and the user weighs each candidate,

    u(s, a) = base[a] + affinity ⟨s, z_a⟩ + repeat · [a was chosen before in the session] (+
    intercept),

chooses by softmax(eta · u) (`shannon`) or by sparsemax(eta · u) (`l2`), and the state becomes decay
· s + (1 − decay) · z_chosen, or decay · s without a click. No click, if offered, has the value 0.
In ordered displays the odds of a candidate at place p are multiplied by p^−examination.

All follows from the seed through numpy's PCG64 streams."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property, lru_cache
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import polars as pl

from fastgaum.arrays import BoolArray, Float64Array, FloatArray, IntArray, LongArray
from fastgaum.errors import ConfigError, as_given, did_you_mean, require_known
from fastgaum.kernels.synthetic import draw_displays
from fastgaum.logs.log import SessionLog
from fastgaum.logs.splits import shuffled_split

ChoiceRule = Literal["shannon", "l2"]
Order = Literal["none", "random", "popularity"]
MIN_DISPLAY = 2
PILOT_EVENTS = 40_000
"""events of the pilot draw that sets the intercept: standard error about 0.1 points"""

_IDS_AT_ONCE = 500_000
_SESSIONS_AT_ONCE = 1 << 13
_MARKS_AT_ONCE = 1 << 28

# Streams of one seed. A new use takes a new number, so that nothing drawn before it changes.
_ITEMS, _SHAPE, _CHOICES, _PILOT_SHAPE, _PILOT_CHOICES = range(5)


@dataclass(frozen=True)
class Truth:
    """The truth about every event of a log, in the log's own order."""

    utility: FloatArray
    """u(s, a) of each candidate, no click being 0, shape (n_candidates,)"""
    probability: FloatArray
    """true probability that the candidate is chosen, shape (n_candidates,)"""
    no_click_probability: FloatArray
    """true probability of no click, 0 where it is not offered, shape (n_events,)"""


def _require(name: str, value: float, low: float, high: float, kind: type = Real) -> None:
    # A NaN fails both comparisons.
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        what = "whole number" if kind is Integral else "number"
        raise ConfigError(f"{name} is {as_given(value)}, a {what} from {low} to {high} is required")


@dataclass(frozen=True)
class SyntheticWorld:
    """A world with a known reward and choice rule. Raises ConfigError for impossible values."""

    n_items: int = 50
    seed: int = 0
    rule: ChoiceRule = "shannon"
    """shannon (softmax) or l2 (sparsemax: a far worse candidate is never chosen)"""
    eta: float = 1.0
    """how decided the user is; what is compared is eta · u"""
    no_click: float = 0.0
    """share of events without a click, in [0, 1)"""
    mean_length: float = 3.5
    """mean events per session; the law is geometric, cut off"""
    max_length: int = 12
    """longest session"""
    mean_display: float = 4.5
    """mean candidates per display set"""
    max_display: int = 10
    """largest display set; the smallest is 2"""
    dim: int = 2
    """dimensions of the state and of the items' latent directions"""
    popularity: float = 1.5
    """standard deviation of base; half its variance goes with how often an item is displayed"""
    affinity: float = 1.5
    """weight of the state"""
    repeat: float = 0.0
    """bonus of an item chosen before in the session"""
    decay: float = 0.5
    """share of the state that an event leaves, in [0, 1)"""
    skew: float = 2.0
    """at least 1: the item of popularity rank r is displayed ∝ r^(1/skew − 1); 1 = alike"""
    order: Order = "none"
    """of a display: none (it means nothing), random, or popularity (most displayed items first)"""
    examination: float = 0.0
    """place p multiplies the odds by p^−examination (needs an order)"""

    def __post_init__(self) -> None:
        for option, value, known in (
            ("rule", self.rule, ("shannon", "l2")),
            ("order", self.order, ("none", "random", "popularity")),
        ):
            require_known(option, value, known)
        _require("max_display", self.max_display, MIN_DISPLAY, 1000, Integral)
        _require("n_items", self.n_items, self.max_display, 2**31 - 1, Integral)
        _require("seed", self.seed, 0, 2**63 - 1, Integral)
        _require("eta", self.eta, 1e-6, 1e6)
        _require("no_click", self.no_click, 0.0, 0.95)
        _require("mean_display", self.mean_display, MIN_DISPLAY, self.max_display)
        _require("max_length", self.max_length, 1, 10_000, Integral)
        _require("mean_length", self.mean_length, 1.0, self.max_length)
        _require("dim", self.dim, 1, 1000, Integral)
        _require("decay", self.decay, 0.0, 1.0 - 1e-9)
        _require("skew", self.skew, 1.0, 100.0)
        for name in ("popularity", "affinity", "repeat"):
            _require(name, getattr(self, name), -100.0, 100.0)
        _require("examination", self.examination, 0.0, 10.0)
        if self.examination and self.order == "none":
            raise ConfigError(
                f"examination is {self.examination}, and displays have no order: set order to "
                "random or popularity"
            )

    def draw(self, n_events: int) -> tuple[SessionLog, Truth]:
        """Draw a log of exactly `n_events` events and the truth about it; split 50/25/25 by
        session. Raises ConfigError for n_events that 32-bit offsets cannot count."""
        _require("n_events", n_events, 1, int((2**31 - 1) / self.max_display), Integral)
        offsets = self._shapes(n_events, _SHAPE)
        # before the large arrays: drawing the split takes room of its own
        split = shuffled_split(len(offsets[0]) - 1, self.seed)
        items, chances = self._displays(offsets[1], _CHOICES)
        choices, truth = self._choices(*offsets, items, chances, self.intercept)
        first = np.repeat(offsets[0][:-1], np.diff(offsets[0]))
        log = SessionLog(
            *offsets,
            items=items,
            choices=choices,
            split=split,
            users=np.arange(len(split), dtype=np.int32),
            session_ids=_ids("s", len(split)).rename("session"),
            event_ids=pl.Series("event", np.arange(n_events, dtype=np.int32) - first),
            item_ids=item_names(self.n_items),
            name="synthetic",
            ordered=self.order != "none",
        )
        return log, truth

    @cached_property
    def items(self) -> tuple[IntArray, Float64Array, Float64Array]:
        """Item code of each popularity rank, base by code, latent directions by code (n_items,
        dim)."""
        rng = self._stream(_ITEMS)
        # Codes are shuffled: an item's number says nothing about it.
        code_of_rank = rng.permutation(self.n_items).astype(np.int32)
        fame = np.empty(self.n_items)
        fame[code_of_rank] = np.sqrt(3.0) * (
            1.0 - 2.0 * (np.arange(self.n_items) + 0.5) / self.n_items
        )
        base = self.popularity * np.sqrt(0.5) * (fame + rng.standard_normal(self.n_items))
        latents = rng.standard_normal((self.n_items, self.dim), dtype=np.float32)
        latents /= np.maximum(np.linalg.norm(latents, axis=1, keepdims=True), 1e-6)
        # float32 numbers, and sums of them in float64
        return code_of_rank, base, latents.astype(np.float64)

    @property
    def intercept(self) -> float:
        """The addend of every utility by which no click has its share; bisected on a pilot draw."""
        # a copy: what is kept of a world must not keep its items
        return _intercept_of(dataclasses.replace(self)) if self.no_click else 0.0

    def _stream(self, *numbers: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, *numbers]))

    def _shapes(self, n_events: int, *stream: int) -> tuple[IntArray, IntArray]:
        """Session and display offsets of exactly `n_events` events."""
        rng = self._stream(*stream)
        ends = np.zeros(1, dtype=np.int64)
        law = _law(1, self.max_length, self.mean_length)
        while ends[-1] < n_events:
            wanted = int((n_events - ends[-1]) / self.mean_length * 1.05) + 16
            lengths = np.searchsorted(law, rng.random(wanted), side="right") + 1
            ends = np.concatenate((ends, ends[-1] + np.cumsum(lengths)))
        ends = ends[: int(np.searchsorted(ends, n_events)) + 1]
        ends[-1] = n_events
        law = _law(MIN_DISPLAY, self.max_display, self.mean_display)
        sizes = np.searchsorted(law, rng.random(n_events), side="right")
        displays = np.zeros(n_events + 1, dtype=np.int64)
        np.cumsum(sizes + MIN_DISPLAY, out=displays[1:])
        return ends.astype(np.int32), displays.astype(np.int32)

    def _displays(self, offsets: IntArray, *stream: int) -> tuple[IntArray, Float64Array]:
        """Draw the items of all displays, (n_candidates,), and the number in [0, 1) that decides
        each choice, (n_events,)."""
        code_of_rank, sort_keys = self.items[0], np.arange(self.n_items, dtype=np.int32)
        if self.order == "popularity":
            sort_keys[code_of_rank] = np.arange(self.n_items, dtype=np.int32)
        items, chances = np.empty(offsets[-1], np.int32), np.empty(len(offsets) - 1)
        draw_displays(
            self._stream(*stream),
            offsets,
            float(self.skew),
            code_of_rank,
            sort_keys,
            self.order == "random",
            items,
            chances,
        )
        return items, chances

    def _choices(
        self,
        sessions: IntArray,
        displays: IntArray,
        items: IntArray,
        chances: Float64Array,
        intercept: float,
    ) -> tuple[IntArray, Truth]:
        """Let a user of each session choose from its displays: choices (n_events,), and their
        truth."""
        n_events, n_sessions = len(chances), len(sessions) - 1
        choices, none = np.empty(n_events, np.int32), np.empty(n_events, np.float32)
        utility, probability = np.empty(len(items), np.float32), np.empty(len(items), np.float32)
        at_once = _SESSIONS_AT_ONCE
        if self.repeat:
            at_once = max(min(at_once, _MARKS_AT_ONCE // self.n_items), 1)
        for first in range(0, n_sessions, at_once):
            bounds = sessions[first : first + at_once + 1]
            ends = displays[bounds[0] : bounds[-1] + 1]
            shown = np.arange(self.max_display) < np.diff(ends)[:, None]
            slates = np.full(shown.shape, -1, np.int32)
            slates[shown] = items[ends[0] : ends[-1]]
            utilities, probs = np.empty(shown.shape), np.empty(shown.shape)
            users = SyntheticUsers(self, self.items[1] + intercept, len(bounds) - 1)
            for step in range(np.diff(bounds).max()):
                who = np.flatnonzero(bounds[:-1] + step < bounds[1:])
                events = bounds[who] + step
                rows = events - bounds[0]
                utilities[rows] = users.utilities(who, slates[rows])
                probs[rows], none_of = self.probabilities(utilities[rows], shown[rows])
                places = _places_of(chances[events], probs[rows], none_of)
                users.move(who, np.where(places < 0, -1, slates[rows, places]))
                choices[events], none[events] = places, none_of
            utility[ends[0] : ends[-1]] = utilities[shown]
            probability[ends[0] : ends[-1]] = probs[shown]
        return choices, Truth(utility, probability, none)

    def probabilities(
        self, utilities: Float64Array, shown: BoolArray
    ) -> tuple[Float64Array, Float64Array]:
        """Probabilities of the places of slates of these utilities, (n, k), 0 where nothing is
        shown, and of no click, (n,), 1 where no place shows anything."""
        # by columns: sums over short rows are several times slower
        values = np.full((len(shown), shown.shape[1] + 1), -np.inf, order="F")
        np.multiply(self.eta, utilities, out=values[:, :-1], where=shown)
        if self.examination:
            place = np.clip(np.cumsum(shown, axis=1), 1, self.max_display)
            values[:, :-1] -= self.examination * np.log(place)
        values[:, -1] = np.where(shown.any(axis=1) & (self.no_click == 0.0), -np.inf, 0.0)
        probs = _softmax(values) if self.rule == "shannon" else _sparsemax(values)
        return probs[:, :-1], probs[:, -1]


class SyntheticUsers:
    """Users of a world, (n,), who have not chosen yet.

    Attributes:
        taste: a state s each, shape (n, dim).
        chosen_before: whether each has chosen each item, (n, n_items), or (n, 0) without `repeat`.
    """

    def __init__(self, world: SyntheticWorld, base: Float64Array, n: int) -> None:
        self.world, self.base = world, base
        self.taste = np.zeros((n, world.dim))
        self.chosen_before = np.zeros((n, world.n_items if world.repeat else 0), bool)

    def utilities(self, who: LongArray, items: IntArray) -> Float64Array:
        """u(s, a) of some users and items, (len(who), k), whatever it is at a place without an
        item; items may be those of all, (1, k)."""
        latents = self.world.items[2].take(items, axis=0, mode="wrap")
        values: Float64Array = np.einsum("nkd,nd->nk", latents, self.taste[who])
        values *= self.world.affinity
        values += self.base.take(items, mode="wrap")
        if self.world.repeat:
            values += self.world.repeat * self.chosen_before[who[:, None], items]
        return values

    def move(self, who: LongArray, items: IntArray) -> None:
        """Move some users' states after an event with these choices, (len(who),), -1 for none."""
        decay, latents = self.world.decay, self.world.items[2]
        self.taste[who] *= decay
        clicked = items >= 0
        who, items = who[clicked], items[clicked]
        self.taste[who] += (1.0 - decay) * latents[items]
        if self.world.repeat:
            self.chosen_before[who, items] = True


@lru_cache(maxsize=64)
def _intercept_of(world: SyntheticWorld) -> float:
    """The intercept of a world that nobody else holds; of equal worlds once, since bisection takes
    a second."""
    offsets = world._shapes(PILOT_EVENTS, _PILOT_SHAPE)
    displays = world._displays(offsets[1], _PILOT_CHOICES)
    low, high = -100.0, 100.0
    for _ in range(22):
        middle = 0.5 * (low + high)
        _, pilot = world._choices(*offsets, *displays, middle)
        share = pilot.no_click_probability.mean(dtype=np.float64)
        low, high = (middle, high) if share > world.no_click else (low, middle)
    vars(world).pop("items")
    return 0.5 * (low + high)


def _softmax(values: Float64Array) -> Float64Array:
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _sparsemax(values: Float64Array) -> Float64Array:
    """The Euclidean projection of each row onto the simplex: [1.2, 0.4, -1] → [0.9, 0.1, 0]."""
    ordered = -np.sort(-values, axis=1)
    totals = np.cumsum(ordered, axis=1) - 1.0
    kept = (ordered * np.arange(1, values.shape[1] + 1) > totals).sum(axis=1, keepdims=True)
    thresholds = np.take_along_axis(totals, kept - 1, axis=1) / kept
    return np.asarray(np.maximum(values - thresholds, 0.0))


def _places_of(chances: Float64Array, probs: Float64Array, none: Float64Array) -> IntArray:
    """The place on which each number in [0, 1) falls, -1 for no click; mass that rounding leaves
    falls on the last that is possible."""
    k = probs.shape[1]
    places = (chances[:, None] >= np.cumsum(probs, axis=1)).sum(axis=1, dtype=np.int32)
    left = places == k
    last = k - 1 - (probs[left, ::-1] > 0.0).argmax(axis=1)
    places[left] = np.where(none[left] > 0.0, -1, last)
    return np.asarray(places)


WORLD_PRESETS: dict[str, SyntheticWorld] = {
    "default": SyntheticWorld(),
    "sample": SyntheticWorld(n_items=60, affinity=2.0, repeat=1.5),
    "scale": SyntheticWorld(n_items=1_000_000, mean_length=1.5),
    "tail": SyntheticWorld(n_items=10_000, mean_length=20.0, max_length=200),
}
"""sample: the bundled log; scale: short sessions, a huge catalogue; tail: long sessions"""


def world(preset: str = "default", **changes: Any) -> SyntheticWorld:
    """Return a preset world with some values changed. Raises ConfigError."""
    if not isinstance(preset, str) or preset not in WORLD_PRESETS:
        raise ConfigError(
            f"no synthetic world {as_given(preset)}, one of {', '.join(WORLD_PRESETS)} is "
            f"required{did_you_mean(str(preset), WORLD_PRESETS)}"
        )
    known = [field.name for field in dataclasses.fields(SyntheticWorld)]
    for name in changes:
        if name not in known:
            raise ConfigError(
                f"a synthetic world has no '{name}'{did_you_mean(name, known)}; it has "
                f"{', '.join(known)}"
            )
    return dataclasses.replace(WORLD_PRESETS[preset], **changes)


def synthesise(
    n_events: int, *, preset: str = "default", **changes: Any
) -> tuple[SessionLog, Truth]:
    """Draw a log of a synthetic world and the truth about it; `changes` are fields of
    `SyntheticWorld`. Raises ConfigError."""
    return world(preset, **changes).draw(n_events)


def item_names(n_items: int) -> pl.Series:
    """The item ids of a synthetic world's logs, by item code."""
    return _ids("i", n_items).rename("item")


def _ids(letter: str, n: int) -> pl.Series:
    """Ids whose order as text is that of their codes: s00, s01, … s11."""
    width = len(str(n - 1))

    def some(start: int) -> pl.Series:
        number = pl.int_range(start, min(start + _IDS_AT_ONCE, n)).cast(pl.String).str.zfill(width)
        return pl.select(pl.lit(letter) + number).to_series()

    return pl.concat([some(start) for start in range(0, n, _IDS_AT_ONCE)])


def _law(smallest: int, largest: int, mean: float) -> Float64Array:
    """Inner bounds of the cumulative probabilities of smallest … largest, of the asked mean; shape
    (largest − smallest,).

    P(n) ∝ q^n, a geometric law cut off; q is bisected."""
    support = np.arange(smallest, largest + 1, dtype=np.float64)
    low, high = -60.0, 60.0
    weights = np.ones_like(support)
    for _ in range(80):
        middle = 0.5 * (low + high)
        exponents = middle * (support - smallest)
        weights = np.exp(exponents - exponents.max())
        low, high = (middle, high) if weights @ support < mean * weights.sum() else (low, middle)
    return np.asarray(np.cumsum(weights / weights.sum())[:-1])
