"""Does the world rank policies as the log does: policies that recommend one of the displayed items.

What a log can say without any propensity: its display sets and choices are fixed, so "recommend
this one of the displayed items, reward 1 if the user chooses it" has a value that is seen directly,
the share of events whose choice is the recommended item. In the world the same policy, which reads
the simulated history where it reads one, has the same value of simulated choices. Nothing is
learned about displays that no log holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from fastgaum.logs.log import IntArray
from fastgaum.metrics.sums import AnyArray, Float64Array, Statistic, ratio
from fastgaum.reports.behaviour import Context, Scored
from fastgaum.reports.two_sides import drawn_users, exchanged, interval, sides


@dataclass(frozen=True)
class Agreement:
    """One rank correlation of the policies' logged and simulated values."""

    value: float
    interval: tuple[float, float]
    """of the same drawn users on both sides"""
    expected: float
    """its mean if the log were one more draw of the world: noise alone keeps it below 1"""
    expected_interval: tuple[float, float]
    p: float
    """share of permutations within users in which it is as low"""


def policies_of(
    context: Context, own: Scored, others: Mapping[str, Scored]
) -> dict[str, Float64Array]:
    """Probability that each policy recommends a candidate, (n_candidates,), by name.

    `own` is what the world's model says; `others` what models fitted on the training split say, by
    name."""
    c, offsets = context, context.log.display_offsets
    sizes = np.diff(offsets)
    number = np.arange(len(c.log.items)) - np.repeat(offsets[:-1], sizes)
    policies = {
        "uniform": 1.0 / np.repeat(sizes, sizes),
        "most chosen in training": greedy(c.training_choices, offsets),
        "most displayed in training": greedy(c.training_displays, offsets),
        "least displayed in training": greedy(-c.training_displays, offsets),
        "best click rate in training": greedy(
            (c.training_choices + 0.3) / (c.training_displays + 1.0), offsets
        ),
        "chosen before in the session": greedy(c.chosen_before, offsets),
        "least displayed in the session": greedy(-c.displayed_before, offsets),
    }
    if c.log.ordered:
        policies["first displayed"] = greedy(-number, offsets)
    for name, scored in others.items():
        policies[f"{name}, greedy"] = greedy(scored.utilities, offsets)
        for temperature in (1, 3):
            policies[f"{name}, softmax at {temperature}"] = softmax(
                scored.utilities / temperature, offsets
            )
    policies["the model, greedy"] = greedy(own.utilities, offsets)
    policies["the model, as it chooses"] = softmax(own.log_probs, offsets)
    return policies


def greedy(scores: AnyArray, offsets: IntArray) -> Float64Array:
    """1 for the best of each display set, shared among ties; scores and result (n_candidates,).

    >>> greedy(np.array([1.0, 2.0, 2.0, 5.0]), np.array([0, 3, 4])).tolist()
    [0.0, 0.5, 0.5, 1.0]
    """
    sizes = np.diff(offsets)
    best = scores == np.repeat(np.maximum.reduceat(scores, offsets[:-1]), sizes)
    return np.asarray(
        best / np.repeat(np.add.reduceat(best.astype(np.float64), offsets[:-1]), sizes), np.float64
    )


def softmax(scores: AnyArray, offsets: IntArray) -> Float64Array:
    """Softmax over each display set; where all are −inf, all alike."""
    sizes = np.diff(offsets)
    top = np.repeat(np.maximum.reduceat(scores, offsets[:-1]), sizes)
    weights = np.exp(np.where(np.isneginf(top), 0.0, scores - np.where(np.isneginf(top), 0.0, top)))
    return np.asarray(
        weights / np.repeat(np.add.reduceat(weights, offsets[:-1]), sizes), np.float64
    )


def values_of(context: Context, policies: Mapping[str, AnyArray]) -> Statistic:
    """Share of events whose choice is what a policy recommends, a group per policy; no click counts
    as 0."""
    c, names = context, tuple(policies)
    hits = np.concatenate(
        [np.nan_to_num(c.chosen(recommended)) for recommended in policies.values()]
    )
    groups = np.repeat(np.arange(len(names)), c.log.n_events)
    rows = np.tile(c.sums.rows, len(names))
    sums, counts = (
        c.sums.add(part, rows, groups, len(names)) for part in (hits, np.ones(len(hits)))
    )
    what = "events whose choice is the recommended item, of all events"
    return Statistic("value of policies", what, "chi2", names, sums, counts)


def agreement(values: Statistic, draws: int = 1999, seed: int = 0) -> dict[str, Agreement]:
    """Spearman's and Kendall's rank correlation of the logged and simulated values."""
    n_users = values.sums.shape[1]
    observed = sides(values, np.ones((1, n_users)))
    drawn = [sides(values, weights) for weights in drawn_users(n_users, draws, seed)]
    worlds = [tuple(ratio(*side) for side in both) for both in exchanged(values, draws, seed)]
    result = {}
    for name, correlation in (("spearman", spearman), ("kendall", kendall)):
        value = float(correlation(*observed)[0])
        low, high = interval(np.concatenate([correlation(*pair) for pair in drawn])[:, None])[:, 0]
        # the first is the log itself
        expected = np.concatenate([correlation(*pair) for pair in worlds])[1:]
        reached = np.count_nonzero(expected <= value + 1e-9)
        ends = interval(expected[:, None])[:, 0]
        result[name] = Agreement(
            value,
            (float(low), float(high)),
            float(np.nanmean(expected)),
            (float(ends[0]), float(ends[1])),
            float((1 + reached) / (1 + draws)),
        )
    return result


def spearman(one: Float64Array, other: Float64Array) -> Float64Array:
    """Spearman's ρ of each row of two arrays, (n, n_policies) → (n,); ties share their mean rank,
    NaN where all tie."""
    a, b = (rankdata(part, axis=1) for part in (one, other))
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (a, b))
    return ratio((a * b).sum(axis=1), np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def kendall(one: Float64Array, other: Float64Array) -> Float64Array:
    """Kendall's τ-b of each row of two arrays, (n, n_policies) → (n,); NaN where all tie."""
    a, b = (np.sign(part[:, :, None] - part[:, None, :]) for part in (one, other))
    return ratio(
        (a * b).sum(axis=(1, 2)), np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum(axis=(1, 2)))
    )
