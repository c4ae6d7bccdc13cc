"""A missing category is one more category, in training, prediction and online."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.baselines.registry import make_model
from fastgaum.logs.read import read_log

LAST = "zz"
"""a text behind all others, where a missing value stands too"""
SHORT: dict[str, Any] = {"epochs": 2, "search": ()}


def choices(missing: str | None) -> pl.DataFrame:
    """Choices by brand and device, a part of which is missing."""
    rng = np.random.default_rng(0)
    n, k = 120, 3
    brand, device = rng.integers(0, 3, (n, k)), rng.integers(0, 2, n)
    worth = np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])[device[:, None], brand]
    chosen = (worth + rng.gumbel(size=(n, k))).argmax(1)
    return pl.DataFrame(
        {
            "session": np.repeat(np.arange(n), k),
            "event": 0,
            "item": np.concatenate([rng.permutation(20)[:k] for _ in range(n)]),
            "chosen": (chosen[:, None] == np.arange(k)).astype(int).ravel(),
            "brand": [("a", "b", missing)[one] for one in brand.ravel()],
            "device": [("m", missing)[one] for one in np.repeat(device, k)],
        }
    )


@pytest.mark.parametrize(("name", "settings"), [("fastgaum-exact", SHORT), ("logit", {})])
def test_a_missing_category_is_as_a_text_of_its_own(name: str, settings: dict[str, Any]) -> None:
    found = []
    for missing in (None, LAST):
        rows = choices(missing)
        log = read_log(rows, candidate_fields=["brand"], context_fields=["device"])
        model = make_model(name, settings)
        model.fit(log)
        shares = [model.predict(log)["probability"].to_numpy()]
        if name != "logit":
            user = model.user()
            slate, brands = ["1", "2", "3"], ["a", missing, "b"]
            shares.append(user.probabilities(slate, {"device": missing}, {"brand": brands}))
        found.append(np.concatenate(shares))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
