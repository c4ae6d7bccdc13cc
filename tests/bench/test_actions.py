"""Choices that depend on views: `bench/actions.py` at a small size, and its law by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastgaum.bench.actions import (
    MOST_ABOVE,
    MOST_BELOW,
    N_DISPLAYED,
    draw,
    law,
    precision,
    read_drawn,
    truth,
)

SMALL: dict[str, Any] = {
    **{"players": "exact", "search": (), "relations": False, "grow": False, "protocol": "identity"},
    **{"tower_dim": 0, "hidden": (16,), "history_dim": 16, "dropout": 0.0, "lr": 0.01},
    **{"warm_start": 12, "epochs": 12, "patience": 12},
}


def test_the_law_by_hand() -> None:
    """Items 5 and 9 are of the kind of item 1, item 2 is not."""
    odds = np.array([np.exp(3), np.exp(3), 1.0])
    np.testing.assert_allclose(law(np.array([[5, 9, 2]]), np.array([1]))[0], odds / odds.sum())


def test_the_last_view_decides() -> None:
    displays, actions, probs = draw(4000, 0)
    assert actions.height == 3 * displays.height
    assert actions["action"].value_counts().sort("action")["count"].to_list() == [4000, 8000]
    log, known = read_drawn(4000, 0)
    assert log.n_actions == actions.height
    np.testing.assert_allclose(known.reshape(-1, N_DISPLAYED).sum(axis=1), 1)
    np.testing.assert_allclose(np.sort(known), np.sort(probs.ravel()))
    # what the log holds is what the law says: of each event, by the last view before it
    assert log.actions is not None
    ids = log.item_ids.to_numpy().astype(np.int64)
    views = np.flatnonzero(log.actions.kind_names.gather(log.actions.kinds) == "view")
    last = views[np.searchsorted(views, log.actions.offsets[1:]) - 1]
    expected = law(ids[log.items].reshape(-1, N_DISPLAYED), ids[log.actions.items[last]])
    np.testing.assert_allclose(known, expected.ravel())
    chosen = known[log.chosen_candidates].sum()
    assert chosen == pytest.approx((known**2).sum(), rel=0.03)
    assert precision(log, known) > 40


def test_a_small_log_is_learned_in_part_with_actions_alone() -> None:
    found = truth(3000, **SMALL)
    assert found["with actions"] > found["without"] + 15
    assert abs(found["without"] - found["click rate"]) < 5


@pytest.mark.slow
def test_views_are_worth_what_they_are() -> None:
    """The bar: minutes."""
    found = truth(50_000)
    assert found["with actions"] > found["law"] - MOST_BELOW
    assert found["without"] < found["click rate"] + MOST_ABOVE
