"""The path of a card: every reduction, every recurrence and a step of the game against the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from fastgaum.config import Config
from fastgaum.features.batches import batches
from fastgaum.features.space import FeatureSpace
from fastgaum.game.game import ReferenceGame
from fastgaum.logs.synthetic import synthesise
from fastgaum.nets import segments
from fastgaum.nets.bags import bag_sum
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.sequences import lag_readout, lag_structure, lag_weighted, lstm
from fastgaum.nets.tensors import to_tensors

card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device at hand")
OFFSETS = torch.tensor([0, 3, 3, 4, 9], dtype=torch.int32)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@card
@pytest.mark.parametrize("name", ["bags", "lstm", "lags", "softmax", "sparsemax", "entmax"])
def test_a_card_gives_what_the_cpu_gives(name: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        leaf = draw(9, 20).to(device).requires_grad_()
        out = FUNCTIONS[name](leaf, OFFSETS.to(device))
        (grad,) = torch.autograd.grad(out.square().sum(), leaf)
        results.append((out.detach().cpu(), grad.cpu()))
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


def _lags(leaf: Tensor, offsets: Tensor) -> Tensor:
    ids = torch.arange(9, device=leaf.device).int() % 3
    structure = lag_structure(offsets, ids, torch.arange(10, device=leaf.device).int(), 3)
    weights = lag_weighted(structure, draw(3, 2).to(leaf.device), draw(2).to(leaf.device))
    return lag_readout(leaf[:6], structure, weights)


FUNCTIONS = {
    "bags": lambda leaf, offsets: bag_sum(
        leaf, torch.arange(9, device=leaf.device).int() % 4, offsets
    ),
    "lstm": lambda leaf, offsets: torch.cat(
        lstm(leaf, offsets, draw(20, 5).to(leaf.device), leaf[:4, :5], leaf[:4, 5:10]), 1
    ),
    "lags": _lags,
    "softmax": lambda leaf, offsets: segments.segment_log_softmax(
        leaf[:, 0].contiguous(), offsets[[0, 1, 3, 4]], True
    )[0],
    "sparsemax": lambda leaf, offsets: segments.segment_entmax(
        leaf[:, 0], offsets[[0, 1, 3, 4]], True, 2.0
    )[0],
    "entmax": lambda leaf, offsets: segments.segment_entmax(
        leaf[:, 0], offsets[[0, 1, 3, 4]], True, 1.5
    )[0],
}


@card
@pytest.mark.parametrize("history", ["lstm", "pw", "bilstm"])
@pytest.mark.parametrize("kind", ["exact_step", "round"])
def test_a_step_on_the_card_is_the_step_on_the_cpu(history: str, kind: str) -> None:
    log, _ = synthesise(300, preset="sample")
    space = FeatureSpace.fit(log, "bags")
    config = Config.from_preset(
        "paper-lstm", players="adversarial", history=history, id_dropout=0.0
    )
    torch.manual_seed(0)
    networks, losses = Networks(config, space.n_ids, space.n_numbers), []
    batch = next(batches(space.encode(log, log.sessions_in("train")), 10_000))
    for device in ("cpu", "cuda"):
        own = copy.deepcopy(networks).to(device)
        game = ReferenceGame(
            own,
            config,
            regulariser_of(config),
            torch.from_numpy(space.unknown_of_id).to(device),
            False,
        )
        losses.append([getattr(game, kind)(to_tensors(batch, device)) for _ in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3, abs=1e-4)
