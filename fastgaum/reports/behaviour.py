"""What users do on given displays, as statistics of a log and its replicas: clicks, repeats,
novelty, popularity, surprise.

Everything is computed from the versions of a log (`replay.versions`), the same way for each.
Popularity is that of the model's training split. What the model says of a session (surprise,
calibration, rank) it says having read that session's own choices so far, logged or simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from fastgaum.errors import ConfigError
from fastgaum.features.sessions import counts_before, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import IntArray, SessionLog
from fastgaum.metrics.calibration import candidate_outcomes, choice_nll
from fastgaum.metrics.evaluation import MIN_PROB
from fastgaum.metrics.intervals import AnyArray, Statistic, Sums, cut, ratio
from fastgaum.metrics.precision import Float64Array
from fastgaum.models.choice_model import ChoiceModel, Head

MOST_EVENTS = 6
"""event numbers that stand alone; later events are one group"""
TENTHS, LEVELS, BINS = 10, 50, 10


@dataclass(frozen=True)
class ModelScores:
    """What a model says of every candidate and event of a log."""

    utilities: Float64Array
    """shape (n_candidates,)"""
    log_probs: Float64Array
    """shape (n_candidates,)"""
    outside_log_prob: Float64Array
    """of no click, −inf where it is not offered, shape (n_events,)"""

    @classmethod
    def of(cls, model: ChoiceModel, log: SessionLog, head: Head) -> ModelScores:
        """Read a log as it is, its own choices as history."""
        parts: list[list[Float64Array]] = [[], [], []]
        for batch in model.tensors(log):
            for part, values in zip(
                parts, (model.utility(batch), *model.choice_log_probs(batch, head)), strict=True
            ):
                part.append(values.cpu().numpy().astype(np.float64))
        return cls(*(np.concatenate(part) for part in parts))

    def entropy(self, display_offsets: IntArray) -> Float64Array:
        """Entropy of each event's distribution, no click included, in nats, shape (n_events,)."""
        entropies = np.add.reduceat(entr(np.exp(self.log_probs)), display_offsets[:-1])
        return np.asarray(entropies + entr(np.exp(self.outside_log_prob)), np.float64)


@dataclass(frozen=True)
class Context:
    """A log's versions and what the statistics read of them."""

    log: SessionLog
    """all versions, one below the other"""
    sums: Sums
    displayed_before: IntArray
    """displays of a candidate's item earlier in its session, shape (n_candidates,)"""
    chosen_before: IntArray
    """choices of a candidate's item earlier in its session, shape (n_candidates,)"""
    training_displays: IntArray
    """displays of a candidate's item in training, shape (n_candidates,)"""
    training_choices: IntArray
    """choices of a candidate's item in training, shape (n_candidates,)"""

    @classmethod
    def of(cls, log: SessionLog, n_versions: int, space: FeatureSpace) -> Context:
        """Read the versions of a log, `space` being the model's."""
        part = select_sessions(log, np.arange(log.n_sessions, dtype=np.int32))
        displayed, chosen = counts_before(log, part).T
        known = Vocabulary(space.categorical[0].values).codes(log.item_ids)
        displays, choices = (
            np.where(known >= 0, counts[known], 0)[log.items]
            for counts in (space.item_counts.displays, space.item_counts.choices)
        )
        n_events = log.n_events // n_versions
        users = log.users[log.session_of_event[:n_events]]
        return cls(log, Sums(n_versions, users), displayed, chosen, displays, choices)

    def chosen(self, values: AnyArray, where: AnyArray | None = None) -> Float64Array:
        """A candidate's value (n_candidates,) at each event's choice; NaN without a click, or where
        `where` is false."""
        result = np.full(self.log.n_events, np.nan)
        result[self.log.choices >= 0] = values[self.log.chosen_candidates]
        return result if where is None else np.where(where, result, np.nan)


def statistics_of(context: Context, scored: ModelScores, outside: bool) -> Iterator[Statistic]:
    """Every statistic, in the order of the table.

    Raises:
        ConfigError: the log has an event without a click and the model gives it no probability.
    """
    if context.log.has_no_click and not outside:
        raise ConfigError(
            "an event ends without a click, which the model does not offer: train with no_click = "
            "always"
        )
    if outside:
        yield from _clicks(context)
        yield from _clicks_of_sessions(context)
    if context.log.ordered:
        yield from _places(context)
    yield from _novelty(context)
    yield from _popularity(context)
    yield from _of_model(context, scored, outside)


def _clicks(c: Context) -> Iterator[Statistic]:
    clicked = (c.log.choices >= 0).astype(np.float64)
    yield c.sums.mean("click rate", "events with a click, of all events", clicked)
    most = min(MOST_EVENTS, int(c.log.event_number.max()) + 1)
    labels = tuple(str(number + 1) for number in range(most))
    if most <= c.log.event_number.max():
        labels = (*labels[:-1], f"{labels[-1]}+")
    groups = np.minimum(c.log.event_number, most - 1)
    yield c.sums.by_group(
        "click rate by event",
        "the same, by number of the event in its session",
        clicked,
        groups,
        labels,
    )


def _clicks_of_sessions(c: Context) -> Iterator[Statistic]:
    clicked = (c.log.choices >= 0).astype(np.int64)
    clicks = np.full(c.log.n_events, np.nan)
    # a session is counted at its last event
    clicks[c.log.session_offsets[1:] - 1] = np.add.reduceat(clicked, c.log.session_offsets[:-1])
    yield from _depth(c, "clicks per session", "clicks of a session, of all sessions", clicks)


def _places(c: Context) -> Iterator[Statistic]:
    places = np.where(c.log.choices >= 0, c.log.choices + 1.0, np.nan)
    what = "place of the choice in the display, 1 the first, of clicks"
    yield from _depth(c, "place of the click", what, places)


def _depth(c: Context, name: str, what: str, depths: Float64Array) -> Iterator[Statistic]:
    """Mean and distribution of whole numbers, (n_events,), NaN where there is none."""
    yield c.sums.mean(name, what, depths, "clicks" if name.startswith("clicks") else "places")
    there = ~np.isnan(depths)
    # cut by all versions: which of them is the log does not count
    edges, labels = cut(depths[there].astype(np.int64), LEVELS)
    groups = np.where(there, np.searchsorted(edges, np.nan_to_num(depths)), -1)
    yield c.sums.shares(f"{name}, distribution", what, groups, labels, "ks")


def _novelty(c: Context) -> Iterator[Statistic]:
    later = c.log.event_number > 0
    again = c.chosen(c.chosen_before > 0, later)
    yield c.sums.mean(
        "repeat rate",
        "choices of an item chosen earlier in the session, of clicks after the first event",
        again,
    )
    new = c.chosen(c.displayed_before == 0, later)
    yield c.sums.mean(
        "new to the session",
        "choices of an item not displayed earlier in the session, of clicks after the first event",
        new,
    )
    never = c.chosen(c.training_choices == 0)
    yield c.sums.mean(
        "never chosen in training",
        "choices of an item that no training event chose, of clicks",
        never,
    )
    unseen = c.chosen(c.training_displays == 0)
    yield c.sums.mean(
        "never displayed in training", "choices of an item new to the model, of clicks", unseen
    )


def _popularity(c: Context) -> Iterator[Statistic]:
    levels = c.chosen(c.training_choices)
    clicked = ~np.isnan(levels)
    n = len(c.training_choices) // c.sums.n_versions
    for name, what, most, test in (
        (
            "popularity, tenths",
            "share of clicks by the item's training choices, in tenths of what is displayed",
            TENTHS,
            "chi2",
        ),
        (
            "popularity, distribution",
            "distribution of the chosen item's training choices",
            LEVELS,
            "ks",
        ),
    ):
        edges, labels = cut(c.training_choices[:n], most)
        groups = np.where(clicked, np.searchsorted(edges, np.nan_to_num(levels)), -1)
        yield c.sums.shares(name, what, groups, labels, test)  # type: ignore[arg-type]
    yield c.sums.mean(
        "popularity, mean log",
        "mean log(1 + training choices) of the chosen item, of clicks",
        np.log1p(levels),
        "log",
    )


def _of_model(c: Context, scored: ModelScores, outside: bool) -> Iterator[Statistic]:
    nll = choice_nll(
        scored.log_probs,
        scored.outside_log_prob if outside else None,
        c.log.display_offsets,
        c.log.choices,
        min_prob=MIN_PROB,
    )
    yield c.sums.mean(
        "surprise",
        "−log of the model's probability of what happened, mean over all events",
        nll,
        "nats",
    )
    yield calibration(c, scored)
    yield c.sums.mean(
        "rank by utility",
        "place of the choice among the displayed, 1 the best, ties half, of clicks",
        ranks(c, scored),
        "places",
    )


def calibration(c: Context, scored: ModelScores) -> Statistic:
    """Choices that happened per choice that was expected, by tenths of the expected choices in
    order of probability."""
    labels, happened, expected, _ = _by_bin(c, np.exp(scored.log_probs), c.log.n_events)
    what = (
        "choices that happened, per choice that the model expected, by tenths of those, "
        "improbable first"
    )
    return Statistic("calibration", what, "chi2", labels, happened, expected, "ratio")


def reliability_curve(c: Context, scored: ModelScores) -> tuple[Float64Array, Statistic]:
    """The calibration curve on logged histories: mean probability of each tenth, and the share of
    it that was chosen."""
    n = c.log.n_events // c.sums.n_versions
    probs = np.exp(scored.log_probs[: c.log.display_offsets[n]])
    labels, happened, expected, cases = _by_bin(c, probs, n)
    predicted = ratio(expected[0].sum(axis=0), cases[0].sum(axis=0))
    return predicted, Statistic("reliability", "share chosen", "chi2", labels, happened, cases)


def _by_bin(
    c: Context, probs: Float64Array, n_events: int
) -> tuple[tuple[str, ...], Float64Array, Float64Array, Float64Array]:
    """Labels of the bins of the first events' candidates, and in each bin the choices, the sum of
    the probabilities and the candidates, shape (n_versions, n_users, n_bins)."""
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

    Groups of as many cases would hold next to no expected choice at the lower end, and one choice
    there would be everything.

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


def ranks(c: Context, scored: ModelScores) -> Float64Array:
    """Place of each event's choice by utility, 1 the best, ties counted half; NaN without a
    click."""
    offsets, choices = c.log.display_offsets, c.log.choices
    own = np.repeat(c.chosen(scored.utilities), np.diff(offsets))
    with np.errstate(invalid="ignore"):
        better = np.add.reduceat(
            (scored.utilities > own) + 0.5 * (scored.utilities == own), offsets[:-1]
        )
    return np.where(choices >= 0, better + 0.5, np.nan)
