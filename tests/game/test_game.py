"""The game: both players move, the generator approaches its best response, and keeps to
it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from fastgaum import ops
from fastgaum.config import Config
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.game.game import Game
from fastgaum.models.user_model import UserModel
from fastgaum.nets.batches import batches
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import Custom, regulariser_of
from fastgaum.nets.segments import segment_sum
from tests.builders import PlainGame, random_log


def _game(kind: type[Game] = PlainGame, **changes: Any) -> tuple[Game, list[Any]]:
    torch.manual_seed(0)
    still = {"dropout": 0.0, "id_dropout": 0.0}
    config = Config.from_preset("fastgaum", hidden=[16, 16], **{**still, **changes})
    log = random_log(2, n_sessions=40)
    space = fit_space(log)
    networks = Networks(config, space.n_ids, space.n_numbers)
    tensors = list(batches(Encoder(space, log).encode(log.sessions_in("train")), 64))
    return kind(
        networks, config, regulariser_of(config), torch.from_numpy(space.unknown_of_id), False
    ), tensors


def test_one_round_moves_every_part_of_both_players() -> None:
    """Truth 3: history, reward and generator parameters all change (the report's generator never
    did)."""
    game, tensors = _game()
    before = {name: value.clone() for name, value in game.networks.state_dict().items()}
    for _ in range(2):
        game.round(tensors[0])
    still = [
        name
        for name, value in game.networks.state_dict().items()
        if torch.equal(value, before[name])
    ]
    assert not still


@pytest.mark.parametrize("regulariser", ["shannon", "l2"])
def test_an_adversarial_run_approaches_the_best_response(regulariser: str) -> None:
    """Truth 2: from a cold start, without the warm start, the gap on the training split falls below
    0.01."""
    log = random_log(5, n_sessions=80)
    model = UserModel.from_preset(
        regulariser=regulariser,
        warm_start=0,
        epochs=40,
        patience=40,
        batch_sessions=32,
        hidden=[32, 32],
        search=[],
        folds=0,
    )
    table = model.fit(log).history_
    assert table["phase"].unique().to_list() == ["rounds"]
    gap = model.evaluate(log, "train").gap
    assert gap is not None
    assert gap < 0.01
    assert table["val_prec1"].max() > 1.1 * model.evaluate(log, "validation").random[1]  # type: ignore[operator]


def test_rounds_after_a_warm_start_stay_near_the_best_response() -> None:
    """The generator starts as the best response, so that it has nothing to catch up, and then
    plays under the reward's own dropout: without that its gap grew tenfold."""
    log = random_log(5, n_sessions=120)
    short: dict[str, Any] = {"epochs": 12, "warm_start": 3, "search": [], "folds": 0}
    table = UserModel.from_preset(dropout=0.5, **short).fit(log).history_
    assert table["phase"].unique(maintain_order=True).to_list() == ["exact", "rounds"]
    assert all(0 <= gap < 0.01 for gap in table["gap"])


@pytest.fixture
def factors(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What learning rates are multiplied by, as often as they are set."""
    found: list[float] = []
    original = Game.set_learning_rates

    def recorded(game: Game, factor: float, reward_share: float = 1.0) -> None:
        found.append(factor)
        original(game, factor, reward_share)
        assert game.reward_optimiser.lr == pytest.approx(game.config.lr * factor * reward_share)

    monkeypatch.setattr(Game, "set_learning_rates", recorded)
    return found


@pytest.mark.parametrize(("patience", "taken_back"), [(8, 3), (1, 1)])
def test_rounds_that_lose_are_taken_back(
    factors: list[float], patience: int, taken_back: int
) -> None:
    """A reward so quick that no round can win: each is taken back, the next has a third of the
    learning rates, and the third is the last, or an earlier one if patience is less."""
    log = random_log(5, n_sessions=120)
    changes: dict[str, Any] = {"rounds_lr": 3000.0, "weight_decay": 0.0, "search": [], "folds": 0}
    model = UserModel.from_preset(warm_start=12, patience=patience, **changes)
    table = model.fit(log).history_
    exact, rounds = (table.filter(table["phase"] == phase) for phase in ("exact", "rounds"))
    assert rounds["best"].to_list() == [False] * taken_back
    assert factors[-taken_back:] == pytest.approx([1, 1 / 3, 1 / 9][:taken_back])
    kept = model.evaluate(log, "validation").heads["reward"].nll.mean
    assert kept == pytest.approx(exact["val_loss"].min(), abs=1e-6)


def test_a_generator_that_cannot_be_the_best_response_catches_up() -> None:
    """Half the entropy's weight: the best response is softmax(2r), the generator's own softmax."""

    def half_entropy(probs: Tensor, no_click_prob: Tensor, offsets: Tensor) -> Tensor:
        return 0.5 * segment_sum(probs * probs.clamp(min=1e-12).log(), offsets)

    log = random_log(5, n_sessions=60)
    config = Config.from_preset("fastgaum", epochs=1, warm_start=6, catch_up=6, search=[], folds=0)
    table = UserModel(config, regulariser=Custom(half_entropy, steps=20)).fit(log).history_
    assert table["phase"].unique(maintain_order=True).to_list() == ["exact", "generator", "rounds"]
    gaps = table.filter(table["phase"] == "generator")["gap"].to_list()
    assert gaps[-1] < gaps[0]


KINDS: list[tuple[type[Game], dict[str, Any]]] = [
    (PlainGame, {}),
    (PlainGame, {"tower_dim": 6, "history": "pw"}),
    (Game, {"wide": False}),
    (Game, {"tower_dim": 6}),
]


@pytest.mark.parametrize(("kind", "changes"), KINDS, ids=str)
def test_a_best_response_stays_one_whatever_is_dropped(
    changes: dict[str, Any], kind: type[Game]
) -> None:
    game, tensors = _game(kind, dropout=0.5, id_dropout=0.5, **changes)
    for batch in tensors:
        game.exact_step(batch)
    game.settle()
    game.networks.start_generator(1.0)
    before = copy.deepcopy(game.networks.state_dict())
    game.generator_turn(tensors[0], 3)
    for name, value in game.networks.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [*KINDS, *((kind, {"id_dropout": 0.0}) for kind in (PlainGame, Game))],
    ids=str,
)
def test_the_reward_meets_the_generator_with_nothing_dropped(
    changes: dict[str, Any],
    kind: type[Game],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against a choice under drops, a whole reward learns to be too sure of itself."""
    game, tensors = _game(kind, **{"dropout": 0.5, "id_dropout": 0.5, "lr": 0.03, **changes})
    for batch in tensors:
        game.round(batch)
    game.settle()
    met: list[Tensor] = []
    choice = Game._whole_choice

    def whole_choice(*inputs: Any) -> Tensor:
        met.append(choice(*inputs))
        return met[0]

    monkeypatch.setattr(Game, "_whole_choice", whole_choice)
    batch = tensors[0]
    with torch.no_grad(), ops.plain():
        states = game.networks.eval().player.states(batch).clone()
    game.round(batch)
    with ops.plain():
        logits = game.networks.eval().logits(batch, states).detach()
    whole = game.regulariser.link(logits, batch.display_offsets, False).probs
    torch.testing.assert_close(met[0], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("regulariser", "changes"),
    [("shannon", {"tower_dim": 6}), ("l2", {"wide": False}), ("tsallis", {})],
)
def test_the_generator_starts_as_the_best_response(
    regulariser: str, changes: dict[str, Any]
) -> None:
    game, tensors = _game(regulariser=regulariser, eta=2.5, **changes)
    for _ in range(30):
        game.exact_step(tensors[0])
    game.settle()
    game.networks.start_generator(2.5)
    utility, logits = game.outputs(tensors[0])
    assert logits is not None
    assert utility.abs().max() > 0.1
    torch.testing.assert_close(logits, 2.5 * utility, rtol=1e-4, atol=1e-5)


def test_a_phase_out_of_patience_goes_on_from_its_best_epoch_with_lower_rates(
    factors: list[float],
) -> None:
    log = random_log(5, n_sessions=120)
    tables = [
        UserModel.from_preset(
            players="exact", lr=0.05, patience=2, epochs=80, lr_drops=drops, search=[], folds=0
        )
        .fit(log)
        .history_
        for drops in (0, 2)
    ]
    assert factors == pytest.approx([1.0, 1.0, 1 / 3, 1 / 9])
    assert tables[1].height > tables[0].height
    assert tables[1]["val_loss"].min() <= tables[0]["val_loss"].min()  # type: ignore[operator]
