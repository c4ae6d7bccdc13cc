"""A batch as torch tensors: the numpy arrays shared, not copied, on CPU; moved otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgaum.features.batches import Batch, bags_of_candidates
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import IntArray


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
        return self.offsets.shape[0] - 1


@dataclass(frozen=True)
class BatchTensors:
    """What the networks read; shapes as in `Batch`."""

    source: Batch
    candidates: Bags
    display_offsets: Tensor
    tokens: Bags
    token_offsets: Tensor
    context: Bags
    """one bag of one id per event and context field, n_events · n_fields of them"""
    context_numbers: Tensor
    """the events' numbers, (n_events, n_context_numbers)"""
    later_events: Tensor
    """events that are not the first of their session, in token order, int64, shape (n_tokens,)"""
    clicked: Tensor
    """events with a choice, int64, shape (n_clicked,)"""
    chosen: Tensor
    """chosen candidate of each of those events, int64, shape (n_clicked,)"""

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self.display_offsets.shape[0] - 1


def to_tensors(batch: Batch, device: torch.device | str = "cpu") -> BatchTensors:
    """Wrap a batch for the networks."""
    to = _mover(device)
    return BatchTensors(
        source=batch,
        candidates=Bags(
            to(batch.ids.reshape(-1)), to(_equal_offsets(*batch.ids.shape)), to(batch.numbers)
        ),
        display_offsets=to(batch.display_offsets),
        tokens=Bags(to(batch.token_ids), to(batch.token_id_offsets), to(batch.token_numbers)),
        token_offsets=to(batch.token_offsets),
        context=_one_id_bags(to, batch.context_ids),
        context_numbers=to(batch.context_numbers),
        later_events=to(batch.later_events),
        clicked=to(batch.clicked),
        chosen=to(batch.chosen),
    )


def join_bags(left: Bags, right: Bags) -> Bags:
    """The bags of `left` followed by those of `right`."""
    return Bags(
        torch.cat([left.ids, right.ids]),
        torch.cat([left.offsets, right.offsets[1:] + left.offsets[-1]]),
        torch.cat([left.numbers, right.numbers]),
    )


def gather_bags(bags: Bags, rows: Tensor) -> Bags:
    """Bags of the given rows, in the given order."""
    offsets, index = pick_rows(bags.offsets.cpu().numpy(), rows.cpu().numpy().astype(np.int32))
    flat = torch.from_numpy(index).long().to(rows.device)
    return Bags(bags.ids[flat], torch.from_numpy(offsets).to(rows.device), bags.numbers[rows])


def chosen_bags(batch: Batch, candidates: IntArray, device: torch.device | str = "cpu") -> Bags:
    """Bags of any candidates of a batch; -1 stands for no click."""
    return Bags(*map(_mover(device), bags_of_candidates(batch.ids, batch.numbers, candidates)))


def _one_id_bags(to: Callable[[np.ndarray], Tensor], ids: IntArray) -> Bags:
    """A bag for each entry of `ids`."""
    numbers = np.empty((ids.size, 0), np.float32)
    return Bags(to(ids.reshape(-1)), to(_equal_offsets(ids.size, 1)), to(numbers))


def _mover(device: torch.device | str) -> Callable[[np.ndarray], Tensor]:
    """What makes a tensor of an array there; arrays of a batch are contiguous, so on CPU nothing is
    copied."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy
    return lambda array: torch.from_numpy(array).to(device)


def _equal_offsets(n: int, width: int) -> IntArray:
    """Starts of n bags of `width` ids: [0, width, … n · width]."""
    return np.arange(0, n * width + 1, width, dtype=np.int32)
