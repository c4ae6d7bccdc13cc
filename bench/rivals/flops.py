"""How much arithmetic one round takes in truth: packed histories, sparse tables.

A multiply-add is 2, forward and for each of the two gradients. Adding up one row of a table is 1
per entry, forward and backward. An Adam update is 12 per parameter, of the rows that the batch
names and of all else. Activations and the softmax are left out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from fastgaum.config import Config
from fastgaum.nets.batches import Batch
from fastgaum.nets.networks import Networks

ADAM = 12


def round_flops(batch: Batch, config: Config) -> float:
    """FLOPs of one round on this batch, with an LSTM and one id per candidate."""
    with torch.device("meta"):
        networks = Networks(config, 1, 0)
    player = networks.player
    assert networks.generator is not None
    held = batch.token_candidates.numpy()
    tokens = np.where(held >= 0, batch.ids[np.maximum(held, 0), 0], 0)
    rows_history, rows_scorer = len(np.unique(tokens)), len(np.unique(batch.ids))
    encode, encode_back = _history_flops(len(tokens), config)
    score, score_back = _scorer_flops(batch, config, player.history.state_dim)
    turn = score + score_back + _adam(networks.generator, rows_scorer)
    train = encode + encode_back + score + score_back
    train += _adam(player.history, rows_history) + _adam(player.reward, rows_scorer)
    # before the turns: the states and utilities; after them: the generator's distribution
    return train + encode + 2 * score + config.generator_steps * turn


def _scorer_flops(batch: Batch, config: Config, state: int) -> tuple[float, float]:
    slots, width = len(batch.ids), config.hidden[0]
    first = slots * width
    from_state = 2 * len(batch.choices) * state * width
    rest = sum(2 * slots * a * b for a, b in pairwise((*config.hidden, 1)))
    return float(first + from_state + rest), float(first + 2 * (from_state + rest))


def _history_flops(tokens: int, config: Config) -> tuple[float, float]:
    inputs = tokens * 4 * config.history_dim
    recurrent = inputs * 2 * config.history_dim
    return float(inputs + recurrent), float(inputs + 2 * recurrent)


def _adam(module: nn.Module, rows: int) -> float:
    """Update of a module made for one id: its tables scale with the rows."""
    return float(
        ADAM
        * sum(
            value.numel() * (rows if name.endswith("table") else 1)
            for name, value in module.named_parameters()
        )
    )
