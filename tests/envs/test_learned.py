"""LearnedWorld: what its users are shown and choose from is what the encoder makes of a log that holds the same sessions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.config import Config
from fastgaum.envs.learned import LearnedWorld
from fastgaum.models.regularisers import Custom
from fastgaum.models.tensors import to_tensors
from fastgaum.models.user_model import UserModel
from fastgaum.ops.segments import segment_sum
from fastgaum.sessions.batches import assemble
from fastgaum.sessions.packed import SessionLog
from tests.builders import random_log
from tests.envs.simulated import as_log, keys_of, play

SMALL: dict[str, Any] = {
    "epochs": 1, "warm_start": 2, "catch_up": 1, "hidden": [8, 6], "history_dim": 5, "batch_sessions": 16, "lr": 0.03, "search": [],
}  # fmt: skip
IDENTITY: dict[str, Any] = {"protocol": "identity", "relations": False, "set_context": False}


def fitted(log: SessionLog, **changes: Any) -> UserModel:
    model = UserModel.from_preset(**{**SMALL, **changes}, device="cpu")
    model.fit(log)
    return model


def check_same_as_encoder(
    model: UserModel, world: LearnedWorld, source: SessionLog | None = None, idle: float = 0.0
) -> None:
    """Play, write the sessions down, and ask the model."""
    users = world.population(7)
    users.reset(keys_of(1, 7))
    played = play(users, world, steps=6, idle=idle)
    log, had = as_log(played, world, source)
    assert model.space is not None
    batch = to_tensors(
        assemble(model.space.encode(log, log.sessions_in("all")), np.arange(log.n_sessions, dtype=np.int32))
    )
    log_probs, none = model.choice_log_probs(batch, world.head)
    tolerance = 1e-5 if not isinstance(model.regulariser, Custom) else 1e-4
    # sparse distributions are floored at 1e-12 before the logarithm
    np.testing.assert_allclose(had["probability"], log_probs.exp().numpy(), atol=tolerance)
    np.testing.assert_allclose(had["none"], none.exp().numpy() if world.outside else 0 * had["none"], atol=tolerance)
    np.testing.assert_allclose(had["utility"], model.utility(batch).numpy()[had["chosen"]], rtol=1e-4, atol=2e-5)
    assert len(had["chosen"]) > 10
    sizes = np.diff(log.display_offsets)
    assert had["probability"][np.repeat(sizes, sizes) > 1].std() > 1e-3, (
        "nothing was learned: everything equals everything"
    )


VARIANTS: list[dict[str, Any]] = [
    IDENTITY,
    {**IDENTITY, "history": "gru"},
    {**IDENTITY, "item_dim": 3, "activation": "elu"},
    {**IDENTITY, "wide": False, "history_layers": 2},
    {"relations": False},
    {"relations": True},
    {"relations": True, "set_context": False, "history": "gru", "history_layers": 2},
    {"members": 2, "activation": "tanh"},
    {"history_owner": "own"},
    {"members": 2, "history_owner": "own", "history": "gru"},
    {"history": "pw", "history_window": 3},
    {"history": "bilstm"},
    {"history": "bilstm", "history_layers": 2, "members": 2},
    {"regulariser": "l2"},
    {"regulariser": "tsallis"},
    {"regulariser": "tsallis", "tsallis_alpha": 1.7},
    {"eta": 2.0, "history_layers": 2, "item_dim": 2},
]


@pytest.mark.parametrize("head", ["generator", "reward"])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_probabilities_are_the_model_s_on_the_same_sessions(changes: dict[str, Any], head: Any) -> None:
    model = fitted(random_log(4, n_sessions=60, no_click=0.3), **changes)
    check_same_as_encoder(model, LearnedWorld(model, head))


@pytest.mark.parametrize("changes", [IDENTITY, {}, {"history": "pw"}, {"history": "bilstm"}, {"members": 2}], ids=str)
def test_users_who_sit_out_stay_as_they_are(changes: dict[str, Any]) -> None:
    model = fitted(random_log(4, n_sessions=60, no_click=0.3), **changes)
    check_same_as_encoder(model, LearnedWorld(model), idle=0.4)


def test_without_no_click() -> None:
    model = fitted(random_log(5, n_sessions=60), relations=True)
    check_same_as_encoder(model, LearnedWorld(model, "reward"))


@pytest.mark.parametrize("head", ["generator", "reward"])
def test_a_regulariser_of_the_user_s_own(head: Any) -> None:
    def half_square(probs: torch.Tensor, outside: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return 0.5 * (segment_sum(probs.square(), offsets) + outside.square())

    model = UserModel(Config.from_preset("fastgaum", **SMALL), regulariser=Custom(half_square, steps=20), device="cpu")
    model.fit(random_log(4, n_sessions=60, no_click=0.3))
    check_same_as_encoder(model, LearnedWorld(model, head))
