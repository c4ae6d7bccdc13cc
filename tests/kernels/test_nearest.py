"""Made-up displays against every distance written out: ties in time, users of one item, displays
that cannot be filled."""

from __future__ import annotations

import math

import polars as pl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastgaum.kernels.nearest import walk_stride
from fastgaum.logs.made_up_displays import make_displays

ROWS = st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 7))
"""time, user and item: most distances are ties, and some items are of one user alone"""


@settings(max_examples=30, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=24), st.integers(2, 9), st.integers(0, 99))
def test_displays_hold_the_nearest_of_others(
    rows: list[tuple[int, int, int]], displayed: int, seed: int
) -> None:
    choices = pl.DataFrame(rows, schema=["time", "user", "item"], orient="row")
    assume(choices["user"].n_unique() > 1)
    found = make_displays(choices, displayed=displayed, seed=seed)
    events = found.select(
        pl.col("event", "session", "chosen").cast(pl.Int64), pl.col("items").cast(pl.List(pl.Int64))
    ).rows()
    assert sorted(event[:3] for event in events) == sorted(rows)
    assert [event[1::-1] for event in events] == sorted(event[1::-1] for event in events)
    for time, user, chosen, items in events:
        distance = {
            item: min(abs(t - time) for t, u, i in rows if u != user and i == item)
            for item in {i for _, u, i in rows if u != user and i != chosen}
        }
        assert items.count(chosen) == 1
        others = [item for item in items if item != chosen]
        assert len(set(others)) == len(others) == min(displayed - 1, len(distance))
        assert sorted(distance[i] for i in others) == sorted(distance.values())[: len(others)]
    assert make_displays(choices[::-1], displayed=displayed, seed=seed).equals(found)


def test_a_stride_reaches_every_row_of_a_tie() -> None:
    for n in range(1, 50):
        for draw in (0, 1, n - 1, n, 7 * n + 3, 2**31 - 1):
            stride = walk_stride(draw, n)
            assert 1 <= stride <= n + 1
            assert math.gcd(stride, n) == 1
            assert sorted(i * stride % n for i in range(n)) == list(range(n))
