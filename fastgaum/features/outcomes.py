"""Outcomes as a model reads them: what earlier choices of the session have given, as numbers of a
candidate, and what followed each choice, as numbers of its token in the history.

A candidate never reads the outcome of its own event: what has been given is of earlier events, and
tokens are read by later ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import BoolArray, FloatArray, IntArray, LongArray
from fastgaum.errors import LogFormatError
from fastgaum.features.number_columns import number_columns
from fastgaum.features.standardise import Moments
from fastgaum.kernels.candidate_counts import UserDisplays
from fastgaum.kernels.given import (
    WINDOW,
    GivenColumns,
    PastChoices,
    rank_displays,
    write_given,
)
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fastgaum.features.fields import CategoricalField

GIVEN = "given_"
CHOSEN_LAST = "chosen_last"
HABIT = "habit_"
PRIOR_HABIT = 5.0
"""choices without a habit that each habit begins with"""
FIRST_ROOM = 16
_HABITS_OF = ("chosen_before", "displayed_before", "choice_rate", CHOSEN_LAST)
"""made numbers by which choices are ranked, beside those of the log and of outcomes"""


@dataclass(frozen=True)
class OutcomeField:
    """What may follow a choice: a number, or one of some categories."""

    name: str
    categories: pl.Series | None
    """None: a number"""
    mean: FloatArray
    """of the training outcomes, of each column, (width,)"""
    scale: FloatArray
    """their standard deviation, 1 where it is 0, likewise"""

    @property
    def width(self) -> int:
        """Its columns: one, or one for each category."""
        return 1 if self.categories is None else len(self.categories)

    @property
    def labels(self) -> list[str]:
        """The columns by name."""
        if self.categories is None:
            return [self.name]
        return [f"{self.name}={value}" for value in self.categories]

    def columns_of(self, values: npt.NDArray[Any], texts: pl.Series | None) -> FloatArray:
        """Outcomes of n events as columns, NaN for one that is not known, (n, width)."""
        if self.categories is None or texts is None:
            return values.astype(np.float32).reshape(-1, 1)
        codes = Vocabulary(self.categories).codes_from(Vocabulary(texts))[values]
        columns: FloatArray = (codes[:, None] == np.arange(self.width)).astype(np.float32)
        columns[values < 0] = np.nan
        return columns


class OutcomeMoments:
    """The outcomes of training events, counted part by part."""

    def __init__(self, log: SessionLog) -> None:
        """Begin with nothing. log: any part; all have the same outcomes and categories."""
        self.blank = [
            OutcomeField(name, one.texts, np.zeros(1, np.float32), np.ones(1, np.float32))
            for name, one in log.outcomes.items()
        ]
        self.moments = [Moments() for _ in self.blank]

    def add(self, log: SessionLog, training: BoolArray) -> None:
        """Count a part's training events."""
        for one, moments in zip(self.blank, self.moments, strict=True):
            column = log.outcomes[one.name]
            found = one.columns_of(column.values[training], column.texts)
            if found.shape[1] and (known := ~np.isnan(found[:, 0])).any():
                moments.add(found[known])

    def combine(self, other: OutcomeMoments) -> None:
        """Count what another has counted."""
        for own, others in zip(self.moments, other.moments, strict=True):
            own.combine(others)

    def fields(self) -> tuple[OutcomeField, ...]:
        """The outcomes, with the categories that training has. Raises LogFormatError for one that
        no training event has."""
        return tuple(map(self._field, self.blank, self.moments))

    def _field(self, blank: OutcomeField, moments: Moments) -> OutcomeField:
        if not moments.count:
            raise LogFormatError(
                f"no training event has the outcome '{blank.name}', at least one is required: "
                "leave it out, or choose another split"
            )
        mean, scale = moments.mean, np.sqrt(moments.squares / moments.count)
        categories = blank.categories
        if categories is not None:
            seen = np.flatnonzero(mean > 0)
            categories, mean, scale = categories.gather(seen), mean[seen], scale[seen]
        scale = np.where(scale > 0, scale, 1.0)
        return OutcomeField(
            blank.name, categories, mean.astype(np.float32), scale.astype(np.float32)
        )


def outcomes_of(fields: Sequence[OutcomeField], log: SessionLog) -> FloatArray:
    """The outcomes of all events of a log as columns, NaN for what is not known, (n_events,
    n_columns); all of them where a log that was not chosen from yet has none."""
    columns = log.outcomes
    parts = [
        one.columns_of(columns[one.name].values, columns[one.name].texts)
        if one.name in columns
        else np.full((log.n_events, one.width), np.nan, np.float32)
        for one in fields
    ]
    return np.concatenate(parts, 1) if parts else np.empty((log.n_events, 0), np.float32)


class OutcomeNumbers:
    """Which numbers of candidates outcomes make, and where they stand."""

    def __init__(
        self,
        fields: Sequence[OutcomeField],
        categorical: Sequence[CategoricalField],
        names: Sequence[str],
    ) -> None:
        """fields: of the outcomes; categorical: fields of ids of a candidate; names: of its base
        numbers."""
        self.fields = tuple(fields)
        self.of_ids = [at for at, one in enumerate(categorical) if one.is_column]
        """columns of ids whose values, like items, have given something"""
        by = ["", *(f"_by_{categorical[at].name}" for at in self.of_ids)]
        self.labels = [label for one in fields for label in one.labels]

        def at(label: str, *others: str) -> list[int]:
            found: list[int] = number_columns([label, *others], names).tolist()
            return found

        means = [[at(f"{GIVEN}mean_{label}{key}")[0] for label in self.labels] for key in by]
        of_all, last, best = (
            np.array([at(f"{GIVEN}{what}_{label}")[0] for label in self.labels], np.int64)
            for what in ("all", "last", "best")
        )
        n = len(self.labels)
        self.columns = GivenColumns(
            np.array(means, np.int64).reshape(len(by), n), of_all, last, best, at(CHOSEN_LAST)[0]
        )
        habits = [name for name in names if name.startswith(HABIT)]
        self.habits: LongArray = number_columns(habits, names)
        self.ranked: LongArray = number_columns([name[len(HABIT) :] for name in habits], names)
        means_of = [one.mean for one in fields]
        self.priors = (
            np.concatenate(means_of).astype(np.float64) if means_of else np.zeros(0, np.float64)
        )

    @cached_property
    def n_keys(self) -> int:
        """An item and its categories."""
        return 1 + len(self.of_ids)

    def keys_of(self, items: IntArray, ids: IntArray) -> IntArray:
        """What outcomes are counted by, (n_candidates, n_keys)."""
        keys = np.empty((len(items), self.n_keys), np.int32)
        keys[:, 0] = items
        keys[:, 1:] = ids[:, self.of_ids]
        return keys

    def write_given(
        self,
        offsets: IntArray,
        keys: IntArray,
        first: LongArray,
        last: LongArray,
        past: PastChoices,
        numbers: FloatArray,
    ) -> None:
        """Write what the rows first[e] to last[e] of the past have given to the candidates of event
        e, to their base numbers; keys: of candidates, as `keys_of`."""
        write_given(offsets, keys, first, last, past, self.priors, self.columns, numbers)

    def ranks_of(self, offsets: IntArray, numbers: FloatArray) -> FloatArray:
        """Where candidates stand in their displays by each ranked number, -1 to 1, (n_candidates,
        n_habits)."""
        ranks = np.empty((len(numbers), len(self.ranked)), np.float32)
        rank_displays(offsets, self.ranked, numbers, ranks)
        return ranks

    def write_habits(
        self,
        offsets: IntArray,
        sums: npt.NDArray[np.float64],
        n: npt.NDArray[np.integer],
        ranks: FloatArray,
        numbers: FloatArray,
    ) -> None:
        """Write each candidate's ranks times the mean ranks of the choices before its event, shrunk
        to 0. sums: of those ranks, (n_events, n_habits); n: of how many choices, (n_events,)."""
        habits = (sums / (n[:, None] + PRIOR_HABIT)).astype(np.float32)
        numbers[:, self.habits] = np.repeat(habits, np.diff(offsets), 0) * ranks


class SessionOutcomes:
    """What the sessions of n users have given until now, event by event, in a world and online."""

    def __init__(self, numbers: OutcomeNumbers, n: int) -> None:
        """Make room for n users without a choice."""
        self.numbers, n_values = numbers, len(numbers.priors)
        self.n: LongArray = np.zeros(n, np.int64)
        """events of each user that are kept"""
        self.keys = np.full((n, FIRST_ROOM, numbers.n_keys), -1, np.int32)
        self.values = np.full((n, FIRST_ROOM, n_values), np.nan)
        self.rank_sums = np.zeros((n, len(numbers.ranked)))
        self.n_ranked: LongArray = np.zeros(n, np.int64)

    def reset(self, users: IntArray | slice) -> None:
        """Forget those users' sessions."""
        self.n[users] = 0
        self.n_ranked[users] = 0
        self.rank_sums[users] = 0

    def write(
        self, shown: UserDisplays, ids: IntArray, numbers: FloatArray, ranks: FloatArray
    ) -> None:
        """Write what users' choices have given to the base numbers of what they are shown, and to
        `ranks`, (n_candidates, n_habits), where candidates stand in their displays."""
        users, offsets, items = shown
        reads, room = self.numbers, self.keys.shape[1]
        first = users.astype(np.int64) * room
        past = PastChoices(
            self.keys.reshape(-1, reads.n_keys), self.values.reshape(-1, self.values.shape[2])
        )
        keys = reads.keys_of(items, ids)
        reads.write_given(offsets, keys, first, first + self.n[users], past, numbers)
        ranks[:] = reads.ranks_of(offsets, numbers)
        reads.write_habits(offsets, self.rank_sums[users], self.n_ranked[users], ranks, numbers)

    def add(
        self,
        shown: UserDisplays,
        ids: IntArray,
        ranks: FloatArray,
        chosen: IntArray,
        values: FloatArray,
    ) -> None:
        """Keep an event of some users: the candidate that each chose, -1 for none, and what
        followed, NaN for what is not known, (n_events, n_values)."""
        users, offsets, items = shown
        clicked = np.flatnonzero(chosen >= 0)
        self._make_room(users)
        at = self.n[users]
        self.keys[users, at] = -1
        self.values[users, at] = np.nan
        if len(clicked):
            of_clicked, rows = users[clicked], chosen[clicked]
            self.keys[of_clicked, at[clicked]] = self.numbers.keys_of(items[rows], ids[rows])
            self.values[of_clicked, at[clicked]] = values[clicked]
            several = np.diff(offsets)[clicked] > 1
            self.rank_sums[of_clicked[several]] += ranks[rows[several]]
            self.n_ranked[of_clicked[several]] += 1
        self.n[users] += 1

    def _make_room(self, users: IntArray) -> None:
        room = self.keys.shape[1]
        if not len(users) or self.n[users].max() < room:
            return
        if room < 2 * WINDOW:
            more = ((0, 0), (0, room), (0, 0))
            self.keys = np.pad(self.keys, more, constant_values=-1)
            self.values = np.pad(self.values, more, constant_values=np.nan)
            return
        # what is further back than the window is never read again
        full = users[self.n[users] == room]
        self.keys[full, :WINDOW] = self.keys[full, room - WINDOW :]
        self.values[full, :WINDOW] = self.values[full, room - WINDOW :]
        self.n[full] = WINDOW


def names_of_outcomes(
    fields: Sequence[OutcomeField],
    categorical: Sequence[CategoricalField],
    ranked: Sequence[str],
) -> tuple[str, ...]:
    """Names of the numbers that outcomes make; ranked: those of the log and those made before, by
    which choices are ranked too."""
    if not fields:
        return ()
    by = ["", *(f"_by_{one.name}" for one in categorical if one.is_column)]
    given: list[str] = []
    for one in fields:
        for label in one.labels:
            given += [f"{GIVEN}mean_{label}{key}" for key in by]
            given += [f"{GIVEN}all_{label}"]
            if one.categories is None:
                given += [f"{GIVEN}last_{label}", f"{GIVEN}best_{label}"]
    given.append(CHOSEN_LAST)
    all_alike = f"{GIVEN}all_"
    ranks = [name for name in given if not name.startswith(all_alike)]
    ranks += [name for name in ranked if name not in given]
    return (*given, *(HABIT + name for name in ranks))


def is_ranked(name: str, of_log: bool) -> bool:
    """Whether choices are ranked by a number that is not an outcome's."""
    return of_log or name in _HABITS_OF
