"""Statistics of a log and its replicas. Popularity is that of the model's training split;
surprise, calibration and rank are read after the session's own choices so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastgaum.arrays import Float64Array, IntArray, LongArray
from fastgaum.errors import ConfigError
from fastgaum.features.sessions import counts_before, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.candidate_counts import CHOSEN, DISPLAYED
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.calibration import candidate_outcomes, choice_nll
from fastgaum.metrics.evaluation import HeadScores
from fastgaum.metrics.intervals import AnyArray, Statistic, Sums, Unit, cut, ratio
from fastgaum.models.choice_model import ChoiceModel, Head

MOST_EVENTS = 6
"""event numbers that stand alone; later events are one group"""
TENTHS, LEVELS, BINS = 10, 50, 10
Labels = tuple[str, ...]


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
    sums: Sums
    displayed_before: IntArray
    """displays of a candidate's item earlier in its session, shape (n_candidates,)"""
    chosen_before: IntArray
    """choices of a candidate's item earlier in its session, shape (n_candidates,)"""
    training_displays: LongArray
    """displays of a candidate's item in training, shape (n_candidates,)"""
    training_choices: LongArray
    """choices of a candidate's item in training, shape (n_candidates,)"""

    @classmethod
    def of(cls, log: SessionLog, n_versions: int, space: FeatureSpace) -> LogVersions:
        """Read the versions of a log, `space` being the model's."""
        part = select_sessions(log, np.arange(log.n_sessions, dtype=np.int32))
        before = counts_before(log, part)
        displayed, chosen = before[:, DISPLAYED], before[:, CHOSEN]
        counts = space.counts_of(log.item_ids)
        displays, choices = counts.displays[log.items], counts.choices[log.items]
        n_events = log.n_events // n_versions
        users = log.users[log.session_of_event[:n_events]]
        return cls(log, Sums(n_versions, users), displayed, chosen, displays, choices)

    def chosen(self, values: AnyArray, where: AnyArray | None = None) -> Float64Array:
        """A candidate's value (n_candidates,) at each event's choice; NaN without a click, or where
        `where` is false."""
        result = np.full(self.log.n_events, np.nan)
        result[self.log.choices >= 0] = values[self.log.chosen_candidates]
        return result if where is None else np.where(where, result, np.nan)


def statistics_of(c: LogVersions, scored: HeadScores, outside: bool) -> Iterator[Statistic]:
    """Every statistic, in the order of the table. Raises ConfigError where an event has no click
    and the model gives that no probability."""
    log, number = c.log, c.log.event_number
    if log.has_no_click and not outside:
        raise ConfigError(
            "an event ends without a click, which the model does not offer: train with no_click = "
            "always"
        )
    clicked, later = log.choices >= 0, number > 0
    if outside:
        clicks = clicked.astype(np.float64)
        yield c.sums.mean("click rate", "events with a click, of all events", clicks)
        most = min(MOST_EVENTS, int(number.max()) + 1)
        labels = [str(i + 1) for i in range(most)]
        if most <= number.max():
            labels[-1] += "+"
        what = "the same, by number of the event in its session"
        groups = np.minimum(number, most - 1)
        yield c.sums.by_group("click rate by event", what, clicks, groups, tuple(labels))
        # a session is counted at its last event
        depth = np.full(log.n_events, np.nan)
        depth[log.session_offsets[1:] - 1] = np.add.reduceat(clicks, log.session_offsets[:-1])
        what = "clicks of a session, of all sessions"
        yield from _depth(c, "clicks per session", what, depth, "clicks")
    if log.ordered:
        what = "place of the choice in the display, 1 the first, of clicks"
        depth = np.where(clicked, log.choices + 1.0, np.nan)
        yield from _depth(c, "place of the click", what, depth, "places")
    means = {
        "repeat rate": (
            "choices of an item chosen earlier in the session, of clicks after the first event",
            c.chosen(c.chosen_before > 0, later),
        ),
        "new to the session": (
            "choices of an item not displayed earlier in the session, of clicks after the first "
            "event",
            c.chosen(c.displayed_before == 0, later),
        ),
        "never chosen in training": (
            "choices of an item that no training event chose, of clicks",
            c.chosen(c.training_choices == 0),
        ),
        "never displayed in training": (
            "choices of an item new to the model, of clicks",
            c.chosen(c.training_displays == 0),
        ),
    }
    for name, (what, values) in means.items():
        yield c.sums.mean(name, what, values)
    levels = c.chosen(c.training_choices)
    displayed = c.training_choices[: len(c.training_choices) // c.sums.n_versions]
    what = "share of clicks by the item's training choices, in tenths of what is displayed"
    groups, labels_of = _groups_of(levels, displayed, TENTHS)
    yield c.sums.shares("popularity, tenths", what, groups, labels_of)
    what = "distribution of the chosen item's training choices"
    groups, labels_of = _groups_of(levels, displayed, LEVELS)
    yield c.sums.shares("popularity, distribution", what, groups, labels_of, "ks")
    what = "mean log(1 + training choices) of the chosen item, of clicks"
    yield c.sums.mean("popularity, mean log", what, np.log1p(levels), "log")
    no_click = scored.outside_log_prob if outside else None
    sets = log.display_offsets, log.choices
    nll = choice_nll(scored.log_probs, no_click, *sets)
    what = "−log of the model's probability of what happened, mean over all events"
    yield c.sums.mean("surprise", what, nll, "nats")
    yield calibration(c, scored)
    what = "place of the choice among the displayed, 1 the best, ties half, of clicks"
    yield c.sums.mean("rank by utility", what, ranks(c, scored), "places")


def _depth(
    c: LogVersions, name: str, what: str, depth: Float64Array, unit: Unit
) -> list[Statistic]:
    # cut by all versions: which of them is the log does not count
    groups, labels = _groups_of(depth, depth[~np.isnan(depth)], LEVELS)
    return [
        c.sums.mean(name, what, depth, unit),
        c.sums.shares(f"{name}, distribution", what, groups, labels, "ks"),
    ]


def _groups_of(levels: Float64Array, cases: AnyArray, most: int) -> tuple[AnyArray, Labels]:
    """Group of each event's whole number, -1 where it is NaN, and the groups' labels."""
    edges, labels = cut(cases.astype(np.int64), most)
    groups = np.searchsorted(edges, np.nan_to_num(levels))
    return np.where(np.isnan(levels), -1, groups), labels


def calibration(c: LogVersions, scored: HeadScores) -> Statistic:
    """Choices that happened per expected choice, by tenths of the expected ones in order of
    probability."""
    labels, happened, expected, _ = _by_bin(c, np.exp(scored.log_probs), c.log.n_events)
    what = (
        "choices that happened, per choice that the model expected, by tenths of those, "
        "improbable first"
    )
    return Statistic("calibration", what, "chi2", labels, happened, expected, "ratio")


def reliability_curve(c: LogVersions, scored: HeadScores) -> tuple[Float64Array, Statistic]:
    """On logged histories, the mean probability of each tenth, and the share that was chosen."""
    n = c.log.n_events // c.sums.n_versions
    probs = np.exp(scored.log_probs[: c.log.display_offsets[n]])
    labels, happened, expected, cases = _by_bin(c, probs, n)
    predicted = ratio(expected[0].sum(axis=0), cases[0].sum(axis=0))
    return predicted, Statistic("reliability", "share chosen", "chi2", labels, happened, cases)


def _by_bin(
    c: LogVersions, probs: Float64Array, n_events: int
) -> tuple[tuple[str, ...], Float64Array, Float64Array, Float64Array]:
    """Labels of the bins of the first events' candidates; their choices, sums of probabilities
    and candidates, shape (n_versions, n_users, n_bins)."""
    offsets, choices = c.log.display_offsets[: n_events + 1], c.log.choices[:n_events]
    bins = bins_of(probs)
    n_bins = int(bins.max()) + 1
    rows = np.repeat(c.sums.rows[:n_events], np.diff(offsets))
    happened, expected, cases = (
        c.sums.add(values, rows, bins, n_bins)
        for values in (candidate_outcomes(offsets, choices), probs, np.ones(len(probs)))
    )
    return tuple(str(i + 1) for i in range(n_bins)), happened, expected, cases


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


def ranks(c: LogVersions, scored: HeadScores) -> Float64Array:
    """Place of each event's choice by utility, 1 the best, ties half; NaN without a click."""
    offsets, choices = c.log.display_offsets, c.log.choices
    own = np.repeat(c.chosen(scored.scores), np.diff(offsets))
    with np.errstate(invalid="ignore"):
        better = np.add.reduceat((scored.scores > own) + 0.5 * (scored.scores == own), offsets[:-1])
    return np.where(choices >= 0, better + 0.5, np.nan)
