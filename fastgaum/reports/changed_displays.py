"""Displays of a log as a question changes them, and what a model says of them by user."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse
from scipy.special import stdtrit

from fastgaum.arrays import BoolArray, Float64Array
from fastgaum.errors import (
    ConfigError,
    LogFormatError,
    as_given,
    did_you_mean,
    require_known,
    require_type,
)
from fastgaum.features.sessions import event_weights
from fastgaum.logs.columns import MOST_NUMBER
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import TEST, Column, Of, SessionLog, SplitName
from fastgaum.metrics.intervals import draw_users, jackknife_error, percentile_interval
from fastgaum.metrics.precision import AnyInts
from fastgaum.models.choice_model import ChoiceModel, Progress
from fastgaum.models.user_model import UserModel, members_of

DRAWS = 1000
NO_WIDTH = 1e-4
"""width of an interval, as a share of its figure, that is the rounding of single precision"""
MOST_CANDIDATES = 1 << 27
"""of all displays, each with those before it in its session"""

Change = Callable[[Float64Array], Any]
"""new numbers of a field, (n,) or one for all, from the old ones, (n,)"""


@dataclass(frozen=True)
class Displays:
    """The displays of a split, each the last event of a session of its own."""

    model: ChoiceModel
    log: SessionLog
    shown: AnyInts
    """row of each candidate of the displays in the log, shape (n_shown,)"""
    refits: Sequence[ChoiceModel]
    progress: Progress | None
    folds: int
    """folds of users whose fits `refits` are; 0: none are"""

    @classmethod
    def of(
        cls,
        model: ChoiceModel,
        log: SessionLog,
        split: SplitName | None,
        refits: Sequence[ChoiceModel],
        progress: Progress | None,
    ) -> Displays:
        """The displays of a split, None being what `what_if` says. Errors are those of
        `what_if`."""
        require_type("refits", refits, Sequence)
        for one in (model, *refits):
            require_type("model", one, ChoiceModel)
        if split is None:
            split = model.default_split
        seen = model.seen_users(log, split)
        if seen.n_leaked and not model.answers_in_sample:
            # the changed log is another log: nothing would be left out of the counts of training
            raise ConfigError(
                f"users that did not train are required, {seen.n_leaked:,} of {seen.n_users:,} "
                f"users of split '{split}' of log '{log.name}' trained the model: take split "
                "'test' of a log that is split as for training"
            )
        _, events = pick_rows(log.session_offsets, log.sessions_in(split))
        lengths = log.event_number[events].astype(np.int64) + 1
        before = np.append(0, np.cumsum(np.diff(log.display_offsets)))
        size = int((before[events + 1] - before[events + 1 - lengths]).sum())
        if not 0 < size <= MOST_CANDIDATES:
            raise LogFormatError(
                f"split '{split}' of log '{log.name}' has {size} candidates in its displays, each "
                f"with those before it in its session, 1 to {MOST_CANDIDATES} are required: choose "
                "another split, or fewer sessions"
            )
        ends = np.cumsum(lengths)
        rows = np.arange(ends[-1]) + np.repeat(events + 1 - ends, lengths)
        display_offsets, candidates = pick_rows(log.display_offsets, rows)
        session = log.session_of_event[events]
        picked = log.picked(session=session, event=rows, candidate=candidates)
        picked["split"][:] = TEST
        picked["choices"][ends - 1] = 0
        own = dataclasses.replace(
            log,
            session_offsets=np.append(0, ends).astype(np.int32),
            display_offsets=display_offsets,
            actions=log.actions and log.actions.picked(*pick_rows(log.actions.offsets, rows)),
            **picked,
        )
        _, shown = pick_rows(display_offsets, ends.astype(np.int32) - 1)
        folds = len(members_of(model)) if not refits else 0
        return cls(model, own, shown, refits or members_of(model), progress, folds)

    @cached_property
    def items(self) -> AnyInts:
        """Item code of each candidate of the displays, shape (n_shown,)."""
        return self.log.items[self.shown]

    @cached_property
    def display(self) -> AnyInts:
        """Display of each of these candidates, shape (n_shown,)."""
        return self.log.session_of_event[self.log.event_of_candidate()[self.shown]]

    @cached_property
    def users(self) -> AnyInts:
        """User of each display, from 0, shape (n_displays,)."""
        return np.unique(self.log.users, return_inverse=True)[1]

    @cached_property
    def weights(self) -> Float64Array:
        """Weight of each display, 1 on average, (n_displays,)."""
        of_events = event_weights(self.log, self.log.session_offsets[1:] - 1)
        return np.ones(len(self.users)) if of_events is None else of_events.astype(np.float64)

    @cached_property
    def names(self) -> list[str | None]:
        """Ids of the items by their codes, and None for no click."""
        return [*self.log.item_ids.to_list(), None]

    def codes(self, what: str, items: Sequence[object]) -> AnyInts:
        """Codes of items by their ids; of all that are displayed if none is given."""
        require_type(what, items, Collection)
        codes = np.unique(self.items)
        known = {self.names[code]: code for code in codes.tolist()}
        names = [str(one) for one in ([items] if isinstance(items, str) else items)]
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{what} has '{name}', none of the {len(known)} items that are displayed has "
                    f"this id: correct it{did_you_mean(name, map(str, known))}"
                )
        return np.unique([known[name] for name in names]) if names else codes

    def is_of_items(self, field: str) -> bool:
        """Whether a field is of candidates or items."""
        return self.log.columns[field].of in ("candidate", "item")

    def rows_of(self, field: str, of_items: bool = False) -> AnyInts:
        """Rows of the log with a display's values of a field of numbers: its candidates, or its
        events; `of_items`: these are refused."""
        columns = self.log.columns_of("candidate", "item", "event", "user")
        if not columns:
            raise ConfigError(
                f"field is '{field}', and the log was read without fields: train with it, "
                "--candidate-field NAME (candidate_fields=['NAME'])"
            )
        require_known("field", field, columns)
        if columns[field].holds != "number":
            numbers = [name for name, one in columns.items() if one.holds == "number"]
            raise ConfigError(
                f"field '{field}' holds categories, a field of numbers is required: "
                f"{', '.join(numbers) or 'the log has none'}"
            )
        if of_items and not self.is_of_items(field):
            raise ConfigError(
                f"field '{field}' is of {columns[field].of}s, one of candidates or items is "
                "required: a number of an event belongs to no single item"
            )
        return self.shown if self.is_of_items(field) else self.log.session_offsets[1:] - 1

    def with_numbers(self, field: str, at: AnyInts, change: Change) -> Displays:
        """The same with changed numbers of a field in some rows."""
        old = self.log.values_at(field)[at].astype(np.float64)
        return self.with_values(field, at, _new_numbers(field, change, old))

    def with_values(self, field: str, at: AnyInts, new: npt.NDArray[Any]) -> Displays:
        """The same with new values of a field in some rows; the history keeps its own."""
        values = np.array(self.log.values_at(field))
        values[at] = new
        of: Of = "candidate" if self.is_of_items(field) else "event"
        column = Column(of, values, self.log.columns[field].texts)
        log = dataclasses.replace(self.log, columns={**self.log.columns, field: column})
        return dataclasses.replace(self, log=log)

    def without(self, codes: AnyInts) -> Displays:
        """The same without some items."""
        log, kept = self.log, np.ones(self.log.n_candidates, np.bool_)
        kept[self.shown] = ~np.isin(self.items, codes)
        sizes = np.add.reduceat(kept, log.display_offsets[:-1], dtype=np.int64)
        if empty := int((sizes == 0).sum()):
            raise ConfigError(
                f"{empty} of {log.n_sessions} displays would lose their last item, each must keep "
                "one: drop fewer items, or leave these displays out of the log"
            )
        offsets = np.append(0, np.cumsum(sizes)).astype(np.int32)
        picked = log.picked(candidate=np.flatnonzero(kept))
        log = dataclasses.replace(log, display_offsets=offsets, **picked)
        shown = (np.cumsum(kept) - 1)[self.shown[kept[self.shown]]]
        return dataclasses.replace(self, log=log, shown=shown)

    def scores(self, model: ChoiceModel) -> tuple[Float64Array, Float64Array]:
        """Probabilities of the displays' candidates, and of no click there, (n_shown,) each."""
        columns = self._predicted(model, "probability", "no_click_probability")
        chances, none = columns.to_numpy().T
        return chances, none

    def _predicted(self, model: ChoiceModel, *columns: str) -> pl.DataFrame:
        parts = model.predict_parts(self.log, "all", self.progress)
        found = pl.concat([part.select(columns) for part in parts])
        return found[self.shown].cast(pl.Float64)

    @cached_property
    def expected(self) -> Float64Array:
        """What would follow the choice of each of these candidates, by the model, (n_shown,
        n_labels)."""
        return self._predicted(self.model, *expected_columns(self.model)).to_numpy()

    def outcomes(self, model: ChoiceModel) -> sparse.csr_array:
        """Sums of what follows choices, by user, (n_users, n_labels). A fit of a fold has no heads
        of its own: there it is the model's."""
        own = expected_columns(model)
        chances = self._predicted(model, "probability", *own).to_numpy()
        worth = chances[:, :1] * (chances[:, 1:] if own else self.expected)
        at = self.users[self.display], np.arange(len(worth))
        by_user = sparse.coo_array((self.weights[self.display], at))
        return sparse.csr_array(by_user.tocsr() @ worth)

    def log_odds(
        self, model: ChoiceModel, field: str, chosen: BoolArray, change: Change
    ) -> Float64Array:
        """The log-odds of each chosen candidate, one changed at a time, (n_chosen,); infinite
        for probabilities 0 and 1."""
        rows, of_items = self.rows_of(field), self.is_of_items(field)
        if not of_items:
            chances, none = self.with_numbers(field, rows, change).scores(model)
        at = np.flatnonzero(chosen)
        ranks, found = ranks_in_groups(self.display[at]), np.empty(len(at))
        for rank in range(int(ranks.max(initial=-1)) + 1):
            one = at[ranks == rank]
            if of_items:
                chances, none = self.with_numbers(field, rows[one], change).scores(model)
            others = np.array(chances)
            others[one] = 0.0
            others = np.bincount(self.display, others)[self.display[one]]
            with np.errstate(divide="ignore"):
                found[ranks == rank] = np.log(chances[one]) - np.log(others + none[one])
        return found

    def shares(self, model: ChoiceModel) -> sparse.csr_array:
        """Sums of probabilities, (n_users, n_items + 1), those of no click last."""
        chances, none = self.scores(model)
        first = np.flatnonzero(np.diff(self.display, prepend=-1))
        groups = np.append(self.items, np.full(len(first), self.log.n_items))
        at = np.append(np.arange(len(chances)), first)
        return self.sums(np.append(chances, none[first]), groups, at)

    def finite_sums(
        self, values: Sequence[Float64Array], chosen: BoolArray, groups: AnyInts
    ) -> list[sparse.csr_array]:
        """`sums` of values of the chosen candidates, (n_chosen,) each, and their number, where
        all are finite."""
        kept = np.isfinite(values).all(axis=0)
        at = np.flatnonzero(chosen)[kept]
        return [self.sums(one[kept], groups[at], at) for one in (*values, np.ones(kept.shape))]

    def sums(self, values: Float64Array, groups: AnyInts, at: AnyInts) -> sparse.csr_array:
        """Sums by user and group, (n_users, n_items + 1), of values (n,) of the candidates `at`,
        times the weights of their displays."""
        display = self.display[at]
        place, values = (self.users[display], groups), values * self.weights[display]
        shape = self.users.max() + 1, self.log.n_items + 1
        return sparse.coo_array((values, place), shape).tocsr()

    def drawn(self, sums_of: Callable[[ChoiceModel], list[sparse.csr_array]]) -> list[Float64Array]:
        """Sums that are made of a model, (n_users, ·), and the number of displays: of all users,
        then of each draw, (1 + draws, ·)."""
        counts, rows = np.bincount(self.users, self.weights), []
        of_each = -(-DRAWS // max(len(self.refits), 1))
        for number, model in enumerate([self.model, *self.refits]):
            sums = [*sums_of(model), sparse.csr_array(counts[:, None])]
            weights = [] if number else [np.ones((1, len(counts)))]
            if number or not self.refits:
                weights += draw_users(len(counts), of_each, number)
            rows += [one @ sparse.hstack(sums, "csr") for one in weights]
        ends = np.cumsum([part.shape[1] for part in sums[:-1]])
        return np.split(np.concatenate(rows), ends, axis=1)

    def figures(self, drawn: Mapping[str, Float64Array]) -> dict[str, Any]:
        """Figures, the first rows, and the ends of their intervals by the others; null where these
        do not differ."""
        columns = dict[str, Any]()
        for name, values in drawn.items():
            low, high = percentile_interval(_widened(values[1:], self.folds))
            alike = high - low <= NO_WIDTH * np.abs(values[0])
            ends = [pl.Series(np.where(alike, np.nan, end)).fill_nan(None) for end in (low, high)]
            columns |= {name: values[0], f"{name}_low": ends[0], f"{name}_high": ends[1]}
        return columns


def expected_columns(model: ChoiceModel) -> list[str]:
    """Columns of `predict` that say what would follow a choice; none without heads."""
    if not isinstance(model, UserModel) or model.heads is None or model.space is None:
        return []
    return [f"expected_{label}" for one in model.space.outcomes for label in one.labels]


def _new_numbers(field: str, change: Change, old: Float64Array) -> Float64Array:
    if not callable(change):
        raise ConfigError(
            f"the change of field '{field}' is {as_given(change)}, a function of its values is "
            "required: lambda x: .9 * x"
        )
    try:
        new = np.broadcast_to(np.asarray(change(old), np.float64), old.shape)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the change of field '{field}' does not make numbers of its {len(old)} values "
            f"({error}): give a function of an array, lambda x: .9 * x"
        ) from error
    wrong = ~(np.abs(new) <= MOST_NUMBER)
    if wrong.any():
        raise ConfigError(
            f"the change of field '{field}' makes {new[wrong][0]:g} of {old[wrong][0]:g} (one of "
            f"{wrong.sum()} such values), a finite number is required: correct the function (the "
            f"largest number is {MOST_NUMBER:g})"
        )
    return new


def ranks_in_groups(groups: AnyInts) -> AnyInts:
    """Place of each entry among those of its group, from 0; groups ascend."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _widened(draws: Float64Array, folds: int) -> Float64Array:
    """The draws of each fold's fit about the mean of all, with the model's error drawn anew, from
    Student's t of the `jackknife_error`."""
    if not folds:
        return draws
    by_fold = draws.reshape(folds, -1, *draws.shape[1:])
    centres = by_fold.mean(1, keepdims=True)
    error = jackknife_error(centres, folds)
    n = len(draws)
    # equally likely values of t, in an order that knows no fold
    equally = stdtrit(folds - 1, (np.arange(n) + 0.5) / n)
    drawn = equally[np.random.default_rng(0).permutation(n)].reshape(n, *[1] * (draws.ndim - 1))
    return np.asarray((by_fold - centres).reshape(draws.shape) + centres.mean(0) + error * drawn)
