"""Estimators of a policy's value from another policy's log, their intervals, and support.

An event has the reward r, the importance weight w = π(A) / μ(A) of its logged slate A, the slate
weight v, and from a world q(A), what it expects of the logged slate, and q(π), of the target's.

    ips       mean of w r                               unbiased, if μ is right
    snips     Σ w r / Σ w                               (Swaminathan & Joachims 2015)
    clipped   mean of min(w, √n) r                      (Ionides 2008)
    pi        mean of v r                               pseudo-inverse (Swaminathan et al. 2017)
    dm        mean of q(π)                              direct method: the world alone
    dr        mean of q(π) + w (r − q(A))               doubly robust (Dudík, Langford & Li 2011)
    dr-pi     the world, corrected in the odds          doubly robust with slate weights

v = E_π[1_A]ᵀ E_μ[1_A 1_Aᵀ]⁺ 1_A, where 1_A marks the items of A: `pi` is right if a slate earns the
sum of what its items earn, each whatever is shown beside it. With one place v = w.

Users who choose by softmax make the odds of a click such a sum, not its probability. So `dr-pi`
asks for sums in the odds. A residual r − q(A) is, to first order, the world's error in the odds
times (1 − q(A))². With v′ = v (1 − q(π))² / (1 − q(A))², D the mean of q(π) and C that of v′ (r −
q(A)), the corrected value is D + C to first order. All orders of the mean odds are in

    V = (D + t) / (1 + t),    t = C / (1 − D).

More than half of the world's odds taken back, t < −D / 2, is no small error any more: below, V goes
on along its tangent, (4 D − 3 D² + 4 C) / (2 − D)². Where clicks differ in worth v′ = v and V =
D + C.

v′ is spread less evenly than v where the world is nearly sure of a click in a few logged displays.
So `dr-pi` needs support of its own: what the log is worth under v′.

The unit of an interval is the user, whose events are not independent: Student's interval of the
ratio of sums over users, its variance by linearisation. An interval knows nothing of a wrong μ, nor
(`dm`) of the world's own error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from fastgaum.metrics.precision import sums_by_user
from fastgaum.ope.display_law import Float64Array

LEAST_EFFECTIVE = 50.0
"""events that the weighted log must be worth: n / E[w²]; below, no interval holds"""
MOST_UNSEEN = 0.05
"""share of the target's displays with an item that the log never shows, at most"""


@dataclass(frozen=True)
class ImportanceWeights:
    """Weights, and what they leave of a log."""

    values: Float64Array
    """shape (n_events,)"""
    effective: float
    """how many events without weights are worth as much: n / E[w²]"""
    why: str = ""
    """why they cannot be used; empty where they can"""


@dataclass(frozen=True)
class WeightedEvents:
    """Events of a log as a target weighs them; arrays have an entry per event."""

    users: npt.NDArray[np.integer]
    rewards: Float64Array
    unseen: Float64Array
    """probability that the target's display holds an item that the log never shows"""
    weights: ImportanceWeights
    """w"""
    slate_weights: ImportanceWeights
    """v"""
    residual_weights: ImportanceWeights
    """v′"""
    promised: Float64Array
    """q(π); NaN without a world"""
    logged: Float64Array
    """q(A); NaN without a world"""
    clicks: bool = True
    """whether rewards are clicks, whose odds can be added; not where clicks differ in worth"""


@dataclass(frozen=True)
class ValueEstimate:
    """One estimator's value of a display, with its 95 % interval; None where there is none."""

    estimator: str
    value: float | None
    low: float | None = None
    high: float | None = None
    effective_events: float | None = None
    """how many events the weighted log is worth; None for an estimator without weights"""
    why: str = ""
    """why there is no value"""


def value_estimates(events: WeightedEvents) -> tuple[ValueEstimate, ...]:
    """Every estimator's value, in the order of the table above."""
    e, n = events, len(events.rewards)
    w, v, residual = e.weights.values, e.slate_weights.values, e.rewards - e.logged
    worldless = "no world (--run)" if np.isnan(e.promised).any() else ""
    direct = ValueEstimate("dm", None, why=worldless)
    if not worldless:
        direct = ValueEstimate("dm", *ratio_interval(e.promised, None, e.users))

    def effective(weights: ImportanceWeights) -> float | None:
        # what is never shown has no weight: where it is much, the others say too much
        known = not weights.why and e.unseen.mean() <= MOST_UNSEEN
        return weights.effective if known else None

    def of(
        name: str, weights: ImportanceWeights, tops: Float64Array, bottoms: Float64Array | None
    ) -> ValueEstimate:
        lacking = worldless if name.startswith("dr") else ""
        why = lacking or weights.why or _no_support(weights, e.unseen)
        if why and name == "dr-pi" and not (lacking or _no_support(e.slate_weights, e.unseen)):
            why += "; in the world's odds a few events have nearly all of the weight"
        if why:
            return ValueEstimate(name, None, effective_events=effective(weights), why=why)
        return ValueEstimate(name, *ratio_interval(tops, bottoms, e.users), effective(weights))

    return (
        of("ips", e.weights, w * e.rewards, None),
        of("snips", e.weights, w * e.rewards, w),
        of("clipped", e.weights, np.minimum(w, np.sqrt(n)) * e.rewards, None),
        of("pi", e.slate_weights, v * e.rewards, None),
        direct,
        of("dr", e.weights, e.promised + w * residual, None),
        of("dr-pi", e.residual_weights, _corrected(e, e.residual_weights.values * residual), None),
    )


def _corrected(events: WeightedEvents, corrections: Float64Array) -> Float64Array:
    """Terms whose mean is V, and whose spread is that of V, by its derivatives in D and C."""
    promised = events.promised
    d, c = promised.mean(), corrections.mean()
    if not events.clicks or not d < 1.0:
        return promised + corrections
    one_t, half = 1.0 + c / (1.0 - d), 1.0 - d / 2.0
    if one_t >= half:
        value = 1.0 - (1.0 - d) / one_t
        by_d, by_c = (2.0 * one_t - 1.0) / one_t**2, 1.0 / one_t**2
    else:
        value = (d - 0.75 * d**2 + c) / half**2
        by_d, by_c = (1.0 - d + c) / half**3, 1.0 / half**2
    return np.asarray(value + by_d * (promised - d) + by_c * (corrections - c))


def _no_support(weights: ImportanceWeights, unseen: Float64Array) -> str:
    """Why a log cannot say what the target is worth; empty where it can."""
    if (share := float(unseen.mean())) > MOST_UNSEEN:
        return f"no support: {100 * share:.0f} % of its displays hold items that are never shown"
    if weights.effective < LEAST_EFFECTIVE:
        return (
            f"no support: the log is worth {weights.effective:.1f} events of this policy, "
            f"{LEAST_EFFECTIVE:.0f} are required"
        )
    return ""


def effective_events(weights: Float64Array) -> float:
    """How many events without weights are as much: (Σ w)² / Σ w².

    >>> effective_events(np.array([1.0, 1.0, 0.0, 2.0]))
    2.6666666666666665
    """
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def ratio_interval(
    tops: Float64Array, bottoms: Float64Array | None, users: npt.NDArray[np.integer]
) -> tuple[float, float, float]:
    """Σ tops / Σ bottoms over events, and its 95 % interval with users as the unit; (n_events,)
    each, bottoms None: all 1. The ends are NaN with a single user.

    >>> ratio_interval(np.array([1.0, 3.0]), None, np.array([4, 4]))
    (2.0, nan, nan)
    """
    sums, counts = sums_by_user(tops, users)
    if bottoms is not None:
        counts = sums_by_user(bottoms, users)[0]
    value, n = float(sums.sum() / counts.sum()), len(sums)
    if n < 2:
        return value, float("nan"), float("nan")
    spread = np.sqrt(n / (n - 1) * ((sums - value * counts) ** 2).sum()) / counts.sum()
    half = float(student.ppf(0.975, n - 1) * spread)
    return value, value - half, value + half
