"""What a training tells of its epochs: a row of figures each, and who is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch's figures; a training table has one such row per epoch."""

    epoch: int
    phase: str
    """exact (best response in closed form), generator (catching up, reward fixed) or rounds (both
    players)"""
    loss: float
    """mean training loss of the reward player, dropout on; NaN in the generator phase"""
    val_loss: float
    """mean Fenchel–Young loss of the reward on validation (Shannon: NLL / eta)"""
    val_prec1: float
    """the reward head's prec@1 on validation, percent"""
    val_generator_prec1: float
    """the generator head's, percent; NaN with exact players"""
    gap: float
    """mean optimality gap on the training split; 0 with exact players"""
    val_gap: float
    events_per_second: float
    best: bool
    """whether this epoch has the best validation score so far"""
    skipped: int = 0
    """batches left out because their loss or gradient was not finite"""
    at_fault: str = ""
    """sessions that make a skipped batch so, the first few by name; empty when none was skipped"""
    val_calibrated_loss: float = math.nan
    """NLL on validation of the utilities times the scale that suits it best; NaN where it does not
    choose the epoch"""

    def to_dict(self) -> dict[str, object]:
        """Plain values by name."""
        return asdict(self)


class Observer(Protocol):
    """Watches a run."""

    def on_epoch(self, row: EpochRow) -> None:
        """Called after each epoch; the networks hold the weights that its figures are of: the
        epoch's, or, in rounds after a warm start, the average of the epochs so far."""

    def on_batch(self, done: int, total: int) -> None:
        """Called after each batch of an epoch."""

    def on_resume(self, rows: Sequence[EpochRow]) -> None:
        """Called once where a run goes on, with its epochs so far; the networks hold its best
        weights so far."""

    def on_bootstrap(self, number: int, n_bootstraps: int) -> None:
        """Called before each fit on a bootstrap, from 1; their epochs are not told."""


class Silent:
    """An observer that does nothing."""

    def on_epoch(self, row: EpochRow) -> None:
        """Do nothing."""

    def on_batch(self, done: int, total: int) -> None:
        """Do nothing."""

    def on_resume(self, rows: Sequence[EpochRow]) -> None:
        """Do nothing."""

    def on_bootstrap(self, number: int, n_bootstraps: int) -> None:
        """Do nothing."""
