"""What a competent torch user writes: the game of `docs/examples/nano.py`, from our networks'
weights.

Embedding bags, a padded nn.LSTM (oneDNN on the CPU), masked softmax, fused dense AdamW, one graph of
autograd per step. A Python loop, a packed nn.LSTM and SparseAdam were slower."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgaum.bench.races import SkippedError
from fastgaum.config import Config
from fastgaum.nets.batches import Batch
from fastgaum.nets.networks import Networks

FILE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "nano.py"
NAMES = {"player.history.lstm.weight_hh_l0": "player.history.weight_hh.0"}
"""of weights that have another name in our networks"""


@cache
def nano() -> Any:
    """The module. Raises SkippedError where the clone's docs are not beside `bench`."""
    spec = importlib.util.spec_from_file_location("nano", FILE) if FILE.is_file() else None
    if spec is None or spec.loader is None:
        raise SkippedError(f"needs {FILE.name} of the clone's docs/examples")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class StockTorch:
    """The game of `fastgaum.game.game.Game` with logged histories."""

    def __init__(self, networks: Networks, config: Config, no_click: bool) -> None:
        """Copy the weights. Raises ValueError for networks that the rival does not have."""
        _check(config)
        self.nano = nano().Nano(
            len(networks.player.reward.first.table),
            no_click,
            config.history_dim,
            config.hidden,
            {"elu": nn.ELU, "relu": nn.ReLU}[config.activation],
            lr=config.lr,
            weight_decay=config.weight_decay,
            generator_steps=config.generator_steps,
            clip=config.clip,
            eta=config.eta,
        )
        self.nano.optimisers[1].param_groups[0]["lr"] = config.generator_lr
        ours = networks.state_dict()
        with torch.no_grad():
            for name, value in self.weights().items():
                value.copy_(ours[name])
        self.round = self.nano.round

    def prepare(self, batch: Batch) -> Any:
        """Pad a batch. Raises ValueError for bags of more than one id."""
        if batch.ids.shape[1] != 1 or batch.candidates.numbers.shape[1]:
            raise ValueError(
                "the rival races under the protocol identity: one id per candidate and no numbers"
            )
        offsets = batch.session_offsets.numpy(), batch.display_offsets.numpy()
        return nano().pad(*offsets, batch.ids[:, 0], batch.choices.numpy())

    def weights(self) -> dict[str, Tensor]:
        """The weights, not copies, by the names that they have in `Networks.state_dict`."""
        return {
            NAMES.get(name, name): value.detach()
            for name, value in self.nano.named_parameters()
            if value.requires_grad
        }


def _check(config: Config) -> None:
    plain = not config.wide and config.regulariser == "shannon"
    one_lstm = (config.history, config.history_layers) == ("lstm", 1)
    whole = config.dropout == config.id_dropout == 0 and config.players == "adversarial"
    if not (plain and one_lstm and whole):
        raise ValueError(
            "the rival races three plain networks (no wide path, one LSTM layer, Shannon, players "
            "adversarial) without dropout"
        )
