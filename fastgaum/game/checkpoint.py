"""The checkpoint of a run: one file from which a training goes on to the same bytes.

The file is the run's truth: everything else in a run folder can be made from it. It holds what the
run was asked for and a trainer's whole state, so that no crash can part what belongs together."""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.checkpoint import State, damage_named, load_state, save_state, split_state
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, OutputError
from fastgaum.game.epochs import EpochRow
from fastgaum.processes import Processes

if TYPE_CHECKING:
    from fastgaum.game.loop import Trainer

FORMAT = "fastgaum-run-7"
SHARE = 0.02
"""saving takes at most this share of the time: a save waits until so much has been trained since
the one before"""
BATCH_SECONDS = 600.0
"""within an epoch a run is saved when so long has passed since it last was"""
IN_MEMORY_BYTES = 1 << 28
"""best weights above this size are in a temporary file"""
_ROWS = 1 << 16
"""rows of a table that are read from that file at once"""
_SLOW_DISK = 2e8
"""bytes per second: what a save is taken to cost before one was measured"""

PHASES = ("", "start", "exact", "generator", "rounds")
"""in the order in which a run goes through them; `start` is of a run that goes on from a former
one"""


@dataclass
class TrainingPosition:
    """Where a run is."""

    phase: str = ""
    """the running phase; empty before the first"""
    epochs: int = 0
    """epochs that this phase has behind it"""
    waited: int = 0
    """epochs since the phase's last better validation score"""
    drops: int = 0
    """how often the learning rates may still drop"""
    ended: bool = False
    """whether the phase ended before its most epochs: out of patience, or caught up"""
    batches: int = 0
    """batches that the running epoch has behind it"""
    loss: float = 0.0
    """loss summed over the events of those batches"""
    events: int = 0
    """events of those batches"""
    order: dict[str, object] = field(default_factory=dict)
    """state of the random stream of the data's order, before the running epoch's sessions were
    shuffled"""

    @classmethod
    def of(cls, state: State) -> TrainingPosition:
        """The position in a trainer's state. Raises KeyError, TypeError or ValueError for what no
        trainer writes."""
        at = cls(**state["position"])
        counts = (at.epochs, at.waited, at.drops, at.batches, at.events)
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError("a count in it is not a whole number of at least 0")
        return at

    def enter(self, phase: str, drops: int) -> bool:
        """Whether a phase is still to run; one that has not begun begins. Raises ValueError for an
        unknown phase."""
        behind = PHASES.index(phase) - PHASES.index(self.phase)
        if behind > 0:
            self.phase, self.epochs, self.waited, self.drops, self.ended = phase, 0, 0, drops, False
        return behind >= 0

    def begin_epoch(self, order: np.random.Generator) -> None:
        """No batch of the epoch is done; its order is drawn from here."""
        self.batches, self.loss, self.events = 0, 0.0, 0
        self.order = dict(order.bit_generator.state)


@dataclass(frozen=True)
class TriedSetting:
    """A setting that a fit has compared with others."""

    name: str
    val_loss: float
    """the least of its epochs, with exact players"""
    seconds: float = math.nan
    """what it took, the log's encoding included where no setting before had the same; NaN in a
    model that was loaded"""


def trials_as_facts(trials: Sequence[TriedSetting]) -> list[dict[str, Any]]:
    """Plain values of what was compared, `chosen` among them; seconds where they are known, no loss
    of one that diverged."""
    best = min(trials, key=lambda trial: trial.val_loss, default=None)
    facts: list[dict[str, Any]] = [
        {**dataclasses.asdict(trial), "chosen": trial is best} for trial in trials
    ]
    for one in facts:
        if one["val_loss"] == sys.float_info.max:
            one["val_loss"] = None
    return [
        {key: value for key, value in one.items() if value == value}  # NaN is not itself
        for one in facts
    ]


@dataclass(frozen=True)
class Checkpoint:
    """What the file of a run holds."""

    config: Config
    """as it was asked for"""
    reading: dict[str, object]
    """how the log was read"""
    fingerprint: str
    """the log's"""
    tried: list[TriedSetting] = field(default_factory=list)
    """the compared settings that are done"""
    trainer: State | None = None
    """`Trainer.state()` of the next setting or bootstrap, or of the training proper; None where it
    had not begun"""
    n_settings: int = 0
    """how many settings are compared on this log"""
    start: State | None = None
    """the state of the model that the run goes on from; None where the seed draws the weights"""
    bootstraps: list[State] = field(default_factory=list)
    """the states of the fits on bootstraps that are done; they come before the training proper"""

    @property
    def rows(self) -> list[dict[str, object]]:
        """The epochs so far, as rows of the training table."""
        return [] if self.trainer is None else list(self.trainer["rows"])

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        config = self.config
        if self.trainer is None or len(self.tried) < self.n_settings:
            return False
        if len(self.bootstraps) < config.worlds - 1:
            return False
        at = TrainingPosition.of(self.trainer)
        last = "exact" if config.players == "exact" else "rounds"
        return at.phase == last and (at.ended or at.epochs >= config.epochs)

    def save(self, file: Path) -> None:
        """Write it, atomically. Raises OutputError where it cannot be written."""
        parts = {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}
        state = {**parts, "config": self.config.to_mapping(), "tried": _plain(self.tried)}
        save_state(file, FORMAT, state)

    @classmethod
    def load(cls, file: Path) -> Checkpoint:
        """Read it.

        Raises:
            CheckpointError: it is missing, damaged, or of another version.
        """
        if not file.is_file():
            raise CheckpointError(f"there is no '{file}': train again with --overwrite")
        cure = "train again with --overwrite, or use the version that wrote it"
        state = load_state(file, FORMAT, cure)
        with damage_named(file, "training"):
            found = cls(
                Config.from_mapping(state["config"]),
                dict(state["reading"]),
                str(state["fingerprint"]),
                msgspec.convert(state["tried"], list[TriedSetting]),
                state["trainer"],
                int(state["n_settings"]),
                # what was written before there were sets, and runs that go on from others
                state.get("start"),
                list(state.get("bootstraps", [])),
            )
            if found.trainer is not None:
                TrainingPosition.of(found.trainer)
                msgspec.convert(found.rows, list[EpochRow])
        return found


class Checkpointer:
    """Saves a training as it goes on, and brings the next one to where the former was.

    A save is made after a noted signal, at the end of a run, and at ends of epochs and every
    BATCH_SECONDS so far as SHARE allows.

    Attributes:
        tried: the compared settings that are done.
        bootstraps: the states of the fits on bootstraps that are done.
    """

    def __init__(
        self,
        file: Path | None = None,
        checkpoint: Checkpoint | None = None,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Save to `file`; without one another process writes.

        `checkpoint` is where the run goes on, or says what it was asked for; without one nothing is
        saved and no signal waits. `on_begin` is called when the file of a new run is there."""
        self.file, self.on_begin = file, on_begin
        self.tried: list[TriedSetting] = [] if checkpoint is None else list(checkpoint.tried)
        self.bootstraps = [] if checkpoint is None else list(checkpoint.bootstraps)
        self._former = None if checkpoint is None else checkpoint.trainer
        # the former trainer's tensors are not held for as long as the run
        self._asked = None if checkpoint is None else dataclasses.replace(checkpoint, trainer=None)
        self._cost: float | None = None
        self._saved_at = time.perf_counter()

    @contextmanager
    def watching(self, trainer: Trainer) -> Iterator[bool]:
        """Bring the first trainer to where the former run was, and within, let a signal wait for
        the batch's end. Yields whether this trainer was brought there.

        Raises:
            CheckpointError: the checkpoint is damaged, or of another device.
        """
        if self._asked is None:
            yield False
            return
        # from before the first file is there: a signal that comes upon it is noted, not raised
        with trainer.processes.stop.deferred():
            former, self._former = self._former, None
            resumed = former is not None
            if former is None:
                self._write(None)
                self.on_begin()
            else:
                file = self.file or Path("the first process's checkpoint")
                with damage_named(file, "training"):
                    # all of it, before an observer writes the run's other files again
                    trainer.load_best(former)
                    trainer.load_state(former)
                    trainer.load_best(former)
                # what an observer raises is its own, and no damage of the file
                trainer.observers.on_fit_begin(trainer.config, trainer.rows)
                with damage_named(file, "training"):
                    trainer.load_state(former)
                del former
            self._saved_at = time.perf_counter()
            yield resumed

    def after_batch(self, trainer: Trainer) -> None:
        """Save if a signal was noted, and end there; or if it was long ago."""
        asked = trainer.processes.agreed.asked
        if asked or time.perf_counter() - self._saved_at > BATCH_SECONDS:
            self._save(trainer, asked)

    def after_epoch(self, trainer: Trainer, last: bool = False) -> None:
        """Save if a signal was noted, and end there; or if there was time enough; always after the
        last epoch."""
        self._save(trainer, last or trainer.processes.agreed.asked)

    def _save(self, trainer: Trainer, must: bool) -> None:
        if self._asked is None:
            return
        if self.file is not None:
            state = trainer.state()
            if self._cost is None:
                n_bytes = sum(array.nbytes for array in split_state(state)[1].values())
                self._cost = n_bytes / _SLOW_DISK
            started = time.perf_counter()
            if must or started - self._saved_at > self._cost / SHARE:
                self._write(state)
                self._saved_at = time.perf_counter()
                self._cost = self._saved_at - started
        trainer.processes.agreed.check()

    def _write(self, state: State | None) -> None:
        assert self._asked is not None
        if self.file is not None:
            dataclasses.replace(
                self._asked, tried=self.tried, bootstraps=self.bootstraps, trainer=state
            ).save(self.file)


def first_checkpoint(processes: Processes, checkpoint: Checkpoint) -> Checkpoint:
    """The first process's checkpoint, in all of them; the others pass what they were asked for."""
    own = {name: getattr(checkpoint, name) for name in ("trainer", "start", "bootstraps")}
    own["tried"] = _plain(checkpoint.tried)
    state = processes.state_of_first(own)
    tried = msgspec.convert(state["tried"], list[TriedSetting])
    return dataclasses.replace(checkpoint, **{**state, "tried": tried})


def _plain(trials: Sequence[TriedSetting]) -> list[dict[str, object]]:
    return [dataclasses.asdict(trial) for trial in trials]


class KeptWeights:
    """A copy of a module's state that can be put back, in memory while it is small and in a
    temporary file above: a second copy of large tables would double a run's memory."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.file: BufferedRandom | None = None
        self.copies: list[Tensor] = []
        if sum(value.nbytes for value in self._values()) > IN_MEMORY_BYTES:
            # `close` closes it
            self.file = tempfile.TemporaryFile(prefix="fastgaum-weights-")  # noqa: SIM115
        self.copy()

    def copy(self) -> None:
        """Copy the module's present state.

        Raises:
            OutputError: the folder of temporary files is full.
        """
        if self.file is None:
            self.copies = [value.detach().clone() for value in self._values()]
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
        """Let the module's state, in place, leave the copied one by only this share of the way:
        copy + share · (state − copy). What is no floating-point number stays as it is."""
        for part, copy in self._parts():
            if part.is_floating_point():
                part.lerp_(copy.to(part.device), 1 - share)

    def close(self) -> None:
        """Give the file back; nothing can be restored after."""
        if self.file is not None:
            self.file.close()

    def _values(self) -> list[Tensor]:
        return [value for value in self.module.state_dict().values() if value.numel()]

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The module's state, part by part, each with its copy."""
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
    """A tensor's bytes, in order; its own memory where it is contiguous and on the CPU."""
    return value.detach().cpu().contiguous().numpy().reshape(-1).view("u1").data
