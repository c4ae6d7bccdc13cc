"""Keeper: saves a run, in one file, so that it can go on to the same bytes; and the reading of that
file.

The file is the run's truth: everything else in a run folder can be made from it. It holds, as a
safetensors file, a trainer's `Snapshot`, and in its metadata what the run was asked for, so that no
crash can part what belongs together."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgaum.config import Config
from fastgaum.errors import CheckpointError
from fastgaum.game.snapshot import Snapshot, put, take
from fastgaum.interrupts import Stop
from fastgaum.tensor_file import damage_named, read_tensors, require_format
from fastgaum.tensor_writer import write_tensors
from fastgaum.untrusted import parse_json

if TYPE_CHECKING:
    from fastgaum.game.loop import Trainer

FORMAT = "fastgaum-resume-1"
SHARE = 0.02
"""saving takes at most this share of the time: a save waits until so much has been trained since
the one before"""
BATCH_SECONDS = 600.0
"""within an epoch a run is saved when so long has passed since it last was"""
_SLOW_DISK = 2e8
"""bytes per second: what a save is taken to cost before one was measured"""


@dataclass(frozen=True)
class Kept:
    """What a resume file says."""

    config: Config
    """as it was asked for"""
    reading: dict[str, Any]
    """how the log was read"""
    fingerprint: str
    """the log's"""
    tried: list[float] = field(default_factory=list)
    """validation losses of the searched settings that are done"""
    snapshot: Snapshot | None = None
    """the trainer of the next setting, or of the training proper; None where it had not begun"""

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        config = self.config
        if self.snapshot is None or len(self.tried) < config.n_searched:
            return False
        at = self.snapshot.position
        last = "exact" if config.players == "exact" else "rounds"
        return at.phase == last and (at.ended or at.epochs >= config.epochs)


class Keeper:
    """Saves a trainer as it goes, to `file`; with nothing kept it does nothing, without a file
    another process writes.

    A save is made after a noted signal, at the end of a run, and at ends of epochs and every
    BATCH_SECONDS so far as SHARE allows."""

    def __init__(
        self,
        file: Path | None = None,
        kept: Kept | None = None,
        stop: Stop | None = None,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what was kept, or what is asked for and nothing done yet; `on_begin` is called when
        the file says so."""
        self.file, self.stop, self.on_begin = file, stop or Stop(), on_begin
        self.seen = self.stop
        """what ends the training: this process's own signal, or what all of its processes have
        agreed on"""
        self.tried: list[float] = [] if kept is None else list(kept.tried)
        self.snapshot = None if kept is None else kept.snapshot
        # the former trainer's tensors are not held for as long as the run
        self.kept = None if kept is None else dataclasses.replace(kept, snapshot=None)
        self.cost: float | None = None
        self.saved_at = time.perf_counter()

    @contextmanager
    def watching(self, trainer: Trainer) -> Iterator[None]:
        """Bring the first trainer to where the former run was, and within, let a signal wait for
        the batch's end.

        Raises:
            CheckpointError: what was kept is damaged, or of another device.
        """
        if trainer.exchange is not None:
            self.seen = trainer.exchange.agreed
        if self.kept is None:
            yield
            return
        # from before the first file is there: a signal that comes upon it is noted, not raised
        with self.stop.deferred():
            if self.snapshot is None:
                self._write(Snapshot({}, {}))
                self.on_begin()
            else:
                snapshot, self.snapshot = self.snapshot, None
                with damage_named(self.file or Path("the first process's resume file")):
                    put(trainer, snapshot)
                del snapshot
            self.saved_at = time.perf_counter()
            yield

    def after_batch(self, trainer: Trainer) -> None:
        """Save if a signal was noted, and end there; or if it was long ago."""
        if self.kept is not None and (
            self.seen.asked or time.perf_counter() - self.saved_at > BATCH_SECONDS
        ):
            self._save(trainer, self.seen.asked)

    def after_epoch(self, trainer: Trainer, last: bool = False) -> None:
        """Save if a signal was noted, and end there; or if there was time enough; always after the
        last epoch."""
        if self.kept is not None:
            self._save(trainer, last or self.seen.asked)

    def _save(self, trainer: Trainer, must: bool) -> None:
        if self.file is None:
            self.seen.check()
            return
        snapshot = take(trainer)
        if self.cost is None:
            self.cost = sum(tensor.nbytes for tensor in snapshot.tensors.values()) / _SLOW_DISK
        if must or time.perf_counter() - self.saved_at > self.cost / SHARE:
            started = time.perf_counter()
            self._write(snapshot)
            self.saved_at = time.perf_counter()
            self.cost = self.saved_at - started
        self.seen.check()

    def _write(self, snapshot: Snapshot) -> None:
        assert self.kept is not None
        if self.file is None:
            return
        metadata = {
            "format": FORMAT,
            "config": json.dumps(self.kept.config.to_mapping()),
            "reading": json.dumps(self.kept.reading),
            "fingerprint": self.kept.fingerprint,
            "tried": json.dumps(self.tried),
            "trainer": json.dumps(snapshot.facts),
        }
        write_tensors(self.file, snapshot.tensors, metadata)


def read_kept(file: Path) -> Kept:
    """Read a resume file.

    Raises:
        CheckpointError: it is missing, damaged, or of another version.
    """
    if not file.is_file():
        raise CheckpointError(f"there is no '{file}': train again with --overwrite")
    with damage_named(file, "training"):
        metadata, tensors = read_tensors(file)
        cure = "train again with --overwrite, or use the version that wrote it"
        require_format(file, metadata.get("format"), FORMAT, cure)
        facts = parse_json(metadata["trainer"])
        return Kept(
            config=Config.from_mapping(parse_json(metadata["config"])),
            reading=dict(parse_json(metadata["reading"])),
            fingerprint=metadata["fingerprint"],
            tried=[float(loss) for loss in parse_json(metadata["tried"])],
            snapshot=_checked(Snapshot(facts, tensors)) if facts else None,
        )


def _checked(snapshot: Snapshot) -> Snapshot:
    """The snapshot, its plain values looked at. Raises ValueError or TypeError for what no trainer
    writes."""
    at = snapshot.position
    counts = (at.epochs, at.waited, at.drops, at.batches, at.events)
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("a count in it is not a whole number of at least 0")
    if not all(isinstance(row.epoch, int) for row in snapshot.rows):
        raise ValueError("an epoch in it has no number")
    return snapshot
