"""A run's scores of one split, and paired differences: of a run and the best floor, and of two runs
on the same events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from fastgaum.baselines.floors import Precisions, means_of
from fastgaum.errors import ConfigError
from fastgaum.features.sessions import EncodedSessions, Selection, counts_before, select_sessions
from fastgaum.game.scoring import HeadScores, ScoredSessions
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import FloatArray, IntArray, SessionLog, SplitName
from fastgaum.metrics.calibration import choice_nll
from fastgaum.metrics.evaluation import MIN_PROB, Evaluation, evaluate_heads
from fastgaum.metrics.intervals import Interval, paired_difference
from fastgaum.metrics.precision import Float64Array
from fastgaum.models.choice_model import ChoiceModel, Head
from fastgaum.models.user_model import UserModel
from fastgaum.reports.table import Json
from fastgaum.reports.trained_run import TrainedRun


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
    examination: dict[str, FloatArray]
    """of each place by each head, the first being 1; empty where places are not kept apart"""
    eta: float
    """what the reward's utilities are multiplied by in a choice"""
    items: IntArray
    """item of each candidate, shape (n_candidates,)"""
    displayed_before: IntArray
    """displays of a candidate's item earlier in its session, shape (n_candidates,)"""
    chosen_before: IntArray
    """choices of a candidate's item earlier in its session, shape (n_candidates,)"""

    @classmethod
    def of(cls, model: ChoiceModel, log: SessionLog, split: SplitName) -> SplitScores:
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
            {h: by for h in get_args(Head) if (by := model.examination(h)) is not None},
            model.config.eta if isinstance(model, UserModel) else 1.0,
            np.asarray(log.items)[part.candidates],
            *counts_before(log, part).T,
        )

    @property
    def reward(self) -> HeadScores:
        """The reward head: its scores are utilities."""
        return self.scores.heads["reward"]

    @property
    def sizes(self) -> IntArray:
        """Candidates of each event, shape (n_events,)."""
        return np.diff(self.part.display_offsets)

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
        event = np.repeat(np.arange(mine.n_events), self.sizes)
        # display sets in whatever order, choices in the order of the events
        return np.array_equal(
            self.items[np.lexsort((self.items, event))], code[np.lexsort((code, event))]
        ) and np.array_equal(self.items[mine.chosen_candidates], code[theirs.chosen_candidates])

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Place of each candidate in its display, from 0, shape (n_candidates,)."""
        return np.arange(len(self.items)) - np.repeat(self.part.display_offsets[:-1], self.sizes)

    def advantage(self) -> Float64Array:
        """Utility, free of place where places are kept apart, minus the mean of its display set,
        shape (n_candidates,): what a choice among rivals depends on."""
        utility = self.reward.scores.astype(np.float64)
        if self.examination:
            by_place = np.log(self.examination["reward"].astype(np.float64)) / self.eta
            utility -= by_place[np.minimum(self.places, len(by_place) - 1)]
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


def place_facts(scored: SplitScores) -> list[Json]:
    """Each place that the model examines apart: displays that have it, shares of them that chose it
    and were expected to, and its examination by each head; none where places are not kept apart."""
    if not scored.examination:
        return []
    n = len(scored.examination["reward"])
    # places beyond those of the training displays are in no row
    shown, chosen = (
        np.bincount(at, minlength=n)[:n]
        for at in (scored.places, scored.places[scored.part.chosen_candidates])
    )
    probs = np.exp(scored.reward.log_probs.astype(np.float64))
    expected = np.bincount(scored.places, probs, n)[:n]
    return [
        {
            "place": place + 1,
            "displays": int(shown[place]),
            "chosen": chosen[place] / max(shown[place], 1),
            "expected": expected[place] / max(shown[place], 1),
            "examination": {head: float(by[place]) for head, by in scored.examination.items()},
        }
        for place in range(n)
    ]


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
    first, second = (run.settings for run in runs)
    return [
        {"key": key, "first": first.get(key), "second": second.get(key)}
        for key in dict.fromkeys((*first, *second))
        if first.get(key) != second.get(key)
    ]


def _plain(interval: Interval) -> Json:
    return {"diff": interval.mean, "ci": [interval.low, interval.high], "n_users": interval.n_users}
