"""The neighbour kernels against their naive twins, on drawn sessions."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from fastgaum.kernels.batching import history_tokens
from fastgaum.kernels.neighbours import (
    ItemSums,
    NeighbourSessions,
    SessionDisplays,
    SessionSums,
    ShareRule,
    SparseRows,
    nearest_items,
    score_by_items,
    score_by_sessions,
)

N_ITEMS = 6
modest = settings(max_examples=60, deadline=None)
close = {"rtol": 1e-12, "atol": 1e-12}

Event = tuple[list[int], int]
"""items of the candidates (-1 unknown) and the position of the choice (-1 none)"""


@dataclass(frozen=True)
class Drawn:
    sessions: list[list[Event]]

    @property
    def packed(self) -> SessionDisplays:
        events = [event for session in self.sessions for event in session]
        session_offsets = np.cumsum([0] + [len(session) for session in self.sessions]).astype(
            np.int32
        )
        display_offsets = np.cumsum([0] + [len(items) for items, _ in events]).astype(np.int32)
        choices = np.array([choice for _, choice in events], np.int32)
        token_offsets, tokens = np.empty_like(session_offsets), np.empty(len(events), np.int32)
        used = history_tokens(
            session_offsets, display_offsets, choices, False, token_offsets, tokens
        )
        items = np.array([item for shown, _ in events for item in shown], np.int32)
        return SessionDisplays(
            session_offsets, display_offsets, token_offsets, tokens[:used], items
        )

    @property
    def per_event(self) -> list[tuple[list[int], list[int]]]:
        """The choices before each event, oldest first, and its candidates."""
        rows = []
        for session in self.sessions:
            chosen: list[int] = []
            for items, choice in session:
                rows.append((list(chosen), items))
                chosen += [items[choice]] if choice >= 0 else []
        return rows


@st.composite
def drawn_sessions(draw: Any) -> Drawn:
    items = st.lists(st.integers(-1, N_ITEMS - 1), min_size=1, max_size=4)
    sessions = draw(st.lists(st.lists(items, min_size=1, max_size=5), min_size=1, max_size=4))
    return Drawn(
        [
            [(shown, draw(st.integers(-1, len(shown) - 1))) for shown in session]
            for session in sessions
        ]
    )


@st.composite
def choice_sets(draw: Any) -> Any:
    """Who chose what in training, shape (n, N_ITEMS)."""
    rows = draw(
        st.lists(
            st.lists(st.booleans(), min_size=N_ITEMS, max_size=N_ITEMS), min_size=1, max_size=8
        )
    )
    return sparse.csr_matrix(np.array(rows, dtype=np.int32))


def nearest(counts: Any, shrinkage: float, most: int) -> SparseRows:
    room = int(np.minimum(np.diff(counts.indptr), most).sum())
    near = SparseRows(np.empty(N_ITEMS + 1, np.int32), np.empty(room, np.int32), np.empty(room))
    rows = SparseRows(counts.indptr, counts.indices, counts.data)
    nearest_items(rows, counts.diagonal(), shrinkage, most, near)
    used = near.indptr[-1]
    return SparseRows(near.indptr, near.indices[:used], near.values[:used])


def dense(rows: SparseRows) -> Any:
    parts = rows.values, rows.indices, rows.indptr
    return sparse.csr_matrix(parts, shape=(N_ITEMS, N_ITEMS)).toarray()


def item_sums(n_items: int) -> ItemSums:
    return ItemSums(np.zeros(n_items), np.empty(n_items, np.int32), np.zeros(n_items, np.bool_))


def naive_nearest(counts: Any, shrinkage: float, most: int) -> Any:
    dense, kept = counts.toarray(), np.zeros((N_ITEMS, N_ITEMS))
    for i in range(N_ITEMS):
        sims = {
            j: dense[i, j] / math.sqrt((dense[i, i] + shrinkage) * (dense[j, j] + shrinkage))
            for j in range(N_ITEMS)
            if j != i and dense[i, j] > 0
        }
        for j in sorted(sims, key=lambda j: (-sims[j], j))[:most]:
            kept[i, j] = sims[j]
    return kept


@modest
@given(choice_sets(), st.sampled_from([0.0, 2.0, 20.0]), st.integers(1, N_ITEMS))
def test_nearest_items_equal_their_twin(chosen: Any, shrinkage: float, most: int) -> None:
    counts = (chosen.T @ chosen).tocsr()
    counts.sort_indices()
    near = nearest(counts, shrinkage, most)
    kept = dense(near)
    np.testing.assert_allclose(kept, naive_nearest(counts, shrinkage, most), **close)


@modest
@given(
    drawn_sessions(),
    choice_sets(),
    st.sampled_from([0.0, 0.8, 1.0]),
    st.sampled_from([0.0, -1.0, 1.0]),
)
def test_scores_by_items_equal_their_twin(
    drawn: Drawn, chosen: Any, decay: float, repeat: float
) -> None:
    counts = (chosen.T @ chosen).tocsr()
    near, scratch, packed = nearest(counts, 1.0, 3), item_sums(N_ITEMS), drawn.packed
    scores = np.empty(len(packed.items))
    score_by_items(packed, near, repeat, decay, scratch, scores)
    sim = dense(near)
    np.fill_diagonal(sim, repeat)
    expected = [
        sum(decay**lag * sim[old, item] for lag, old in enumerate(reversed(before)) if old >= 0)
        if item >= 0
        else 0
        for before, items in drawn.per_event
        for item in items
    ]
    np.testing.assert_allclose(scores, expected, **close)
    assert not scratch.sums.any()
    assert not scratch.is_touched.any()


def naive_shares(
    before: list[int],
    items: list[int],
    training: list[set[int]],
    by_position: bool,
    most: int,
    shrinkage: float,
    repeat: float,
) -> list[float]:
    place = {item: (i + 1) / len(before) for i, item in enumerate(before) if item >= 0}
    weight = {item: place[item] if by_position else 1 / math.sqrt(len(place)) for item in place}
    sims = [
        sum(weight[item] for item in weight if item in session)
        / (1 if by_position else math.sqrt(len(session) or 1))
        for session in training
    ]
    met = sorted((sim for sim in sims if sim > 0), reverse=True)
    # equal similarities may differ in their last bits by the order of the sum
    limit = met[most - 1] - 1e-12 if len(met) > most else 0.0
    sims = [sim if sim >= limit else 0.0 for sim in sims]
    scores = []
    for item in items:
        shared = sum(sim for sim, session in zip(sims, training, strict=True) if item in session)
        scores.append(
            (shared / (shrinkage + sum(sims)) if shared > 0 else 0.0)
            + (repeat if item in place else 0.0)
        )
    return scores


@modest
@given(
    drawn_sessions(),
    choice_sets(),
    st.booleans(),
    st.integers(1, 9),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, -1.0]),
)
def test_scores_by_sessions_equal_their_twin(
    drawn: Drawn, chosen: Any, by_position: bool, most: int, shrinkage: float, repeat: float
) -> None:
    by_item = chosen.tocsc()
    sizes = np.diff(chosen.tocsr().indptr)
    norms = np.ones(len(sizes)) if by_position else np.sqrt(sizes)
    n = len(sizes)
    scratch = SessionSums(np.zeros(n), np.empty(n, np.int32), np.zeros(N_ITEMS, np.bool_))
    training = NeighbourSessions(by_item.indptr, by_item.indices, norms, by_position)
    packed = drawn.packed
    scores = np.empty(len(packed.items))
    score_by_sessions(packed, training, ShareRule(most, shrinkage, repeat), scratch, scores)
    sets = [set(np.flatnonzero(row)) for row in chosen.toarray()]
    expected = [
        naive_shares(before, items, sets, by_position, most, shrinkage, repeat)
        for before, items in drawn.per_event
    ]
    np.testing.assert_allclose(scores, list(itertools.chain(*expected)), **close)
    assert not scratch.sims.any()
    assert not scratch.in_prefix.any()


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_unknown_choices_age_the_others_and_no_click_does_not(decay: float) -> None:
    """0 and 1 have similarity 1: after 0, then nothing, then an unknown item, 1 scores decay."""
    near = SparseRows(
        np.array([0, 1, 2], np.int32), np.array([1, 0], np.int32), np.array([1.0, 1.0])
    )
    packed = Drawn([[([0], 0), ([0], -1), ([-1, 0], 0), ([1], 0)]]).packed
    scores = np.empty(5)
    score_by_items(packed, near, 0.0, decay, item_sums(2), scores)
    np.testing.assert_allclose(scores, [0, 0, 0, 0, decay])
