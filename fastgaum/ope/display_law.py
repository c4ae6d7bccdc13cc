"""The law of displays: with which probability a log showed a set of k items of a pool.

    P(A) = Π_{a ∈ A} w_a / e_k(w),    e_k(w) = Σ over all sets B of k items of Π_{b ∈ B} w_b

This is a logit on sets, one weight per item: the law of largest entropy of all that display each
item as often as the log did (Chen, Dempster & Liu 1994, "Weighted finite population sampling to
maximize entropy"). Equal weights make every set as likely: random displays. It knows nothing of the
user: where the log's displays answered to users, its propensities are wrong
(`logs.audit_displays` tells)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError

Float64Array = npt.NDArray[np.float64]
Items = npt.NDArray[np.integer]

ROUNDS = 1000
"""rounds of fitting at most; an item that is in nearly every display needs many"""
CLOSE = 1e-6
"""fitted where no item's expected displays are further than this share from the counted ones"""


@dataclass(frozen=True)
class DisplayLaw:
    """A law of sets of items."""

    weights: Float64Array
    """w of each item of the pool, 0 for one that is never shown, shape (n_items,)"""

    @classmethod
    def uniform(cls, n_items: int) -> DisplayLaw:
        """Every set is as likely."""
        return cls(np.ones(n_items))

    @classmethod
    def fitted(cls, displays: Items, sets: dict[int, int]) -> DisplayLaw:
        """The law that is expected to display each item as often as it was: the maximum of the
        likelihood.

        Args:
            displays: how often each item was displayed, shape (n_items,).
            sets: how many displays of each size there were.

        Raises:
            ConfigError: the counts are not those of such sets, or no weights give them: one item is
                in (nearly) every display.
        """
        total = sum(size * count for size, count in sets.items())
        if int(displays.sum()) != total or displays.max(initial=0) > sum(sets.values()):
            raise ConfigError(
                f"{int(displays.sum()):,} displayed items are no displays of {total:,} places: "
                "count each item once per display"
            )
        shown = np.flatnonzero(displays)
        counts = displays[shown].astype(np.float64)
        weights = counts / counts.mean()
        for _ in range(ROUNDS):
            expected = sum(
                (count * inclusion(weights, size) for size, count in sets.items()),
                start=np.zeros(len(shown)),
            )
            if np.abs(expected / counts - 1).max() < CLOSE:
                break
            weights = weights * counts / expected
            weights /= weights.mean()
        else:
            item = int(shown[np.abs(expected / counts - 1).argmax()])
            raise ConfigError(
                f"no law of displays shows item {item} {displays[item]:,} times in "
                f"{sum(sets.values()):,}: it is in nearly every display; give the log's own "
                "propensities, or a pool without it"
            )
        of_items = np.zeros(len(displays))
        of_items[shown] = weights
        return cls(of_items)

    def log_probability(self, slates: Items) -> Float64Array:
        """Natural logarithm of the probability of each slate as a set, of distinct items (n, k);
        −inf for one that is never shown, shape (n,)."""
        k = slates.shape[1]
        scale = self.weights.mean()
        with np.errstate(divide="ignore"):
            logs = np.log(self.weights / scale)
            return np.asarray(
                logs[slates].sum(axis=1) - np.log(symmetric(self.weights / scale, k)[k])
            )

    def inverse(self, k: int) -> Float64Array:
        """Pseudo-inverse of E[1_A 1_Aᵀ] of its sets of k items, shape (n_items, n_items)."""
        pairs = pair_inclusion(self.weights / self.weights.mean(), k)
        return np.asarray(np.linalg.pinv(pairs, hermitian=True), np.float64)


def symmetric(weights: Float64Array, k: int) -> Float64Array:
    """e_0 … e_k of the weights, shape (k + 1,): the coefficients of Π (1 + w x).

    >>> symmetric(np.array([1.0, 2.0, 3.0]), 2)
    array([ 1.,  6., 11.])
    """
    return np.asarray(_levels(weights, k)[-1][0], np.float64)


def inclusion(weights: Float64Array, k: int) -> Float64Array:
    """Probability that each item is in a set of k, shape (n_items,).

    >>> inclusion(np.ones(4), 2)
    array([0.5, 0.5, 0.5, 0.5])
    """
    levels = _levels(weights, k)
    return np.asarray(weights * _others(levels, len(weights))[:, k - 1] / levels[-1][0, k])


def pair_inclusion(weights: Float64Array, k: int) -> Float64Array:
    """Probability that both items of a pair are in a set of k, shape (n_items, n_items); the
    diagonal is `inclusion`."""
    levels = _levels(weights, k)
    others, every = _others(levels, len(weights)), levels[-1][0, k]
    pairs = np.diag(weights * others[:, k - 1] / every)
    if k > 1:
        # e_j of all but a and b: e_j(−a) − w_b e_{j−1}(−a, −b)
        both = np.zeros((len(weights), len(weights)))
        for j in range(k - 1):
            both = others[:, j, None] - weights * both
        # the lighter item is the one that is subtracted: little is lost to rounding
        both = np.where(weights <= weights[:, None], both, both.T)
        np.fill_diagonal(both, 0.0)
        pairs += weights[:, None] * weights * np.maximum(both, 0.0) / every
    return pairs


def _levels(weights: Float64Array, k: int) -> list[Float64Array]:
    """The polynomials 1 + w x, their products two by two, of four, … up to all of them:
    coefficients of x^0 … x^k, shape (n, k + 1) each; all but the last have an even n."""
    level = np.zeros((len(weights), k + 1))
    level[:, 0] = 1.0
    level[:, 1:2] = weights[:, None]
    levels = []
    while len(level) > 1:
        if len(level) % 2:
            level = np.concatenate([level, np.eye(1, k + 1)])
        levels.append(level)
        level = _products(level[::2], level[1::2])
    return [*levels, level]


def _others(levels: list[Float64Array], n: int) -> Float64Array:
    """The product of all polynomials but one, for each of the n, shape (n, k + 1): nothing is
    divided or subtracted, so that a heavy item costs no digits."""
    others = np.eye(1, levels[-1].shape[1])
    for level in reversed(levels[:-1]):
        siblings = level.reshape(-1, 2, level.shape[1])[:, ::-1].reshape(level.shape)
        others = _products(np.repeat(others, 2, axis=0)[: len(level)], siblings)
    return others[:n]


def _products(left: Float64Array, right: Float64Array) -> Float64Array:
    """Products of polynomials, row by row, cut off after x^k."""
    product = np.zeros_like(left)
    for i in range(left.shape[1]):
        product[:, i:] += left[:, i, None] * right[:, : left.shape[1] - i]
    return product
