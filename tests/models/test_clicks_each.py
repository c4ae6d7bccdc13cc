"""Successive choices: the size of a display does not stand for the clicks on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.models.user_model import UserModel

N_ITEMS = 12


def clicking_log(n: int = 500, seed: int = 0) -> tuple[SessionLog, np.ndarray]:
    """Displays of six items, of which users click one and then nearly always stop: an item's
    utility, less that of no click before the first click."""
    rng = np.random.default_rng(seed)
    liking, rows = rng.normal(0, 1, N_ITEMS), []
    for event in range(n):
        shown = rng.permutation(N_ITEMS)[:6].tolist()
        left, clicks = list(shown), []
        while left:
            gains = liking[left] + rng.gumbel(size=len(left))
            if 4.0 * len(clicks) + rng.gumbel() >= gains.max():
                break
            clicks.append(left.pop(int(gains.argmax())))
        rows.append({"session": event // 2, "items": shown, "chosen": clicks})
    return read_log(pl.DataFrame(rows), clicks="each"), liking


def test_a_first_display_of_another_size_is_no_later_one() -> None:
    """Displays of six lose an item with each click: one of two items is not one clicked four
    times, whose no click is nearly sure."""
    log, liking = clicking_log()
    changes: dict[str, Any] = {"epochs": 8, "warm_start": 8, "seed": 0, "search": [], "folds": 0}
    model = UserModel.from_preset("fastgaum-exact", **changes)
    model.fit(log)
    rng, found, true = np.random.default_rng(1), [], []
    for _ in range(30):
        shown = rng.permutation(N_ITEMS)[:2]
        user = model.user()
        context = {"clicks_so_far": 0.0}
        found.append(user.probabilities([str(item) for item in shown], context)[-1])
        true.append(1 / (1 + np.exp(liking[shown]).sum()))
    assert abs(np.mean(found) - np.mean(true)) < 0.1
    assert model.space is not None
    assert "log_set_size" not in model.space.number_names


def test_other_logs_keep_the_size() -> None:
    log = read_log(
        pl.DataFrame({"session": range(40), "items": [["a", "b"]] * 40, "chosen": ["a", "b"] * 20})
    )
    model = UserModel.from_preset("fastgaum-exact", epochs=1, warm_start=1, search=[], folds=0)
    model.fit(log)
    assert model.space is not None
    assert "log_set_size" in model.space.number_names
