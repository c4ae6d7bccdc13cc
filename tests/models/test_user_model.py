"""Variants of the user model keep the contract, others the golden records; tables; the searched switches."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fastgaum.errors import LogFormatError
from fastgaum.models.user_model import UserModel
from tests.builders import put, random_log
from tests.contracts import check_user_model

SMALL: dict[str, Any] = {
    "epochs": 2,
    "warm_start": 2,
    "catch_up": 2,
    "hidden": [8, 8],
    "history_dim": 5,
    "batch_sessions": 16,
    "search": [],
    "folds": 0,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"players": "exact"},
        {"regulariser": "tsallis", "history_layers": 2},
        {"history": "pw", "protocol": "identity"},
    ],
    ids=str,
)
def test_contract_of_variants(changes: dict[str, Any]) -> None:
    check_user_model(UserModel.from_preset(**{**SMALL, **changes}))


def test_contract_with_fields_order_and_no_clicks() -> None:
    log = random_log(2, n_sessions=80, no_click=0.4)
    rng = np.random.default_rng(0)
    log = put(
        log,
        candidate={"price": rng.random(log.n_candidates, np.float32)},
        item={"brand": rng.integers(-1, 3, log.n_items).astype(np.int32)},
        categories={"brand": pl.Series(["a", "b", "c"])},
    )
    check_user_model(UserModel.from_preset(**SMALL), dataclasses.replace(log, ordered=True))


def test_the_same_seed_gives_the_same_model_and_leaves_the_callers_random_state() -> None:
    log = random_log(1)
    state = torch.get_rng_state()
    weights = []
    for _ in range(2):
        model = UserModel.from_preset(no_click="always", **SMALL)
        model.fit(log)
        assert model.networks is not None
        weights.append(torch.cat([p.detach().flatten() for p in model.networks.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(torch.get_rng_state(), state)
    # offered without any in the log
    assert (model.predict(log)["no_click_probability"].to_numpy() > 0).all()


def test_prediction_and_sampling_tables() -> None:
    log = random_log(1, no_click=0.3)
    model = UserModel.from_preset(**SMALL)
    model.fit(log)
    frame, event = model.predict(log), ["session", "event"]
    probabilities = ["probability", "no_click_probability", "generator_probability"]
    assert frame.columns == [*event, "item", "known", "utility", *probabilities, "trained_on"]
    sums = frame.group_by(event).agg(
        pl.col("probability").sum() + pl.col("no_click_probability").first()
    )
    np.testing.assert_allclose(sums["probability"].to_numpy(), 1, atol=1e-4)
    draws = [model.sample(log, seed=seed) for seed in (0, 0, 1)]
    assert draws[0].equals(draws[1])
    assert not draws[0].equals(draws[2])
    assert draws[0].height == log.count("events", "test")
    joined = draws[0].drop_nulls().join(frame, on=[*event, "item"], how="anti")
    assert joined.height == 0, "a drawn item was not displayed"
    assert draws[0]["item"].null_count() > 0


def test_no_click_options_must_fit_the_log() -> None:
    with pytest.raises(LogFormatError, match="no_click = never"):
        UserModel.from_preset(no_click="never", **SMALL).fit(random_log(1, no_click=0.5))
