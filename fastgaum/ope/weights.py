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
    ImportanceWeights,
    WeightedEvents,
    effective_events,
    ratio_interval,
)
from fastgaum.ope.shown import Shown
from fastgaum.ope.targets import Target

LawName = Literal["popularity", "uniform"]
LAWS: tuple[LawName, ...] = ("popularity", "uniform")
MOST_ITEMS = 1000
"""items of a pool that slate weights can be made of: they need a matrix of all pairs"""

ROUNDING = 1e-3
"""how far logged propensities are trusted: a log keeps them as float32, or with few digits"""


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
    weights, slate_weights = _Weights(log.n_events), _Weights(log.n_events)
    residual_weights = np.zeros(log.n_events)
    pairs = events.law is not None and len(events.pool) <= MOST_ITEMS
    for k in np.unique(events.sizes[read]).tolist():
        rows, slates = events.of_size(k, read)
        own = events.place[shown.slates[rows, :k]]
        share = target.random_share
        unseen[rows] = share * _chance_of_any(events.never, k)
        if share < 1.0:
            unseen[rows] += (1.0 - share) * events.never[own].any(axis=1)
        _weigh(weights, events, share, rows, slates, own)
        if pairs:
            parts = _weigh_pairs(slate_weights, events, share, rows, slates, own)
            slopes = shown.slopes[:, rows]
            residual_weights[rows] = (parts * slopes[:2]).sum(axis=0) / slopes[2]
    rewards = np.zeros(log.n_events)
    rewards[np.asarray(log.choices) >= 0] = worth[log.chosen_candidates]
    users = np.asarray(log.users)[log.session_of_event[read]]
    slate_side = slate_weights.of(read)
    if not pairs:
        why = (
            "needs a law of displays, not the propensity of each slate alone"
            if events.law is None
            else f"needs a pool of at most {MOST_ITEMS:,} items"
        )
        slate_side = ImportanceWeights(slate_side.values, 0.0, why)
    own_side = weights.of(read)
    if events.law is None:
        own_side = _of_logged(own_side.values, users)
    return WeightedEvents(
        users,
        rewards[read],
        unseen[read],
        own_side,
        slate_side,
        residual_weights[read],
        shown.promised[read],
        shown.logged[read],
        shown.clicks,
    )


class _Weights:
    """Weights of all events, and their expected squares, which the law alone decides."""

    def __init__(self, n: int) -> None:
        self.values, self.squares = np.zeros(n), np.zeros(n)

    def of(self, read: npt.NDArray[np.bool_]) -> ImportanceWeights:
        # at least 1: what the log never shows has no weight here
        squares = max(float(self.squares[read].mean()), 1.0)
        return ImportanceWeights(self.values[read], float(read.sum()) / squares)


def _weigh(
    weights: _Weights,
    events: LoggedEvents,
    share: float,
    rows: IntArray,
    slates: IntArray,
    own: IntArray,
) -> None:
    """w = π(A) / μ(A). Its expected square under μ is the mean of w under π."""
    k, log_random = slates.shape[1], events.log_random(slates.shape[1])
    logged = events.propensities
    log_mu = events.log_law(slates) if logged is None else np.log(logged[rows])
    weights.values[rows] = share * np.exp(log_random - log_mu)
    if share < 1.0:
        same = own == slates if events.log.ordered else np.sort(own) == np.sort(slates)
        weights.values[rows] += (1.0 - share) * same.all(axis=1) * np.exp(-log_mu)
    if events.law is None:
        return
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


def _log_sets(events: LoggedEvents, k: int) -> float:
    """Natural logarithm of the probability of a set of k items, drawn at random."""
    return events.log_random(k) + events.log_orders(k)


def _weigh_pairs(
    weights: _Weights,
    events: LoggedEvents,
    share: float,
    rows: IntArray,
    slates: IntArray,
    own: IntArray,
) -> Float64Array:
    """v = E_π[1_A]ᵀ E_μ[1_A 1_Aᵀ]⁺ 1_A. Its expected square under μ is the mean of v under π.

    Returns the two parts of v, of the policy's own slates and of random ones, shape (2, n)."""
    assert events.law is not None
    k = slates.shape[1]
    inverse = events.law.inverse(k)
    of_random = inverse.sum(axis=0) * k / len(events.pool)
    parts = np.zeros((2, len(rows)))
    parts[1] = share * of_random[slates].sum(axis=1)
    squares = np.full(len(rows), share**2 * of_random.sum() * k / len(events.pool))
    if share < 1.0:
        parts[0] = (1.0 - share) * inverse[own[:, :, None], slates[:, None, :]].sum(axis=(1, 2))
        of_own = inverse[own[:, :, None], own[:, None, :]].sum(axis=(1, 2))
        squares += (1.0 - share) ** 2 * of_own
        squares += 2.0 * share * (1.0 - share) * of_random[own].sum(axis=1)
    weights.values[rows], weights.squares[rows] = parts.sum(axis=0), squares
    return parts


def _of_logged(values: Float64Array, users: npt.NDArray[np.integer]) -> ImportanceWeights:
    """Weights by logged propensities: without a law, only they themselves say what they are worth,
    and whether the log lacks what the target shows: their mean is below 1 then."""
    mean, _, high = ratio_interval(values, None, users)
    why = ""
    if high < 1.0 - ROUNDING:
        why = (
            f"no support: the mean weight is {mean:.3f} and 1 is expected: the log lacks what the "
            "policy shows, or its propensities are wrong"
        )
    return ImportanceWeights(values, effective_events(values), why)


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
