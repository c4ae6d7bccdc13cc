"""One run's scores of one split, what the log says of each candidate beside them, and paired
differences: of a run and the best floor, and of two runs on the same events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.baselines.floors import Precisions, means_of
from fastgaum.errors import ConfigError
from fastgaum.features.encoder import EncodedSessions
from fastgaum.features.selection import Selection, counts_before, select_sessions
from fastgaum.logs.log import IntArray, SessionLog, SplitName
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.metrics.evaluation import MIN_PROB, Evaluation, evaluate_heads
from fastgaum.metrics.intervals import Interval, paired_difference
from fastgaum.metrics.likelihood import choice_nll
from fastgaum.metrics.sums import Float64Array
from fastgaum.models.user_model import UserModel
from fastgaum.nets.scores import HeadScores, ScoredSessions
from fastgaum.reports.table import Json
from fastgaum.reports.trained_run import TrainedRun


@dataclass(frozen=True)
class DisplayCounts:
    """What the training split says of each item of a log, shape (n_items,)."""

    displays: IntArray
    choices: IntArray

    @classmethod
    def of(cls, log: SessionLog) -> DisplayCounts:
        """Count the display sets that show each item and the events that choose it."""
        part = select_sessions(log, log.sessions_in("train"))
        items = np.asarray(log.items)[part.candidates]
        chosen = items[chosen_candidates(part)]
        return cls(
            *(np.bincount(one, minlength=log.n_items).astype(np.int32) for one in (items, chosen))
        )


@dataclass(frozen=True)
class SplitScores:
    """A split as a run's heads see it."""

    log: SessionLog
    part: Selection
    """the split's sessions"""
    encoded: EncodedSessions
    scores: ScoredSessions
    evaluation: Evaluation
    outside: bool
    """whether no click is offered"""
    items: IntArray
    """item of each candidate, shape (n_candidates,)"""
    displayed_before: IntArray
    """displays of a candidate's item earlier in its session, shape (n_candidates,)"""
    chosen_before: IntArray
    """choices of a candidate's item earlier in its session, shape (n_candidates,)"""

    @classmethod
    def of(cls, model: UserModel, log: SessionLog, split: SplitName) -> SplitScores:
        """Score a split once.

        Raises:
            LogFormatError: the split is empty.
            FeatureMismatchError: the log's fields are not the training log's.
            NumericsError: a score is not finite.
        """
        encoded, scores = model.score(log, split)
        gap = float(scores.gap.mean()) if scores.gap is not None else None
        part = select_sessions(log, log.sessions_in(split))
        return cls(
            log,
            part,
            encoded,
            scores,
            evaluate_heads(scores.heads, encoded, model.outside, gap),
            model.outside,
            np.asarray(log.items)[part.candidates],
            *counts_before(log, part).T,
        )

    @property
    def reward(self) -> HeadScores:
        """The reward head: its scores are utilities."""
        return self.scores.heads["reward"]

    @property
    def event_of_candidate(self) -> IntArray:
        """Event of each candidate, shape (n_candidates,)."""
        return np.repeat(np.arange(len(self.part.choices), dtype=np.int32), self.sizes)

    @property
    def sizes(self) -> IntArray:
        """Candidates of each event, shape (n_events,)."""
        return np.diff(self.part.display_offsets)

    @property
    def event_number(self) -> IntArray:
        """Events before an event in its session, shape (n_events,)."""
        starts = self.part.session_offsets
        return (np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))).astype(np.int32)

    def has_events_of(self, other: SplitScores) -> bool:
        """Whether both hold the same events: sessions, displays and choices by name, in whatever
        order each log keeps its candidates and whatever fields it has."""
        mine, theirs = self.part, other.part
        if not (
            np.array_equal(mine.session_offsets, theirs.session_offsets)
            and np.array_equal(mine.display_offsets, theirs.display_offsets)
            and np.array_equal(mine.choices < 0, theirs.choices < 0)
            and self.log.session_ids[mine.rows].equals(other.log.session_ids[theirs.rows])
        ):
            return False
        code = Vocabulary(self.log.item_ids).codes(other.log.item_ids)[other.items]
        event = self.event_of_candidate
        return all(
            np.array_equal(one[np.lexsort((one, at))], two[np.lexsort((two, at))])
            for one, two, at in (
                (self.items, code, event),
                (
                    self.items[chosen_candidates(mine)],
                    code[chosen_candidates(theirs)],
                    event[chosen_candidates(mine)],
                ),
            )
        )

    def advantage(self) -> Float64Array:
        """Utility minus the mean of its display set, shape (n_candidates,): what a choice among
        rivals depends on."""
        utility = self.reward.scores.astype(np.float64)
        means = np.add.reduceat(utility, self.part.display_offsets[:-1]) / self.sizes
        return utility - np.repeat(means, self.sizes)

    def nll(self, head: str) -> Float64Array:
        """Negative log-likelihood of what happened, in nats, shape (n_events,)."""
        scores = self.scores.heads[head]
        outside = scores.outside_log_prob if self.outside else None
        return choice_nll(
            scores.log_probs,
            outside,
            self.part.display_offsets,
            self.part.choices,
            min_prob=MIN_PROB,
        )


def chosen_candidates(part: Selection) -> npt.NDArray[np.int64]:
    """Position of each click's candidate among the selection's candidates, events without a click
    left out."""
    clicked = part.choices >= 0
    return np.asarray(part.display_offsets[:-1][clicked] + part.choices[clicked], np.int64)


def floor_difference(scored: SplitScores, floors: Precisions) -> Json:
    """The reward's prec@1 against that of the best floor on the same events: {floor, percent, diff,
    ci}."""
    means = {name: by_k[1] for name, by_k in means_of(floors).items()}
    if np.isnan(means["random"]):
        return {"floor": None, "percent": None, "diff": None, "ci": [None, None]}
    best = max(means, key=lambda name: means[name])
    ours = scored.evaluation.heads["reward"].precision_per_event[1]
    return {
        "floor": best,
        "percent": means[best],
        **_plain(paired_difference(ours, floors[best][1], scored.encoded.user_of_event)),
    }


def run_differences(
    runs: tuple[TrainedRun, TrainedRun], scored: tuple[SplitScores, SplitScores]
) -> Json:
    """Two runs on the same events: differences first − second of each figure, and the settings that
    differ.

    Raises:
        ConfigError: they were scored on different events.
    """
    if not scored[0].has_events_of(scored[1]):
        about = [
            f"'{run.folder}' has {one.encoded.n_events} events of log '{one.log.name}' "
            f"(fingerprint {run.fingerprint[:12]})"
            for run, one in zip(runs, scored, strict=True)
        ]
        raise ConfigError(
            f"--compare needs two runs that are scored on the same events: {' and '.join(about)}: "
            "train both on one log with one split, or leave --compare out"
        )
    both = [head for head in scored[0].scores.heads if head in scored[1].scores.heads]
    return {
        "differences": [
            _difference(scored, head, what, unit) for head in both for what, unit in _FIGURES
        ],
        "settings": _settings(runs),
    }


_FIGURES = (("prec@1", "points"), ("prec@2", "points"), ("NLL", "nats"))


def _difference(scored: tuple[SplitScores, SplitScores], head: str, what: str, unit: str) -> Json:
    ours, theirs = (_per_event(one, head, what) for one in scored)
    interval = paired_difference(ours, theirs, scored[0].encoded.user_of_event)
    better = interval.high < 0 if what == "NLL" else interval.low > 0
    worse = interval.low > 0 if what == "NLL" else interval.high < 0
    verdict = "first is better" if better else "second is better" if worse else "not told apart"
    return {"head": head, "figure": what, "unit": unit, **_plain(interval), "verdict": verdict}


def _per_event(scored: SplitScores, head: str, what: str) -> Float64Array:
    if what == "NLL":
        return scored.nll(head)
    return np.asarray(scored.evaluation.heads[head].precision_per_event[int(what[-1])], np.float64)


def _settings(runs: tuple[TrainedRun, TrainedRun]) -> list[Json]:
    first, second = (run.model.config.to_mapping() for run in runs)
    return [
        {"key": key, "first": first[key], "second": second[key]}
        for key in first
        if first[key] != second[key]
    ]


def _plain(interval: Interval) -> Json:
    return {"diff": interval.mean, "ci": [interval.low, interval.high], "n_users": interval.n_users}
