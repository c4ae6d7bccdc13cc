"""Coefficients of a conditional logit without penalty, and their covariance from the sandwich
(White, "Maximum likelihood estimation of misspecified models", Econometrica 1982), clustered by
user (Liang & Zeger, "Longitudinal data analysis using generalized linear models", Biometrika
1986).

Numbers are few, constants (of items, values of fields, crosses) may be many thousands, and sparse.
They are absorbed: in each step of Newton's method, conjugate gradients find by which constants a
number is explained, and what is left of it has the information that it has beside all constants
(the Schur complement of their block). So standard errors are those of the full covariance, and no
matrix of constants by constants is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from fastgaum.arrays import BoolArray, Float64Array, IntArray, LongArray
from fastgaum.features.sessions import cut_by_candidates
from fastgaum.logs.log import PackedArrays

SINGULAR = 1e-8
"""share of a column's variance within displays below which the columns before it determine it"""
LEAST_INFORMATION = 1e-6
"""share of the information on a coefficient under uniform choice; below it none is the likeliest"""
CONSTANT_PENALTY = 1e-4
"""of constants, so that those are finite of which only several together could grow without end"""
FEW_CHOICES = 10
"""choices for each constant, below which coefficients lie noticeably too far from 0"""
MOST_STEPS, GAIN = 50, 1e-10
"""steps of Newton's method at most; the NLL that the last one may still have gained, in nats"""
RESIDUAL, MOST_ROUNDS = 1e-10, 5000
"""share of a right side that conjugate gradients may leave; their rounds at most"""
HALF_WIDTH = 1.959964
"""standard errors from a coefficient to an end of its 95 % interval"""
_CELLS = 1 << 22
"""cells of numbers that are made at a time"""

RowReader = Callable[[LongArray], Float64Array]
"""the numbers of some candidates, (n, n_numbers)"""


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of numbers and how sure they are; NaN where there is none."""

    names: tuple[str, ...]
    values: Float64Array
    """utility per unit of the number, (n_numbers,)"""
    covariance: Float64Array
    """of `values`, clustered by user, (n_numbers, n_numbers)"""
    context_means: dict[str, float]
    """the context numbers at which these coefficients hold"""
    notes: tuple[str, ...]
    """what was left out, and what makes the figures doubtful"""

    def frame(self) -> pl.DataFrame:
        """A row per number: name, coefficient, standard_error, z, low, high; null for NaN."""
        error = np.sqrt(np.diag(self.covariance))
        columns = {"name": self.names, "coefficient": self.values, "standard_error": error}
        value, error_of = pl.col("coefficient"), pl.col("standard_error")
        frame = pl.DataFrame(columns).fill_nan(None)
        return frame.with_columns(
            z=value / error_of,
            low=value - HALF_WIDTH * error_of,
            high=value + HALF_WIDTH * error_of,
        )


def choice_shares(
    utility: Float64Array, offsets: IntArray | LongArray, no_click: bool | BoolArray
) -> tuple[Float64Array, Float64Array]:
    """The log of each event's sum of odds, (n_events,), and each candidate's probability,
    (n_candidates,). `no_click`: whether no click is a choice, of all events or of each."""
    starts, sizes = offsets[:-1] - offsets[0], np.diff(offsets)
    top = np.maximum.reduceat(utility, starts)
    top = np.where(no_click, np.maximum(top, 0.0), top)
    odds = np.exp(utility - np.repeat(top, sizes))
    none = np.where(no_click, np.exp(-np.maximum(top, 0.0)), 0.0)
    total = np.add.reduceat(odds, starts) + none
    return np.log(total) + top, odds / np.repeat(total, sizes)


class Undecided(NamedTuple):
    """The events whose choice constants alone do not decide, and what is left of them."""

    candidates: LongArray
    """place of each candidate that is left among all, (n_left,)"""
    events: LongArray
    """place of each event that is left among all, (n_events,)"""
    offsets: LongArray
    """start of each display in `candidates`, (n_events + 1,)"""
    chosen: LongArray
    """place in `candidates` of those that were chosen, (n_clicked,)"""
    no_click: BoolArray
    """whether no click is still possible, (n_events,)"""
    endless: BoolArray
    """whether a constant's likeliest value is infinite, (n_constants,)"""


def find_undecided(
    constants: sparse.csr_matrix, offsets: IntArray, choices: IntArray, no_click: bool
) -> Undecided:
    """What is left to explain once constants that grow without end have done so.

    Where no candidate of a constant is ever chosen, it falls without end: these candidates leave
    their displays. Where one of them is chosen whenever they are displayed, it rises without end:
    all others leave these displays, and no click is impossible there. A display with one possible
    choice says nothing more. Each may decide others, so this is repeated."""
    n_events, n_constants = len(choices), constants.shape[1]
    event = np.repeat(np.arange(n_events), np.diff(offsets))
    chosen = np.zeros(len(event), np.bool_)
    chosen[(offsets[:-1] + choices)[choices >= 0]] = True
    # a constant times a context number may decide in one direction of the number alone
    others = np.bincount(constants.indices, constants.data != 1, n_constants) > 0
    units = constants @ sparse.diags_array((~others).astype(np.float64))
    units = sparse.csr_matrix(units)
    units.eliminate_zeros()
    left, away = np.ones(len(event), np.bool_), np.full(n_events, no_click)
    endless = np.zeros(n_constants, np.bool_)
    while True:
        at = np.flatnonzero(left)
        by_event = (np.ones(len(at)), (event[at], at))
        shown = sparse.csr_matrix(by_event, shape=(n_events, len(event))) @ units
        n_shown = np.bincount(shown.indices, minlength=n_constants)
        n_chosen = np.bincount(units[chosen & left].indices, minlength=n_constants)
        possible = np.bincount(event[at], minlength=n_events) + away
        n_held = np.bincount(units[at].indices, minlength=n_constants)
        # one that all possible choices have says nothing
        beside = shown.astype(np.bool_).T @ possible > n_held
        never, always = n_chosen == 0, (n_chosen == n_shown) & beside
        of_shown = np.repeat(np.arange(n_events), np.diff(shown.indptr))
        required = np.bincount(of_shown, always[shown.indices], n_events)
        gone = (units @ never.astype(np.float64) > 0) | (
            units @ always.astype(np.float64) < required[event]
        )
        still, away_still = left & ~gone, away & (required == 0)
        possible = np.bincount(event[still], minlength=n_events) + away_still
        still &= possible[event] > 1
        endless |= (n_shown > 0) & (never | always)
        if np.array_equal(still, left):
            break
        left, away = still, away_still
    candidates = np.flatnonzero(left)
    events, sizes = np.unique(event[candidates], return_counts=True)
    starts = np.append(0, np.cumsum(sizes))
    places = np.flatnonzero(chosen[candidates])
    return Undecided(candidates, events, starts, places, away[events], endless)


class _Curvature(NamedTuple):
    """The curvature of the NLL at some weights, its gradient, and what constants explain."""

    own: Float64Array
    """curvature of each number alone, (n_numbers,)"""
    absorbed: Float64Array
    """of the numbers beside all constants, (n_numbers, n_numbers)"""
    explained: Float64Array
    """by how much of each constant each number is explained, (n_constants, n_numbers)"""
    step: Float64Array
    """Newton's, of the constants alone, (n_constants,)"""
    of_constants: Float64Array
    """the gradient, (n_constants,)"""
    of_numbers: Float64Array
    """the gradient, (n_numbers,)"""


@dataclass(frozen=True)
class _Fit:
    """The choices that are left, and the sparse design of their constants."""

    left: Undecided
    constants: sparse.csr_matrix
    """(n_left, n_constants)"""
    rows: RowReader
    n_numbers: int
    weights: Float64Array
    """of the events, (n_events,)"""

    def parts(self) -> Iterator[tuple[slice, slice, Float64Array]]:
        """Runs of events, their candidates, and the numbers of these."""
        left = self.left
        most = max(_CELLS // max(self.n_numbers, 1), 1)
        for part in cut_by_candidates(np.diff(left.offsets), most):
            own = slice(left.offsets[part.start], left.offsets[part.stop])
            yield part, own, self.rows(left.candidates[own])

    def nll(self, constants: Float64Array, numbers: Float64Array) -> tuple[float, Float64Array]:
        """The penalised NLL, and the probability of each candidate, (n_left,)."""
        left, utility = self.left, self.constants @ constants
        for _, own, values in self.parts():
            utility[own] += values @ numbers
        totals, share = choice_shares(utility, left.offsets, left.no_click)
        of_chosen = utility[left.chosen] @ self.of_candidates[left.chosen]
        nll = float(totals @ self.weights - of_chosen)
        return nll + 0.5 * CONSTANT_PENALTY * float(constants @ constants), share

    @cached_property
    def of_candidates(self) -> Float64Array:
        """The weight of each candidate's event, (n_left,)."""
        return np.repeat(self.weights, np.diff(self.left.offsets))

    def errors(self, share: Float64Array) -> Float64Array:
        """Each candidate's probability less whether it was chosen, times the weight, (n_left,)."""
        error = share.copy()
        error[self.left.chosen] -= 1
        return error * self.of_candidates

    def curvature(
        self, constants: Float64Array, share: Float64Array, penalty: float, guess: Float64Array
    ) -> _Curvature:
        """At these constants and probabilities, with a penalty of constants; `guess` is of
        `explained`."""
        x, offsets, k = self.constants, self.left.offsets, self.n_numbers
        weighted, error = share * self.of_candidates, self.errors(share)
        sums = sparse.csr_matrix((share, np.arange(len(share)), offsets))
        means = sums @ x
        x_of, means_of = x.T, means.T

        def times(values: Float64Array) -> Float64Array:
            of_means = means_of @ (self.weights[:, None] * (means @ values))
            product = x_of @ (weighted[:, None] * (x @ values)) - of_means
            return np.asarray(product + penalty * values)

        mixed, own, of_numbers = np.zeros((x.shape[1], k)), np.zeros((k, k)), np.zeros(k)
        for part, at, values in self.parts():
            z, begins = values * weighted[at, None], offsets[part] - offsets[part.start]
            z_means = np.add.reduceat(values * share[at, None], begins)
            of_means = z_means * self.weights[part, None]
            own += z.T @ values - of_means.T @ z_means
            mixed += x[at].T @ z - means[part].T @ of_means
            of_numbers += values.T @ error[at]
        gradient = x_of @ error + penalty * constants
        whole = x.power(2).T @ weighted
        scale = whole - means.power(2).T @ self.weights
        # nothing but rounding where all candidates of a display have the same constant
        scale = np.where(scale > SINGULAR * whole, scale, whole) + penalty
        scale[scale == 0] = 1.0
        target = np.column_stack([mixed, gradient])
        solved, rest = _solve(times, scale, target, np.column_stack([guess, 0 * gradient]))
        explained, step = solved[:, :k], solved[:, k]
        # wrong by the square of what the solution is wrong by
        absorbed = own - mixed.T @ explained - explained.T @ rest[:, :k]
        absorbed = (absorbed + absorbed.T) / 2
        return _Curvature(np.diag(own), absorbed, explained, step, gradient, of_numbers)


def _solve(
    times: Callable[[Float64Array], Float64Array],
    scale: Float64Array,
    target: Float64Array,
    start: Float64Array,
) -> tuple[Float64Array, Float64Array]:
    """What `times` makes `target` of, and what is left of it, (n, n_columns) each, by conjugate
    gradients of each column, with the diagonal `scale` as preconditioner; where several solve it,
    one of them."""
    solved = start.copy()
    rest = target - times(solved)
    scaled = rest / scale[:, None]
    way, size = scaled, (rest * scaled).sum(0)
    enough = RESIDUAL**2 * (target**2 / scale[:, None]).sum(0)
    for _ in range(MOST_ROUNDS):
        # columns that are solved stay
        moving = size > enough
        if not moving.any():
            break
        turned = times(way)
        along = np.divide(size, (way * turned).sum(0), where=moving, out=np.zeros_like(size))
        solved += along * way
        rest -= along * turned
        scaled = rest / scale[:, None]
        before, size = size, np.where(moving, (rest * scaled).sum(0), size)
        way = scaled + np.divide(size, before, where=moving, out=np.zeros_like(size)) * way
    return solved, rest


def fit_coefficients(
    constants: sparse.csr_matrix,
    rows: RowReader,
    names: Sequence[str],
    shown: PackedArrays,
    users: LongArray,
    no_click: bool,
) -> Coefficients:
    """The likeliest coefficients of numbers beside constants; NaN where constants and earlier
    numbers determine a number within every display, or where no finite coefficient is the
    likeliest.

    Args:
        constants: what is absorbed, (n_candidates, n_constants).
        rows: the numbers of some candidates.
        names: of the numbers.
        shown: the displays and choices.
        users: number of each event's user, shape (n_events,).
        no_click: whether no click is a choice.
    """
    left = find_undecided(constants, shown.display_offsets, shown.choices, no_click)
    of_left = constants[left.candidates]
    of_left = of_left[:, np.bincount(of_left.indices, minlength=of_left.shape[1]) > 0]
    n, k = of_left.shape[1], len(names)
    values, covariance = np.full(k, np.nan), np.full((k, k), np.nan)
    notes = _notes(left, shown, n)
    fit = _Fit(left, of_left, rows, k, shown.weight_of_event[left.events].astype(np.float64))
    if not len(left.events):
        return Coefficients(tuple(names), values, covariance, {}, notes)
    of_constants, of_numbers = np.zeros(n), np.zeros(k)
    nll, share = fit.nll(of_constants, of_numbers)
    first = fit.curvature(of_constants, share, 0.0, np.zeros((n, k)))
    unit = np.sqrt(np.where(first.own > 0, first.own, 1.0))
    rest, kept = first.absorbed / np.outer(unit, unit), list[int]()
    for column in range(k):
        if rest[column, column] > SINGULAR:
            kept.append(column)
            rest -= np.outer(rest[:, column], rest[column]) / rest[column, column]
    at = np.ix_(kept, kept)
    now = first
    for _ in range(MOST_STEPS):
        now = fit.curvature(of_constants, share, CONSTANT_PENALTY, now.explained)
        step, explained = np.zeros(k), now.explained[:, kept]
        alone = now.of_numbers[kept] - explained.T @ now.of_constants
        step[kept] = np.linalg.solve(now.absorbed[at], alone)
        beside = now.step - explained @ step[kept]
        gain = float(now.of_constants @ beside + now.of_numbers @ step)
        was, part = nll, 1.0
        nll, share = fit.nll(of_constants - beside, of_numbers - step)
        while nll > was + GAIN:
            part /= 2
            nll, share = fit.nll(of_constants - part * beside, of_numbers - part * step)
        of_constants, of_numbers = of_constants - part * beside, of_numbers - part * step
        if gain < GAIN:
            break
    now = fit.curvature(of_constants, share, CONSTANT_PENALTY, now.explained)
    inverse = np.linalg.inv(now.absorbed[at])
    information = np.diag(np.linalg.inv(first.absorbed[at])) / np.diag(inverse)
    finite = information > LEAST_INFORMATION
    known = np.array(kept, np.int64)[finite]
    error, influence = fit.errors(share), np.zeros((int(users.max()) + 1, len(known)))
    for part_, own, z in fit.parts():
        unexplained = z[:, kept] - of_left[own] @ now.explained[:, kept]
        begins = left.offsets[part_] - left.offsets[part_.start]
        slopes = np.add.reduceat(unexplained * error[own, None], begins)
        np.add.at(influence, users[left.events[part_]], slopes @ inverse[:, finite])
    values[known] = of_numbers[known]
    covariance[np.ix_(known, known)] = influence.T @ influence
    return Coefficients(tuple(names), values, covariance, {}, notes)


def _notes(left: Undecided, shown: PackedArrays, n: int) -> tuple[str, ...]:
    """What constants decided, and whether choices are few beside `n` constants that are left."""
    notes, n_left, n_events = [], len(left.events), len(shown.choices)
    if left.endless.any():
        notes.append(
            f"constants without a finite value, since what has them was never chosen or always "
            f"where it was displayed: {left.endless.sum():,} of {len(left.endless):,}; choices "
            f"that they leave to learn from: {n_left:,} of {n_events:,}"
        )
    if n_left < FEW_CHOICES * n:
        notes.append(
            f"{n_left:,} choices are few for {n:,} constants: below {FEW_CHOICES} a constant, "
            "coefficients lie too far from 0, and their intervals hold the truth too seldom"
        )
    return tuple(notes)
