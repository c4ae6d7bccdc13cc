"""How well what followed choices is predicted, beside simple rules: proper scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.features.outcomes import OutcomeField
from fastgaum.logs.log import TRAIN, SessionLog
from fastgaum.metrics.intervals import Interval, bootstrap_means, paired_difference

PRIOR_CHOICES = 5.0
"""choices of the training mean that the mean of each item begins with"""


@dataclass(frozen=True)
class OutcomeFigures:
    """The error of one outcome over the choices of a split after which it is known."""

    n: int
    is_number: bool
    error: Interval
    """of a number the mean squared error, of a category the negative log-likelihood in nats"""
    by_mean: float
    """the same error of the training mean, or of training's shares"""
    by_item: float
    """of the mean, or the shares, of the chosen item in training"""
    by_ridge: float
    """of a ridge on the candidate's numbers; NaN of a category"""
    lead: Interval
    """the error by item less that of the model, paired, over users; above 0: the model is better"""

    def __str__(self) -> str:
        if self.is_number:
            own, item, ridge = (mse**0.5 for mse in (self.error.mean, self.by_item, self.by_ridge))
            return f"RMSE {own:.4g} (by item {item:.4g}, ridge {ridge:.4g})"
        return f"NLL {self.error.mean:.4g} (by item {self.by_item:.4g})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        score = "mse" if self.is_number else "nll"
        ridge = {"mse_of_ridge": self.by_ridge} if self.is_number else {}
        return {
            "n": self.n,
            score: self.error.to_dict(),
            f"{score}_of_mean": self.by_mean,
            f"{score}_of_item": self.by_item,
            **ridge,
            "lead_over_item": self.lead.to_dict(),
        }


def figures_of_outcomes(
    fields: Sequence[OutcomeField],
    log: SessionLog,
    events: IntArray,
    predicted: Float64Array,
    by_ridge: FloatArray,
) -> dict[str, OutcomeFigures]:
    """Figures of each outcome.

    Args:
        fields: the outcomes.
        log: its training split says the means.
        events: with a choice, (n,).
        predicted: what would follow each, in the log's units, (n, n_columns).
        by_ridge: the same of a ridge, NaN of categories."""
    figures, start = {}, 0
    items = log.items[log.display_offsets[:-1] + np.maximum(log.choices, 0)]
    training = np.flatnonzero((log.split[log.session_of_event] == TRAIN) & (log.choices >= 0))
    users = log.users[log.session_of_event]
    for one in fields:
        columns = slice(start, start + one.width)
        start += one.width
        if one.name not in log.outcomes:
            continue
        column = log.outcomes[one.name]
        values = one.columns_of(column.values, column.texts).astype(np.float64)
        known = ~np.isnan(values[:, 0])
        scored = known[events]
        at = events[scored]
        if not len(at):
            continue
        mean = one.mean.astype(np.float64)
        if one.categories is not None:
            mean = mean / mean.sum()
        learned = training[known[training]]
        n_of = np.bincount(items[learned], minlength=log.n_items)[:, None]
        totals = np.stack(
            [np.bincount(items[learned], of, log.n_items) for of in values[learned].T], 1
        )
        by_item = (totals + PRIOR_CHOICES * mean) / (n_of + PRIOR_CHOICES)
        each = [
            _errors(one, values[at], of)
            for of in (
                predicted[scored][:, columns],
                mean[None],
                by_item[items[at]],
                by_ridge[scored][:, columns].astype(np.float64),
            )
        ]
        weights = None if log.weights is None else log.weights[at]
        (error,) = bootstrap_means([each[0]], users[at], weights)
        figures[one.name] = OutcomeFigures(
            len(at),
            one.categories is None,
            error,
            float(np.average(each[1], weights=weights)),
            float(np.average(each[2], weights=weights)),
            float(np.average(each[3], weights=weights)),
            paired_difference(each[2], each[0], users[at], weights),
        )
    return figures


def _errors(one: OutcomeField, values: Float64Array, found: Float64Array) -> Float64Array:
    if one.categories is None:
        squares: Float64Array = ((values - found) ** 2)[:, 0]
        return squares
    likelihood = (values * found).sum(1)
    return np.asarray(-np.log(np.maximum(likelihood, 1e-9)))
