"""Numbers that are not finite: nothing moves by them, the batch is named, training stops."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastgaum.config import Config
from fastgaum.errors import NumericsError, StepRefusedError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.sessions import EncodedSessions
from fastgaum.game.game import Game
from fastgaum.game.loop import Trainer, TrainingData, require_finite_weights
from fastgaum.models.user_model import UserModel
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.batches import assemble, batches
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.ops.optimiser import LazyAdamW
from fastgaum.ops.tables import OfBags, learned_table
from tests.builders import PlainGame, put, random_log

GAMES = {"kernels": Game, "torch": PlainGame}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("kernels", {}),
    ("kernels", {"activation": "elu", "history_layers": 2}),
    ("kernels", {"wide": False}),
    ("torch", {}),
    ("torch", {"history": "pw", "regulariser": "l2"}),
    ("kernels", {"history": "pw", "regulariser": "tsallis"}),
]


def made(kind: str, **changes: Any) -> tuple[Any, EncodedSessions]:
    log = random_log(3, n_sessions=24)
    space = fit_space(log)
    config = Config.from_preset(
        "fastgaum", hidden=[16, 8], dropout=0.0, id_dropout=0.0, search=[], folds=0, **changes
    )
    torch.manual_seed(0)
    networks = Networks(config, space.n_ids, space.n_numbers)
    unknown = torch.from_numpy(space.unknown_of_id)
    game = GAMES[kind](networks, config, regulariser_of(config), unknown, False)
    return game, Encoder(space, log).encode(log.sessions_in("train"))


def poisoned(encoded: EncodedSessions, session: int, value: float) -> EncodedSessions:
    """One number of one candidate of a session replaced."""
    base = encoded.base.copy()
    base[encoded.display_offsets[encoded.session_offsets[session]], 0] = value
    return dataclasses.replace(encoded, base=base)


def everything(game: Any) -> list[np.ndarray]:
    """Copies of all weights and of all that the optimisers hold."""
    held = [value.detach().numpy().copy() for value in game.networks.state_dict().values()]
    for optimiser in game.optimisers().values():
        held += [value.numpy().copy() for value in optimiser.state().values()]
        held.append(np.array(optimiser.counters))
    return held


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_refused_step_moves_nothing(number: int) -> None:
    (kind, case), value = CASES[number], (math.nan, math.inf)[number % 2]
    game, encoded = made(kind, **case)
    good = assemble(encoded, np.arange(6, dtype=np.int32))
    bad = assemble(poisoned(encoded, 2, value), np.arange(6, dtype=np.int32))
    for step in (game.exact_step, game.round):
        step(good)
        before = everything(game)
        with pytest.raises(StepRefusedError, match=r"is (nan|inf|-inf)"):
            step(bad)
        for old, new in zip(before, everything(game), strict=True):
            np.testing.assert_array_equal(old, new)
        # and the next step is the one it would have been
        assert math.isfinite(step(good))


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_gradient_that_is_not_finite_is_refused_where_the_loss_is(bad: float) -> None:
    for kind in GAMES:
        game, encoded = made(kind)
        game.exact_step(assemble(encoded, np.arange(4, dtype=np.int32)))
        optimiser = game.reward_optimiser
        optimiser.grad[3] = bad
        before = everything(game)
        with pytest.raises(StepRefusedError, match=r"the norm of the gradient is (nan|inf)"):
            optimiser.step()
        for old, new in zip(before, everything(game), strict=True):
            np.testing.assert_array_equal(old, new)


def train(kind: str, *bad: int, **changes: Any) -> Trainer:
    """A trainer over a log of which some sessions hold a NaN."""
    log = random_log(3, n_sessions=60)
    space = fit_space(log)
    small = {
        "warm_start": 2,
        "epochs": 2,
        "catch_up": 1,
        "batch_sessions": 8,
        "search": [],
        "folds": 0,
    }
    config = Config.from_preset("fastgaum", **{**small, "hidden": [8], **changes})
    encoded = Encoder(space, log).encode(log.sessions_in("train"))
    for session in bad:
        encoded = poisoned(encoded, session, math.nan)
    data = TrainingData(encoded, Encoder(space, log).encode(log.sessions_in("validation")))
    torch.manual_seed(0)
    networks = Networks(config, space.n_ids, space.n_numbers)
    unknown = torch.from_numpy(space.unknown_of_id)
    game = GAMES[kind](networks, config, regulariser_of(config), unknown, False)
    return Trainer(game, data)


@pytest.mark.parametrize("kind", GAMES)
def test_training_stops_and_names_the_batch(kind: str) -> None:
    trainer = train(kind, 5)
    with pytest.raises(NumericsError, match=r"the loss is nan in epoch 1, batch \d; the last good"):
        trainer.run()
    assert all(parameter.isfinite().all() for parameter in trainer.networks.parameters())


def test_weights_that_overflow_are_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = train("kernels")
    weight = trainer.networks.player.reward.from_state.weight
    batch = next(batches(trainer.data.train, 8))
    weight.data[0] = math.inf
    place = r"'player\.reward\.from_state\.weight' are not finite in epoch 1, batch 2"
    with pytest.raises(NumericsError, match=place):
        trainer._step(trainer.game.exact_step, batch, "epoch 1, batch 2")
    monkeypatch.setattr(trainer, "_phases", lambda: require_finite_weights(trainer.networks, "now"))
    with pytest.raises(NumericsError, match="last good state"):
        trainer.run()
    assert weight.isfinite().all()


@pytest.mark.parametrize("clip", [5.0, 1e-3])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e18, 1e30, 1e33])
def test_clipping_is_torchs_by_kernels_and_in_torch(size: float, clip: float) -> None:
    """Against clip_grad_norm_ in float64, which huge gradients do not overflow; Adam's first moment
    shows the gradient."""
    n, width, rng = 4, 3, np.random.default_rng(0)
    grads = [
        (size * rng.standard_normal(shape)).astype(np.float32) for shape in ((n, width), width)
    ]
    twins = [nn.Parameter(torch.zeros(grad.shape, dtype=torch.float64)) for grad in grads]
    for twin, grad in zip(twins, grads, strict=True):
        twin.grad = torch.from_numpy(grad).double()
    torch.nn.utils.clip_grad_norm_(twins, clip)
    for by_kernels in (True, False):
        layer, rows = BagLinear(n, 0, width, 0.0), np.arange(n + 1, dtype=np.int32)
        assert layer.bias is not None
        ours = LazyAdamW([layer.bias], [layer.table], 0.01, 0.0, clip)
        ours.by_kernels = by_kernels
        ours.grad[:] = torch.from_numpy(grads[1])
        table = learned_table(layer.table)
        assert table is not None
        table.give(OfBags(rows[:-1], rows, grads[0]))
        ours.step()
        for twin, moment in zip(twins, (ours.tables[0].m, ours.m), strict=True):
            assert twin.grad is not None
            expected = 0.1 * twin.grad.numpy()
            at_most = max(np.abs(expected).max(), 1e-37)
            np.testing.assert_allclose(moment.numpy(), expected, atol=1e-4 * at_most)


def test_a_score_that_is_not_finite_names_its_event() -> None:
    log = random_log(3, n_sessions=24)
    price = np.linspace(0, 1, log.n_candidates).astype(np.float32)
    plain = put(log, candidate={"price": price})
    model = UserModel.from_preset(search=[], folds=0, players="exact", epochs=1)
    model.fit(plain)
    with torch.no_grad():
        assert model.networks is not None
        model.networks.player.reward.from_state.weight.fill_(math.nan)
    with pytest.raises(
        NumericsError, match=r"event '\d+' of session 's0': the reward gives item 'i\d+' nan"
    ):
        model.predict(plain)
