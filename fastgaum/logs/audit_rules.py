"""The simple rules that an audit tries on a log, and what chance alone would score.

A rule ranks candidates without looking at the choice. Rules about order and repeated rows need the
raw rows (`read.raw_rows`), folded to candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import brentq
from scipy.special import expit

from fastgaum.arrays import BoolArray, Float64Array, IntArray
from fastgaum.errors import LogFormatError, as_given
from fastgaum.kernels.candidate_counts import DISPLAYED, N_COUNTS, count_before
from fastgaum.kernels.ranking import best_of_sets
from fastgaum.logs.actions import Actions
from fastgaum.logs.columns import parse_numbers
from fastgaum.logs.fold import Rows, fold_rows, offsets_of
from fastgaum.logs.log import NO_CLICK, TEST, TRAIN, Column, SessionLog
from fastgaum.logs.vocabulary import Vocabulary

ORDER_DROPPED = (
    "the order of rows is dropped, and ties are never broken by index: if users saw this order, "
    "read it with --ordered (ordered=True)"
)
ORDER_KEPT = (
    "the order was declared real and is kept as a field: compare every model with position alone"
)
IDS = "ids are categories, never numbers: make sure that clicks do not number the items"
REPEATED_ROWS = (
    "the click adds a row, so repeated rows are folded and views = max(rows without a click, 1)"
)
ONE_VIEW = "views are floored at 1, so that no candidate stands out by having none"
FEWEST_VIEWS = (
    "as where a click marks one of the candidate's rows and adds none: give a column of views, or "
    "leave out --protocol views"
)
FIELD = (
    "kept, because it is declared as a field: make sure that it is known before the choice, or "
    "leave it out"
)
FEW_COPIES, COPIES_P = 0.1, 0.01
"""share of displays with repeated rows below which these are copies that say nothing of views,
unless numbers of rows tell the click with a p of at most COPIES_P"""
OF_ONE_SIZE = 0.9
"""share of displays of the largest size above which they may be made up"""
MOST_PAIRS = 2_000_000
"""pairs of candidates of one display that the rule of wins looks up"""
EARLIER_DISPLAYS = "fewest displays earlier in the session"
"""finds the trace of displays made up around a choice"""
KNOWN_BEFORE = (
    "known before the choice, bags count it: in displays that were simulated it is the trace of "
    "their rule"
)
ACTED_ON = (
    "known before the choice if displays and actions have one clock, and a token of the history: "
    "if it finds nearly all clicks, the table holds the clicks themselves"
)


@dataclass(frozen=True)
class DisplaySets:
    """Display sets that rules are scored on, in the order of their own candidates."""

    offsets: IntArray
    """start of each display set in candidates, shape (n_events + 1,)"""
    choices: IntArray
    """position of the chosen candidate, or -1 for no click, shape (n_events,)"""
    users: IntArray
    """user of each event, shape (n_events,)"""
    is_test: BoolArray
    """whether the event is in the test split, shape (n_events,)"""


@dataclass(frozen=True)
class AuditRule:
    """Pick the candidate with the highest score."""

    name: str
    scores: Callable[[], Float64Array]
    """makes the score of each candidate, shape (n_candidates,)"""
    sets: DisplaySets
    action: str
    field: str = ""
    """the declared field that it looks at"""
    is_own: bool = True
    """whether a log without a trap has no reason to obey the rule; a rule about ids, order and
    fields also finds what is popular"""


def fold_events(raw: Rows, log: SessionLog) -> tuple[DisplaySets, pl.DataFrame]:
    """Fold the raw rows of a log to candidates in the order of their first rows: their display
    sets, and event, item, first_row, last_row, rows, views, chosen and appearance (the item's first
    row) of each. Raises LogFormatError where `log` was not made of these rows."""
    if not isinstance(raw, Rows):
        raise LogFormatError(
            f"the raw rows of a log are what fastgaum.logs.read.raw_rows gives, got {as_given(raw)}"
        )
    event = raw.event_of_row
    session = Vocabulary(log.session_ids).codes(raw.events["session"])
    appearance = np.empty(len(raw.item.texts), np.int64)
    # written backwards, so that each item's first row stays
    appearance[raw.item.codes[::-1]] = np.arange(raw.n_rows)[::-1]
    first = log.first_choices
    displays = (int(first.sum()), int(np.diff(log.display_offsets)[first].sum()))
    candidates = fold_rows(raw, event, by_item=False, distinct=raw.n_rows == displays[1])
    candidates = candidates.with_columns(
        appearance=pl.Series(appearance[candidates["item"]]), chosen=pl.col("click") <= raw.n_rows
    )
    offsets = offsets_of(candidates["event"].to_numpy(), len(session))
    if (len(session), candidates.height) != displays or session.min(initial=0) < 0:
        raise LogFormatError(
            f"the raw rows hold {len(session)} events and {candidates.height} candidates, the log "
            f"{displays[0]} and {displays[1]}: pass the rows that the log was read from"
        )
    # of an event's clicks the first is written last; of those without a place, the last candidate
    at = np.flatnonzero(candidates["chosen"])
    at = at[np.lexsort((at, -candidates["click"].to_numpy()[at].astype(np.int64)))]
    events = candidates["event"].to_numpy()[at]
    choices = np.full(len(session), NO_CLICK, np.int32)
    choices[events] = at - offsets[events]
    sets = DisplaySets(offsets, choices, log.users[session], log.split[session] == TEST)
    return sets, candidates


def counts_views(sets: DisplaySets, candidates: pl.DataFrame) -> bool:
    """Whether view counts say anything: with one row per candidate, and a few copies of rows, the
    chosen one never has a view."""
    rows, views = candidates["rows"].to_numpy(), candidates["views"].to_numpy()
    several = rows > 1
    if (views[~several] > 1).any():
        return True  # a column of views
    if not several.any():
        return False
    if np.logical_or.reduceat(several, sets.offsets[:-1]).mean() >= FEW_COPIES:
        return True
    tests = (rule_test(sets, sign * rows.astype(float)) for sign in (1.0, -1.0))
    return min(p for _, (_, p) in tests) <= COPIES_P


def rules_of_rows(sets: DisplaySets, candidates: pl.DataFrame, *, ordered: bool) -> list[AuditRule]:
    """Rules about the order of rows, their number, and the numbering of items by appearance."""
    order, views = ORDER_KEPT if ordered else ORDER_DROPPED, counts_views(sets, candidates)
    candidates = candidates.with_columns(unviewed=(pl.col("views") == 0).cast(float))

    def rule(name: str, column: str, sign: float, action: str) -> AuditRule:
        is_own = column not in ("first_row", "appearance")
        scores = candidates[column].to_numpy
        return AuditRule(name, lambda: sign * scores(), sets, action, is_own=is_own)

    of_views = rule("fewest views", "views", -1.0, FEWEST_VIEWS)
    if (candidates["views"] == 0).any():
        of_views = rule("zero view rows", "unviewed", 1.0, ONE_VIEW)
    return [
        rule("first position", "first_row", -1.0, order),
        rule("last position", "first_row", 1.0, order),
        *([rule("last row, repeats kept", "last_row", 1.0, order)] if views else []),
        rule("largest item number in order of appearance", "appearance", 1.0, IDS),
        rule("smallest item number in order of appearance", "appearance", -1.0, IDS),
        rule("most rows", "rows", 1.0, REPEATED_ROWS),
        rule("fewest rows", "rows", -1.0, REPEATED_ROWS),
        *([of_views] if views else []),
    ]


def rules_of_log(log: SessionLog) -> list[AuditRule]:
    """Rules about item ids and declared fields, in both directions, earlier displays and rivals."""
    sessions, items, actions = log.session_of_event, log.items, log.actions
    sets = DisplaySets(
        log.display_offsets, log.choices, log.users[sessions], log.split[sessions] == TEST
    )
    numbers = parse_numbers(log.item_ids)
    # ids of one value each ("7" and "07") tie; as text they would keep its order
    ids = (log.item_ids if numbers is None else numbers).rank("dense").cast(float).to_numpy()

    def displays_before() -> Float64Array:
        before = np.empty((log.n_candidates, N_COUNTS), np.int32)
        count_before(log.packed_sessions(), log.n_items, before)
        return -before[:, DISPLAYED].astype(np.float64)

    rules = [
        AuditRule("largest item id", lambda: ids[items], sets, IDS, is_own=False),
        AuditRule("smallest item id", lambda: -ids[items], sets, IDS, is_own=False),
        # Made-up displays repeat around the choice. The other direction is popularity, and each
        # rule costs the rest power.
        AuditRule(EARLIER_DISPLAYS, displays_before, sets, KNOWN_BEFORE),
    ]
    # Made-up displays have one size, and hold as others what is chosen elsewhere, where it lost. A
    # training event would know its own choice.
    sizes, train, clicked = np.diff(sets.offsets), log.split[sessions] == TRAIN, log.choices >= 0
    asked = ~train & clicked & (np.cumsum(np.where(train, 0, sizes**2.0)) <= MOST_PAIRS)
    alike = (sizes == sizes.max(initial=0)).sum() > OF_ONE_SIZE * len(sizes)
    if alike and asked.any() and (train & clicked).any():
        name = "fewest wins less losses against these rivals"
        scored = replace(sets, choices=np.where(asked, log.choices, NO_CLICK))
        rules.append(AuditRule(name, lambda: -net_wins(log, asked), scored, KNOWN_BEFORE))
    if actions is not None:
        acted = "acted on latest before the event"
        rules.append(AuditRule(acted, lambda: latest_actions(log, actions), sets, ACTED_ON))
    for name, column in (log.columns_of("candidate") | log.columns_of("item")).items():
        rules += _rules_of_field(log, name, column, sets)
    return rules


def expected_rules(log: SessionLog) -> list[AuditRule]:
    """What finds clicks in a log without a trap: items by their click rates, which are counted on
    other users; and the first place, where the order is real."""
    sessions = log.session_of_event
    sets = DisplaySets(
        log.display_offsets, log.choices, log.users[sessions], log.split[sessions] == TEST
    )

    def rates() -> Float64Array:
        half = (log.users[sessions] % 2)[log.event_of_candidate()]
        keys = half.astype(np.int64) * log.n_items + log.items
        size = 2 * log.n_items
        shown = np.bincount(keys, minlength=size)
        chosen = np.bincount(keys[log.chosen_candidates], minlength=size)
        # an item that others never saw is not expected to be chosen
        of_half = (chosen / (shown + 1.0)).reshape(2, -1)
        other: Float64Array = of_half[1 - half, log.items]
        return other

    def places() -> Float64Array:
        return -np.arange(log.n_candidates, dtype=np.float64)

    rules = [AuditRule("click rates of the items", rates, sets, "")]
    return [*rules, AuditRule("first place", places, sets, "")] if log.ordered else rules


def net_wins(log: SessionLog, events: BoolArray) -> Float64Array:
    """How often training chose each candidate beside its rivals of the display, less how often it
    chose these beside it; 0 outside `events`, a mask of them; shape (n_candidates,)."""
    sizes, starts, n = np.diff(log.display_offsets), log.display_offsets[:-1], log.n_items
    trained = (log.choices >= 0) & (log.split[log.session_of_event] == TRAIN)
    winners = log.items[starts + np.maximum(log.choices, 0)].astype(np.int64)
    met = np.repeat(winners * n, sizes) + log.items
    keys, counts = np.unique(met[np.repeat(trained, sizes)], return_counts=True)

    def wins(winner: IntArray, loser: IntArray) -> IntArray:
        key = winner.astype(np.int64) * n + loser
        at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        return np.where(keys[at] == key, counts[at], 0)

    net = np.zeros(log.n_candidates)
    for size in np.unique(sizes[events]):
        at = starts[events & (sizes == size)][:, None] + np.arange(size)
        one, other = log.items[at][:, :, None], log.items[at][:, None, :]
        net[at] = (wins(one, other) - wins(other, one)).sum(axis=2)
    return net


def latest_actions(log: SessionLog, actions: Actions) -> Float64Array:
    """Number of the latest action on each candidate's item since the event before, from 1; 0: none;
    shape (n_candidates,)."""
    event = np.repeat(np.arange(log.n_events, dtype=np.int32), np.diff(actions.offsets))
    number = np.arange(1, len(event) + 1) - actions.offsets[event]
    acted = pl.DataFrame({"event": event, "item": actions.items, "number": number})
    shown = pl.DataFrame({"event": log.event_of_candidate(), "item": log.items})
    latest = acted.group_by("event", "item").max()
    found = shown.join(latest, on=["event", "item"], how="left", maintain_order="left")
    return found["number"].fill_null(0).cast(float).to_numpy()


def _rules_of_field(
    log: SessionLog, name: str, column: Column, sets: DisplaySets
) -> list[AuditRule]:
    values, categorical = column.values, column.texts is not None
    missing = values < 0 if categorical else np.isnan(values)
    high, low = (
        ("last in alphabet", "first in alphabet") if categorical else ("largest", "smallest")
    )
    at = log.items if column.of == "item" else slice(None)

    def rule(kind: str, of: npt.NDArray[np.generic]) -> AuditRule:
        scores = f"field {name}, {kind}", lambda: of[at].astype(float)
        return AuditRule(*scores, sets, FIELD, field=name, is_own=False)

    # A missing value is picked last in either direction; whether it marks the choice is a rule of
    # its own.
    rules = [
        rule(kind, np.where(missing, -np.inf, sign * values))
        for kind, sign in ((high, 1.0), (low, -1.0))
    ]
    return [*rules, rule("missing", missing)] if missing[at].any() else rules


def rule_test(
    sets: DisplaySets, scores: Float64Array
) -> tuple[Float64Array, tuple[tuple[float, float], float]]:
    """What a rule finds of each event's choice, 1/t where t candidates share the best score, shape
    (n_events,), and its `excess_test` on events of several candidates with a choice."""
    sizes = np.diff(sets.offsets)
    ties, is_best = np.empty(len(sizes), np.int32), np.empty(len(sizes), np.bool_)
    best_of_sets(scores, sets.offsets, sets.choices, ties, is_best)
    hits = np.where(is_best, 1.0 / ties, 0.0)
    kept = (sets.choices >= 0) & (sizes > 1)
    return hits, excess_test(hits[kept], ties[kept], sizes[kept], sets.users[kept])


def excess_test(
    hits: Float64Array, ties: IntArray, sizes: IntArray, users: IntArray
) -> tuple[tuple[float, float], float]:
    """The 95 % interval of the mean of a rule's hits, and the probability under the null of as many
    or more, 1 if they are not above the floor; arguments of shape (n_events,).

    A hit is 1/t or 0, t of n candidates sharing the best score; the excess is the hit less 1/n,
    shrunk by the root of the design effect: sum over users of (their sum)² / sum over events of
    squares, at least 1. The interval is clustered by user, all of [0, 1] for a single one."""
    n = len(hits)
    if not n:
        return (math.nan, math.nan), 1.0
    excess = hits - 1.0 / sizes
    counts = np.bincount(users)
    sums = np.bincount(users, weights=excess) - excess.mean() * counts
    n_users, together = int((counts > 0).sum()), float(sums @ sums)
    mean = float(hits.mean())
    interval = 0.0, 1.0
    if n_users > 1:
        half = 1.96 * math.sqrt(together * n_users / (n_users - 1)) / n
        interval = max(mean - half, 0.0), min(mean + half, 1.0)
    total, free = float(excess.sum()), ties < sizes
    if total <= 0 or not free.any():
        return interval, 1.0
    alone = n * float(excess.var())
    shrunk = total / math.sqrt(max(1.0, together / alone) if alone > 0 else 1.0)
    return interval, tail_probability(ties, sizes, shrunk)


def tail_probability(
    ties: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer], excess: float
) -> float:
    """Return P(sum of X - sum of 1/n >= excess), X = 1/t with probability t/n, else 0, independent;
    excess > 0; ties t and sizes n of shape (n,).

    Saddlepoint approximation of Lugannani and Rice (1980) with Daniels' (1987) correction for sums
    on the whole numbers, which errs upwards where ties make the steps smaller."""
    free = ties < sizes  # where all candidates tie X is constant
    # one number for a pair: rows of a matrix are sorted slowly
    most = int(sizes.max()) + 1
    keys, counts = np.unique(ties[free] * np.int64(most) + sizes[free], return_counts=True)
    pairs = keys // most, keys % most
    step, odds = 1.0 / pairs[0], np.log(pairs[0] / (pairs[1] - pairs[0]))
    target = float(excess + (counts / pairs[1]).sum())
    largest = float((counts * step).sum())
    if target >= largest * (1 - 1e-12):
        return math.exp(float((counts * np.log(pairs[0] / pairs[1])).sum()))

    def above(s: float) -> float:
        """Return the mean of the sum under the distribution tilted by s, less the target."""
        return float((counts * step * expit(odds + s * step)).sum()) - target

    high = 1.0
    while above(high) < 0 and high < 1e4:
        high *= 2
    s = brentq(above, 0.0, high) if above(high) > 0 else high
    q = expit(odds + s * step)
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

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]"""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")  # NaN comes last
    left = np.arange(np.isfinite(values).sum(), 0, -1)
    adjusted = np.full(len(values), np.nan)
    order = order[: len(left)]
    adjusted[order] = np.maximum.accumulate(np.minimum(left * values[order], 1.0))
    return [float(value) for value in adjusted]
