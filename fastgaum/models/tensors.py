"""A batch as torch tensors: the numpy arrays shared, not copied, on CPU; moved otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgaum.sessions.batches import Batch, bags_of_candidates, token_bags
from fastgaum.sessions.packed import IntArray


@dataclass(frozen=True)
class Bags:
    """Bags of candidates or tokens."""

    ids: Tensor
    """feature ids, int32, shape (nnz,)"""
    offsets: Tensor
    """start of each bag in ids, int32, shape (n_bags + 1,)"""
    numbers: Tensor
    """shape (n_bags, n_numbers)"""

    @property
    def n_bags(self) -> int:
        """Number of bags."""
        return len(self.offsets) - 1


@dataclass(frozen=True)
class BatchTensors:
    """What the networks read; shapes as in `Batch`."""

    source: Batch
    candidates: Bags
    display_offsets: Tensor
    tokens: Bags
    token_offsets: Tensor
    later_events: Tensor
    """events that are not the first of their session, in token order, int64, shape (n_tokens,)"""
    clicked: Tensor
    """events with a choice, int64, shape (n_clicked,)"""
    chosen: Tensor
    """chosen candidate of each of those events, int64, shape (n_clicked,)"""

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.display_offsets) - 1


def to_tensors(batch: Batch, device: torch.device | str = "cpu") -> BatchTensors:
    """Wrap a batch for the networks."""
    width = batch.ids.shape[1]
    later = np.ones(batch.n_events, dtype=bool)
    later[batch.session_offsets[:-1]] = False
    clicked = np.flatnonzero(batch.choices >= 0)
    return BatchTensors(
        source=batch,
        candidates=Bags(
            _tensor(batch.ids.reshape(-1), device),
            _tensor(np.arange(len(batch.ids) + 1, dtype=np.int32) * np.int32(width), device),
            _tensor(batch.numbers, device),
        ),
        display_offsets=_tensor(batch.display_offsets, device),
        tokens=_bags(token_bags(batch), device),
        token_offsets=_tensor(batch.token_offsets, device),
        later_events=_tensor(np.flatnonzero(later), device),
        clicked=_tensor(clicked, device),
        chosen=_tensor(batch.display_offsets[clicked].astype(np.int64) + batch.choices[clicked], device),
    )


def chosen_bags(batch: Batch, candidates: IntArray, device: torch.device | str = "cpu") -> Bags:
    """Bags of any candidates of a batch; -1 stands for no click."""
    return _bags(bags_of_candidates(batch, candidates), device)


def _bags(arrays: tuple[IntArray, IntArray, np.ndarray], device: torch.device | str) -> Bags:
    ids, offsets, numbers = arrays
    return Bags(_tensor(ids, device), _tensor(offsets, device), _tensor(numbers, device))


def _tensor(array: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
