"""Context crossed with items: the kernels against counts pair by pair, on drawn shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.features.crossed import count_crossed, displayers
from fastgaum.kernels import crossed as kernels
from fastgaum.logs.cut import stable_order

N_VALUES, N_ITEMS = 3, 4
EVENTS = st.lists(
    st.tuples(
        st.lists(st.integers(-1, N_ITEMS - 1), min_size=1, max_size=4, unique=True),
        st.integers(-1, 3),
        st.integers(-1, N_VALUES - 1),
    ),
    min_size=1,
    max_size=6,
)


def packed(events: list[Any]) -> kernels.CrossedEvents:
    offsets = np.cumsum([0, *(len(items) for items, *_ in events)]).astype(np.int32)
    return kernels.CrossedEvents(
        offsets,
        np.array([item for items, *_ in events for item in items], np.int32),
        np.array([min(choice, len(items) - 1) for items, choice, *_ in events], np.int32),
        np.array([value for _, _, value in events], np.int32),
    )


def naive(events: list[Any], value: int, item: int) -> tuple[float, float, float, int]:
    """Displays, choices, expected choices and events that have this value."""
    shown = chosen = expected = 0.0
    n = 0
    for items, choice, other_value in events:
        if other_value != value:
            continue
        n += 1
        if item >= 0 and item in items:
            place = min(choice, len(items) - 1)
            shown += 1
            chosen += place == items.index(item)
            expected += (place >= 0) / len(items)
    return shown, chosen, expected, n


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_numbers_equal_counting_pair_by_pair(events: list[Any]) -> None:
    part = packed(events)
    table = count_crossed(part, N_VALUES, N_ITEMS)
    targets = np.array([items[-1] for items, *_ in events], np.int32)
    of_targets = part._replace(values=targets)
    out = np.zeros((len(part.items), 4), np.float32)
    kernels.crossed_numbers(part, table, np.array([0, 1]), out)
    turns, columns = stable_order(targets + 1), np.array([2, 3])
    kernels.lead_numbers(of_targets, table, displayers(table, N_ITEMS), turns, columns, out)
    row = 0
    for event, (items, _, value) in enumerate(events):
        for item in items:
            known = value >= 0 and item >= 0
            shown, chosen, expected, _ = naive(events, value, item) if known else (0,) * 4
            lead = n = 0.0
            if 0 <= item < N_VALUES:
                lead, _, _, n = naive(events, item, int(targets[event]))
            wanted = [
                math.log((chosen + 0.5) / (expected + 0.5)),
                math.log1p(shown),
                float(lead > 0),
                math.log1p(n),
            ]
            np.testing.assert_allclose(out[row], wanted, atol=1e-5)
            row += 1
