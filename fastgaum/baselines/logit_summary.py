"""Coefficients of a conditional logit without penalty, and their standard errors from the sandwich
(White, "Maximum likelihood estimation of misspecified models", Econometrica 1982), clustered by
user (Liang & Zeger, "Longitudinal data analysis using generalized linear models", Biometrika
1986)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from fastgaum.arrays import Float64Array, IntArray, LongArray
from fastgaum.features.batches import Batch
from fastgaum.features.sessions import cut_by_candidates

SINGULAR = 1e-8
"""share of a column's variance within displays below which the columns before it determine it"""
LEAST_INFORMATION = 1e-6
"""share of the information on a coefficient under uniform choice; below it none is the likeliest"""
CONSTANT_PENALTY = 1e-4
"""of constants, so that one whose candidates are never chosen is finite"""
MOST_STEPS, GAIN = 50, 1e-10
"""steps of Newton's method at most; the NLL that the last one may still have gained, in nats"""
HALF_WIDTH = 1.959964
"""standard errors from a coefficient to an end of its 95 % interval"""
_CELLS = 1 << 22
"""cells of the design that are made at a time"""

RowReader = Callable[[slice], Float64Array]
"""the design of a run of candidates, (n, n_constants + n_numbers)"""


def choice_shares(
    utility: Float64Array, offsets: IntArray, outside: bool
) -> tuple[Float64Array, Float64Array]:
    """The log of each event's sum of odds, (n_events,), and each candidate's probability,
    (n_candidates,)."""
    starts, sizes = offsets[:-1] - offsets[0], np.diff(offsets)
    top = np.maximum.reduceat(utility, starts)
    if outside:
        top = np.maximum(top, 0.0)
    odds = np.exp(utility - np.repeat(top, sizes))
    total = np.add.reduceat(odds, starts) + (np.exp(-top) if outside else 0.0)
    return np.log(total) + top, odds / np.repeat(total, sizes)


def coefficient_frame(
    rows: RowReader,
    names: Sequence[str],
    n_constants: int,
    shown: Batch,
    users: LongArray,
    outside: bool,
) -> pl.DataFrame:
    """A row per number: name, coefficient, standard_error, z, low, high; null where constants and
    earlier numbers determine it within every display, or where no finite coefficient is the
    likeliest.

    Args:
        rows: the design; constants stand first.
        names: of its numbers.
        n_constants: how many constants it has.
        shown: the displays and choices.
        users: number of each event's user, shape (n_events,).
        outside: whether no click is a choice.
    """
    offsets, of_events = shown.display_offsets, shown.weight_of_event
    n_columns = n_constants + len(names)
    penalty = np.where(np.arange(n_columns) < n_constants, CONSTANT_PENALTY, 0.0)
    parts = cut_by_candidates(np.diff(offsets), max(_CELLS // n_columns, 1))
    weights = np.zeros(n_columns)

    def shares(
        part: slice,
    ) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array, IntArray]:
        """The design of some events, utilities, logs of sums of odds, probabilities, choices."""
        of_part = offsets[part.start : part.stop + 1]
        x, chosen = rows(slice(of_part[0], of_part[-1])), shown.choices[part]
        utility = x @ weights
        totals, share = choice_shares(utility, of_part, outside)
        return x, utility, totals, share, (of_part[:-1] - of_part[0] + chosen)[chosen >= 0]

    def sums() -> tuple[float, Float64Array, Float64Array]:
        """The penalised NLL, its gradient and its curvature."""
        nll, gradient = 0.5 * float(penalty @ weights**2), penalty * weights
        curvature = np.diag(penalty)
        for part in parts:
            x, utility, totals, share, chosen = shares(part)
            starts = offsets[part] - offsets[part.start]
            own = np.repeat(of_events[part], np.diff(offsets[part.start : part.stop + 1]))
            weighted, of_part = x * share[:, None], of_events[part]
            means = np.add.reduceat(weighted, starts)
            nll += float(totals @ of_part - utility[chosen] @ own[chosen])
            gradient += of_part @ means - own[chosen] @ x[chosen]
            curvature += (weighted * own[:, None]).T @ x - (means * of_part[:, None]).T @ means
        return nll, gradient, curvature

    nll, gradient, curvature = sums()
    first = curvature - np.diag(penalty)
    unit = np.sqrt(np.where(np.diag(first) > 0, np.diag(first), 1.0))
    rest, kept = first / np.outer(unit, unit), []
    for column in range(n_columns):
        if rest[column, column] > SINGULAR:
            kept.append(column)
            rest -= np.outer(rest[:, column], rest[column]) / rest[column, column]
    at = np.ix_(kept, kept)
    for _ in range(MOST_STEPS):
        step = np.zeros(n_columns)
        step[kept] = np.linalg.solve(curvature[at], gradient[kept])
        gain, before, was = float(gradient @ step), weights, nll
        weights = before - step
        nll, gradient, curvature = sums()
        while nll > was + GAIN:
            step /= 2
            weights = before - step
            nll, gradient, curvature = sums()
        if gain < GAIN:
            break
    inverse = np.linalg.inv(curvature[at])
    information = np.diag(np.linalg.inv(first[at])) / np.diag(inverse)
    finite = information > LEAST_INFORMATION
    known = [i for i, column in enumerate(kept) if column >= n_constants and finite[i]]
    of_numbers, inverse = [kept[i] for i in known], inverse[:, known]
    influence = np.zeros((int(users.max()) + 1, len(known)))
    for part in parts:
        x, _, _, error, chosen = shares(part)
        error[chosen] -= 1
        slopes = np.add.reduceat(x[:, kept] * error[:, None], offsets[part] - offsets[part.start])
        np.add.at(influence, users[part], of_events[part, None] * slopes @ inverse)
    coefficient, deviation = np.full((2, n_columns), np.nan)
    coefficient[of_numbers] = weights[of_numbers]
    deviation[of_numbers] = np.sqrt((influence**2).sum(0))
    own = slice(n_constants, None)
    frame = pl.DataFrame(
        {"name": names, "coefficient": coefficient[own], "standard_error": deviation[own]}
    )
    value, error_of = pl.col("coefficient"), pl.col("standard_error")
    return frame.fill_nan(None).with_columns(
        z=value / error_of,
        low=value - HALF_WIDTH * error_of,
        high=value + HALF_WIDTH * error_of,
    )
