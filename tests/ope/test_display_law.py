"""The law of displays against every set written out."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import ConfigError
from fastgaum.ope.display_law import DisplayLaw, inclusion, pair_inclusion, symmetric

WEIGHTS = st.lists(st.floats(0.05, 20.0), min_size=2, max_size=7).map(np.array)


def written_out(weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every set of k items, (n_sets, k), and its probability."""
    sets = np.array(list(combinations(range(len(weights)), k)))
    products = weights[sets].prod(axis=1)
    return sets, products / products.sum()


@given(WEIGHTS, st.data())
@settings(max_examples=60, deadline=None)
def test_sets_items_and_pairs_have_their_probabilities(
    weights: np.ndarray, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(weights)))
    sets, chances = written_out(weights, k)
    shown = np.zeros((len(sets), len(weights)))
    np.put_along_axis(shown, sets, 1.0, axis=1)
    together = shown.T @ (shown * chances[:, None])
    np.testing.assert_allclose(np.exp(DisplayLaw(weights).log_probability(sets)), chances, 1e-9)
    np.testing.assert_allclose(pair_inclusion(weights, k), together, atol=1e-9)
    np.testing.assert_allclose(inclusion(weights, k), np.diag(together), atol=1e-9)
    assert symmetric(weights, k)[k] == pytest.approx(weights[sets].prod(axis=1).sum())


def test_a_heavy_item_costs_no_digits() -> None:
    """One item in all but a thousandth of the sets of ten."""
    weights = np.append(np.ones(20), 1e4)
    sets = comb(20, 10) + 1e4 * comb(20, 9)
    expected = (comb(19, 9) + 1e4 * comb(19, 8)) / sets
    found = inclusion(weights, 10)
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-12)
    assert found[-1] == pytest.approx(1e4 * comb(20, 9) / sets, rel=1e-12)
    pairs = pair_inclusion(weights, 10)
    np.testing.assert_allclose(pairs.sum(axis=1), 10 * found, rtol=1e-9)


def test_the_fitted_law_shows_each_item_as_often_as_the_log() -> None:
    displays, sets = np.array([8, 0, 4, 3, 5, 1]), {2: 6, 3: 3}
    law = DisplayLaw.fitted(displays, sets)
    expected = sum(count * inclusion(law.weights[law.weights > 0], k) for k, count in sets.items())
    assert law.weights[1] == 0.0
    np.testing.assert_allclose(expected, displays[displays > 0], rtol=1e-5)
    assert np.isneginf(law.log_probability(np.array([[0, 1]])))


def test_an_item_in_every_display_has_no_weight() -> None:
    with pytest.raises(ConfigError, match="it is in nearly every display"):
        DisplayLaw.fitted(np.array([10, 6, 4]), {2: 10})
    with pytest.raises(ConfigError, match="count each item once per display"):
        DisplayLaw.fitted(np.array([3, 2]), {2: 2})
