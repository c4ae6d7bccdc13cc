"""Testers: pairs of policies whose order is known, and how far a world can be relied on to find it.

Labhishetty and Zhai ("RATE: A Reliability-Aware Tester-Based Evaluation Framework of User
Simulators", ECIR 2022) judge simulators by testers, systems of known order, and estimate how
reliable simulators and testers are together. Here a tester is a pair of policies, its known order
is that of their values in the log, and the worlds are: the log itself with its users drawn anew,
which shows how far the log's own order is noise; the world that is judged; and models that are
asked for their distributions on the log's histories."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastgaum.metrics.intervals import Statistic, ratio
from fastgaum.metrics.precision import Float64Array
from fastgaum.reports.behaviour import Context, ModelScores
from fastgaum.reports.permutation import drawn_users, sides
from fastgaum.reports.table import Json

LOG, WORLD = "the log, users drawn anew", "this world"
STEPS, CLOSE = 1000, 1e-12


def reliabilities(passed: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Reliability of worlds (n_worlds,) and testers (n_testers,) from how surely each world passes
    each tester, in [0, 1], shape (n_worlds, n_testers).

    A world's is the mean of what it passes, each tester weighted by its reliability; a tester's is
    the mean over the worlds that pass it, each weighted by its own. Both are found together, by
    steps from equal weights; 0 where nothing is passed.

    >>> worlds, testers = reliabilities(np.array([[1.0, 1.0], [1.0, 0.0]]))
    >>> worlds.round(3).tolist(), testers.round(3).tolist()
    ([1.0, 0.618], [1.0, 0.618])
    """
    worlds, testers = np.ones(len(passed)), np.ones(passed.shape[1])
    for _ in range(STEPS):
        before = worlds
        worlds = _weighted(passed, testers)
        testers = _weighted(passed.T, worlds)
        if np.abs(worlds - before).max(initial=0.0) < CLOSE:
            break
    return worlds, testers


def _weighted(values: Float64Array, weights: Float64Array) -> Float64Array:
    total = weights.sum()
    return values @ weights / total if total > 0 else np.zeros(len(values))


def reliability_report(
    values: Statistic, models: Mapping[str, Float64Array], draws: int = 1999, seed: int = 0
) -> Json:
    """The reliability of a world, beside that of the log and of models.

    Args:
        values: values of policies in the log and in the world, as `values_of` gives them.
        models: by name what each policy gets from each user in expectation, as `expected_values`
            gives it.
        draws: of users; each world passes a pair in the share of draws that order it as the log.
        seed: seeds the draws.

    Returns: `pairs`, how many have an order; `worlds`, name, share of pairs passed and reliability
        of each; `testers`, the pairs with their reliability and the share in which the world
        passes them, the most reliable first. Without a pair that has an order the two lists are
        empty.
    """
    n_users, n_policies = values.sums.shape[1:]
    logged = sides(values, np.ones((1, n_users)))[0][0]
    one, other = np.triu_indices(n_policies, 1)
    swapped = logged[one] < logged[other]
    better, worse = np.where(swapped, other, one), np.where(swapped, one, other)
    ordered = logged[better] > logged[worse]
    better, worse = better[ordered], worse[ordered]
    if len(better) == 0:
        return {"pairs": 0, "worlds": [], "testers": []}
    counts = values.counts[0]
    names = [LOG, WORLD, *(f"users of the {name}" for name in models)]
    passed = np.zeros((len(names), len(better)))
    for weights in drawn_users(n_users, draws, seed):
        drawn = [*sides(values, weights)]
        drawn += [ratio(weights @ sums, weights @ counts) for sums in models.values()]
        for row, found in zip(passed, drawn, strict=True):
            lead = found[:, better] - found[:, worse]
            row += ((lead > 0) + 0.5 * (lead == 0)).sum(axis=0)
    passed /= draws
    worlds, testers = reliabilities(passed)
    order = np.argsort(-testers, kind="stable")
    return {
        "pairs": len(better),
        "worlds": [
            {"name": name, "share": float(row.mean()), "reliability": float(reliability)}
            for name, row, reliability in zip(names, passed, worlds, strict=True)
        ],
        "testers": [
            {
                "better": values.labels[better[i]],
                "worse": values.labels[worse[i]],
                "reliability": float(testers[i]),
                "passed": float(passed[1, i]),
            }
            for i in order
        ],
    }


def expected_values(
    context: Context, policies: Mapping[str, Float64Array], scored: ModelScores
) -> Float64Array:
    """What each policy gets from each user on the log's histories if choices have a model's
    distribution, shape (n_users, n_policies)."""
    sums = context.sums
    n_events = context.log.n_events // sums.n_versions
    stop = int(context.log.display_offsets[n_events])
    probs = np.exp(scored.log_probs[:stop])
    # of version 0 a row is the user
    users = np.repeat(sums.rows[:n_events], np.diff(context.log.display_offsets[: n_events + 1]))
    return np.stack(
        [
            np.bincount(users, recommended[:stop] * probs, sums.n_users)
            for recommended in policies.values()
        ],
        axis=1,
    )
