"""A batch padded to its longest session and to its widest display set, or a log's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgaum.features.batches import Batch


@dataclass(frozen=True)
class Padded:
    """A padded batch. Events are laid out (B sessions, T steps), or flat (E,) where a rival pads
    display sets only."""

    ids: Tensor
    """id of each candidate, int64, shape (B, T, K) or (E, K); 0 in empty slots"""
    real: Tensor
    """slots that hold a candidate, bool, same shape"""
    offered: Tensor
    """as `real`, but slot 0 of a step without an event counts as offered, so that no softmax is
    empty"""
    weight: Tensor
    """1 / n_events at events, 0 at padding: a weighted sum is the mean over events; shape (B, T) or
    (E,)"""
    choice: Tensor
    """slot of the choice, 0 for none, int64, same shape"""
    clicked: Tensor
    """events with a choice, bool, same shape"""
    tokens: Tensor
    """id chosen at each step, 0 for no click and for padding, int64, shape (B, T)"""
    row: Tensor
    """session of each event, int64, shape (n_events,)"""
    step: Tensor
    """position of each event in its session, int64, shape (n_events,)"""

    def at_choice(self, values: Tensor) -> Tensor:
        """Entry of the logged choice, 0 for no click."""
        return values.gather(-1, self.choice[..., None])[..., 0] * self.clicked

    def events_of(self, drawn: Tensor) -> Tensor:
        """Ids of drawn slots (-1: no click) of each event, laid out (B, T)."""
        ids = self.ids.gather(-1, drawn.clamp(min=0)[..., None])[..., 0] * (drawn >= 0)
        if ids.dim() == 2:
            return ids
        return torch.zeros_like(self.tokens).index_put((self.row, self.step), ids)


def pad(batch: Batch, flat: bool, widest: int | None = None) -> Padded:
    """Pad a batch, display sets to `widest` slots or, without it, to the widest of the batch.

    `flat` keeps one row per event instead of (sessions, steps). Raises ValueError for wider bags.
    """
    if batch.ids.shape[1] != 1 or batch.numbers.shape[1]:
        raise ValueError(
            "the rivals race under the protocol identity: one id per candidate and no numbers"
        )
    lengths, sizes = np.diff(batch.session_offsets), np.diff(batch.display_offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(sizes)) - np.repeat(batch.session_offsets[:-1], lengths)
    event = np.repeat(np.arange(len(sizes)), sizes)
    slot = np.arange(len(event)) - np.repeat(batch.display_offsets[:-1], sizes)
    layout = (len(sizes),) if flat else (len(lengths), int(lengths.max()))
    at = (np.arange(len(sizes)),) if flat else (row, step)
    ids = np.zeros((*layout, widest or int(sizes.max())), dtype=np.int64)
    real = np.zeros(ids.shape, dtype=bool)
    weight, choice, clicked = (
        np.zeros(layout, np.float32),
        np.zeros(layout, np.int64),
        np.zeros(layout, bool),
    )
    tokens = np.zeros((len(lengths), int(lengths.max())), dtype=np.int64)
    where = (*(part[event] for part in at), slot)
    ids[where], real[where] = batch.ids[:, 0], True
    weight[at], choice[at], clicked[at] = (
        1 / len(sizes),
        np.maximum(batch.choices, 0),
        batch.choices >= 0,
    )
    chosen = batch.ids[batch.display_offsets[:-1] + np.maximum(batch.choices, 0), 0]
    tokens[row, step] = np.where(batch.choices >= 0, chosen, 0)
    offered = real.copy()
    offered[..., 0] = True
    return Padded(
        *map(torch.from_numpy, (ids, real, offered, weight, choice, clicked, tokens, row, step))
    )
