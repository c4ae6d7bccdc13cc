"""The checkpoint of a run: one file from which a training goes on, from the end of an epoch, to the
same bytes."""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.config import Config
from fastgaum.errors import CheckpointError, OutputError
from fastgaum.game.observers import EpochRow
from fastgaum.state_file import damage_named, load_state, save_state

RUN_FORMAT = "fastgaum-run-14"
SHARE = 0.02
"""share of the time that saving takes at most"""
IN_MEMORY_BYTES = 1 << 28
"""best weights above this size are in a temporary file"""
_ROWS = 1 << 16
"""rows of a table that are read from that file at once"""

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
class Checkpoint:
    """Content of the file of a run."""

    config: Config
    """as it was asked for"""
    reading: dict[str, Any]
    """how the log was read"""
    fingerprint: str
    """the log's"""
    tried: list[TriedSetting] = field(default_factory=list)
    """the compared settings that are done"""
    trainer: TrainerState | None = None
    """of the next setting or fold, or of the training proper"""
    members: list[dict[str, Tensor]] = field(default_factory=list)
    """weights of the fits of further folds that are done"""

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
    to where the former was.

    Attributes:
        tried: the compared settings that are done.
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
        self.tried: list[TriedSetting] = [] if checkpoint is None else list(checkpoint.tried)
        self.members = [] if checkpoint is None else list(checkpoint.members)
        self._former = None if checkpoint is None else checkpoint.trainer
        # the former trainer's tensors are not held for as long as the run
        self._asked = None if checkpoint is None else dataclasses.replace(checkpoint, trainer=None)
        self._due, self.kept = 0.0, _when(self._former)

    def begin(self, load: Callable[[TrainerState], None]) -> TrainerState | None:
        """Let the first trainer load where the former run was, and return that. Raises
        CheckpointError for a checkpoint that is damaged, or of another device."""
        former, self._former = self._former, None
        if former is None:
            self._write(None)
            self.on_begin()
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
                self._asked, tried=self.tried, members=self.members, trainer=state
            ).save(self.file)
            self.kept = _when(state)


def _when(state: TrainerState | None) -> str:
    return f"after epoch {len(state.rows)}" if state else "at the beginning of a fit"


class KeptWeights:
    """A copy of a module's state that can be put back, in a temporary file where it is large."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        state = module.state_dict(keep_vars=True)
        self.kept = [value for value in state.values() if value.numel()]
        self.file: BufferedRandom | None = None
        self.copies: list[Tensor] = []
        if sum(value.nbytes for value in self._values()) > IN_MEMORY_BYTES:
            # `close` closes it
            self.file = tempfile.TemporaryFile(prefix="fastgaum-weights-")  # noqa: SIM115
        self.copy()

    def copy(self) -> None:
        """Copy the module's present state. Raises OutputError where temporary files do not fit."""
        if self.file is None:
            self.copies = [value.clone() for value in self._values()]
            return
        try:
            self.file.seek(0)
            for value in self._values():
                self.file.write(_bytes_of(value))
            self.file.flush()
        except OSError as error:
            raise OutputError(
                f"cannot keep weights in '{tempfile.gettempdir()}': {error.strerror}; "
                "free space or set TMPDIR"
            ) from error

    def tensors(self) -> dict[str, Tensor]:
        """The copied state, by name; not copies: read them before the next `copy`."""
        state = self.module.state_dict()
        names = [name for name, value in state.items() if value.numel()]
        if self.file is None:
            copied = dict(zip(names, self.copies, strict=True))
        else:
            copied, at = {}, 0
            for name in names:
                value = state[name]
                # mapped, not read: a second copy in memory is what the file is there to avoid; "c"
                # never writes to it
                raw = np.memmap(self.file, np.uint8, "c", at, (value.nbytes,))
                copied[name] = torch.from_numpy(raw).view(value.dtype).view(value.shape)
                at += value.nbytes
        return {name: copied.get(name, value) for name, value in state.items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copied state back, in place."""
        for part, copy in self._parts():
            part.copy_(copy)

    @torch.no_grad()
    def leave(self, share: float) -> None:
        """Let the module's floating-point state, in place, leave the copied one by this share of
        the way: copy + share · (state − copy)."""
        for part, copy in self._parts():
            if part.is_floating_point():
                part.lerp_(copy.to(part.device), 1 - share)

    def approach(self, share: float) -> None:
        """Let the copied floating-point state go this share of the way to the module's: copy +
        share · (state − copy); whole numbers are copied. For copies in memory."""
        assert self.file is None
        for copy, value in zip(self.copies, self._values(), strict=True):
            if copy.is_floating_point():
                copy.lerp_(value, share)
            else:
                copy.copy_(value)

    def close(self) -> None:
        """Give the file back; nothing can be restored after."""
        if self.file is not None:
            self.file.close()

    def _values(self) -> list[Tensor]:
        return [value.detach() for value in self.kept]

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.file is None:
            yield from zip(self._values(), self.copies, strict=True)
            return
        self.file.seek(0)
        for value in self._values():
            for part in torch.atleast_1d(value.detach()).split(_ROWS):
                copy = torch.empty(part.shape, dtype=part.dtype)
                self.file.readinto(_bytes_of(copy))
                yield part, copy


def _bytes_of(value: Tensor) -> memoryview:
    return value.detach().cpu().contiguous().numpy().reshape(-1).view("u1").data
