"""The checkpoint of a run: one file from which a training goes on, from the end of an epoch, to the
same bytes."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fastgaum.config import Config
from fastgaum.errors import CheckpointError
from fastgaum.game.observers import EpochRow
from fastgaum.state_file import damage_named, load_state, save_state

RUN_FORMAT = "fastgaum-run-15"
SHARE = 0.02
"""share of the time that saving takes at most"""

Phase = Literal["", "start", "exact", "generator", "rounds"]
PHASES = get_args(Phase)
"""in the order of a run; `start` is of a fit with another model's weights"""


@dataclass
class TrainingPosition:
    """Where a run is, between two epochs."""

    phase: Phase = ""
    """empty before the first"""
    epochs: int = 0
    """epochs of this phase so far"""
    waited: int = 0
    """epochs since the phase's best"""
    drops: int = 0
    """how often the learning rates may still drop"""
    ended: bool = False
    """whether the phase ended early"""
    averaged: int = 0
    """how often weights have entered the average"""

    def enter(self, phase: Phase, drops: int) -> bool:
        """Whether a phase is still to run; one that has not begun begins."""
        behind = PHASES.index(phase) - PHASES.index(self.phase)
        if behind > 0:
            self.phase, self.epochs, self.waited, self.drops, self.ended = phase, 0, 0, drops, False
            self.averaged = 0
        return behind >= 0


@dataclass
class OptimiserState:
    """Memory of a player's optimiser."""

    counters: tuple[float, float]
    """steps taken, and the logarithm of the weight decay of them all"""
    tensors: dict[str, Tensor]


@dataclass
class TrainerState:
    """All that a trainer needs to go on to the same bytes."""

    position: TrainingPosition
    rows: list[EpochRow]
    best_score: float
    weights: dict[str, Tensor]
    best: dict[str, Tensor]
    """weights of the best epoch"""
    average: dict[str, Tensor]
    """average weights of exact epochs; empty in other phases"""
    optimisers: dict[str, OptimiserState]
    """by player"""
    order: dict[str, Any]
    """random stream of the sessions' order"""
    random: Tensor
    """torch's random stream, and the card's"""
    random_of_card: Tensor | None


@dataclass(frozen=True)
class TriedSetting:
    """A setting that a fit has compared with others."""

    name: str
    val_loss: float
    """the least of its epochs, with exact players; the mean over its folds"""
    seconds: float = math.nan
    """encoding included where no setting before had the same; NaN in a loaded model"""
    rung: int = 0
    """of the comparison, the last that it reached (`models.portfolio`)"""
    losses: list[float] = field(default_factory=list)
    """on each fold that it was fitted for, of which `val_loss` is the mean"""
    values: dict[str, Any] = field(default_factory=dict)
    """the keys that it chooses"""

    def rank(self) -> tuple[int, float]:
        """The better of two is the lower: it came further, then its loss."""
        return -self.rung, self.val_loss


def places_cost(trials: Sequence[TriedSetting]) -> float | None:
    """By how much the loss of the best setting that keeps places apart is above that of the best
    which reads them, on the folds that both were fitted for; None where one of them was not
    compared, or diverged."""
    best: dict[bool, TriedSetting] = {}
    for trial in sorted(trials, key=TriedSetting.rank, reverse=True):
        if "examination" in trial.values:
            best[trial.values["examination"]] = trial
    if len(best) < 2 or max(one.val_loss for one in best.values()) == sys.float_info.max:
        return None
    apart, read = best[True].losses, best[False].losses
    n = min(len(apart), len(read))
    return fmean(apart[:n]) - fmean(read[:n])


def trials_as_facts(trials: Sequence[TriedSetting]) -> list[dict[str, Any]]:
    """Plain values of compared settings, `chosen` among them."""
    best = min(trials, key=TriedSetting.rank, default=None)
    facts: list[dict[str, Any]] = [
        {**dataclasses.asdict(trial), "chosen": trial is best} for trial in trials
    ]
    for one in facts:
        if one["val_loss"] == sys.float_info.max:
            one["val_loss"], one["losses"] = None, []
    # NaN is not itself
    return [{key: value for key, value in one.items() if value == value} for one in facts]


@dataclass(frozen=True)
class StartOfRun:
    """The run whose weights another one took over."""

    run: str
    """its folder"""
    sha256: str
    """of its model file"""

    def shown(self) -> str:
        """Its name, and the sha256."""
        return f"the run {Path(self.run).name}, sha256 {self.sha256[:12]}"


@dataclass(frozen=True)
class Checkpoint:
    """Content of the file of a run."""

    config: Config
    """as it was asked for"""
    reading: dict[str, Any]
    """how the log was read"""
    fingerprint: str
    """the log's"""
    compared: list[TriedSetting] = field(default_factory=list)
    """the settings, once they are compared"""
    trainer: TrainerState | None = None
    """of the next fold's fit, or of the training proper"""
    members: list[dict[str, Tensor]] = field(default_factory=list)
    """weights of the fits of further folds that are done"""
    start: StartOfRun | None = None

    @classmethod
    def load(cls, file: Path) -> Checkpoint:
        """Read it. Raises CheckpointError where it is missing, damaged, or of another version."""
        if not file.is_file():
            raise CheckpointError(f"there is no '{file}': train again with --overwrite")
        cure = "train again with --overwrite, or use the version that wrote it"
        return load_state(file, RUN_FORMAT, cure, Checkpoint)

    def save(self, file: Path) -> None:
        """Write it, atomically. Raises OutputError where it cannot be written."""
        save_state(file, RUN_FORMAT, self)


class Checkpointer:
    """Saves a training at the ends of its epochs, so far as SHARE allows, and brings the next one
    to where the former was. A comparison of settings that was stopped begins again.

    Attributes:
        compared: the settings, once they are compared.
        members: the weights of the fits of further folds that are done.
        kept: when the run was last saved, in words."""

    def __init__(
        self,
        file: Path | None = None,
        checkpoint: Checkpoint | None = None,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Save to `file`, if given. `checkpoint` is where the run goes on, or says what it was
        asked for; `on_begin` is called when the file of a new run is there."""
        self.file, self.on_begin = file, on_begin
        self.compared = [] if checkpoint is None else list(checkpoint.compared)
        self.members = [] if checkpoint is None else list(checkpoint.members)
        self._former = None if checkpoint is None else checkpoint.trainer
        # the former trainer's tensors are not held for as long as the run
        self._asked = None if checkpoint is None else dataclasses.replace(checkpoint, trainer=None)
        self._due, self.kept = 0.0, _when(self._former)

    def begin(self) -> None:
        """Write the file, unless the next fit goes on with a former one."""
        if self._former is None:
            self._write(None)
            self.on_begin()

    def go_on(self, load: Callable[[TrainerState], None]) -> TrainerState | None:
        """Let the first trainer load where the former run was, and return that. Raises
        CheckpointError for a checkpoint that is damaged, or of another device."""
        self.begin()
        former, self._former = self._former, None
        if former is None:
            return None
        with damage_named(self.file or Path("the first process's checkpoint"), "training"):
            load(former)
        return former

    def after_epoch(self, state: Callable[[], TrainerState], last: bool = False) -> None:
        """Save if there was time enough; always after the last epoch."""
        started = time.perf_counter()
        if last or started > self._due:
            self._write(state())
            ended = time.perf_counter()
            self._due = ended + (ended - started) / SHARE

    def _write(self, state: TrainerState | None) -> None:
        if self._asked is not None and self.file is not None:
            dataclasses.replace(
                self._asked, compared=self.compared, members=self.members, trainer=state
            ).save(self.file)
            self.kept = _when(state)


def _when(state: TrainerState | None) -> str:
    return f"after epoch {len(state.rows)}" if state else "at the beginning of a fit"


class KeptWeights:
    """A copy of a module's state that can be put back.

    Attributes:
        copies: the copied state, by name."""

    def __init__(self, module: nn.Module) -> None:
        # the parameters themselves: an optimiser may give them other memory
        self.state: dict[str, Tensor] = module.state_dict(keep_vars=True)
        self.copies: dict[str, Tensor] = {}
        self.copy()

    def copy(self) -> None:
        """Copy the module's present state."""
        self.copies = {name: value.detach().clone() for name, value in self.state.items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copied state back, in place."""
        for name, value in self.state.items():
            value.copy_(self.copies[name])

    @torch.no_grad()
    def leave(self, share: float) -> None:
        """Let the module's floating-point state, in place, leave the copied one by this share of
        the way: copy + share · (state − copy)."""
        for name, value in self.state.items():
            if value.is_floating_point():
                value.lerp_(self.copies[name], 1 - share)

    @torch.no_grad()
    def approach(self, share: float) -> None:
        """Let the copied floating-point state go this share of the way to the module's: copy +
        share · (state − copy); whole numbers are copied."""
        for name, copy in self.copies.items():
            if copy.is_floating_point():
                copy.lerp_(self.state[name], share)
            else:
                copy.copy_(self.state[name])
