"""Successive choices of a known law: `bench/successive.py` at a small size, and its law by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.bench.successive import (
    MOST_DISTANCE,
    N_DISPLAYED,
    N_ITEMS,
    distance,
    known_law,
    law,
    read_displays,
    utilities,
)


def test_the_law_by_hand() -> None:
    """Item 5 is gone, item 9 is of the kind of item 1, which was clicked just before, item 2 is
    not."""
    items = np.array([[5, 9, 2]])
    probs = law(items, np.array([[False, True, True]]), np.array([1]), np.array([1]))
    odds = [0.0, np.exp(utilities()[9] + 1), np.exp(utilities()[2]), np.exp(1.5)]
    np.testing.assert_allclose(probs[0], np.array(odds) / sum(odds))
    assert sorted(utilities().tolist()) == pytest.approx(np.linspace(-1.5, 1.5, N_ITEMS))


def test_a_log_is_drawn_by_the_law() -> None:
    log = read_displays(8000, 0)
    probs = known_law(log)
    assert len(probs) == log.n_candidates + log.n_events
    first = log.first_choices
    assert np.diff(log.display_offsets)[first].tolist() == [N_DISPLAYED] * int(first.sum())
    assert 6000 < log.n_events < 12_000
    # every event's probabilities sum to 1, and what happened is as frequent as it should be
    no_click = probs[log.n_candidates :]
    sums = np.bincount(log.event_of_candidate(), probs[: log.n_candidates]) + no_click
    np.testing.assert_allclose(sums, 1)
    for number in range(3):
        of_number = log.event_fields["clicks_so_far"] == number
        error = (log.choices[of_number] < 0) - no_click[of_number]
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(of_number.sum())
    chosen = probs[log.chosen_candidates].sum()
    expected = (probs[: log.n_candidates] ** 2).sum()
    assert chosen == pytest.approx(expected, rel=0.03)


def test_a_small_log_is_learned_in_part() -> None:
    small = {"players": "exact", "search": (), "relations": False, "warm_start": 8, "epochs": 8}
    assert distance(3000, **small) < 0.12


@pytest.mark.slow
def test_successive_choices_are_recovered() -> None:
    """The bar: minutes."""
    assert distance(200_000) <= MOST_DISTANCE
