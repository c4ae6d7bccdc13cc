"""Nearest choices of others, against the slow twin: ties in time, users of one item, displays that
cannot be filled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.kernels.nearest import walk_stride
from fastgaum.logs import display_rules as simulate
from fastgaum.logs.display_rules import ChoiceTable, DisplayRule, Events, display_sets
from tests import naive_nearest as naive


@st.composite
def choice_tables(draw: Any) -> ChoiceTable:
    """Up to 24 choices at few times: most distances are ties, and some items are of one user
    alone."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 7)),
            min_size=1,
            max_size=24,
        )
    )
    times, users, items = (np.array(part) for part in zip(*sorted(rows), strict=True))
    user_ids, users = np.unique(users, return_inverse=True)
    item_ids, items = np.unique(items, return_inverse=True)
    return ChoiceTable(
        users.astype(np.int32),
        times.astype(np.int32),
        items.astype(np.int32),
        pl.Series([str(i) for i in user_ids]),
        pl.Series([str(i) for i in item_ids]),
    )


@settings(max_examples=200, deadline=None)
@given(choice_tables(), st.booleans(), st.integers(2, 9), st.integers(0, 99), st.integers(1, 5))
def test_displays_equal_the_twin(
    table: ChoiceTable, unseen: bool, size: int, seed: int, events_per_chunk: int
) -> None:
    events = Events.of(table, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "CHUNK", size * events_per_chunk)
        found = np.concatenate(
            list(
                display_sets(
                    events, DisplayRule("nearest-unseen" if unseen else "nearest", size, seed)
                )
            )
        )
    ordered = events.table
    choices = list(
        zip(ordered.times.tolist(), ordered.users.tolist(), ordered.items.tolist(), strict=True)
    )
    draws = np.random.default_rng([seed, 1]).integers(2**31, size=(len(choices), 2)).tolist()
    assert found.dtype == np.int32
    assert found.tolist() == naive.nearest_others(
        choices, events.rows.tolist(), draws, size, unseen
    )


def test_a_stride_reaches_every_row_of_a_tie() -> None:
    for n in range(1, 50):
        for draw in (0, 1, n - 1, n, 7 * n + 3, 2**31 - 1):
            stride = walk_stride(draw, n)
            assert 1 <= stride <= n + 1
            assert math.gcd(stride, n) == 1
            assert sorted(i * stride % n for i in range(n)) == list(range(n))
