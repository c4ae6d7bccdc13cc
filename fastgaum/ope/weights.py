"""Importance weights of the events of a log: what a target shows over what the log showed.

Slates are sets in a log whose order of displays means nothing, else sequences. A law of displays
speaks of sets; in a log in order each order of a set is taken to be as likely, and slate weights
take a place to mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from fastgaum.errors import ConfigError, LogFormatError, did_you_mean
from fastgaum.logs.log import IntArray, SessionLog
from fastgaum.ope.display_law import DisplayLaw, Float64Array, symmetric
from fastgaum.ope.estimators import (
    MOST_UNSEEN,
    ImportanceWeights,
    WeightedEvents,
    effective_events,
)
from fastgaum.ope.shown import Shown
from fastgaum.ope.targets import Target

LawName = Literal["popularity", "uniform"]
LAWS: tuple[LawName, ...] = ("popularity", "uniform")
MOST_ITEMS = 1000
"""items of a pool that slate weights can be made of: they need a matrix of all pairs"""


@dataclass(frozen=True)
class LoggedDisplays:
    """How the log's slates came about. Raises ConfigError for an unknown law."""

    law: LawName = "popularity"
    """uniform: each set of the pool is as likely; popularity: a logit on sets, fitted to how often
    each item was displayed"""
    propensities: Float64Array | None = None
    """the logged probability of each event's slate, shape (n_events,); the law is not used then"""
    pool: IntArray | None = None
    """codes of the items that slates are made of; None: all items of the log"""

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise ConfigError(
                f"no law of displays '{self.law}'{did_you_mean(str(self.law), LAWS)}: "
                f"{' or '.join(LAWS)} is required"
            )


class LoggedEvents:
    """The events of a log as sets of items of a pool.

    Attributes:
        pool: codes of its items, ascending.
        sizes: items of each display, shape (n_events,).
        place: place in the pool of each item of the log, -1 for none, shape (n_items,).
        law: of the displays; None where propensities are logged.
        propensities: the logged ones, or None.
        never: whether the log shows an item of the pool never, shape (n_pool,).
    """

    def __init__(self, log: SessionLog, displays: LoggedDisplays) -> None:
        """Check that log, pool and propensities fit, and fit the law.

        Raises:
            ConfigError: they do not.
            LogFormatError: the log has no event.
        """
        if log.n_events == 0:
            raise LogFormatError(
                f"log '{log.name}' has no event to estimate from: choose another split"
            )
        given = displays.pool
        self.log = log
        self.pool = np.arange(log.n_items, dtype=np.int32) if given is None else np.unique(given)
        self.sizes = np.diff(log.display_offsets).astype(np.int32)
        self.place = np.full(log.n_items, -1, np.int32)
        self.place[self.pool] = np.arange(len(self.pool), dtype=np.int32)
        outside = np.unique(log.items[self.place[log.items] < 0])
        if len(outside):
            raise ConfigError(
                f"log '{log.name}' displays {len(outside):,} items that the pool lacks "
                f"('{log.item_ids[int(outside[0])]}' …): give a pool that holds all that was shown"
            )
        counts = np.bincount(self.place[log.items], minlength=len(self.pool))
        self.propensities = _checked(displays.propensities, log)
        self.law: DisplayLaw | None = None
        self.never = counts == 0
        if self.propensities is None and displays.law == "uniform":
            self.law, self.never = DisplayLaw.uniform(len(self.pool)), np.zeros(len(counts), bool)
        elif self.propensities is None:
            sizes, sets = np.unique(self.sizes, return_counts=True)
            self.law = DisplayLaw.fitted(
                counts, dict(zip(sizes.tolist(), sets.tolist(), strict=True))
            )

    @property
    def even(self) -> bool:
        """Whether by the law each set is as likely."""
        return self.law is not None and bool(np.ptp(self.law.weights) == 0.0)

    def of_size(self, k: int, which: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
        """Those of the chosen events that display k items, (n,), and their items' places in the
        pool, (n, k)."""
        rows = np.flatnonzero(which & (self.sizes == k))
        at = self.log.display_offsets[rows][:, None] + np.arange(k)
        return rows.astype(np.int32), self.place[self.log.items[at]]

    def log_orders(self, k: int) -> float:
        """Natural logarithm of how many slates a set of k items makes."""
        return float(gammaln(k + 1)) if self.log.ordered else 0.0

    def log_random(self, k: int) -> float:
        """Natural logarithm of the probability of each slate of k items, drawn at random."""
        m = len(self.pool)
        sets = float(gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1))
        return -sets - self.log_orders(k)

    def log_law(self, slates: IntArray) -> Float64Array:
        """Natural logarithm of the law's probability of slates (n, k), shape (n,)."""
        assert self.law is not None
        k = slates.shape[1]
        return self.law.log_probability(slates) - self.log_orders(k)


def weigh_events(
    events: LoggedEvents, target: Target, shown: Shown, worth: Float64Array
) -> WeightedEvents:
    """Weights and rewards of the events that are read; `worth` of a click on each candidate, shape
    (n_candidates,)."""
    log, read = events.log, shown.read
    unseen = np.zeros(log.n_events)
    weights, slate_weights, tops = (_Weights(log.n_events) for _ in range(3))
    matches = np.inf if target.random_share > 1.0 - MOST_UNSEEN else 0.0
    pairs = events.law is not None and len(events.pool) <= MOST_ITEMS
    share = target.random_share
    for k in np.unique(events.sizes[read]).tolist():
        rows, slates = events.of_size(k, read)
        displays = _Displays(rows, slates, events.place[shown.slates[rows, :k]], share)
        unseen[rows] = share * _chance_of_any(events.never, k)
        if share < 1.0:
            unseen[rows] += (1.0 - share) * events.never[displays.own].any(axis=1)
        matches += _weigh(weights, events, displays)
        if pairs:
            parts = _weigh_pairs(events, displays)
            parts.write(slate_weights, rows, np.ones((2, 1)))
            # random sets of an even log are weighed as they are: no slope stands between
            slopes = shown.slopes[[0, 2]] if events.even else shown.slopes[:2]
            parts.write(tops, rows, slopes[:, rows])
    rewards = np.zeros(log.n_events)
    rewards[np.asarray(log.choices) >= 0] = worth[log.chosen_candidates]
    users = np.asarray(log.users)[log.session_of_event[read]]
    slate_side = slate_weights.of(read)
    residual_side = _residual_weights(slate_side, tops, shown.slopes[2], read)
    if not pairs:
        why = (
            "needs a law of displays, not the propensity of each slate alone"
            if events.law is None
            else f"needs a pool of at most {MOST_ITEMS:,} items"
        )
        slate_side = residual_side = ImportanceWeights(slate_side.values, 0.0, why)
    own_side = weights.of(read)
    if events.law is None:
        # without a law, only the weights themselves say what they are worth
        own_side = ImportanceWeights(own_side.values, effective_events(own_side.values))
    return WeightedEvents(
        users,
        rewards[read],
        unseen[read],
        own_side,
        slate_side,
        residual_side,
        shown.promised[read],
        shown.logged[read],
        shown.clicks,
        matches=matches,
        even_share=share if events.even else 0.0,
        at_random=shown.at_random[read],
    )


class _Weights:
    """Weights of all events, and their expected squares, which the law alone decides."""

    def __init__(self, n: int) -> None:
        self.values, self.squares = np.zeros(n), np.zeros(n)

    def of(self, read: npt.NDArray[np.bool_]) -> ImportanceWeights:
        # at least 1: what the log never shows has no weight here
        squares = max(float(self.squares[read].mean()), 1.0)
        return ImportanceWeights(self.values[read], float(read.sum()) / squares)


@dataclass(frozen=True)
class _Displays:
    """Events that display k items each, places in the pool."""

    rows: IntArray
    """the events, shape (n,)"""
    slates: IntArray
    """what the log shows, shape (n, k)"""
    own: IntArray
    """what the policy shows, likewise"""
    share: float
    """of the target's displays that are random sets"""


@dataclass(frozen=True)
class _Parts:
    """Slate weights in two parts: of the policy's own slates, and of random ones."""

    values: Float64Array
    """shape (2, n)"""
    products: Float64Array
    """expected products of the parts under the law: own by own, random by random, own by random,
    shape (3, n)"""

    def write(self, weights: _Weights, rows: IntArray, factors: Float64Array) -> None:
        """Add the parts up, each times a factor, shape (2, n) or (2, 1)."""
        own, random = factors
        of_products = np.stack([own * own, random * random, 2.0 * own * random])
        weights.values[rows] = (self.values * factors).sum(axis=0)
        weights.squares[rows] = (self.products * of_products).sum(axis=0)


def _residual_weights(
    v: ImportanceWeights, tops: _Weights, slopes: Float64Array, read: npt.NDArray[np.bool_]
) -> ImportanceWeights:
    """v′: `tops`, the parts of v by the slopes of the target's slates, over the slope of the logged
    one.

    They have another mean than v and squares of their own, so the log is worth n E[v′]² / E[v′²]
    events. The mean is that of v′ over that of v, whose expectation is 1. The squares of `tops` are
    expected under the law, as all weights' are. What the division by slopes makes of them, the
    events at hand say: a slope is known of each."""
    of_tops = tops.values[read]
    values = of_tops / slopes[read]
    n, total, squares = float(len(values)), float(v.values.sum()), float((of_tops**2).sum())
    mean, expected = float(values.sum()), float(tops.squares[read].mean())
    if min(total, mean, squares, expected) <= 0.0:
        return ImportanceWeights(values, 0.0)
    expected *= float((values**2).sum()) / squares
    # at most n, as for v
    return ImportanceWeights(values, n * min((mean / total) ** 2 / expected, 1.0))


def _weigh(weights: _Weights, events: LoggedEvents, displays: _Displays) -> int:
    """w = π(A) / μ(A). Its expected square under μ is the mean of w under π. Returns how many
    events show the policy's own slate."""
    rows, slates, own, share = displays.rows, displays.slates, displays.own, displays.share
    k, log_random = slates.shape[1], events.log_random(slates.shape[1])
    logged = events.propensities
    log_mu = events.log_law(slates) if logged is None else np.log(logged[rows])
    weights.values[rows] = share * np.exp(log_random - log_mu)
    matches = np.zeros(len(rows), bool)
    if share < 1.0:
        same = own == slates if events.log.ordered else np.sort(own) == np.sort(slates)
        matches = same.all(axis=1)
        weights.values[rows] += (1.0 - share) * matches * np.exp(-log_mu)
    if events.law is None:
        return int(matches.sum())
    seen = events.law.weights[~events.never]
    seen = seen / seen.mean()
    random_over_mu = symmetric(seen, k)[k] * symmetric(1.0 / seen, k)[k]
    squares = np.full(len(rows), share**2 * random_over_mu * np.exp(2.0 * _log_sets(events, k)))
    if share < 1.0:
        # what the log never shows counts as unseen instead
        log_own = events.log_law(own)
        one_over = np.exp(-np.where(np.isneginf(log_own), np.inf, log_own))
        both = (1.0 - share) ** 2 + 2.0 * share * (1.0 - share) * np.exp(log_random)
        squares += both * one_over
    weights.squares[rows] = squares
    return int(matches.sum())


def _log_sets(events: LoggedEvents, k: int) -> float:
    """Natural logarithm of the probability of a set of k items, drawn at random."""
    return events.log_random(k) + events.log_orders(k)


def _weigh_pairs(events: LoggedEvents, displays: _Displays) -> _Parts:
    """v = E_π[1_A]ᵀ E_μ[1_A 1_Aᵀ]⁺ 1_A. Its expected square under μ is the mean of v under π."""
    assert events.law is not None
    slates, own, share = displays.slates, displays.own, displays.share
    k = slates.shape[1]
    inverse = events.law.inverse(k)
    of_random = inverse.sum(axis=0) * k / len(events.pool)
    values, products = np.zeros((2, len(slates))), np.zeros((3, len(slates)))
    values[1] = share * of_random[slates].sum(axis=1)
    products[1] = share**2 * of_random.sum() * k / len(events.pool)
    if share < 1.0:
        values[0] = (1.0 - share) * inverse[own[:, :, None], slates[:, None, :]].sum(axis=(1, 2))
        products[0] = (1.0 - share) ** 2 * inverse[own[:, :, None], own[:, None, :]].sum(
            axis=(1, 2)
        )
        products[2] = share * (1.0 - share) * of_random[own].sum(axis=1)
    return _Parts(values, products)


def _checked(propensities: Float64Array | None, log: SessionLog) -> Float64Array | None:
    if propensities is None:
        return None
    given = np.asarray(propensities, np.float64)
    if given.shape != (log.n_events,):
        raise ConfigError(
            f"propensities have the shape {given.shape}, one per event is required: "
            f"({log.n_events},)"
        )
    wrong = np.flatnonzero(~((given > 0.0) & (given <= 1.0)))
    if len(wrong):
        raise ConfigError(
            f"the propensity of event {wrong[0]} is {given[wrong[0]]}, a probability above 0 and "
            "at most 1 is required: it is that of what was shown"
        )
    return given


def _chance_of_any(marked: npt.NDArray[np.bool_], k: int) -> float:
    """Probability that a random set of k items holds a marked one."""
    m, left = len(marked), int((~marked).sum())
    if left < k:
        return 1.0
    return float(1.0 - np.prod((left - np.arange(k)) / (m - np.arange(k))))
