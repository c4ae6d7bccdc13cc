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
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.errors import ConfigError, as_given, did_you_mean, require_known
from fastgaum.kernels.synthetic import (
    L2,
    SHANNON,
    ChoiceLaw,
    DisplayDraw,
    SimulatedEvents,
    UtilityLaw,
    simulate,
)
from fastgaum.logs.log import SessionLog
from fastgaum.logs.splits import shuffled_split

ChoiceRule = Literal["shannon", "l2"]
Order = Literal["none", "random", "popularity"]
MIN_DISPLAY = 2
PILOT_EVENTS = 40_000
"""events of the pilot draw that sets the intercept: standard error about 0.1 points"""

_IDS_AT_ONCE = 500_000

# Streams of one seed. A new use takes a new number, so that nothing drawn before it changes.
_ITEMS, _SHAPE, _CHOICES, _PILOT_SHAPE, _PILOT_CHOICES = range(5)


@dataclass(frozen=True)
class Truth:
    """The truth about every event of a log, in the log's own order."""

    utility: FloatArray
    """u(s, a) of each candidate, no click being 0, shape (n_candidates,)"""
    probability: FloatArray
    """true probability that the candidate is chosen, shape (n_candidates,)"""
    outside_probability: FloatArray
    """true probability of no click, 0 where it is not offered, shape (n_events,)"""

    def log_probs(self) -> tuple[Float64Array, Float64Array]:
        """Natural logarithms of probability (n_candidates,) and outside_probability (n_events,)."""
        with np.errstate(divide="ignore"):
            return np.log(self.probability.astype(np.float64)), np.log(
                self.outside_probability.astype(np.float64)
            )


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
        drawn = self._simulate(*offsets, self.intercept, _CHOICES)
        first = np.repeat(offsets[0][:-1], np.diff(offsets[0]))
        log = SessionLog(
            *offsets,
            items=drawn.items,
            choices=drawn.choices,
            split=split,
            users=np.arange(len(split), dtype=np.int32),
            session_ids=_ids("s", len(split)).rename("session"),
            event_ids=pl.Series("event", np.arange(n_events, dtype=np.int32) - first),
            item_ids=item_names(self.n_items),
            name="synthetic",
            ordered=self.order != "none",
        )
        return log, Truth(drawn.utility, drawn.probability, drawn.outside_probability)

    @cached_property
    def items(self) -> tuple[IntArray, Float64Array, npt.NDArray[np.float32]]:
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
        return code_of_rank, base, latents

    @cached_property
    def intercept(self) -> float:
        """The addend of every utility by which no click has its share; bisected on a pilot draw."""
        if self.no_click == 0.0:
            return 0.0
        offsets = self._shapes(PILOT_EVENTS, _PILOT_SHAPE)
        low, high = -100.0, 100.0
        for _ in range(22):
            middle = 0.5 * (low + high)
            pilot = self._simulate(*offsets, middle, _PILOT_CHOICES)
            share = pilot.outside_probability.mean(dtype=np.float64)
            low, high = (middle, high) if share > self.no_click else (low, middle)
        return 0.5 * (low + high)

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

    def utility_law(self, base: Float64Array, latents: FloatArray) -> UtilityLaw:
        """Utilities of items of these bases and directions, as kernels read them."""
        laws = float(self.affinity), float(self.repeat), float(self.decay)
        return UtilityLaw(base, latents, *laws)

    @property
    def choice_law(self) -> ChoiceLaw:
        """Eta, rule, no click and examination, as kernels read them."""
        rule = L2 if self.rule == "l2" else SHANNON
        log_examination = -self.examination * np.log(np.arange(1.0, self.max_display + 1))
        return ChoiceLaw(float(self.eta), rule, self.no_click > 0.0, log_examination)

    @cached_property
    def display_law(self) -> DisplayDraw:
        """Skew and order, as kernels read them."""
        code_of_rank, sort_keys = self.items[0], np.arange(self.n_items, dtype=np.int32)
        if self.order == "popularity":
            sort_keys[code_of_rank] = np.arange(self.n_items, dtype=np.int32)
        return DisplayDraw(float(self.skew), code_of_rank, sort_keys, self.order == "random")

    def _simulate(
        self, sessions: IntArray, displays: IntArray, intercept: float, *stream: int
    ) -> SimulatedEvents:
        n_events, n_candidates = len(displays) - 1, int(displays[-1])
        events = SimulatedEvents(
            items=np.empty(n_candidates, np.int32),
            choices=np.empty(n_events, np.int32),
            utility=np.empty(n_candidates, np.float32),
            probability=np.empty(n_candidates, np.float32),
            outside_probability=np.empty(n_events, np.float32),
        )
        _, base, latents = self.items
        simulate(
            self._stream(*stream),
            sessions,
            displays,
            self.display_law,
            self.utility_law(base + intercept, latents),
            self.choice_law,
            events,
        )
        return events


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
