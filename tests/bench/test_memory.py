"""The soak's slope, and how much a step may hold; the full measures are commands of their own
(bench/memory.py)."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.bench.memory import PAGE_MB, slope_of
from fastgaum.engine.game import EngineGame
from fastgaum.features import sessions
from fastgaum.models.user_model import UserModel
from fastgaum.nets.tensors import BatchTensors
from tests.builders import random_log


@pytest.mark.parametrize(("per_epoch", "flat"), [(0.0, True), (0.0005, True), (0.02, False)])
def test_the_slope_finds_growth_under_noise(per_epoch: float, flat: bool) -> None:
    epochs = np.arange(201)
    resident = 500 + per_epoch * epochs + np.random.default_rng(0).normal(0, 0.05, 201)
    low, slope, high = slope_of(resident.tolist())
    assert low < slope < high
    assert low < per_epoch < high
    assert (high < PAGE_MB) == flat
    assert slope_of([1.0, 3.0]) == (2.0, 2.0, 2.0)


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


def test_a_small_limit_changes_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    log = random_log(4, n_sessions=120, max_length=6)
    model = UserModel.from_preset(epochs=1, players="exact", search=[], hidden=[8])
    model.fit(log)
    before = model.evaluate(log, "test")
    monkeypatch.setattr(sessions, "BATCH_CANDIDATES", 30)
    after = model.evaluate(log, "test")
    assert after.n_events == before.n_events
    left, right = before.heads["reward"], after.heads["reward"]
    assert right.precision[1].mean == pytest.approx(left.precision[1].mean)
    assert right.nll.mean == pytest.approx(left.nll.mean, rel=1e-5)
