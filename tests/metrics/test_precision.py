from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import NumericsError
from fastgaum.metrics.precision import micro_mean, precision_at_k, user_mean
from tests.metrics.test_displays import by_every_order


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([-1e4, 0.0, 1.0, 1e4]), min_size=1, max_size=5), st.data())
def test_precision_is_the_share_of_orders_that_break_the_ties(
    scores: list[float], data: st.DataObject
) -> None:
    choice = data.draw(st.integers(0, len(scores) - 1))
    k = data.draw(st.integers(1, 6))
    value = precision_at_k(np.array(scores), np.array([0, len(scores)]), np.array([choice]), k)
    assert value[0] == pytest.approx(by_every_order(scores, [choice], k)[0])


def test_events_are_kept_apart_and_no_click_is_left_out() -> None:
    scores = np.array([3.0, 9.0, 1.0, 7.0, 2.0, 2.0], dtype=np.float32)
    offsets = np.array([0, 2, 3, 5, 6], dtype=np.int32)
    values = precision_at_k(scores, offsets, np.array([0, 0, -1, 0], dtype=np.int32), 1)
    np.testing.assert_array_equal(values, [0.0, 1.0, np.nan, 1.0])
    assert micro_mean(values) == pytest.approx(2 / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error_naming_the_event(bad: float) -> None:
    scores = np.array([1.0, 2.0, 3.0, bad])
    with pytest.raises(NumericsError, match=r"event 1 has the score .* at candidate 1"):
        precision_at_k(scores, np.array([0, 2, 4]), np.array([0, 0]), 1)

    with pytest.raises(ValueError, match="k is 0"):
        precision_at_k(np.zeros(2), np.array([0, 2]), np.array([0]), 0)


def test_means_of_nothing_are_none() -> None:
    nothing = np.array([np.nan])
    assert np.isnan([micro_mean(nothing), user_mean(nothing, np.array([0]))]).all()
