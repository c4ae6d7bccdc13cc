"""What a session was shown and chose before, columns told within their display set, and ids picked
by session."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels import batching, context

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
    found = np.full((2, len(items)), -7, np.int32)
    scratch = np.zeros((2, N_ITEMS), np.int32)
    context.counts_before(offsets, displays, items, choices, *scratch, *found)
    expected: list[tuple[int, int]] = []
    for session in sessions:
        shown, chosen = Counter[int](), Counter[int]()
        for event, choice in session:
            expected += [(shown[item], chosen[item]) for item in event]
            shown.update(event)
            chosen.update([event[choice]] if 0 <= choice < len(event) else [])
    assert found.T.tolist() == [list(pair) for pair in expected]
    assert not scratch.any()


@settings(max_examples=30)
@given(SESSIONS, st.integers(1, 3))
def test_columns_less_their_mean_over_the_set(sessions: Sessions, n: int) -> None:
    _, displays, items, _ = packed(sessions)
    rng = np.random.default_rng(n)
    columns, start = (
        rng.permutation(3)[:n].astype(np.int32),
        rng.normal(size=(len(items), 3)).astype(np.float32),
    )
    numbers = np.concatenate([start, np.full((len(items), n), 99, np.float32)], axis=1)
    sums = np.add.reduceat(start[:, columns], displays[:-1])
    context.less_set_means(numbers, columns, displays, sums, 3)
    means = np.repeat(sums / np.diff(displays)[:, None], np.diff(displays), axis=0)
    np.testing.assert_allclose(numbers[:, 3:], start[:, columns] - means, atol=1e-5)
    assert np.array_equal(numbers[:, :3], start)


@settings(max_examples=30)
@given(SESSIONS, st.data())
def test_ids_of_picked_sessions(sessions: Sessions, data: st.DataObject) -> None:
    offsets, displays, items, _ = packed(sessions)
    rows = np.array(data.draw(st.lists(st.integers(0, len(sessions) - 1), max_size=5)), np.int64)
    events = [np.arange(offsets[row], offsets[row + 1]) for row in rows]
    sizes = [np.diff(displays)[part] for part in events]
    picked = np.cumsum([0, *(len(part) for part in events)]).astype(np.int32)
    shown = np.cumsum([0, *(size for part in sizes for size in part)]).astype(np.int32)
    first = displays[offsets[rows]] if len(rows) else np.empty(0, np.int32)
    ids, id_of_item = np.full(shown[-1], -7, np.int32), np.arange(10, 10 + N_ITEMS, dtype=np.int32)
    batching.fill_ids(items, id_of_item, first, picked, shown, ids)
    expected = [
        items[displays[event] : displays[event + 1]] + 10 for part in events for event in part
    ]
    assert ids.tolist() == np.concatenate([np.empty(0, int), *expected]).tolist()
