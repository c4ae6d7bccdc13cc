"""How much arithmetic one step takes: in the padded one-hot design, and in truth (packed, sparse).

Counting rule, the same on both sides: a multiply-add in a matrix product is 2; a product's backward
pass is 2 for each of the two gradients (of weights and of inputs; one-hot inputs have none); adding
up one row of a table is 1 per entry, forward and again backward; an Adam update is 12 per
parameter, of all parameters where the optimiser is dense, of the rows that the batch holds where it
is sparse. Activations, softmax and the filling of one-hots are left out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from fastgaum.config import Config
from fastgaum.features.batches import Batch
from fastgaum.nets.networks import Networks

ADAM = 12


@dataclass(frozen=True)
class Work:
    """Rows that one step works through."""

    events: int
    slots: int
    """candidates, or padded slots of display sets"""
    tokens: int
    """history tokens of one encoding; recurrent steps where prefixes are encoded one by one"""
    gathered: int
    """distinct tokens: what an encoder that gathers its input gates gathers, per direction"""
    generated: int
    """history tokens of one encoding of generated histories"""
    n_ids: int
    dense: bool
    """first layers are products with one-hots (else gathers)"""
    rows_history: int
    """rows of the history's table that are updated"""
    rows_scorer: int
    lags: float
    """position weights: choices that a state looks back on, mean over tokens"""


def padded_work(batch: Batch, config: Config, n_ids: int, widest: int | None = None) -> Work:
    """The padded one-hot design: (B, T, K) slots, T − 1 padded tokens; prefixes and generated
    histories encoded anew.

    With `widest`, as the report has it: so many slots a display set, and generated histories at
    padded steps too."""
    lengths, sizes = np.diff(batch.session_offsets), np.diff(batch.display_offsets)
    n, longest = len(lengths), int(lengths.max())
    tokens = n * (longest - 1)
    prefixes = n * longest * (longest - 1) // 2
    # the loop over users and steps knows each user's length: its prefixes are not padded
    generated = int((lengths * (lengths - 1) // 2).sum()) if widest is None else prefixes
    return Work(
        events=n * longest,
        slots=n * longest * (widest or int(sizes.max())),
        tokens=prefixes if config.history == "bilstm" else tokens,
        gathered=tokens,
        generated=generated,
        n_ids=n_ids,
        dense=True,
        rows_history=n_ids,
        rows_scorer=n_ids,
        lags=min(config.history_window, longest - 1),
    )


def true_work(batch: Batch, config: Config, n_ids: int) -> Work:
    """Packed and sparse: true candidates and tokens; a generated choice is one recurrent step from
    the cached state."""
    lengths = np.diff(batch.token_offsets).astype(np.int64)
    tokens = int(lengths.sum())
    prefixes = int((lengths * (lengths + 1) // 2).sum())
    back = np.arange(tokens) - np.repeat(batch.token_offsets[:-1], lengths) + 1
    lags = float(np.minimum(back, config.history_window).sum())
    bilstm = config.history == "bilstm"
    held = batch.token_candidates
    ids = np.where(held >= 0, batch.ids[np.maximum(held, 0), 0], 0)
    return Work(
        events=len(batch.choices),
        slots=len(batch.ids),
        tokens=prefixes if bilstm else tokens,
        gathered=tokens,
        generated=prefixes if bilstm else tokens,
        n_ids=n_ids,
        dense=False,
        rows_history=len(np.unique(ids)),
        rows_scorer=len(np.unique(batch.ids)),
        lags=lags / max(tokens, 1),
    )


def step_flops(
    batch: Batch, config: Config, n_ids: int, kind: str, padded: bool, widest: int | None = None
) -> float:
    """FLOPs of one `exact` step or one `round` on this batch, in the padded one-hot design (see
    `padded_work`) or in truth."""
    work = padded_work(batch, config, n_ids, widest) if padded else true_work(batch, config, n_ids)
    return work_flops(work, config, kind)


def work_flops(work: Work, config: Config, kind: str) -> float:
    """FLOPs of one `exact` step or one `round` that works through so many rows."""
    # the state's size is a property of the encoder: ask it, with one id
    with torch.device("meta"):
        networks = Networks(config, 1, 0)
    history = networks.player.history
    state = history.state_dim
    scorer = scorer_flops(work, config, state)
    encode = history_flops(work, config, work.tokens)
    train = encode[0] + encode[1] + scorer[0] + scorer[1] + adam(history, work.rows_history)
    train += adam(networks.player.reward, work.rows_scorer)
    if kind == "exact":
        return train
    assert networks.generator is not None
    turn = scorer[0] + scorer[1] + adam(networks.generator, work.rows_scorer)
    total = train + encode[0] + 2 * scorer[0] + config.generator_steps * turn
    if config.states == "generated":
        again = history_flops(work, config, work.generated)
        total += 2 * again[0] + again[1] + 2 * scorer[0] + scorer[1]
    return total


def scorer_flops(work: Work, config: Config, state: int) -> tuple[float, float]:
    """Forward and backward FLOPs of a scorer."""
    width = config.hidden[0]
    first = work.slots * width * (2 * work.n_ids if work.dense else 1)
    from_state = 2 * work.events * state * width
    rest = sum(2 * work.slots * a * b for a, b in pairwise((*config.hidden, 1)))
    return float(first + from_state + rest), float(first + 2 * from_state + 2 * rest)


def history_flops(work: Work, config: Config, tokens: int) -> tuple[float, float]:
    """Forward and backward FLOPs of the encoder over so many tokens (recurrent steps)."""
    if config.history == "pw":
        return _position_weight_flops(work, config, tokens)
    directions, dim = (2 if config.history == "bilstm" else 1), config.history_dim
    gates = 4 * dim * directions
    inputs = tokens * gates * 2 * work.n_ids if work.dense else work.gathered * gates
    upper = (config.history_layers - 1) * tokens * gates * 2 * dim * directions
    recurrent = config.history_layers * tokens * gates * 2 * dim
    return float(inputs + upper + recurrent), float(inputs + 2 * (upper + recurrent))


def _position_weight_flops(work: Work, config: Config, tokens: int) -> tuple[float, float]:
    columns, width = config.history_weights, config.hidden[0]
    # the dense state has every item in it; the true one at most one entry per choice it looks back
    # on
    entries = tokens * (work.n_ids if work.dense else work.lags)
    mix = tokens * work.lags * columns * (2 * work.n_ids if work.dense else 1)
    readout = 2 * entries * columns * width
    return float(mix + readout), float(mix + 2 * readout)


def adam(module: nn.Module, rows: int) -> float:
    """FLOPs of updating a module made for one id: its tables scale with the rows, the rest is
    updated whole."""
    tables = rest = 0
    for name, value in module.named_parameters():
        if name.endswith("table"):
            tables += value.numel()
        else:
            rest += value.numel()
    return float(ADAM * (tables * rows + rest))
