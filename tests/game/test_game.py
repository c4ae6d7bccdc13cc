"""The game: both players move, the generator approaches its best response, states can be
generated."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastgaum.config import Config
from fastgaum.engine.game import EngineGame
from fastgaum.features.batches import batches
from fastgaum.features.space import FeatureSpace
from fastgaum.game.game import ReferenceGame
from fastgaum.models.user_model import UserModel
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.tensors import to_tensors
from tests.builders import random_log


def _game(**changes: Any) -> tuple[ReferenceGame, list[Any]]:
    torch.manual_seed(0)
    config = Config.from_preset("fastgaum", hidden=[16, 16], dropout=0.0, id_dropout=0.0, **changes)
    log = random_log(2, n_sessions=40)
    space = FeatureSpace.fit(log)
    networks = Networks(config, space.n_ids, space.n_numbers)
    tensors = [to_tensors(b) for b in batches(space.encode(log, log.sessions_in("train")), 64)]
    return ReferenceGame(
        networks, config, regulariser_of(config), torch.from_numpy(space.unknown_of_id), False
    ), tensors


@pytest.mark.parametrize("states", ["logged", "generated"])
def test_one_round_moves_every_part_of_both_players(states: str) -> None:
    """Truth 3: history, reward and generator parameters all change (the report's generator never
    did)."""
    game, tensors = _game(states=states)
    before = {name: value.clone() for name, value in game.networks.state_dict().items()}
    for _ in range(2):
        game.round(tensors[0])
    still = [
        name
        for name, value in game.networks.state_dict().items()
        if torch.equal(value, before[name])
    ]
    assert not still


def test_the_generators_turn_leaves_the_reward_player_alone() -> None:
    game, tensors = _game()
    before = {name: value.clone() for name, value in game.networks.player.state_dict().items()}
    game.generator_turn(tensors[0], 3)
    assert all(
        torch.equal(value, before[name])
        for name, value in game.networks.player.state_dict().items()
    )


@pytest.mark.parametrize("regulariser", ["shannon", "l2", "tsallis"])
def test_an_adversarial_run_approaches_the_best_response(regulariser: str) -> None:
    """Truth 2: from a cold start, without the warm start, the gap on the training split falls below
    0.01."""
    log = random_log(5, n_sessions=200)
    model = UserModel.from_preset(
        regulariser=regulariser,
        warm_start=0,
        epochs=60,
        patience=60,
        batch_sessions=32,
        hidden=[32, 32],
    )
    table = model.fit(log)
    assert table["phase"].unique().to_list() == ["rounds"]
    gap = model.evaluate(log, "train").gap
    assert gap is not None
    assert gap < 0.01
    assert table["val_prec1"].max() > 1.1 * model.evaluate(log, "validation").random[1]  # type: ignore[operator]


def test_rounds_after_a_warm_start_report_their_phases_and_gap() -> None:
    log = random_log(5, n_sessions=120)
    table = UserModel.from_preset(epochs=3, warm_start=3, catch_up=30).fit(log)
    assert table["phase"].unique(maintain_order=True).to_list() == ["exact", "generator", "rounds"]
    gaps = table.filter(table["phase"] == "generator")["gap"].to_list()
    assert gaps[-1] < gaps[0]
    assert all(gap >= 0 for gap in table["gap"])


def test_a_phase_out_of_patience_goes_on_from_its_best_epoch_with_lower_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factors: list[float] = []
    original = EngineGame.set_learning_rates

    def recorded(game: EngineGame, factor: float, reward_share: float = 1.0) -> None:
        factors.append(factor)
        original(game, factor, reward_share)
        assert game.reward.optimiser.lr == pytest.approx(game.config.lr * factor)

    monkeypatch.setattr(EngineGame, "set_learning_rates", recorded)
    log = random_log(5, n_sessions=120)
    tables = [
        UserModel.from_preset(
            players="exact", lr=0.05, patience=2, epochs=80, lr_drops=drops, search=[]
        ).fit(log)
        for drops in (0, 2)
    ]
    assert factors == pytest.approx([1.0, 1.0, 1 / 3, 1 / 9])
    assert tables[1].height > tables[0].height
    assert tables[1]["val_loss"].min() <= tables[0]["val_loss"].min()  # type: ignore[operator]


def test_the_rounds_have_the_reward_learning_rate_of_their_own() -> None:
    game, _ = _game(lr=0.01, generator_lr=0.02, rounds_lr=0.25)
    game.set_learning_rates(0.5, game.config.rounds_lr)
    assert game.generator_optimiser is not None
    rates = [optimiser.lr for optimiser in (game.reward_optimiser, game.generator_optimiser)]
    assert rates == pytest.approx([0.01 * 0.5 * 0.25, 0.02 * 0.5])
