"""Synthetic logs whose choices a declared field or the place decides, and what knows the truth
about them.

Where a field or the place decides, items are drawn from so many that a test item was hardly ever
displayed before: what is learned of an item by itself is of no use."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl

from fastgaum.baselines.base import Baseline
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.precision import precision_at_k
from tests.builders import put

N_SHOWN = 5


@dataclass(frozen=True)
class DecidingLog:
    """A log, and the utilities that its choices were drawn from."""

    log: SessionLog
    utility: np.ndarray
    """of each candidate, shape (n_candidates,)"""

    def gap(self, model: Baseline) -> float:
        """How far the fitted model's prec@1 on the test split is below the truth's, in points."""
        encoded = model._encoder(self.log, "test").encode(self.log.sessions_in("test"))
        test = np.repeat(self.log.split[self.log.session_of_event] == 2, N_SHOWN)
        ours, best = (
            100 * precision_at_k(scores, encoded.display_offsets, encoded.choices, 1).mean()
            for scores in (model._all_scores(encoded), self.utility[test])
        )
        return float(best - ours)


def category_of_item(n_sessions: int = 1600) -> DecidingLog:
    """Eleven kinds of item."""
    return _of_category(n_sessions, _kinds(11), by_item=True)


def category_of_many_values(n_sessions: int = 4800) -> DecidingLog:
    """Three hundred kinds of candidate, some liked and the others not."""
    return _of_category(n_sessions, 4.0 * (_kinds(300) > 0), by_item=False)


def place(n_sessions: int = 1600) -> DecidingLog:
    """The places alone: neither the first nor the last is the best."""
    return _drawn(
        _empty(n_sessions), np.tile([1.0, 4.0, 0.0, 2.5, -1.0], n_sessions * 2), ordered=True
    )


def place_and_category(n_sessions: int = 1600) -> DecidingLog:
    """What is displayed first is looked at more, and a category decides among what is looked at."""
    of_place = np.tile(-0.7 * np.arange(N_SHOWN), n_sessions * 2)
    return _of_category(n_sessions, _kinds(11), by_item=False, more=of_place)


def vector_of_item(n_sessions: int = 1600) -> DecidingLog:
    """Vectors of 24 numbers of few causes, two of which are liked."""
    log, rng = _empty(n_sessions), np.random.default_rng(1)
    causes = rng.standard_normal((log.n_items, 4))
    vectors = causes @ rng.standard_normal((4, 24)) + 0.2 * rng.standard_normal((log.n_items, 24))
    log = put(log, vector={"text": vectors.astype(np.float32)})
    return _drawn(log, (causes @ [3.0, -3.0, 0.0, 0.0])[log.items], ordered=False)


def context_and_item(n_sessions: int = 2400) -> DecidingLog:
    """Eight situations, in each of which other ones of forty items are liked."""
    log, rng = _empty(n_sessions, 40), np.random.default_rng(1)
    situation = rng.integers(0, 8, log.n_events).astype(np.int32)
    liked = 6.0 * (rng.random((8, log.n_items)) < 0.3)
    log = put(
        log,
        event={"situation": situation},
        categories={"situation": pl.Series([f"v{code}" for code in range(8)])},
    )
    return _drawn(log, liked[np.repeat(situation, N_SHOWN), log.items], ordered=False)


def context_number_and_category(n_sessions: int = 2400) -> DecidingLog:
    """The higher an event's number, the better is one kind of candidate, and the worse another."""
    decided = _of_category(n_sessions, np.linspace(-4.0, 4.0, 9), by_item=False)
    number = np.random.default_rng(3).standard_normal(decided.log.n_events).astype(np.float32)
    log = put(decided.log, event={"number": number})
    return _drawn(log, decided.utility * np.repeat(number, N_SHOWN), ordered=False)


def _kinds(n: int) -> np.ndarray:
    """Utilities in no order."""
    return np.random.default_rng(5).permutation(np.linspace(-6.0, 6.0, n))


def _of_category(
    n_sessions: int, utilities: np.ndarray, *, by_item: bool, more: np.ndarray | None = None
) -> DecidingLog:
    log, rng = _empty(n_sessions), np.random.default_rng(1)
    n_rows = log.n_items if by_item else log.n_candidates
    codes = rng.integers(0, len(utilities), n_rows).astype(np.int32)
    fields = {"kind": codes}
    values = pl.Series([f"v{code}" for code in range(len(utilities))])
    log = put(
        log,
        item=fields if by_item else {},
        candidate={} if by_item else fields,
        categories={"kind": values},
    )
    utility = utilities[codes[log.items] if by_item else codes]
    return _drawn(log, utility if more is None else utility + more, ordered=more is not None)


def _empty(n_sessions: int, n_items: int | None = None) -> SessionLog:
    """Sessions of two events, half of them training; nothing is chosen yet."""
    rng = np.random.default_rng(0)
    n_events, n_items = n_sessions * 2, n_items or n_sessions * 8
    items = np.concatenate([rng.choice(n_items, N_SHOWN, replace=False) for _ in range(n_events)])
    return SessionLog(
        session_offsets=np.arange(0, n_events + 1, 2, dtype=np.int32),
        display_offsets=np.arange(0, n_events * N_SHOWN + 1, N_SHOWN, dtype=np.int32),
        items=items.astype(np.int32),
        choices=np.zeros(n_events, np.int32),
        split=np.tile(np.array([0, 0, 1, 2], np.int8), n_sessions // 4),
        users=np.arange(n_sessions, dtype=np.int32),
        session_ids=pl.Series([f"s{i}" for i in range(n_sessions)]),
        event_ids=pl.Series([str(i) for i in range(n_events)]),
        item_ids=pl.Series([f"i{i}" for i in range(n_items)]),
    )


def _drawn(log: SessionLog, utility: np.ndarray, *, ordered: bool) -> DecidingLog:
    """The log with choices by the softmax of the utilities."""
    noise = np.random.default_rng(2).gumbel(size=len(utility))
    choices = (utility + noise).reshape(-1, N_SHOWN).argmax(1).astype(np.int32)
    return DecidingLog(dataclasses.replace(log, choices=choices, ordered=ordered), utility)
