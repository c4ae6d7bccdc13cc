"""Baselines as users: what they choose by is what they say of a log that holds the same
sessions."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.baselines.base import Baseline
from fastgaum.baselines.registry import make_model
from fastgaum.errors import ConfigError
from fastgaum.features.batches import assemble
from fastgaum.nets.tensors import to_tensors
from fastgaum.worlds.model_world import ModelWorld
from tests.builders import random_log
from tests.worlds.simulated import as_log, encoded, keys_of, play


@pytest.mark.parametrize("idle", [0.0, 0.4])
@pytest.mark.parametrize("name", ["wd-ccf", "iknn", "s-rnn", "linucb"])
def test_probabilities_are_the_model_s_on_the_same_sessions(name: str, idle: float) -> None:
    model = make_model(name, {"protocol": "bags"})
    model.fit(random_log(4, n_sessions=80, no_click=0.3))
    world = ModelWorld(model)
    users = world.population(5)
    users.reset(keys_of(0, 5))
    log, had = as_log(play(users, world, steps=5, idle=idle), world)  # type: ignore[arg-type]
    assert model.space is not None
    batch = to_tensors(
        assemble(encoded(model.space, log), np.arange(log.n_sessions, dtype=np.int32))
    )
    log_probs, none = model.choice_log_probs(batch)
    np.testing.assert_allclose(had["probability"], log_probs.exp().numpy(), atol=1e-5)
    np.testing.assert_allclose(had["none"], none.exp().numpy(), atol=1e-5)
    np.testing.assert_allclose(
        had["utility"], model.utility(batch).numpy()[had["chosen"]], atol=1e-4
    )
    assert users.states.shape == (5, world.state_dim)
    assert users.states[:, -1].min() > 0


def test_users_of_a_model_that_is_not_trained() -> None:
    model = make_model("iknn", {})
    assert isinstance(model, Baseline)
    with pytest.raises(ConfigError, match="has not been trained"):
        ModelWorld(model)
