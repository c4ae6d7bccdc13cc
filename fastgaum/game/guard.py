"""Guard: a batch whose loss or gradient is not finite moves nothing, is traced to its sessions, and
stops or is skipped.

The games refuse such a step before anything has moved (`StepRefusedError`), at no cost: they look
at the loss and at the gradient's norm, which a step computes in any case. All that takes time here
happens after a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from fastgaum.checkpoint import State
from fastgaum.errors import NumericsError, StepRefusedError
from fastgaum.features.batches import assemble
from fastgaum.features.in_memory import Sessions
from fastgaum.logs.log import IntArray
from fastgaum.nets.tensors import BatchTensors, to_tensors
from fastgaum.processes import Processes

MOST_FOUND = 20
"""sessions at fault that are looked for; where all are, one look at each would take as long as an
epoch"""
MOST_NAMED = 5
Step = Callable[[BatchTensors], float]


class SkipRule(Protocol):
    """What is done with a refused batch: a `Config`, or a baseline's own settings."""

    @property
    def on_nonfinite(self) -> Literal["stop", "skip"]:
        """Whether training stops or the batch is skipped."""

    @property
    def most_skipped(self) -> int:
        """How many batches of a run may be skipped."""


class RefusedBatch(NamedTuple):
    """A batch, or one process's part of it, whose step was refused."""

    what: str
    """why, and where"""
    found: list[int]
    """its sessions that are at fault, by their rows in the log"""
    rows: list[int]
    """all of its sessions"""


class Freezable(Protocol):
    """What takes the steps."""

    def freeze(self, frozen: bool) -> None:
        """Let steps look at losses and gradients and move nothing, or move again."""


class Guard:
    """Takes the steps of one run.

    Attributes:
        skipped: batches skipped in the run so far.
        found: sessions that were at fault, by their rows in the log.
    """

    def __init__(
        self,
        game: Freezable,
        networks: nn.Module,
        config: SkipRule,
        train: Sessions,
        session_name: Callable[[int], str],
        processes: Processes | None = None,
    ) -> None:
        """Guard the steps of a game.

        Args:
            game: what takes the steps.
            networks: what they move.
            config: what is done with a refused batch.
            train: the sessions that batches are of.
            session_name: a session's name in an error, by its row in the log.
            processes: those that take each step together.
        """
        self.game, self.networks, self.config = game, networks, config
        self.train, self.session_name = train, session_name
        self.processes = processes or Processes()
        self.skipped = 0
        self.found: set[int] = set()
        self.of_last_epoch: list[str] = []

    def state(self) -> dict[str, object]:
        """What a checkpoint holds of it."""
        return {
            "skipped": self.skipped,
            "found": sorted(self.found),
            "of_last_epoch": self.of_last_epoch,
        }

    def load_state(self, state: State) -> None:
        """Go on from a state. Raises KeyError, TypeError or ValueError for a damaged one."""
        self.skipped, self.found = int(state["skipped"]), set(map(int, state["found"]))
        self.of_last_epoch = list(map(str, state["of_last_epoch"]))

    def step(self, step: Step, batch: BatchTensors, where: str) -> float | None:
        """Take a step and return its loss; None where the batch was skipped.

        A refused player's weights and optimiser state are untouched, and so are those of the
        players that move after it. In a round the generator's own finite steps, which come first,
        stay. Several processes take it together or not at all.

        Raises:
            NumericsError: the batch may not be skipped, or one too many was.
        """
        try:
            n_events = 0 if batch.source.is_filler else batch.n_events
            return self.processes.step(step, batch, n_events)
        except StepRefusedError as refusal:
            own = self.looked_at(step, batch, where, refusal)
            found = {row for theirs in self.processes.agree(own.found) for row in theirs}
            self.leave_out(own._replace(found=sorted(found)))
            return None

    def looked_at(
        self, step: Step, batch: BatchTensors, where: str, refusal: StepRefusedError
    ) -> RefusedBatch:
        """This process's part of a batch whose step was refused, and the sessions in it whose own
        loss or gradient is not finite. Raises NumericsError where a weight is not."""
        self.check_weights(f"in {where}, where {refusal}")
        found = self._at_fault(step, batch)
        return RefusedBatch(f"{refusal} in {where}", found, batch.source.rows.tolist())

    def leave_out(self, refused: RefusedBatch) -> None:
        """Count a batch as skipped. Raises NumericsError where it may not be."""
        found = refused.found
        self.found.update(found)
        names = f"at fault: {self._named(found)}"
        if not found:
            n = len(refused.rows)
            names = f"no session alone, all {n} of the batch together: {self._named(refused.rows)}"
        self._refused(f"{refused.what}: {names}")
        self.of_last_epoch.append(names)

    def check_weights(self, when: str) -> None:
        """Raise NumericsError where a weight is not finite: no batch is at fault then, and none can
        cure it."""
        for name, weight in self.networks.named_parameters():
            # a sum is quicker than a look at each; where it overflows, each is looked at
            if not weight.detach().sum().isfinite() and not weight.detach().isfinite().all():
                raise NumericsError(
                    f"the weights '{name}' are not finite {when}: the last good state is kept; "
                    "lower lr or clip"
                )

    def of_epoch(self) -> tuple[int, str]:
        """How many batches were skipped since this was last asked, and the sessions at fault in
        them."""
        names, self.of_last_epoch = self.of_last_epoch, []
        return len(names), "; ".join(names[:MOST_NAMED]) + (" …" if len(names) > MOST_NAMED else "")

    def _refused(self, what: str) -> None:
        stays = "the last good state is kept"
        if self.config.on_nonfinite == "stop":
            raise NumericsError(
                f"{what}; {stays}; check the numbers there, lower lr or clip, or set "
                "on_nonfinite=skip to leave such batches out"
            )
        self.skipped += 1
        if self.skipped > self.config.most_skipped:
            raise NumericsError(
                f"{what}; with it {self.skipped} batches are to be skipped, at most "
                f"{self.config.most_skipped} are"
                f" (most_skipped): {stays}; check the numbers, or lower lr or clip"
            )

    def _at_fault(self, step: Step, batch: BatchTensors) -> list[int]:
        """The sessions whose own loss or gradient is not finite, by their rows in the log."""
        train, rows = self.train, self.train.rows
        device = next(self.networks.parameters()).device
        order = np.argsort(rows, kind="stable")
        sessions = order[np.searchsorted(rows, batch.source.rows, sorter=order)].astype(np.int32)

        def refused(some: IntArray) -> bool:
            try:
                step(to_tensors(assemble(train, some), device))
            except StepRefusedError:
                return True
            return False

        with self._looking(device):
            found: list[int] = rows[at_fault(refused, sessions)].tolist()
        return found

    def _named(self, rows: list[int]) -> str:
        names = [self.session_name(row) for row in rows[:MOST_NAMED]]
        return f"session{'s' * (len(rows) > 1)} {', '.join(names)}{' …' * (len(rows) > MOST_NAMED)}"

    @contextmanager
    def _looking(self, device: torch.device) -> Iterator[None]:
        """Steps move nothing meanwhile, and no random stream moves on."""
        self.game.freeze(True)
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                yield
        finally:
            self.game.freeze(False)


def at_fault(refused: Callable[[IntArray], bool], sessions: IntArray) -> list[int]:
    """Those that are refused alone, of sessions that are refused together: found by halving,
    MOST_FOUND at most."""
    if len(sessions) == 1:
        return sessions.tolist() if refused(sessions) else []
    found: list[int] = []
    for half in np.array_split(sessions, 2):
        if len(found) < MOST_FOUND and (len(half) == 1 or refused(half)):
            found += at_fault(refused, half)
    return found[:MOST_FOUND]
