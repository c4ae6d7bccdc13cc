"""Six statistics of a log and its replicas, and reliability. Popularity is that of the model's
training split; surprise and reliability are read after the session's own choices so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastgaum.arrays import Float64Array, IntArray, LongArray
from fastgaum.errors import ConfigError
from fastgaum.features.sessions import counts_before, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.candidate_counts import CHOSEN, DISPLAYED
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.calibration import candidate_outcomes, choice_nll
from fastgaum.metrics.evaluation import HeadScores
from fastgaum.metrics.intervals import AnyArray, draw_users, percentile_interval, ratio
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.nets.networks import Head
from fastgaum.reports.table import Json

BINS = 10
Unit = Literal["%", "nats", "places", "log"]
STATISTICS: dict[str, tuple[str, Unit]] = {
    "click rate": ("events with a click, of all events", "%"),
    "place of the click": ("place of the choice in the display, 1 the first, of clicks", "places"),
    "repeat rate": (
        "choices of an item chosen earlier in the session, of clicks after the first event",
        "%",
    ),
    "new to the session": (
        "choices of an item not displayed earlier in the session, of clicks after the first event",
        "%",
    ),
    "popularity, mean log": (
        "mean log(1 + training choices) of the chosen item, of clicks",
        "log",
    ),
    "surprise": (
        "−log of the model's probability of what happened, mean over all events",
        "nats",
    ),
}
"""definition and unit of each statistic by name; % = shares, kept as numbers in [0, 1]"""


def score_log(model: ChoiceModel, log: SessionLog, head: Head) -> HeadScores:
    """Score a log, its own choices as history: probabilities of a head, and utilities."""
    batches = [
        (model.utility(batch), *model.choice_log_probs(batch, head)) for batch in model.tensors(log)
    ]
    return HeadScores(
        *(
            np.concatenate([one.cpu().numpy().astype(np.float64) for one in part])
            for part in zip(*batches, strict=True)
        )
    )


@dataclass(frozen=True)
class LogVersions:
    """A log's versions, and what the statistics read of them."""

    log: SessionLog
    """all versions, one below the other"""
    n_versions: int
    n_users: int
    rows: LongArray
    """version and user of each event, version · n_users + user, shape (n_events,)"""
    displayed_before: IntArray
    """displays of a candidate's item earlier in its session, shape (n_candidates,)"""
    chosen_before: IntArray
    """choices of a candidate's item earlier in its session, shape (n_candidates,)"""
    training_choices: LongArray
    """choices of a candidate's item in training, shape (n_candidates,)"""

    @classmethod
    def of(cls, log: SessionLog, n_versions: int, space: FeatureSpace) -> LogVersions:
        """Read the versions of a log, `space` being the model's."""
        before = counts_before(log, select_sessions(log, np.arange(log.n_sessions, dtype=np.int32)))
        choices = space.counts_of(log.item_ids).choices[log.items]
        users = log.users[log.session_of_event[: log.n_events // n_versions]]
        distinct, own = np.unique(users, return_inverse=True)
        rows = np.repeat(np.arange(n_versions), len(own)) * len(distinct) + np.tile(own, n_versions)
        displayed, chosen = before[:, DISPLAYED], before[:, CHOSEN]
        return cls(log, n_versions, len(distinct), rows, displayed, chosen, choices)

    def chosen(self, values: AnyArray, where: AnyArray | None = None) -> Float64Array:
        """A candidate's value (n_candidates,) at each event's choice; NaN without a click, or where
        `where` is false."""
        result = np.full(self.log.n_events, np.nan)
        result[self.log.choices >= 0] = values[self.log.chosen_candidates]
        return result if where is None else np.where(where, result, np.nan)

    def sums(self, values: AnyArray) -> tuple[Float64Array, Float64Array]:
        """Sums of values of the events, NaN left out, and their counts, (n_versions, n_users)
        each."""
        kept = np.flatnonzero(~np.isnan(values))
        shape, n = (self.n_versions, self.n_users), self.n_versions * self.n_users
        parts = (np.bincount(self.rows[kept], of, n) for of in (values[kept], np.ones(len(kept))))
        sums, counts = (np.asarray(part, np.float64).reshape(shape) for part in parts)
        return sums, counts


def values_of(
    c: LogVersions, scored: HeadScores, no_click: bool
) -> Iterator[tuple[str, Float64Array]]:
    """The name of each statistic and its value in each event, NaN where it has none, in the order
    of the table. Raises ConfigError where an event has no click and the model gives that no
    probability."""
    log, later = c.log, c.log.event_number > 0
    if log.has_no_click and not no_click:
        raise ConfigError(
            "an event ends without a click, which the model does not offer: train with no_click = "
            "always"
        )
    if no_click:
        yield "click rate", (log.choices >= 0).astype(np.float64)
    if log.ordered:
        yield "place of the click", np.where(log.choices >= 0, log.choices + 1.0, np.nan)
    yield "repeat rate", c.chosen(c.chosen_before > 0, later)
    yield "new to the session", c.chosen(c.displayed_before == 0, later)
    yield "popularity, mean log", np.log1p(c.chosen(c.training_choices))
    none = scored.no_click_log_prob if no_click else None
    nll = choice_nll(scored.log_probs, none, log.display_offsets, log.choices)
    yield "surprise", np.asarray(nll, np.float64)


def compare_sides(c: LogVersions, name: str, values: AnyArray, draws: int, seed: int) -> Json:
    """A statistic of the log and of all replicas together, and simulated − logged, with their ends
    `…_ci`, of a bootstrap that draws the same users on both sides; NaN where a side counts
    nothing."""
    (sums, counts), what = c.sums(values), STATISTICS[name]
    # the first row is of all users once, the others are draws
    weights = [np.ones((1, c.n_users)), *draw_users(c.n_users, draws, seed)]
    logged, simulated = (
        np.concatenate([ratio(one @ top[:, None], one @ bottom[:, None]) for one in weights])
        for top, bottom in ((sums[0], counts[0]), (sums[1:].sum(axis=0), counts[1:].sum(axis=0)))
    )
    figures = {"logged": logged, "simulated": simulated, "difference": simulated - logged}
    ends = {f"{key}_ci": percentile_interval(of[1:])[:, 0].tolist() for key, of in figures.items()}
    row = {key: float(of[0, 0]) for key, of in figures.items()} | ends
    return {"name": name, "what": what[0], "unit": what[1], **row}


def reliability_curve(c: LogVersions, scored: HeadScores, draws: int, seed: int) -> Json:
    """On logged histories, the mean probability of each tenth of the expected choices, and the
    share that was chosen, with its interval over users."""
    n = c.log.n_events // c.n_versions
    offsets, choices = c.log.display_offsets[: n + 1], c.log.choices[:n]
    probs = np.exp(scored.log_probs[: offsets[-1]])
    bins = bins_of(probs)
    n_bins = int(bins.max()) + 1
    at = np.repeat(c.rows[:n], np.diff(offsets)) * n_bins + bins
    happened, expected, cases = (
        np.bincount(at, values, c.n_users * n_bins).reshape(c.n_users, n_bins)
        for values in (candidate_outcomes(offsets, choices), probs, np.ones(len(probs)))
    )
    drawn = [
        ratio(weights @ happened, weights @ cases)
        for weights in (np.ones((1, c.n_users)), *draw_users(c.n_users, draws, seed))
    ]
    return {
        "predicted": ratio(expected.sum(axis=0), cases.sum(axis=0)).tolist(),
        "observed": drawn[0][0].tolist(),
        "ci": percentile_interval(np.concatenate(drawn[1:])).T.tolist(),
    }


def bins_of(probs: Float64Array) -> AnyArray:
    """Cut cases into at most BINS groups of about the same sum of probabilities, in their order;
    equal ones stay together.

    >>> bins_of(np.array([0.01, 0.01, 1.0, 1.0])).tolist()
    [0, 0, 1, 1]
    """
    levels, level, sizes = np.unique(probs, return_inverse=True, return_counts=True)
    mass = np.cumsum(levels * sizes)
    # the middle of a level's own mass: no group is empty by rounding
    groups = np.minimum(
        (mass - 0.5 * levels * sizes) / max(mass[-1], 1e-300) * BINS, BINS - 1
    ).astype(np.int64)
    return np.asarray(np.unique(groups[level], return_inverse=True)[1])
