"""Kernels against their twins in torch: the same networks, the same batches."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastgaum.config import Config
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.item_vectors import rows_of_chosen
from fastgaum.features.space import FeatureSpace
from fastgaum.game.game import Game
from fastgaum.game.scoring import score_batches
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.batches import Batch, batches
from fastgaum.nets.histories import HistoryEncoder, history_encoder
from fastgaum.nets.networks import ContextSizes, Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.tensors import Bags, BagVectors
from tests.builders import PlainGame, with_drawn_actions

CASES: list[dict[str, Any]] = [
    {},
    {"hidden": (24,), "generator_steps": 3, "weight_decay": 0.05},
    {"hidden": (16, 24, 8), "wide": True, "clip": 0.1},
    {"tower_dim": 6, "history_layers": 2, "wide": True, "weight_decay": 0.05},
    {"tower_dim": 5, "context": 2, "vector_dim": 4, "weight_decay": 0.05},
    {"tastes": 4, "wide": True, "n_own": 2},
    {"tower_dim": 6, "context": 1, "vector_dim": 3, "n_own": 2},
    {"actions": True, "history_layers": 2, "wide": True},
    {"actions": True, "tower_dim": 6, "context": 2, "vector_dim": 3},
    {"weighted": True, "tower_dim": 6, "n_places": 3, "eta": 2.0},
    {"weighted": True, "wide": True, "generator_steps": 2},
    {"signed": ((-1, 3), (1, 1)), "wide": True, "weighted": True, "weight_decay": 0.05},
    {"signed": ((1, 2),), "tower_dim": 6, "context": 1, "n_own": 2, "n_places": 3},
]


def contenders(
    log: SessionLog,
    protocol: str,
    context: int = 0,
    n_places: int = 0,
    vector_dim: int = 0,
    n_own: int = 0,
    signed: tuple[tuple[int, int], ...] = (),
    **changes: Any,
) -> tuple[Game, Game, FeatureSpace, Config]:
    """Both games over equal networks, nothing drawn; so many context fields, and a number for
    each; so many places examined apart; so many numbers are the log's own, and the
    last ones have signs."""
    space = fit_space(log, protocol, relative_numbers=False)
    config = Config.from_preset(
        "paper-lstm",
        **{"players": "adversarial", "id_dropout": 0.0, "weight_decay": 0.0, **changes},
    )
    torch.manual_seed(0)
    n_read = space.n_numbers - sum(width for _, width in signed)
    own = range(n_read - n_own, n_read)
    sizes = ContextSizes((True, False)[:context], context, vector_dim, own, signed=signed)
    networks = Networks(
        config,
        space.n_ids,
        space.n_numbers,
        context=sizes,
        places=tuple(-0.5 * place for place in range(n_places)),
    )
    twin, unknown = copy.deepcopy(networks), torch.from_numpy(space.unknown_of_id)
    rule, no_click = regulariser_of(config), log.has_no_click
    return (
        PlainGame(networks, config, rule, unknown, no_click),
        Game(twin, config, rule, unknown, no_click),
        space,
        config,
    )


def whole(
    log: SessionLog, space: FeatureSpace, context: int = 0, vector_dim: int = 0
) -> Iterator[Batch]:
    """All training sessions in one batch: every row that the batch can name is named in every
    step."""
    encoded = Encoder(space, log).encode(log.sessions_in("train"))
    rng, shape = np.random.default_rng(0), (encoded.n_events, context)
    encoded = dataclasses.replace(
        encoded,
        context_ids=rng.integers(0, space.n_ids, shape).astype(np.int32),
        context_numbers=rng.standard_normal(shape).astype(np.float32),
    )
    for batch in batches(encoded, log.n_sessions):
        n = 7
        of_candidates = rng.integers(0, n, len(batch.ids)).astype(np.int32)
        values = torch.from_numpy(rng.standard_normal((n, vector_dim)).astype(np.float32))
        rows = {
            "candidates": of_candidates,
            "tokens": rows_of_chosen(of_candidates, batch.token_candidates.numpy()),
            "context": rng.integers(-1, n, batch.context_ids.size).astype(np.int32),
        }
        bags = {
            name: dataclasses.replace(
                getattr(batch, name), vectors=BagVectors(values, torch.from_numpy(own))
            )
            for name, own in rows.items()
        }
        yield dataclasses.replace(batch, **bags) if vector_dim else batch


@pytest.mark.parametrize("number", range(len(CASES)))
def test_steps_agree(number: int) -> None:
    case = CASES[number]
    log, _ = synthesise(300, preset="sample", no_click=0.3 * (number % 2), n_items=30)
    counted = case.get("wide") or case.get("n_own") or case.get("signed")
    protocol, case = "bags" if counted else "identity", dict(case)
    log = with_drawn_actions(log) if case.pop("actions", False) else log
    if case.pop("weighted", False):
        drawn = np.random.default_rng(0).uniform(0.1, 5, log.n_events).astype(np.float32)
        log = dataclasses.replace(log, weights=drawn)
    reference, fused, space, config = contenders(log, protocol, **case)
    batch = next(whole(log, space, case.get("context", 0), case.get("vector_dim", 0)))
    for kind in ("exact_step", "round", "exact_step", "round", "round"):
        losses = []
        for game in (reference, fused):
            torch.manual_seed(0)
            losses.append(getattr(game, kind)(batch))
        assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=2e-5)
    fused.settle()
    both = [
        score_batches(game.outputs, [batch], game.regulariser, config.eta, log.has_no_click)
        for game in (reference, fused)
    ]
    for head in ("reward", "generator"):
        left, right = (scores.heads[head] for scores in both)
        assert left.log_probs == pytest.approx(right.log_probs, rel=2e-3, abs=2e-3)


def test_generator_turn_moves_the_generator_alone() -> None:
    # where no click is offered the last bias has no effect, and Adam moves it by rounding errors
    # alone
    log, _ = synthesise(200, preset="sample", no_click=0.3)
    reference, fused, space, _ = contenders(log, "identity", generator_steps=2)
    batch = next(whole(log, space))
    before = copy.deepcopy(fused.networks.state_dict())
    for game in (reference, fused):
        game.generator_turn(batch, 2)
    for name, value in fused.networks.state_dict().items():
        torch.testing.assert_close(
            value, reference.networks.state_dict()[name], rtol=1e-3, atol=1e-4
        )
        assert torch.equal(value, before[name]) == (not name.startswith("generator"))


def test_threads_do_not_change_a_bit() -> None:
    log, _ = synthesise(6_000, preset="sample")
    states = []
    count = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            _, fused, space, _ = contenders(log, "bags", wide=True, weight_decay=0.1)
            batch = next(whole(log, space))
            losses = [fused.round(batch) for _ in range(3)]
            fused.release()
            states.append((losses, fused.networks.state_dict()))
    finally:
        torch.set_num_threads(count)
    assert states[0][0] == states[1][0]
    for name, value in states[0][1].items():
        assert torch.equal(value, states[1][1][name]), name


@pytest.mark.parametrize("history", ["pw", "own"])
@pytest.mark.parametrize("regulariser", ["shannon", "l2", "tsallis"])
def test_each_operator_chooses_for_itself(history: str, regulariser: str) -> None:
    """Under an encoder or a regulariser that no kernel knows, the scorer keeps its kernels, and the
    steps are those of torch alone."""
    log, _ = synthesise(300, preset="sample", n_items=30)
    space = fit_space(log, "identity", relative_numbers=False)
    config = Config.from_preset(
        "paper-lstm",
        players="adversarial",
        id_dropout=0.0,
        regulariser=regulariser,
        history="pw" if history == "pw" else "lstm",
    )
    encoder = LastChoice if history == "own" else history_encoder
    torch.manual_seed(0)
    networks = Networks(config, space.n_ids, space.n_numbers, encoder)
    twin, unknown = copy.deepcopy(networks), torch.from_numpy(space.unknown_of_id)
    batch, losses = next(whole(log, space)), []
    for kind, own in ((Game, networks), (PlainGame, twin)):
        game = kind(own, config, regulariser_of(config), unknown, log.has_no_click)
        states = game.networks.player.states(batch)
        assert own.player.reward.kernels_for(batch.candidates, states)
        losses.append([game.exact_step(batch), game.round(batch), game.exact_step(batch)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=2e-5)


@pytest.mark.parametrize("kind", [Game, PlainGame])
@pytest.mark.parametrize("regulariser", ["shannon", "l2"])
def test_every_step_drops_units(regulariser: str, kind: type[Game]) -> None:
    """Without steps in between, another seed gives another loss, the same seed the same one."""
    log, _ = synthesise(300, preset="sample", n_items=30)
    space = fit_space(log, "identity", relative_numbers=False)
    config = Config.from_preset(
        "paper-lstm",
        players="adversarial",
        id_dropout=0.0,
        dropout=0.5,
        regulariser=regulariser,
        lr=1e-30,
        generator_lr=0.01,
    )
    torch.manual_seed(0)
    networks = Networks(config, space.n_ids, space.n_numbers)
    unknown = torch.from_numpy(space.unknown_of_id)
    game = kind(networks, config, regulariser_of(config), unknown, log.has_no_click)
    batch = next(whole(log, space))

    def stepped(seed: int, step: str) -> float:
        torch.manual_seed(seed)
        return float(getattr(game, step)(batch))

    assert stepped(1, "exact_step") == stepped(1, "exact_step") != stepped(2, "exact_step")
    before = [one.clone() for one in networks.generator.parameters()]  # type: ignore[union-attr]
    game.generator_turn(batch, 1)
    moved = [one.clone() for one in networks.generator.parameters()]  # type: ignore[union-attr]
    assert not all(map(torch.equal, before, moved))


class LastChoice(HistoryEncoder):
    """The state is a map of the last choice."""

    def __init__(self, config: Config, n_ids: int, n_numbers: int) -> None:
        super().__init__()
        self.state_dim = 7
        self.input = BagLinear(n_ids, n_numbers, 7, 0.1)

    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        return torch.tanh(self.input(tokens))
