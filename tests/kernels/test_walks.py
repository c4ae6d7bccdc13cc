"""Walks on the displays of a context field: the kernels against probabilities counted pair by pair,
on drawn shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.features.crossed import count_crossed, displayers
from fastgaum.kernels import walks as kernels
from fastgaum.logs.cut import stable_order
from tests.kernels.test_crossed import naive, packed

N_ITEMS = 4
EVENTS = st.lists(
    st.tuples(
        st.lists(st.integers(-1, N_ITEMS - 1), min_size=1, max_size=4, unique=True),
        st.integers(-1, 3),
        st.integers(-1, N_ITEMS - 1),
    ),
    min_size=1,
    max_size=8,
)


def probability(graph: dict[int, list[int]], start: int, target: int, steps: int) -> float:
    """To be at the target after so many steps."""
    if steps == 0:
        return float(start == target)
    ways = graph.get(start, [])
    return sum(probability(graph, way, target, steps - 1) for way in ways) / max(len(ways), 1)


@settings(max_examples=80, deadline=None)
@given(events=EVENTS)
def test_walks_equal_probabilities_step_by_step(events: list[Any]) -> None:
    part = packed(events)
    table = count_crossed(part, N_ITEMS, N_ITEMS)
    targets = np.array([items[-1] for items, *_ in events], np.int32)
    of_targets, turns = part._replace(values=targets), stable_order(targets + 1)
    out = np.zeros((len(part.items), 4), np.float32)
    kernels.walk_numbers(of_targets, table, displayers(table, N_ITEMS), turns, np.arange(4), out)
    graph = {
        value: [item for item in range(N_ITEMS) if naive(events, value, item)[0] > 0]
        for value in range(N_ITEMS)
    }
    row = 0
    for event, (items, *_) in enumerate(events):
        target = int(targets[event])
        for item in items:
            known = item >= 0 and target >= 0
            two, three = (
                probability(graph, item, target, steps) if known else 0.0 for steps in (2, 3)
            )
            wanted = [
                math.log(two + kernels.FLOOR),
                math.log(three + kernels.FLOOR),
                float(two > 0),
                float(known and item in graph[target]),
            ]
            np.testing.assert_allclose(out[row], wanted, atol=1e-5)
            row += 1
