"""Races in training: whole adversarial rounds at the paper's sizes, batches assembled in the time.

Every contender starts from the same weights and takes the same batches; its first loss must be the
reference's. Rivals that take seconds are given fewer steps of the same work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fastgaum import threads
from fastgaum.bench.races import Bar, Group, Race
from fastgaum.bench.rivals.flops import round_flops
from fastgaum.bench.rivals.nano import StockTorch
from fastgaum.config import Config
from fastgaum.features.fitting import fit_training
from fastgaum.features.sessions import EncodedSessions
from fastgaum.game.game import Game
from fastgaum.logs.synthetic import synthesise
from fastgaum.nets.batches import Batch, batches
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of


@dataclass(frozen=True)
class Setting:
    on: str
    contenders: dict[str, int]
    """steps per call"""
    bars: tuple[Bar, ...]
    batch_sessions: int = 2048
    n_events: int = 1_000_000
    n_items: int = 1_000_000


SETTINGS: dict[str, Setting] = {
    "round-scale": Setting(
        "scale",
        {"ours": 40, "one-thread": 20, "stock-torch": 1},
        (Bar(0.45, "sgemm", 3), Bar(1.85, "one-thread", 3)),
        n_events=10_000_000,
    ),
    "catalogue-1m-against-10k": Setting(
        "scale", {"ours": 40, "10k-items": 40}, (Bar(1 / 1.25, "10k-items", 9),)
    ),
    "round-tail": Setting(
        "tail",
        {"ours": 20, "stock-torch": 2},
        (),
        batch_sessions=64,
        n_events=200_000,
        n_items=10_000,
    ),
}


@dataclass(frozen=True)
class Data:
    train: EncodedSessions
    unknown_of_id: torch.Tensor

    @property
    def n_ids(self) -> int:
        return len(self.unknown_of_id)


@lru_cache(maxsize=2)
def world(preset: str, n_events: int, n_items: int) -> Data:
    """Training sessions of a synthetic world, their ids spread over a table with a row for every
    item of the catalogue, of which training displays few."""
    log, _ = synthesise(n_events, preset=preset, n_items=n_items)
    space, train = fit_training(log, "identity", relative_numbers=False)
    n_rows = max(space.n_ids, n_items + 2)
    rows = 1 + np.random.default_rng(0).permutation(n_rows - 1)[: space.n_ids - 1]
    # id 0, no click, stays
    ids = np.concatenate(([0], rows)).astype(np.int32)
    unknown = np.zeros(n_rows, dtype=np.int32)
    unknown[ids] = ids[space.unknown_of_id]
    return Data(replace(train, ids=ids[train.ids]), torch.from_numpy(unknown))


def race_config(batch_sessions: int) -> Config:
    """The paper's sizes, with what rivals have: no dropout, one generator step per reward step."""
    return Config.from_preset(
        "paper-lstm",
        players="adversarial",
        generator_steps=1,
        id_dropout=0.0,
        dropout=0.0,
        batch_sessions=batch_sessions,
    )


class Run:
    """One contender: networks from seed 0, a game, and batches in an order that all contenders
    share."""

    def __init__(self, data: Data, config: Config, game: str) -> None:
        torch.manual_seed(0)
        self.data, self.config = data, config
        networks = Networks(config, data.n_ids, 0)
        self.game = GAMES[game](networks, config, data)
        self.prepare: Callable[[Batch], Any] = getattr(self.game, "prepare", lambda one: one)
        self.waiting = self._batches()

    def _batches(self) -> Iterator[Batch]:
        order = np.random.default_rng(0)
        while True:
            yield from batches(self.data.train, self.config.batch_sessions, order)

    def steps(self, n: int) -> float:
        """Train on the next n batches, assembled within the time; returns the first step's loss."""
        losses = [self.game.round(self.prepare(next(self.waiting))) for _ in range(n)]
        return float(losses[0])

    def n_events(self, steps: int) -> float:
        train = self.data.train
        n_sessions = min(self.config.batch_sessions, train.n_sessions)
        return steps * n_sessions * train.n_events / train.n_sessions


GAMES: dict[str, Callable[[Networks, Config, Data], Any]] = {
    "ours": lambda networks, config, data: Game(
        networks, config, regulariser_of(config), data.unknown_of_id, False
    ),
    "reference": lambda networks, config, data: Game(
        networks, config, regulariser_of(config), data.unknown_of_id, False
    ),
    "stock-torch": lambda networks, config, data: StockTorch(networks, config, False),
}


def train(race: Race) -> None:
    setting, contender, full = SETTINGS[race.group], race.contender, race.full
    n_items = 10_000 if contender == "10k-items" else setting.n_items
    data = world(setting.on, setting.n_events, n_items) if full else world(setting.on, 400, 50)
    config = race_config(setting.batch_sessions)
    game = contender if contender in GAMES else "ours"
    steps = setting.contenders[contender] if full else 1
    count = threads.get_threads()
    if contender == "one-thread":
        threads.set_threads(1)
    try:
        if data.n_ids < 1_000_000:
            # the same data and weights give the same first loss
            losses = [Run(data, config, name).steps(1) for name in (game, "reference")]
            assert abs(losses[0] - losses[1]) <= 1e-4
        run = Run(data, config, game)
        flops = round_flops(next(run.waiting), config) * steps

        def step() -> None:
            run.steps(steps)

        race.time(
            step,
            None,
            unit="events",
            amount=run.n_events(steps),
            bars=setting.bars,
            flops=flops if game == "ours" else None,
        )
    finally:
        threads.set_threads(count)


GROUPS = {name: Group(train, tuple(setting.contenders)) for name, setting in SETTINGS.items()}
