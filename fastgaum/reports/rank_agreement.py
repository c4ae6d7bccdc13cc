"""Whether log and world rank policies alike. A policy recommends one of the displayed items; its
value is the share of events whose choice is that item."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.metrics.evaluation import HeadScores
from fastgaum.metrics.intervals import AnyArray, Statistic, ratio
from fastgaum.reports.behaviour import LogVersions
from fastgaum.reports.permutation_test import draw_users, percentile_interval, permute_sides, sides
from fastgaum.reports.table import Json


def policies_of(
    context: LogVersions, own: HeadScores, others: Mapping[str, HeadScores]
) -> dict[str, Float64Array]:
    """Probability that each policy recommends a candidate, (n_candidates,), by name; `others`
    are models fitted on the training split."""
    c, offsets = context, context.log.display_offsets
    sizes = np.diff(offsets)
    scores: dict[str, AnyArray] = {
        "most chosen in training": c.training_choices,
        "most displayed in training": c.training_displays,
        "least displayed in training": -c.training_displays,
        "best click rate in training": (c.training_choices + 0.3) / (c.training_displays + 1.0),
        "chosen before in the session": c.chosen_before,
        "least displayed in the session": -c.displayed_before,
    }
    if c.log.ordered:
        scores["first displayed"] = np.repeat(offsets[:-1], sizes) - np.arange(len(c.log.items))
    policies: dict[str, Float64Array] = {"uniform": 1.0 / np.repeat(sizes, sizes)}
    policies |= {name: greedy_policy(values, offsets) for name, values in scores.items()}
    for name, scored in others.items():
        policies[f"{name}, greedy"] = greedy_policy(scored.scores, offsets)
        for t in (1, 3):
            policies[f"{name}, softmax at {t}"] = softmax_policy(scored.scores / t, offsets)
    policies["the model, greedy"] = greedy_policy(own.scores, offsets)
    policies["the model, as it chooses"] = softmax_policy(own.log_probs, offsets)
    return policies


def greedy_policy(scores: AnyArray, offsets: IntArray) -> Float64Array:
    """1 for the best of each display set, shared among ties; scores and result (n_candidates,).

    >>> greedy_policy(np.array([1.0, 2.0, 2.0, 5.0]), np.array([0, 3, 4])).tolist()
    [0.0, 0.5, 0.5, 1.0]
    """
    sizes = np.diff(offsets)
    best = scores == np.repeat(np.maximum.reduceat(scores, offsets[:-1]), sizes)
    return np.asarray(best / np.repeat(np.add.reduceat(best, offsets[:-1], dtype=float), sizes))


def softmax_policy(scores: AnyArray, offsets: IntArray) -> Float64Array:
    """Softmax over each display set; where all are −inf, all alike."""
    sizes = np.diff(offsets)
    top = np.repeat(np.maximum.reduceat(scores, offsets[:-1]), sizes)
    nothing = np.isneginf(top)
    weights = np.exp(np.where(nothing, 0.0, scores - np.where(nothing, 0.0, top)))
    return np.asarray(weights / np.repeat(np.add.reduceat(weights, offsets[:-1]), sizes))


def values_of(context: LogVersions, policies: Mapping[str, AnyArray]) -> Statistic:
    """Share of events whose choice is what a policy recommends, a group per policy."""
    c, names = context, tuple(policies)
    hits = np.concatenate([np.nan_to_num(c.chosen(one)) for one in policies.values()])
    groups = np.repeat(np.arange(len(names)), c.log.n_events)
    rows = np.tile(c.sums.rows, len(names))
    sums, counts = (
        c.sums.add(part, rows, groups, len(names)) for part in (hits, np.ones(len(hits)))
    )
    what = "events whose choice is the recommended item, of all events"
    return Statistic("value of policies", what, "chi2", names, sums, counts)


def agreement(values: Statistic, draws: int = 1999, seed: int = 0) -> dict[str, Json]:
    """Spearman's and Kendall's rank correlation of the logged and simulated values: each its
    value and `ci`, and of permutations within users `expected`, `expected_ci`, and p."""
    n_users = values.sums.shape[1]
    observed = sides(values, np.ones((1, n_users)))
    drawn = [sides(values, weights) for weights in draw_users(n_users, draws, seed)]
    worlds = [tuple(ratio(*side) for side in both) for both in permute_sides(values, draws, seed)]
    result = {}
    for name, correlation in (("spearman", spearman), ("kendall", kendall)):
        value = float(correlation(*observed)[0])
        bootstrap = np.concatenate([correlation(*pair) for pair in drawn])
        # the first is the log itself
        expected = np.concatenate([correlation(*pair) for pair in worlds])[1:]
        # a permutation without a value is no evidence
        n_above, told = np.count_nonzero(expected > value + 1e-9), ~np.isnan(expected)
        result[name] = {
            "value": value,
            "ci": percentile_interval(bootstrap[:, None])[:, 0].tolist(),
            "expected": float(ratio(expected[told].sum(), told.sum())),
            "expected_ci": percentile_interval(expected[:, None])[:, 0].tolist(),
            "p": value if np.isnan(value) else float((1 + draws - n_above) / (1 + draws)),
        }
    return result


def spearman(one: Float64Array, other: Float64Array) -> Float64Array:
    """Spearman's ρ of each row of two arrays, (n, n_policies) → (n,); NaN where all tie."""
    a, b = (rankdata(part, axis=1) for part in (one, other))
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (a, b))
    return ratio((a * b).sum(axis=1), np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def kendall(one: Float64Array, other: Float64Array) -> Float64Array:
    """Kendall's τ-b of each row of two arrays, (n, n_policies) → (n,); NaN where all tie."""
    a, b = (np.sign(part[:, :, None] - part[:, None, :]) for part in (one, other))
    squares = (a**2).sum(axis=(1, 2)) * (b**2).sum(axis=(1, 2))
    return ratio((a * b).sum(axis=(1, 2)), np.sqrt(squares))
