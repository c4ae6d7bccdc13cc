"""Linear conditional logit: McFadden, "Conditional logit analysis of qualitative choice behavior",
1974.

utility(a) = Σ_f w_f over the ids of a's bag + w · numbers; choice by softmax over the display set.
It has no history encoder: under `identity` it is one weight per item, under `bags` it reads the
numbers that our networks read. The event's context enters as crosses: a weight for each context
value and candidate's value that training displayed together, and for each context number one more
weight of each id and number; by itself it counts against no click alone."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import polars as pl
from scipy import sparse
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from fastgaum.arrays import BoolArray, Float64Array, FloatArray, IntArray, LongArray
from fastgaum.baselines.base import (
    Arrays,
    Baseline,
    Grids,
    Link,
    SettingRows,
    Values,
    validation_nll,
    validation_prec1,
)
from fastgaum.baselines.field_columns import ids_of_few, is_few
from fastgaum.baselines.logit_summary import Coefficients, choice_shares, fit_coefficients
from fastgaum.config import Positive
from fastgaum.errors import ConfigError
from fastgaum.features.fitting import fit_training
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.training_order import ONCE
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog
from fastgaum.nets.batches import Batch, assemble
from fastgaum.nets.networks import context_sizes

FEW_PENALTY = 0.1
"""the penalty of values of fields that have few, each seen often, and of the intercept"""

CHUNK_ROWS = 1 << 12
"""rows of numbers that are float64 at a time: they stay in the processor's cache"""
_CHUNK_EVENTS = 1 << 8
MOST_TURNED = 2000
"""weights whose curvature is taken together: it has their number squared entries"""
SEARCH_EVENTS = 20_000
"""events of training that penalties are compared on: a penalty says how much the weights of a log
differ, which a part of its events shows as well as all of them"""
MOST_CROSSED = 20
"""values of a context field whose crosses have constants in a summary"""
SEARCHED, FINAL = 1e-6, 1e-14
"""tolerances of the weights that penalties are compared by, and of the last ones"""


Curvature = tuple[Float64Array, Float64Array]


@dataclass(frozen=True)
class Design:
    """What the weights multiply, a row per candidate, without products that can be made again."""

    ids: sparse.csr_matrix
    """1 at each of a candidate's ids, (n_candidates, n_ids)"""
    numbers: FloatArray
    """(n_candidates, n_numbers)"""
    factors: Float64Array
    """1 and the context numbers of a candidate's event: each multiplies ids and numbers once,
    (n_candidates, 1 + n_context_numbers)"""
    others: sparse.csr_matrix
    """crosses; where no click is a choice, an intercept and the context"""

    @property
    def n_own(self) -> int:
        """The number of weights of a candidate's own ids and numbers, for each factor."""
        return int(self.ids.shape[1] + self.numbers.shape[1])

    def times(self, weights: Float64Array) -> Float64Array:
        """The utility of each candidate, (n_candidates,)."""
        n_ids, n_own, width = self.ids.shape[1], self.n_own, self.factors.shape[1]
        own = weights[: width * n_own].reshape(width, n_own).T
        sums = np.asarray(self.ids @ own[:n_ids])
        for rows in self._chunks():
            sums[rows] += self.numbers[rows].astype(np.float64) @ own[n_ids:]
        rest = np.asarray(self.others @ weights[width * n_own :])
        return np.asarray(np.einsum("nk,nk->n", sums, self.factors) + rest)

    def transposed_times(self, errors: Float64Array, power: int = 1) -> Float64Array:
        """The sum over candidates of their row, its entries to a power, times their error."""
        factors = self.factors**power * errors[:, None]
        of_numbers = np.zeros((self.numbers.shape[1], factors.shape[1]))
        for rows in self._chunks():
            of_numbers += (self.numbers[rows].astype(np.float64) ** power).T @ factors[rows]
        own = np.concatenate([np.asarray(self.ids.T @ factors), of_numbers])
        others = self.others if power == 1 else self.others.power(power)
        return np.append(own.T.reshape(-1), np.asarray(others.T @ errors))

    def rows(self, at: slice, of_all: bool) -> Float64Array:
        """The rows of some candidates, (n, n_weights); without `of_all` their numbers times each
        factor alone."""
        own = self.numbers[at]
        if of_all:
            own = np.hstack([self.ids[at].toarray(), own])
        times = [own * factor[:, None] for factor in self.factors[at].T]
        return np.hstack([*times, self.others[at].toarray()] if of_all else times)

    def _chunks(self) -> Iterator[slice]:
        return (
            slice(first, first + CHUNK_ROWS) for first in range(0, len(self.numbers), CHUNK_ROWS)
        )


@dataclass(frozen=True)
class Problem:
    """Which weights make the choices of some events most likely, less what their size costs."""

    design: Design
    display_offsets: IntArray
    """start of each display set in candidates, shape (n_events + 1,)"""
    chosen: LongArray
    """chosen candidate of each event that has one, shape (n_clicked,)"""
    no_click: bool
    """whether no click is a choice"""
    weights: Float64Array
    """of the events, shape (n_events,)"""

    @cached_property
    def of_candidates(self) -> Float64Array:
        """The weight of each candidate's event, (n_candidates,)."""
        return np.repeat(self.weights, np.diff(self.display_offsets))

    @cached_property
    def turned(self) -> LongArray:
        """The weights whose steps are measured together: all if they are few, else those of
        numbers."""
        design = self.design
        n_weights = design.factors.shape[1] * design.n_own + design.others.shape[1]
        if n_weights <= MOST_TURNED:
            return np.arange(n_weights)
        of_numbers = np.arange(design.n_own) >= design.ids.shape[1]
        return np.flatnonzero(np.tile(of_numbers, design.factors.shape[1]))

    def curvature(self, weights: Float64Array) -> Curvature:
        """The curvature of the summed NLL at some weights: of each weight alone, (n_weights,), and
        of those that are turned together, (n_turned, n_turned)."""
        design, starts = self.design, self.display_offsets
        share = choice_shares(design.times(weights), starts, self.no_click)[1]
        together = np.zeros((len(self.turned),) * 2)
        for first in range(0, len(starts) - 1, _CHUNK_EVENTS):
            begins = starts[first : first + _CHUNK_EVENTS + 1]
            at = slice(begins[0], begins[-1])
            values = design.rows(at, len(self.turned) == len(weights))
            weighted = values * share[at, None]
            means = np.add.reduceat(weighted, begins[:-1] - begins[0])
            of_events = self.weights[first : first + len(means), None]
            together += (weighted * self.of_candidates[at, None]).T @ values
            together -= (means * of_events).T @ means
        return design.transposed_times(self.of_candidates * share * (1 - share), power=2), together

    def penalised_nll(
        self, weights: Float64Array, penalties: Float64Array
    ) -> tuple[float, Float64Array]:
        """The summed NLL, each event's times its weight, and ½ Σ penalty · weight², and the
        gradient, shape (n_weights,)."""
        utility, own = self.design.times(weights), self.of_candidates
        totals, error = choice_shares(utility, self.display_offsets, self.no_click)
        nll = float(totals @ self.weights - utility[self.chosen] @ own[self.chosen])
        error[self.chosen] -= 1
        error *= own
        gradient = self.design.transposed_times(error) + penalties * weights
        return nll + 0.5 * float(penalties @ weights**2), gradient

    def least_penalised(
        self,
        penalties: Float64Array,
        start: Float64Array,
        curvature: Curvature,
        tolerance: float,
    ) -> Float64Array:
        """The weights of the least `penalised_nll`, found from `start` on, until a step gains less
        than a share `tolerance`, (n_weights,).

        Steps are measured by a curvature. Numbers are turned so that their curvature is the
        identity."""
        alone, together = curvature
        scale, n_events = 1 / np.sqrt(penalties + alone), len(self.display_offsets) - 1
        block = self.turned
        root = np.linalg.cholesky(together + np.diag(penalties[block]))

        def turn(values: Float64Array, transposed: bool) -> Float64Array:
            turned = scale * values
            turned[block] = solve_triangular(root, values[block], lower=True, trans=transposed)
            return turned

        def turned_nll(values: Float64Array) -> tuple[float, Float64Array]:
            value, gradient = self.penalised_nll(turn(values, True), penalties)
            return value / n_events, turn(gradient, False) / n_events

        begin = start / scale
        begin[block] = root.T @ start[block]
        options = {"maxiter": 1000, "ftol": tolerance, "gtol": 1e-7, "maxcor": 20}
        found = minimize(turned_nll, begin, jac=True, method="L-BFGS-B", options=options)
        return turn(found.x, True)


@dataclass(eq=False)
class ConditionalLogit(Baseline):
    """The linear choice model: its weights minimise the summed NLL of the training choices and
    ½ Σ penalty · weight², which is convex, by L-BFGS.

    Penalties are chosen on validation: one of ids (items, and values of fields of many values) and
    one of numbers. The penalty of pairs of two fields of few values is chosen after these."""

    name: ClassVar[str] = "logit"
    fit_link: ClassVar[bool] = False
    grids: ClassVar[Grids] = {
        "penalty": (100.0, 10.0, 1.0, 0.1),
        "number_penalty": (100.0, 10.0, 1.0),
        "cross_penalty": (100.0, 10.0, 1.0, 0.1),
    }

    penalty: Positive | None = None
    """of the weights of ids"""
    number_penalty: Positive | None = None
    """of the weights of numbers, which are standardised"""
    cross_penalty: Positive | None = None
    """of the weights of pairs of a context's and a candidate's value, of fields of few values"""

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        sessions = np.random.default_rng(self.seed).permutation(train.n_sessions)
        n_events = np.cumsum(np.diff(train.session_offsets)[sessions])
        n_part = max(int(np.searchsorted(n_events, SEARCH_EVENTS, "right")), 1)
        problem = self._problem(train, np.sort(sessions[:n_part]).astype(np.int32))
        held = self._design(assemble(validation))
        rows, best = list[Values](), np.inf
        found = np.zeros(len(self._penalties()))
        curvature = problem.curvature(found)
        for values in self._to_compare():
            found = problem.least_penalised(self._penalties(**values), found, curvature, SEARCHED)
            scores = held.times(found)
            loss = validation_nll(scores, validation, self.no_click, Link())
            prec1 = validation_prec1(scores, validation)
            rows.append(values | {"val_loss": loss, "val_prec1": prec1})
            if loss < best:
                best, self.chosen, self.weights = loss, values, found
        curvature = problem.curvature(self.weights)
        if n_part < train.n_sessions:
            columns, scale = self.crossed, n_events[-1] / n_events[n_part - 1]
            problem = self._problem(train)
            if np.array_equal(columns, self.crossed):
                curvature = curvature[0] * scale, curvature[1] * scale
            else:
                self.weights = np.zeros(len(self._penalties(**self.chosen)))
                curvature = problem.curvature(self.weights)
        penalties = self._penalties(**self.chosen)
        self.weights = problem.least_penalised(penalties, self.weights, curvature, FINAL)
        self.settings_tried = len(rows)
        return rows

    def summary(self, log: SessionLog) -> pl.DataFrame:
        """The `coefficients` as a table: a row per number, with name, coefficient, standard_error,
        z, and low and high, the ends of the 95 % interval; null where there is none. Errors are
        those of `coefficients`."""
        return self.coefficients(log).frame()

    def coefficients(self, log: SessionLog) -> Coefficients:
        """Coefficients of numbers and their covariance, clustered by user, from a fit of its own to
        the training split, without penalty.

        That fit reads the numbers as they are, so a coefficient is in units of utility per unit of
        the number; each once more times each context number less its training mean ("cost × age").
        Beside the numbers stand constants, which are fitted and not shown: of each item, each value
        of each field, and each cross of these with a context field of at most 20 values. There is
        no correction for few users.

        The likeliest constant of what was displayed and never chosen is -∞: it leaves its displays.
        That of what was chosen wherever it was displayed is ∞: all others leave these displays.
        Displays in which one choice is left say nothing more. A field none of whose values was
        displayed in two events has no constants, which would decide every choice. What training
        never displayed has none either. A UserWarning says so where it happens, and where there are
        fewer than 10 choices a constant: then coefficients lie too far from 0.

        Args:
            log: the log that the model was trained on.

        Returns:
            Coefficients and covariance; NaN where other numbers or constants determine the number
            within displays, or where it separates all that was chosen from all that was not.

        Raises:
            ConfigError: the model has not been trained, or on another log; or no candidate has a
                number.
        """
        space = self._checked_space(log, "train")
        if not self.learned_from(log):
            raise ConfigError(
                f"the model was not trained on log '{log.name}': its summary is of the log that it "
                "was trained on, read alike"
            )
        if not space.number_names:
            raise ConfigError(
                f"candidates of log '{log.name}' have no number, whose coefficients a summary is: "
                "read some (candidate_fields=…, --candidate-field)"
            )
        # each session once, with all its items
        once = ONCE._replace(hides=False)
        _, train = fit_training(log, self.protocol, relations=bool(self.relations), order=once)
        batch = assemble(train)
        design = self._design(batch)
        events = pick_rows(log.session_offsets, train.rows)[1]
        context = {
            name: log.values_at(name, events).astype(np.float64)
            for name in space.context_number_names
        }
        means = {name: float(z.mean()) for name, z in context.items()}
        event = batch.event_of_candidate()
        by = np.column_stack(
            [np.ones(len(event)), *((z - means[name])[event] for name, z in context.items())]
        )
        own, crossed, notes = self._constants(batch)
        ids = design.ids[:, own]
        # where no click is a choice, its constants follow the crosses
        others = np.append(crossed, np.ones(design.others.shape[1] - len(crossed), bool))
        parts = [*(sparse.diags_array(z) @ ids for z in by.T), design.others[:, others]]
        numbers, centre = train.base, train.base.mean(0, np.float64)

        def rows(at: LongArray) -> Float64Array:
            return np.hstack([z[:, None] * (numbers[at] - centre) for z in by[at].T])

        mixed = ("", *(f" × {name}" for name in context))
        found = fit_coefficients(
            sparse.csr_matrix(sparse.hstack(parts)),
            rows,
            [name + other for other in mixed for name in space.number_names],
            train,
            np.unique(train.user_of_event, return_inverse=True)[1],
            self.no_click,
        )
        found = dataclasses.replace(found, context_means=means, notes=(*notes, *found.notes))
        for note in found.notes:
            warnings.warn(f"summary of log '{log.name}': {note}", stacklevel=3)
        return found

    def learned_from(self, log: SessionLog) -> bool:
        """Whether the model was trained on this log, read alike."""
        space = self._trained_space()
        return (log.fingerprint, log.ordered) == (space.fingerprint, space.ordered)

    def _constants(self, batch: Batch) -> tuple[BoolArray, BoolArray, list[str]]:
        """Which ids, (n_ids,), and which crosses, (n_crossed,), have constants in a summary, and
        what has none."""
        assert self.space is not None
        space, notes = self.space, list[str]()
        event = batch.event_of_candidate().astype(np.int64)
        own = np.zeros(space.n_ids, bool)
        for column, part in enumerate(space.categorical):
            shown = np.unique(event * space.n_ids + batch.ids[:, column]) % space.n_ids
            of_ids = np.bincount(shown, minlength=space.n_ids)
            if of_ids.max(initial=0) > 1:
                own |= of_ids > 0
            else:
                notes.append(
                    f"'{part.name}' has no constants: none of its {len(part.values):,} values was "
                    "displayed in two events"
                )
        few = np.zeros(space.n_ids, bool)
        for part in space.context:
            few[part.start : part.stop] = len(part.values) <= MOST_CROSSED
            if len(part.values) > MOST_CROSSED:
                notes.append(
                    f"context field '{part.name}' has {len(part.values):,} values, more than "
                    f"{MOST_CROSSED}: its crosses are left out"
                )
        of_context, of_candidate = np.divmod(self.crossed, space.n_ids)
        return own, few[of_context] & own[of_candidate], notes

    def _to_compare(self) -> Iterator[Values]:
        """All combinations with the largest penalty of crosses, then its other values with the best
        of these."""
        combinations = self.combinations()
        first = combinations[0]["cross_penalty"]
        yield from (one for one in combinations if one["cross_penalty"] == first)
        if self._few_crosses().any():
            best = self.chosen
            others = (one for one in combinations if one["cross_penalty"] != first)
            yield from (one for one in others if one | {"cross_penalty": first} == best)

    def _problem(self, train: EncodedSessions, sessions: IntArray | None = None) -> Problem:
        """The problem of some sessions, or all; only what they displayed together is crossed."""
        batch = assemble(train, sessions)
        self.crossed = np.unique(self._cross_keys(batch))
        return Problem(
            self._design(batch),
            batch.display_offsets.numpy(),
            batch.chosen.numpy(),
            self.no_click,
            batch.weight_of_event,
        )

    def _scores(self, batch: Batch) -> Float64Array:
        return self._design(batch).times(self.weights)

    def _arrays(self) -> Arrays:
        return {"weights": self.weights, "crossed": self.crossed}

    def _restore(self, arrays: Arrays) -> None:
        self.weights, self.crossed = arrays["weights"], arrays["crossed"]
        if self.weights.shape != self._penalties().shape:
            raise ValueError("the weights are not those of the feature space")

    def _cross_keys(self, batch: Batch) -> np.ndarray:
        """A key for each context field's value and each id of a candidate, int64, (n_candidates,
        n_context_fields · n_categorical)."""
        assert self.space is not None
        event = batch.event_of_candidate()
        context = batch.context_ids.astype(np.int64)[event] * self.space.n_ids
        keys: np.ndarray = (context[:, :, None] + batch.ids[:, None, :]).reshape(len(event), -1)
        return keys

    def _design(self, batch: Batch) -> Design:
        """The design of a batch's candidates, whose columns are those of `_penalties`."""
        assert self.space is not None
        n, n_ids = len(batch.ids), self.space.n_ids
        event = batch.event_of_candidate()
        context = batch.context_numbers.numpy().astype(np.float64)[event]
        keys = self._cross_keys(batch)
        columns = np.searchsorted(self.crossed, keys)
        inside = np.minimum(columns, len(self.crossed) - 1)
        known = self.crossed[inside] == keys if len(self.crossed) else np.zeros(keys.shape, bool)
        ends = np.append(0, np.cumsum(known.sum(1)))
        others = sparse.csr_matrix(
            (np.ones(ends[-1]), columns[known], ends), shape=(n, len(self.crossed))
        )
        if self.no_click:
            of_events = _indicators(batch.context_ids[event], n_ids)
            others = sparse.hstack([others, np.ones((n, 1)), context, of_events], format="csr")
        factors = np.concatenate([np.ones((n, 1)), context], axis=1)
        numbers = batch.candidates.numbers.numpy()
        return Design(_indicators(batch.ids, n_ids), numbers, factors, others)

    def _few_crosses(self) -> BoolArray:
        """Whether both values of each cross are of a field of few values, (n_crossed,)."""
        assert self.space is not None
        space, of_context = self.space, np.zeros(self.space.n_ids, dtype=bool)
        for part in space.context:
            of_context[part.start : part.stop] = is_few(part)
        context, own = np.divmod(self.crossed, space.n_ids)
        few: BoolArray = of_context[context] & ids_of_few(space)[own]
        return few

    def _penalties(
        self,
        penalty: float = 1.0,
        number_penalty: float = 1.0,
        cross_penalty: float = 1.0,
    ) -> Float64Array:
        """The penalty of each column of `_design`."""
        assert self.space is not None
        space = self.space
        of_ids = np.where(ids_of_few(space), FEW_PENALTY, penalty)
        own = np.append(of_ids, np.full(space.n_numbers, number_penalty))
        context_numbers = context_sizes(space).n_numbers
        parts = [
            own,
            *[own] * context_numbers,
            np.where(self._few_crosses(), cross_penalty, penalty),
        ]
        if self.no_click:
            parts += [np.full(1 + context_numbers, FEW_PENALTY), np.full(space.n_ids, penalty)]
        return np.concatenate(parts)


def _indicators(ids: np.ndarray, n_ids: int) -> sparse.csr_matrix:
    """A row for each row of ids, with 1 at each of them."""
    starts = np.arange(len(ids) + 1) * ids.shape[1]
    return sparse.csr_matrix((np.ones(ids.size), ids.ravel(), starts), shape=(len(ids), n_ids))
