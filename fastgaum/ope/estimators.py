"""Estimators of a policy's value from another policy's log, their intervals, and support.

An event has the reward r, the importance weight w = π(A) / μ(A) of its logged slate A, the slate
weight v, and from a world q(A), its expectation of the logged slate, and q(π), of the target's.

    dr-pi     the world, corrected in the odds          doubly robust with slate weights
    pi        mean of v r                               pseudo-inverse (Swaminathan et al. 2017)
    dr        mean of q(π) + w (r − q(A))               doubly robust (Dudík, Langford & Li 2011)
    snips     Σ w r / Σ w                               (Swaminathan & Joachims 2015)
    ips       mean of w r                               unbiased, if μ is right
    dm        mean of q(π)                              direct method: the world alone

v = E_π[1_A]ᵀ E_μ[1_A 1_Aᵀ]⁺ 1_A, where 1_A marks the items of A. With one place v = w.

To first order r − q(A) is the world's error in the odds, a sum over items, times (1 − q(A))². With
v′ = v (1 − q(π))² / (1 − q(A))², D the mean of q(π) and C that of v′ (r − q(A)), the corrected
value is D + C to first order, and of all orders of the mean odds

    V = (D + t) / (1 + t),    t = C / (1 − D).

For t < −D / 2, V goes on along its tangent, (4 D − 3 D² + 4 C) / (2 − D)². Where clicks differ in
worth, and for the random part of a target, v′ = v and V = D + C.

An interval is Student's, of the ratio of sums over users, its variance by linearisation. w and v
have the mean 1, less what the log never shows: where the interval of their mean says otherwise,
μ is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from fastgaum.arrays import Float64Array
from fastgaum.metrics.precision import sums_by_user

LEAST_EFFECTIVE = 50.0
"""events that the weighted log must be worth"""
MOST_UNSEEN = 0.05
"""share of the target's displays with an item that the log never shows, at most"""
OFTEN = 0.25
"""share of clicked displays above which `pi` is said to be too high"""
TOO_FEW = "no support: the log is worth"
ROUNDING = 1e-3
"""how far off 1 a mean weight may be by rounding of propensities"""


@dataclass(frozen=True)
class ImportanceWeights:
    """Weights, and what they leave of a log."""

    values: Float64Array
    """shape (n_events,)"""
    effective: float
    """worth in events without weights: n / E[w²]"""


@dataclass(frozen=True)
class WeightedEvents:
    """Events of a log as a target weighs them; arrays have an entry per event."""

    users: npt.NDArray[np.integer]
    rewards: Float64Array
    unseen: Float64Array
    """probability that the target's display holds an item that the log never shows"""
    weights: ImportanceWeights
    """w"""
    slate_weights: ImportanceWeights | None
    """v; None where only the propensity of each slate is known"""
    residual_weights: ImportanceWeights | None
    """v′; None likewise"""
    own: Float64Array
    """the part of q(π) of the policy's own slates; NaN without a world"""
    at_random: Float64Array
    """the part that random sets add"""
    logged: Float64Array
    """q(A); NaN without a world"""
    share: float = 0.0
    """of the target's displays that are random sets"""
    clicks: bool = True
    """whether rewards are clicks, whose odds can be added"""
    rewards_within: tuple[float, float] = (0.0, 1.0)
    """the least and the most that a display can earn"""
    refused: str = ""
    """why no weights are right; empty where they may be"""
    matches: float = math.inf
    """events whose logged slate is the policy's own; infinite if nearly all are random"""


@dataclass(frozen=True)
class ValueEstimate:
    """One estimator's value of a display, with its 95 % interval; None where there is none."""

    estimator: str
    value: float | None = None
    ci: tuple[float | None, float | None] = (None, None)
    effective_events: float | None = None
    """how many events the weighted log is worth; None for an estimator without weights"""
    why: str = ""
    """why there is no value, or what its interval lacks"""


def value_estimates(events: WeightedEvents) -> tuple[ValueEstimate, ...]:
    """Every estimator's value, in the order of the table above: the one to read comes first."""
    e, w, promised = events, events.weights.values, events.own + events.at_random
    worldless = "no world (--run)" if np.isnan(promised).any() else ""
    least, most = e.rewards_within
    slack = 1e-9 * max(abs(least), abs(most), 1.0)

    def estimate(
        name: str, weights: ImportanceWeights | None, doubt: str, *terms: Float64Array
    ) -> ValueEstimate:
        tells = weights is not None and (not doubt or doubt.startswith(TOO_FEW))
        effective = weights.effective if weights is not None and tells else None
        why = (worldless if name.startswith("d") else "") or doubt
        if why:
            return ValueEstimate(name, effective_events=effective, why=why)
        value, low, high = ratio_interval(terms[0], terms[1] if terms[1:] else None, e.users)
        if not least - slack <= value <= most + slack:
            why = (
                f"impossible: {value:.4g} a display, which earns from {least:g} to {most:g}: the "
                "weights are too uneven, or wrong"
            )
            return ValueEstimate(name, effective_events=effective, why=why)
        if name == "pi" and (often := float((e.rewards != 0.0).mean())) > OFTEN:
            why = (
                f"too high for a good policy: {100 * often:.0f} % of displays are clicked; read "
                "dr-pi"
            )
        # without an interval (a single user) the ends are NaN, and stay so
        return ValueEstimate(
            name, value, (np.maximum(low, least), np.minimum(high, most)), effective, why
        )

    sets = _doubt(e, e.weights, w)
    if not sets and e.matches < LEAST_EFFECTIVE:
        few = f"no support: the log shows the policy's own slate in {e.matches:.0f} events, "
        sets = f"{few}{LEAST_EFFECTIVE:.0f} are required"
    v, residuals, v_values, corrected = e.slate_weights, e.residual_weights, w, w
    slates = odds = "needs random displays, not the propensity of each slate alone"
    if v is not None and residuals is not None:
        v_values, slates, corrected = v.values, _doubt(e, v, v.values), _corrected(e, residuals)
        # v′ has no mean to be known by: v has
        odds = _doubt(e, residuals, v.values)
        if odds and not slates:
            odds += "; in the world's odds a few events have nearly all of the weight"
    return (
        estimate("dr-pi", residuals, odds, corrected),
        estimate("pi", v, slates, v_values * e.rewards),
        estimate("dr", e.weights, sets, promised + w * (e.rewards - e.logged)),
        estimate("snips", e.weights, sets, w * e.rewards, w),
        estimate("ips", e.weights, sets, w * e.rewards),
        estimate("dm", None, "", promised),
    )


def _corrected(events: WeightedEvents, weights: ImportanceWeights) -> Float64Array:
    """Terms whose mean is V, and whose spread is that of V, by its derivatives in D and C of the
    policy's own displays, a share s of all."""
    residual = events.rewards - events.logged
    even = events.at_random + events.share * residual
    corrections = (weights.values - events.share) * residual
    d, c, s = events.own.mean(), corrections.mean(), 1.0 - events.share
    if not events.clicks or not d < s:
        return np.asarray(even + events.own + corrections)
    one_t, half = 1.0 + c / (s - d), 1.0 - d / s / 2.0
    if one_t >= half:
        value = s - (s - d) / one_t
        by_d, by_c = (2.0 * one_t - 1.0) / one_t**2, 1.0 / one_t**2
    else:
        value = (d - 0.75 * d**2 / s + c) / half**2
        by_d, by_c = (1.0 - (d - c) / s) / half**3, 1.0 / half**2
    return np.asarray(even + value + by_d * (events.own - d) + by_c * (corrections - c))


def _doubt(events: WeightedEvents, weights: ImportanceWeights, known: Float64Array) -> str:
    """Why weights say nothing of the target; empty where they do. `known` are weights whose mean is
    1, less what the log never shows."""
    unseen = float(events.unseen.mean())
    if events.refused:
        return events.refused
    if unseen > MOST_UNSEEN:
        return f"no support: {100 * unseen:.0f} % of its displays hold items that are never shown"
    if weights.effective < LEAST_EFFECTIVE:
        return (
            f"{TOO_FEW} {weights.effective:.1f} events of this policy, {LEAST_EFFECTIVE:.0f} are "
            "required"
        )
    # of a single user the events are the unit: given those before, each weight has the mean 1
    alone = (events.users == events.users[0]).all()
    units = np.arange(len(known)) if alone else events.users
    mean, low, high = ratio_interval(known, None, units)
    if low <= 1.0 + ROUNDING and high >= 1.0 - unseen - ROUNDING:
        return ""
    least = "" if unseen < ROUNDING else f"{1.0 - unseen:.3f} to "
    cause = "" if low > 1.0 else "the log lacks what the policy shows, or "
    return (
        f"no support: the mean weight is {mean:.3f} ({low:.3f} to {high:.3f}) and {least}1 is "
        f"expected: {cause}the propensities are wrong"
    )


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
