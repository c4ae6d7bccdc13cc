"""Models whose epoch is chosen by the calibrated loss: the scale of that loss is in the weights.

That a world and an online user have the probabilities of `predict`: "calibrated" of MODELS
(tests/live_users/online_users.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.features.encoder import Encoder
from fastgaum.features.training_order import folds_of
from fastgaum.game.scoring import figures
from fastgaum.logs.log import TEST, SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.nets.batches import assemble
from tests.builders import log_of, random_log
from tests.golden.make import log_of as log_of_roles
from tests.models.test_user_model import SMALL


def log_of_chance(n_sessions: int = 300) -> SessionLog:
    """Displays of four of twelve items, of which one is chosen by chance."""
    rng = np.random.default_rng(2)
    sessions = [
        [(rng.choice(12, 4, replace=False).tolist(), int(rng.integers(4))) for _ in range(3)]
        for _ in range(n_sessions)
    ]
    return log_of(sessions, split=([0, 0, 1, 2] * n_sessions)[:n_sessions])


@pytest.mark.parametrize("preset", ["paper-lstm", "paper-pw"])
def test_pure_chance_is_known_as_such(preset: str) -> None:
    log = log_of_chance()
    model = UserModel.from_preset(preset, device="cpu", epochs=30, patience=10)
    table = model.fit(log).history_
    test = model.evaluate(log, "test").heads["reward"]
    assert test.nll.mean <= np.log(4) + 0.02
    # of the plain loss the best epoch of paper-lstm is the first
    assert table["best"].arg_true().max() == table["val_calibrated_loss"].arg_min()
    # figures of training are those of the networks as they were trained
    best = table.filter("best").row(-1, named=True)
    chosen = model.evaluate(log, "validation").heads["reward"]
    assert chosen.nll.mean == pytest.approx(best["val_calibrated_loss"], abs=1e-4)
    assert chosen.nll.mean < best["val_loss"]
    assert chosen.precision[1].mean == pytest.approx(best["val_prec1"], abs=1e-4)


TOWERS: dict[str, Any] = {"tower_dim": 4, "relations": False, "relative_numbers": False}


@pytest.mark.parametrize(
    "changes",
    [
        {"players": "exact", "protocol": "identity"},
        {"folds": 2},
        {**TOWERS, "history": "pw"},
        {"regulariser": "l2", "eta": 2.0},
    ],
    ids=str,
)
def test_all_networks_are_scaled_as_a_whole(changes: dict[str, Any]) -> None:
    """On a log of every role: towers, histories and contexts share a table of items. The scale of
    the fit is the best one: a further one finds 1."""
    log = log_of_roles("made")
    own = {**SMALL, "select": "calibrated loss", "search": [], "folds": 0, **changes}
    model = UserModel.from_preset(device="cpu", **own)
    best = model.fit(log).history_.filter("best").row(-1, named=True)
    assert model.space is not None
    for fold, one in enumerate((model, *model.members)):
        rows = log.sessions_in("validation")
        if model.space.folds:
            rows = np.flatnonzero(
                (log.split != TEST) & (folds_of(log.user_hashes, model.space.folds) == fold)
            )
        encoded = Encoder(model.space, log).encode(rows.astype(np.int32))
        batches = [assemble(encoded)]
        networks, config = one.networks, one.config
        assert networks is not None
        rule = (one.regulariser, config.eta, one.no_click)
        found = figures(networks.outputs, batches, *rule, calibrated=True)
        assert found.scale == pytest.approx(1, abs=0.02)
        assert found.loss == pytest.approx(found.calibrated_loss, abs=1e-3)
        if one is model:
            assert found.loss == pytest.approx(best["val_calibrated_loss"], abs=1e-3)
            assert found.prec1 == pytest.approx(best["val_prec1"], abs=1e-6)
        before = [networks.outputs(batch) for batch in batches]
        networks.scale(0.3)
        for (utility, logits), batch in zip(before, batches, strict=True):
            scaled, of_generator = networks.outputs(batch)
            torch.testing.assert_close(scaled, 0.3 * utility, rtol=1e-4, atol=1e-5)
            if logits is not None:
                assert of_generator is not None
                torch.testing.assert_close(of_generator, 0.3 * logits, rtol=1e-4, atol=1e-5)


def test_epochs_that_are_chosen_by_the_loss_are_not_scaled() -> None:
    log = random_log(3)
    model = UserModel.from_preset("paper-lstm", select="loss", epochs=3, device="cpu")
    best = model.fit(log).history_.filter("best").row(-1, named=True)
    found = model.evaluate(log, "validation").heads["reward"].nll.mean
    assert found == pytest.approx(best["val_loss"], abs=1e-5)
