"""A step of the game on a card against one on the CPU; its operators: tests/nets/test_cuda_ops.py."""

from __future__ import annotations

import copy

import pytest
import torch

from fastgaum.config import Config
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.logs.synthetic import synthesise
from fastgaum.nets.batches import batches
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from tests.builders import PlainGame


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device at hand")
@pytest.mark.parametrize(
    ("history", "regulariser"), [("lstm", "shannon"), ("pw", "l2"), ("lstm", "tsallis")]
)
@pytest.mark.parametrize("kind", ["exact_step", "round"])
def test_a_step_on_the_card_is_the_step_on_the_cpu(
    history: str, regulariser: str, kind: str
) -> None:
    log, _ = synthesise(300, preset="sample")
    space = fit_space(log, "bags")
    changes = {"players": "adversarial", "history": history, "regulariser": regulariser}
    config = Config.from_preset("paper-lstm", id_dropout=0.0, **changes)
    torch.manual_seed(0)
    networks, losses = Networks(config, space.n_ids, space.n_numbers), []
    batch = next(batches(Encoder(space, log).encode(log.sessions_in("train")), 10_000))
    for device in ("cpu", "cuda"):
        own = copy.deepcopy(networks).to(device)
        game = PlainGame(
            own,
            config,
            regulariser_of(config),
            torch.from_numpy(space.unknown_of_id).to(device),
            False,
        )
        losses.append([getattr(game, kind)(batch.to(device)) for _ in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3, abs=1e-4)
