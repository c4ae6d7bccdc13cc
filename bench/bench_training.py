"""Events per second of training at the paper's sizes (LSTM 20, scorers 64-64): exact steps and adversarial rounds.

The log is a small `scale` world: the released files' short sessions over a large catalogue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.config import Config
from fastgaum.models.networks import Networks
from fastgaum.models.regularisers import regulariser_of
from fastgaum.models.tensors import to_tensors
from fastgaum.sessions.batches import batches
from fastgaum.sessions.features import EncodedSessions, FeatureSpace
from fastgaum.sessions.synthetic import synthesise
from fastgaum.training.game import Game

Encoded = tuple[FeatureSpace, EncodedSessions]


@pytest.fixture(scope="module")
def encoded(full: bool) -> Encoded:
    n_events, n_items = (40_000, 10_000) if full else (400, 50)
    log, _ = synthesise(n_events, preset="scale", n_items=n_items)
    space = FeatureSpace.fit(log, "identity", set_context=False)
    return space, space.encode(log, log.sessions_in("train"))


class Training:
    """An epoch's worth of one kind of step, over shuffled batches that are assembled inside the time taken."""

    def __init__(self, encoded: Encoded, kind: str, batch_sessions: int) -> None:
        space, self.sessions = encoded
        config = Config.from_preset("paper-lstm", players="adversarial", batch_sessions=batch_sessions)
        torch.manual_seed(0)
        self.networks = Networks(config, space.n_ids, space.n_numbers)
        unknown = torch.from_numpy(space.unknown_of_id)
        game = Game(self.networks, config, regulariser_of(config), unknown, outside=False)
        self.step = game.round if kind == "round" else game.exact_step
        self.batch_sessions = batch_sessions
        self.order = np.random.default_rng(0)

    def epoch(self) -> float:
        """Train on every session once; returns the mean loss."""
        total = 0.0
        for batch in batches(self.sessions, self.batch_sessions, self.order):
            total += self.step(to_tensors(batch)) * batch.n_events
        return total / self.sessions.n_events

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.networks.state_dict().items()}


@pytest.mark.parametrize("batch_sessions", [50, 1024])
@pytest.mark.parametrize("kind", ["exact", "round"])
def test_training(benchmark: Any, encoded: Encoded, kind: str, batch_sessions: int) -> None:
    benchmark.group = f"training-paper-lstm-batch{batch_sessions}"
    training = Training(encoded, kind, batch_sessions)
    before = training.weights()
    assert np.isfinite(training.epoch())
    after = training.weights()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == ({"players", "generator"} if kind == "round" else {"players"})
    benchmark.pedantic(training.epoch, rounds=5)
    benchmark.extra_info["events"] = training.sessions.n_events
    if benchmark.stats is not None:
        benchmark.extra_info["events/s"] = training.sessions.n_events / benchmark.stats.stats.median
    benchmark.extra_info["threads"] = torch.get_num_threads()
