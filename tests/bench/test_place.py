"""Place and taste apart: `bench/place.py` at a small size, and its figures by hand."""

from __future__ import annotations

import numpy as np

from fastgaum.bench.place import apart, item_means, within_rows


def test_place_and_taste_are_told_apart_on_a_small_log() -> None:
    small = {"players": "exact", "search": (), "relations": False, "epochs": 10}
    ours, without = (apart(4000, "random", examination=part, **small) for part in (True, False))
    assert ours.within > without.within + 0.05
    assert ours.items > 0.8
    assert ours.worst_place < 0.5
    assert np.isnan(without.worst_place)


def test_the_figures_by_hand() -> None:
    left = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    right = np.array([[0.0, 5.0, 9.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    np.testing.assert_allclose(within_rows(left, right), [1, -1, 0.5])
    assert item_means(np.array([3, 0, 3]), np.array([1.0, 5.0, 2.0])).tolist() == [5.0, 1.5]
