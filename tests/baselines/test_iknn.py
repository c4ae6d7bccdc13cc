"""Item kNN: the contract, a toy that only co-choice explains, and its similarities worked by
hand."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.baselines.iknn import ItemKnn
from tests.baselines.contract import co_choice_log, scores_of
from tests.builders import log_of


def test_similarities_join_the_sessions_of_a_user() -> None:
    """User 0 chose 0 and 1 in two sessions, user 1 chose 0 alone: c = (2, 1), c_01 = 1."""
    sessions = [
        [([0], 0)],
        [([1], 0)],
        [([0], 0)],
        [([0], 0), ([1, 2], 0)],
        [([0], 0), ([1, 0, 2], 0)],
    ]
    log = log_of(sessions, [0, 0, 0, 1, 2], [0, 0, 1, 2, 3])
    model = ItemKnn(shrinkage=1.0, repeat=-1.0, decay=0.0, popularity_weight=0.0)
    model.fit(log)
    expected = [0, 1 / np.sqrt((2 + 1) * (1 + 1)), -1, 0]
    np.testing.assert_allclose(scores_of(model, log, log.sessions_in("test")), expected)


def test_a_tie_of_the_neighbours_is_broken_by_popularity() -> None:
    """With a weight of 0.001 the neighbours decide where they know something, popularity
    elsewhere."""
    log = co_choice_log()
    model = ItemKnn(popularity="count", popularity_weight=0.001, unknown=0.0)
    model.fit(log)
    frame = model.predict(log, "test").group_by("event", maintain_order=True).agg("item", "utility")
    first, second = (dict(zip(*frame[i, ["item", "utility"]].row(0), strict=True)) for i in (0, 1))
    assert 0 == first["i2"] < first["i0"] <= 0.001
    assert second["i3"] > second["i4"]
    assert second["i4"] <= 0.001 < second["i3"]


@pytest.mark.parametrize(
    ("name", "value"), [("near.indices", 10**6), ("near.indptr", 10**6), ("chosen.popularity", 9)]
)
def test_a_damaged_file_is_never_read(name: str, value: int) -> None:
    log = co_choice_log(2)
    model = ItemKnn(popularity="rate")
    model.fit(log)
    arrays = {key: array.copy() for key, array in model._arrays().items()}
    arrays[name][-1] = value
    with pytest.raises((ValueError, KeyError)):
        model._restore(arrays)


def test_a_given_setting_is_kept_and_every_combination_has_a_row() -> None:
    model = ItemKnn(
        shrinkage=5.0, repeat=0.0, popularity="rate", popularity_weight=1.0, unknown=0.5
    )
    table = model.fit(co_choice_log(2))
    assert table["shrinkage"].to_list() == [5.0, 5.0]
    assert sorted(table["decay"]) == [0.0, 1.0]
    assert model.chosen["decay"] == table["decay"][0]


def test_loss_chooses_when_it_is_asked_to() -> None:
    table = ItemKnn(select="loss", popularity="rate").fit(co_choice_log(2))
    assert table["val_loss"].null_count() == 0
    assert table["val_loss"].is_sorted()
