"""The simple rules that an audit tries on a log, and what chance alone would score.

Each rule ranks candidates without looking at the choice. Order, repeated rows and the numbering of
items are gone from a packed log on purpose, so the rules about them need the raw rows, in the
order of the file (`read.raw_rows`). Rules about ids, earlier displays and fields need only the
packed log. Chance is the null distribution of a rule's hits, and their interval by user."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.kernels.candidate_counts import DISPLAYED, N_COUNTS, count_before
from fastgaum.kernels.ranking import best_of_sets
from fastgaum.logs.actions import Actions
from fastgaum.logs.log import TEST, Column, IntArray, SessionLog
from fastgaum.logs.number_text import parse_numbers
from fastgaum.logs.raw_events import DisplaySets, RawEvents

Float64Array = npt.NDArray[np.float64]

ORDER_DROPPED = "the order of rows is dropped, and ties are never broken by index"
ORDER_KEPT = (
    "the order was declared real and is kept as a field: compare every model with position alone"
)
IDS = "ids are categories, never numbers"
ROWS = "the click adds a row, so repeated rows are folded and views = max(rows without a click, 1)"
ONE_VIEW = "views are floored at 1, so that no candidate stands out by having none"
FIELD = (
    "kept, because it is declared as a field: make sure that it is known before the choice, or "
    "leave it out"
)
EARLIER_DISPLAYS = "fewest displays earlier in the session"
"""the rule that finds the trace of displays made up around a choice"""
SHOWN = (
    "known before the choice, bags count it: in displays that were simulated it is the trace of "
    "their rule"
)


ACTED_ON = (
    "known before the choice if displays and actions have one clock, and a token of the history: "
    "if it finds nearly all clicks, the table holds the clicks themselves"
)
Scores = Callable[[slice], Float64Array]
"""scores of a run of candidates, shape (n,)"""
PIECE = 1 << 17
"""candidates whose scores are made at once, unless one display has more: they stay in the cache"""


@dataclass(frozen=True)
class Rule:
    """Pick the candidate with the highest score."""

    name: str
    scores: Scores
    """ties are counted by their exact expectation"""
    sets: DisplaySets
    action: str
    """what the loader does about a log in which the rule works"""
    says: bool = True
    """whether it tells candidates apart anywhere in these display sets"""

    def best(self) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """How many candidates of each display set share its best score, and whether the chosen one
        does; shape (n_events,) each."""
        offsets, choices = self.sets.offsets, self.sets.choices
        ties, is_best = np.empty(len(choices), np.int32), np.empty(len(choices), np.bool_)
        piece = np.asarray(offsets[:-1], np.int64) // PIECE
        bounds = [*np.flatnonzero(np.diff(piece, prepend=-1)).tolist(), len(choices)]
        for start, stop in pairwise(bounds):
            events, first = slice(start, stop), offsets[start]
            best_of_sets(
                self.scores(slice(first, offsets[stop])),
                offsets[start : stop + 1] - first,
                choices[events],
                ties[events],
                is_best[events],
            )
        return ties, is_best


def rules_of_rows(raw: RawEvents, *, ordered: bool) -> Iterator[Rule]:
    """Rules about the order of rows, their number, and the numbering of items by appearance."""
    order = ORDER_KEPT if ordered else ORDER_DROPPED

    def rule(name: str, sign: float, values: IntArray, action: str) -> Rule:
        return Rule(name, lambda part: sign * values[part].astype(np.float64), raw.sets, action)

    yield rule("first position", -1.0, raw.first_row, order)
    yield rule("last position", 1.0, raw.first_row, order)
    if raw.counts_views:
        yield rule("last row, repeats kept", 1.0, raw.last_row, order)
    yield rule("largest item number in order of appearance", 1.0, raw.appearance, IDS)
    yield rule("smallest item number in order of appearance", -1.0, raw.appearance, IDS)
    yield rule("most rows", 1.0, raw.rows, ROWS)
    yield rule("fewest rows", -1.0, raw.rows, ROWS)
    if raw.counts_views:
        views = raw.views
        yield Rule(
            "zero view rows", lambda part: (views[part] == 0).astype(np.float64), raw.sets, ONE_VIEW
        )


def ranks_of_ids(item_ids: pl.Series) -> Float64Array:
    """Rank of each item's id, as a number where all are; shape (n_items,)."""
    numbers = parse_numbers(item_ids)
    # Ids of one value each ("7" and "07") keep the order of their text: rank both alike and they
    # simply tie.
    return (item_ids if numbers is None else numbers).rank("dense").to_numpy().astype(np.float64)


def rules_of_log(log: SessionLog, ranks: Float64Array | None = None) -> Iterator[Rule]:
    """Rules about item ids and each declared field alone, in both directions, and displays earlier
    in the session.

    ranks: of the log's ids, where they are known already (see `ranks_of_ids`).
    """
    sessions = log.session_of_event
    sets = DisplaySets(
        log.display_offsets, log.choices, log.users[sessions], log.split[sessions] == TEST
    )
    of_items, items = ranks_of_ids(log.item_ids) if ranks is None else ranks, np.asarray(log.items)
    yield Rule("largest item id", lambda part: of_items[items[part]], sets, IDS)
    yield Rule("smallest item id", lambda part: -of_items[items[part]], sets, IDS)
    # Made-up displays repeat around the choice. The other direction is popularity, and each rule
    # costs the rest power.
    before = _displays_before(log)
    yield Rule(EARLIER_DISPLAYS, lambda part: -before[part].astype(np.float64), sets, SHOWN)
    if log.actions is not None:
        latest = latest_actions(log, log.actions)
        yield Rule("acted on latest before the event", lambda part: latest[part], sets, ACTED_ON)
    for of in ("candidate", "item"):
        for name, column in log.columns_of(of).items():
            yield from _rules_of_field(name, column, items if of == "item" else None, sets)


def _displays_before(log: SessionLog) -> IntArray:
    """Earlier events of its session that displayed a candidate's item, shape (n_candidates,)."""
    before = np.empty((log.n_candidates, N_COUNTS), np.int32)
    count_before(log.packed_sessions(), log.n_items, before)
    return before[:, DISPLAYED]


def latest_actions(log: SessionLog, actions: Actions) -> Float64Array:
    """Number of the latest action on each candidate's item between its event and the one before,
    from 1, and 0 where there is none; shape (n_candidates,)."""
    event = np.repeat(np.arange(log.n_events), np.diff(actions.offsets))
    number = np.arange(1, len(event) + 1) - actions.offsets[event]
    keys = (event * log.n_items + actions.items)[::-1]
    # of equal keys the first is kept: that of the latest action
    keys, at = np.unique(keys, return_index=True)
    wanted = log.event_of_candidate().astype(np.int64) * log.n_items + log.items
    found = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    if not len(keys):
        return np.zeros(log.n_candidates)
    return np.where(keys[found] == wanted, number[::-1][at][found], 0).astype(np.float64)


def _rules_of_field(
    name: str, column: Column, items: IntArray | None, sets: DisplaySets
) -> Iterator[Rule]:
    """The rules of a field's values, of candidates or, with the item of each, of items."""
    values, categorical = column.values, column.texts is not None
    missing = values < 0 if categorical else np.isnan(values)
    high, low = (
        ("last in alphabet", "first in alphabet") if categorical else ("largest", "smallest")
    )

    def scores(of: npt.NDArray[np.generic]) -> Scores:
        return lambda part: of[part if items is None else items[part]].astype(np.float64)

    def extreme(sign: float) -> Scores:
        # A missing value is picked last in either direction; whether it marks the choice is a rule
        # of its own.
        return scores(np.where(missing, -np.inf, sign * values))

    says = bool((missing if items is None else missing[items]).any())
    yield Rule(f"field {name}, {high}", extreme(1.0), sets, FIELD)
    yield Rule(f"field {name}, {low}", extreme(-1.0), sets, FIELD)
    yield Rule(f"field {name}, missing", scores(missing), sets, FIELD, says=says)


@dataclass(frozen=True)
class ExcessSums:
    """What a rule's hits sum up to: all that its interval and p-value need.

    The excess of an event is its hit (1/t or 0, t candidates sharing the best score) less 1/n, n
    candidates being displayed."""

    n_events: int
    hits: float
    floor: float
    """sum of 1/n"""
    squares: float
    """sum of the events' squared excess"""
    n_users: int
    of_users: tuple[float, float, float]
    """sums over users, S being the sum of a user's excess and c the number of the user's events: of
    S², S c and c²"""
    pairs: Mapping[tuple[int, int], int]
    """how many events have t best of n candidates"""

    @classmethod
    def of(cls, hits: Float64Array, ties: IntArray, sizes: IntArray, users: IntArray) -> Self:
        """Sum up events: hits, ties t, sizes n and users, shape (n_events,) each."""
        excess, counts = hits - 1.0 / sizes, np.bincount(users)
        has_events = counts > 0
        sums, counts = np.bincount(users, weights=excess)[has_events], counts[has_events]
        # one number for a pair: rows of a matrix are sorted slowly
        most = int(sizes.max(initial=0)) + 1
        keys, times = np.unique(ties * np.int64(most) + sizes, return_counts=True)
        pairs = zip((keys // most).tolist(), (keys % most).tolist(), strict=True)
        return cls(
            n_events=len(hits),
            hits=float(hits.sum()),
            floor=float((1.0 / sizes).sum()),
            squares=float((excess**2).sum()),
            n_users=len(sums),
            of_users=(float(sums @ sums), float(sums @ counts), float(counts @ counts)),
            pairs=Counter(dict(zip(pairs, times.tolist(), strict=True))),
        )

    @property
    def mean(self) -> float:
        """Mean of the hits; NaN without events."""
        return self.hits / self.n_events if self.n_events else math.nan

    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean of the hits, within [0, 1], its standard error clustered by
        user.

        The display sets are taken as given: what is uncertain is the excess over 1/n. A single user
        says nothing of others: the interval is then all of [0, 1]."""
        if not self.n_events:
            return math.nan, math.nan
        if self.n_users < 2:
            return 0.0, 1.0
        half = (
            1.96 * math.sqrt(self._together() * self.n_users / (self.n_users - 1)) / self.n_events
        )
        return max(self.mean - half, 0.0), min(self.mean + half, 1.0)

    def p_value(self) -> float:
        """Return the probability under the null of hits as many or more; 1 if they are not above
        the floor.

        The null's events are independent. Should those of one user resemble one another, the
        variance of the sum grows by the design effect, sum over users of (their sum)² / sum over
        events of squares: the excess is shrunk by its root."""
        total = self.hits - self.floor
        free = {(t, n): times for (t, n), times in self.pairs.items() if t < n}
        if total <= 0 or not free:
            return 1.0
        alone = max(self.squares - total**2 / self.n_events, 0.0)
        ties, sizes = np.array(list(free), dtype=np.int64).T
        shrunk = total / math.sqrt(max(1.0, self._together() / alone) if alone > 0 else 1.0)
        return tail_probability(ties, sizes, shrunk, np.array(list(free.values()), dtype=np.int64))

    def _together(self) -> float:
        """Sum over users of their squared sum of excess less its mean."""
        mean = (self.hits - self.floor) / self.n_events
        squares, mixed, counts = self.of_users
        return max(squares - 2 * mean * mixed + mean**2 * counts, 0.0)


def tail_probability(
    ties: npt.NDArray[np.integer],
    sizes: npt.NDArray[np.integer],
    excess: float,
    times: npt.NDArray[np.integer] | None = None,
) -> float:
    """Return P(sum of X - sum of 1/n >= excess), X = 1/t with probability t/n, else 0, independent;
    excess > 0.

    ties t and sizes n have the shape (n,); `times`: how many events each stands for, one if not
    given. Saddlepoint approximation of Lugannani and Rice (1980) with Daniels' (1987) correction
    for sums on the whole numbers. With ties the sum moves in smaller steps than 1, for which the
    correction errs upwards: the p-value is then larger than need be, never smaller."""
    free = ties < sizes  # where all candidates tie X is constant
    pairs, of_pair = np.unique(np.stack([ties[free], sizes[free]]), axis=1, return_inverse=True)
    counts = np.bincount(of_pair.reshape(-1), weights=None if times is None else times[free])
    step, odds = 1.0 / pairs[0], np.log(pairs[0] / (pairs[1] - pairs[0]))
    target = float(excess + (counts / pairs[1]).sum())
    largest = float((counts * step).sum())
    if target >= largest * (1 - 1e-12):
        return math.exp(float((counts * np.log(pairs[0] / pairs[1])).sum()))

    def tilted(s: float) -> Float64Array:
        """Probability of X > 0 under the distribution tilted by s."""
        return np.asarray(
            1.0 / (1.0 + np.exp(-np.clip(odds + s * step, -700.0, 700.0))), dtype=np.float64
        )

    low, high = 0.0, 1.0
    while float((counts * step * tilted(high)).sum()) < target and high < 1e4:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high)
            if float((counts * step * tilted(middle)).sum()) < target
            else (low, middle)
        )
    s, q = high, tilted(high)
    # K(s) = sum log(1 - t/n + t/n e^(s/t)), its second derivative sum q (1 - q) / t².
    cumulant = float(
        (counts * (np.logaddexp(0.0, odds + s * step) - np.logaddexp(0.0, odds))).sum()
    )
    curvature = float((counts * step**2 * q * (1 - q)).sum())
    r = math.sqrt(max(2 * (s * target - cumulant), 0.0))
    u = -math.expm1(-s) * math.sqrt(curvature)
    if r < 1e-3 or u < 1e-12:
        return 0.5
    density = math.exp(-r * r / 2) / math.sqrt(2 * math.pi)
    return min(max(0.5 * math.erfc(r / math.sqrt(2)) + density * (1 / u - 1 / r), 1e-300), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's rule, in the same order; NaN stays NaN and does not count.

    A rule that does not beat its null hypothesis (p = 1) counts as a test too.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]
    """
    values = np.asarray(p_values, np.float64)
    adjusted = np.full(len(values), np.nan)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    reached = 0.0
    for rank, i in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - rank) * float(values[i])))
        adjusted[i] = reached
    return [float(value) for value in adjusted]
