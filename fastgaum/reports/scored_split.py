"""One run's scores of one split, and what the log says of each candidate beside them: what all
sections read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.features.selection import ItemScratch, Selection, counts_before, select_sessions
from fastgaum.features.space import EncodedSessions
from fastgaum.logs.log import IntArray, SessionLog, SplitName
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.metrics.evaluation import MIN_PROB, Evaluation, evaluate_heads
from fastgaum.metrics.likelihood import choice_nll
from fastgaum.models.user_model import UserModel
from fastgaum.nets.scores import HeadScores, ScoredSessions

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ItemCounts:
    """What the training split says of each item of a log, shape (n_items,)."""

    displays: IntArray
    choices: IntArray

    @classmethod
    def of(cls, log: SessionLog) -> ItemCounts:
        """Count the display sets that show each item and the events that choose it."""
        part = select_sessions(log, log.sessions_in("train"))
        items = np.asarray(log.items)[part.candidates]
        chosen = items[chosen_candidates(part)]
        return cls(
            *(np.bincount(one, minlength=log.n_items).astype(np.int32) for one in (items, chosen))
        )


@dataclass(frozen=True)
class Scored:
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
    def of(cls, model: UserModel, log: SessionLog, split: SplitName) -> Scored:
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
            *counts_before(log, part, ItemScratch(log.n_items)),
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

    def has_events_of(self, other: Scored) -> bool:
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
