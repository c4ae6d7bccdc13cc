"""Missing values are read alike in training, in a part of its log, and online: a category is one
more category, a number of an item or user table the mean of the training log's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.baselines.registry import load_model, make_model
from fastgaum.live_users.online import OnlineUser
from fastgaum.logs.read import read_log

LAST = "zz"
"""a text behind all others, where a missing value stands too"""
SHORT: dict[str, Any] = {"epochs": 2, "search": (), "folds": 0}


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


def test_a_missing_number_is_the_training_log_s_mean_in_each_part_of_it(tmp_path: Path) -> None:
    """A frame of one display took the mean of its own items, and of one user 0."""
    rng = np.random.default_rng(1)
    rows = choices("b").with_columns(user=pl.col("session") // 3)
    price = [None if item < 5 else 100 + float(item) for item in range(20)]
    pl.DataFrame({"item": range(20), "price": price}).write_parquet(tmp_path / "items.parquet")
    age = [None if user < 10 else float(20 + rng.integers(30)) for user in range(40)]
    pl.DataFrame({"user": range(40), "age": age}).write_parquet(tmp_path / "users.parquet")
    log = read_log(
        rows,
        item_table=tmp_path / "items.parquet",
        user_table=tmp_path / "users.parquet",
        context_fields=["device"],
    )
    assert log.reading is not None
    assert log.reading.means == pytest.approx(
        {"price": np.mean(price[5:]), "age": np.mean(age[10:])}
    )
    model = make_model("fastgaum-exact", SHORT | {"protocol": "bags"})
    model.fit(log)
    model.save(tmp_path / "model")
    for one in (model, load_model(tmp_path / "model")):
        whole = one.predict(rows)
        # training sessions are read without their own choices, as a whole alone
        for session in log.session_ids.gather(log.sessions_in("test")[:5]).cast(pl.Int64):
            part = rows.filter(pl.col("session") == session)
            alone = one.predict(part)["probability"].to_numpy()
            beside = whole.filter(pl.col("session") == session)["probability"].to_numpy()
            np.testing.assert_allclose(alone, beside, atol=1e-6)
    user, slate, context = model.user(), ["1", "2", "12"], {"device": "m", "age": 30.0}
    given = user.probabilities(
        slate, context, {"price": [*[log.reading.means["price"]] * 2, 112.0]}
    )
    of_table = model.user().model.with_item_table(pl.read_parquet(tmp_path / "items.parquet"))
    np.testing.assert_allclose(OnlineUser(of_table).probabilities(slate, context), given, atol=1e-6)
