"""Importance weights of the events of a log.

Slates are sets in a log whose order of displays means nothing, else sequences, each order of a
random set as likely. Of sets of k of m items, drawn at random, E[1_A 1_Aᵀ] is a multiple of I + c
J. So the slate weight of a logged set that shares o items with the policy's own is

    v = m (o (m − 1) − k (k − 1)) / (k (m − k)),    1 where k = m,

with the means E[v] = 1 and E[v²] = m."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.logs.log import SessionLog
from fastgaum.ope.estimators import MOST_UNSEEN, ImportanceWeights, WeightedEvents
from fastgaum.ope.replay import Shown, Target, logged_slates

LEAST_NONE = 0.01
"""the least probability of no click that a slope is made of"""


def weigh_events(
    log: SessionLog,
    target: Target,
    shown: Shown,
    pool: IntArray,
    rewards: Float64Array,
    *,
    propensities: Float64Array | None = None,
    clicks: bool = False,
) -> WeightedEvents:
    """Weights of the events of the size that the target makes.

    Args:
        log, target, shown, pool: as in `replay_policy`, and its result.
        rewards: of each event of the log, shape (n_events,).
        propensities: of each event's slate, likewise; None: slates are random sets of the pool.
        clicks: whether rewards are clicks, whose odds a world knows.
    """
    sizes, s, m = np.diff(log.display_offsets), target.random_share, float(len(pool))
    rows = np.flatnonzero(sizes == (sizes if target.k is None else target.k))
    k, n, slates = sizes[rows].astype(np.float64), len(rows), logged_slates(log, rows)
    own = shown.slates[rows, : slates.shape[1]]
    shared = ((own[:, :, None] == slates[:, None, :]) & (own >= 0)[:, :, None]).sum(axis=(1, 2))
    same = (own == slates).all(axis=1) if log.ordered else shared == k
    log_random = gammaln(k + 1) + gammaln(m - k + 1) - gammaln(m + 1)
    if log.ordered:
        log_random -= gammaln(k + 1)
    slate_weights = residual_weights = None
    if propensities is None:
        unseen, one_over = np.zeros(n), np.exp(-log_random)
        squares = 1.0 - (1.0 - s) ** 2 + (1.0 - s) ** 2 * one_over
        w, effective = s + (1.0 - s) * same * one_over, n / squares.mean()
        v = m * (shared * (m - 1.0) - k * (k - 1.0)) / (k * np.maximum(m - k, 1.0))
        v, square, even = np.where(k < m, v, 1.0), np.where(k < m, m, 1.0), np.ones(n)
        slope, logged = (
            np.maximum(1.0 - chances[rows], LEAST_NONE) ** 2 if clicks else even
            for chances in (shown.own, shown.logged)
        )
        slate_weights = _slate_weights(s, v, square, even, even)
        residual_weights = _slate_weights(s, v, square, slope, logged)
    else:
        never = np.bincount(log.items, minlength=log.n_items + 1) == 0
        never[-1] = False  # no item
        unseen = s * (1.0 - (1.0 - never[pool].mean()) ** k)
        unseen += (1.0 - s) * never[own].any(axis=1)
        w = (s * np.exp(log_random) + (1.0 - s) * same) / propensities[rows]
        # without a law, only the weights themselves say what they are worth
        effective = w.sum() ** 2 / (w**2).sum() if w.any() else 0.0
    return WeightedEvents(
        np.asarray(log.users)[log.session_of_event[rows]],
        rewards[rows],
        unseen,
        ImportanceWeights(w, float(effective)),
        slate_weights,
        residual_weights,
        own=(1.0 - s) * shown.own[rows],
        at_random=s * shown.random[rows],
        logged=shown.logged[rows],
        share=s,
        clicks=clicks,
        matches=np.inf if s > 1.0 - MOST_UNSEEN else float(same.sum()),
    )


def _slate_weights(
    s: float, v: Float64Array, square: Float64Array, slope: Float64Array, logged: Float64Array
) -> ImportanceWeights:
    """Weights of the policy's own slates, times a ratio of slopes, and of random ones, whose ratio
    is 1.

    The log is worth n E[w]² / E[w²] events. Expected squares are of the tops, w times the logged
    slope; those of the division are of the events at hand."""
    tops = (1.0 - s) * v * slope + s * logged
    values, plain = tops / logged, (1.0 - s) * v + s
    squares = (1.0 - s) ** 2 * square * slope**2 + (s * logged) ** 2
    squares += 2.0 * s * (1.0 - s) * slope * logged
    n, total, mean, of_tops = len(v), plain.sum(), values.sum(), (tops**2).sum()
    if min(total, mean, of_tops) <= 0.0:
        return ImportanceWeights(values, 0.0)
    expected = squares.mean() * (values**2).sum() / of_tops
    return ImportanceWeights(values, float(n * min((mean / total) ** 2 / expected, 1.0)))
