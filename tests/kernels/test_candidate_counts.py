"""What a session was shown and chose before, numbers standardised, and their moments."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import candidate_counts, candidate_formulas

N_ITEMS = 6
EVENT = st.tuples(
    st.lists(st.integers(0, N_ITEMS - 1), unique=True, min_size=1, max_size=4), st.integers(-1, 3)
)
SESSIONS = st.lists(st.lists(EVENT, min_size=1, max_size=4), min_size=1, max_size=4)

Sessions = list[list[tuple[list[int], int]]]


def packed(sessions: Sessions) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Session offsets, display offsets, items and choices."""
    events = [event for session in sessions for event in session]
    return (
        np.cumsum([0, *map(len, sessions)]).astype(np.int32),
        np.cumsum([0, *(len(items) for items, _ in events)]).astype(np.int32),
        np.array([item for items, _ in events for item in items], np.int32),
        np.array([choice if choice < len(items) else -1 for items, choice in events], np.int32),
    )


@settings(max_examples=40)
@given(SESSIONS)
def test_counts_before_an_event_are_a_dictionary_s(sessions: Sessions) -> None:
    offsets, displays, items, choices = packed(sessions)
    found = np.full((len(items), candidate_counts.N_COUNTS), -7, np.int32)
    packed_sessions = candidate_counts.PackedSessions(offsets, displays, items, choices)
    candidate_counts.count_before(packed_sessions, N_ITEMS, found)
    expected: list[tuple[int, int]] = []
    for session in sessions:
        shown, chosen = Counter[int](), Counter[int]()
        for event, choice in session:
            expected += [(shown[item], chosen[item]) for item in event]
            shown.update(event)
            chosen.update([event[choice]] if 0 <= choice < len(event) else [])
    assert found.tolist() == [list(pair) for pair in expected]


@settings(max_examples=30)
@given(st.integers(0, 9), st.integers(1, 3), st.integers(1, 5))
def test_numbers_are_read_as_their_code_says(rows: int, n_raw: int, n: int) -> None:
    rng = np.random.default_rng(n)
    raw = rng.normal(size=(rows, n_raw)).astype(np.float32)
    columns = rng.integers(0, n_raw, n)
    start, scale, low = rng.normal(size=(3, n)).astype(np.float32)
    scale, high = np.abs(scale) + np.float32(1), low + np.float32(0.5)
    found = np.empty((rows, n), np.float32)
    candidate_formulas.encode_rows(raw, columns, start, scale, low, high, found)
    wanted = np.clip((raw[:, columns] - start) / scale, low, high)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
