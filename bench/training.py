"""What the training races train: one maker of runs, so that every contender has the same log,
weights and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fastgaum.bench.rivals.padded_one_hot import PaddedOneHot, ReportOneHot
from fastgaum.bench.rivals.stock_torch import StockTorch
from fastgaum.config import Config
from fastgaum.engine.game import game_for
from fastgaum.features.batches import Batch, Sessions, batches
from fastgaum.features.selection import SharedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.game.game import Game, ReferenceGame
from fastgaum.logs.log import IntArray, SessionLog
from fastgaum.logs.read import load
from fastgaum.logs.registry import find_log
from fastgaum.logs.synthetic import synthesise
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.tensors import to_tensors

PUBLIC = ("yelp", "taobao", "yoochoose")


@dataclass(frozen=True)
class Data:
    """Sessions to train on, and the ids that a table has a row for."""

    train: Sessions
    unknown_of_id: torch.Tensor

    @property
    def n_ids(self) -> int:
        """Rows of every table."""
        return len(self.unknown_of_id)

    @property
    def widest(self) -> int:
        """Candidates of the widest display set of the arrays that the sessions lie in."""
        return int(np.diff(self.train.packed.display_offsets).max())


@lru_cache(maxsize=2)
def world(preset: str, n_events: int, n_items: int, mean_length: float | None = None) -> Data:
    """Training sessions of a synthetic world, their ids spread over a table with a row for every
    item."""
    changes = {} if mean_length is None else {"mean_length": mean_length}
    log, _ = synthesise(n_events, preset=preset, n_items=n_items, **changes)
    space = FeatureSpace.fit(log, "identity", set_context=False)
    train = space.encoder(log).for_training(log.sessions_in("train"))
    assert isinstance(train, SharedSessions)
    ids, n_ids = catalogue_ids(space.n_ids, n_items)
    unknown = np.zeros(n_ids, dtype=np.int32)
    unknown[ids] = ids[space.unknown_of_id]
    return Data(replace(train, id_of_item=ids[train.id_of_item]), torch.from_numpy(unknown))


def catalogue_ids(n_ids: int, n_items: int) -> tuple[IntArray, int]:
    """New ids for a feature space's, spread over a table with a row for every item; and that
    table's number of rows.

    A space knows only the items that training displays, which on a short log are few: a catalogue's
    size is that of its table, of which any row may be met next. Id 0, no click, stays."""
    n_rows = max(n_ids, n_items + 2)
    rows = 1 + np.random.default_rng(0).permutation(n_rows - 1)[: n_ids - 1]
    return np.concatenate(([0], rows)).astype(np.int32), n_rows


@lru_cache(maxsize=3)
def public_log(name: str) -> SessionLog | None:
    """A released file, or None where it is not at hand."""
    return None if find_log(name) is None else load(name)


def data_of(log: SessionLog) -> tuple[FeatureSpace, Data]:
    """A log's feature space and training sessions under the identity protocol."""
    space = FeatureSpace.fit(log, "identity", set_context=False)
    train = space.encoder(log).for_training(log.sessions_in("train"))
    return space, Data(train, torch.from_numpy(space.unknown_of_id))


def config_of(preset: str, **changes: Any) -> Config:
    """A preset without what the rivals do not have: nothing is dropped, one generator step per
    reward step."""
    fixed = {"players": "adversarial", "generator_steps": 1, "id_dropout": 0.0, "dropout": 0.0}
    return Config.from_preset(preset, **{**fixed, **changes})


class Run:
    """One contender: networks from seed 0, a game, and batches of whole sessions in an order that
    all contenders share."""

    def __init__(
        self, data: Data, config: Config, kind: str = "round", contender: str = "ours"
    ) -> None:
        torch.manual_seed(0)
        self.data, self.config, self.kind = data, config, kind
        networks = Networks(config, data.n_ids, data.train.numbers.shape[1])
        self.game: Any = GAMES[contender](networks, config, data)
        self.prepare: Callable[[Batch], Any] = getattr(self.game, "prepare", to_tensors)
        self.order = np.random.default_rng(0)
        self.waiting = self._batches()
        self.n_events = 0

    def _batches(self) -> Iterator[Batch]:
        while True:
            yield from batches(self.data.train, self.config.batch_sessions, self.order)

    def steps(self, n: int) -> dict[str, torch.Tensor]:
        """Train on the next n batches, assembled within the time; returns the first step's loss."""
        losses = []
        self.n_events = 0
        # generated histories are drawn: alike for all contenders
        torch.manual_seed(1)
        for _, batch in zip(range(n), self.waiting, strict=False):
            losses.append(getattr(self.game, self.kind)(self.prepare(batch)))
            self.n_events += batch.n_events
        return {"first loss": torch.tensor(losses[0], dtype=torch.float32)}


def _ours(networks: Networks, config: Config, data: Data) -> Game:
    return game_for(networks, config, regulariser_of(config), data.unknown_of_id, False)


def _reference(networks: Networks, config: Config, data: Data) -> Game:
    return ReferenceGame(networks, config, regulariser_of(config), data.unknown_of_id, False)


def _stock(**switches: bool) -> Callable[[Networks, Config, Data], StockTorch]:
    return lambda networks, config, data: StockTorch(
        networks, config, data.n_ids, outside=False, **switches
    )


GAMES: dict[str, Callable[[Networks, Config, Data], Any]] = {
    "ours": _ours,
    "our-autograd-path": _reference,
    "stock-torch": _stock(),
    "stock-torch-packed": _stock(packed=True),
    "stock-torch-loop": _stock(loop=True),
    "stock-torch-sparse-adam": _stock(sparse=True),
    "padded-one-hot": lambda networks, config, data: PaddedOneHot(
        networks, config, data.n_ids, outside=False
    ),
    "padded-one-hot-report": lambda networks, config, data: ReportOneHot(
        networks, config, data.n_ids, outside=False, widest=data.widest
    ),
}
