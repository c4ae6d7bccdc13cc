"""How much a step may hold."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.engine.game import EngineGame
from fastgaum.features import sessions
from fastgaum.models.user_model import UserModel
from fastgaum.nets.tensors import BatchTensors
from tests.builders import random_log


def test_a_step_never_holds_more_candidates_than_a_batch_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long sessions are cut into more batches, and what is predicted stays the same."""
    log = random_log(3, n_sessions=200, max_length=12)
    # without counts each session is read once an epoch
    plain = {"counts": False, "relations": False}
    model = UserModel.from_preset(epochs=2, players="exact", search=[], hidden=[8], **plain)
    model.fit(log)
    whole = model.predict(log)
    sizes: list[int] = []
    step = EngineGame.exact_step

    def recorded(game: EngineGame, batch: BatchTensors) -> float:
        sizes.append(batch.candidates.n_bags)
        return step(game, batch)

    monkeypatch.setattr(EngineGame, "exact_step", recorded)
    monkeypatch.setattr(sessions, "BATCH_CANDIDATES", 60)
    cut = model.predict(log)
    assert cut.drop("utility", "probability", "no_click_probability").equals(
        whole.drop("utility", "probability", "no_click_probability")
    )
    np.testing.assert_allclose(
        cut["utility"].to_numpy(), whole["utility"].to_numpy(), rtol=1e-5, atol=1e-6
    )
    model.fit(log)
    largest = int(np.diff(log.display_offsets[log.session_offsets]).max())
    assert max(sizes) <= max(60, largest)
    assert len(sizes) > 2 * 5
    assert sum(sizes) == 2 * sum(
        int(
            log.display_offsets[log.session_offsets[s + 1]]
            - log.display_offsets[log.session_offsets[s]]
        )
        for s in log.sessions_in("train")
    )
