"""How the training loop takes its steps: all processes together, or each alone for some steps.

Alone is local SGD (Stich, "Local SGD converges fast and communicates little", ICLR 2019): every
process takes H steps of the optimiser on its share of H batches, then all go on from the mean of
their weights. At every fourth meeting, and at an epoch's end, they take the mean of the tables'
moments too. Then all processes hold the same state: a run is saved there and nowhere else, and goes
on to the same bits."""

from __future__ import annotations

import math
from typing import NamedTuple

from fastgaum.errors import NumericsError, StepRefusedError
from fastgaum.game.game import Game
from fastgaum.game.guard import Guard, RefusedBatch, Step
from fastgaum.nets.tensors import BatchTensors

WHOLE = 4
"""meetings from one at which moments meet to the next"""


class Taken(NamedTuple):
    """What batches have brought."""

    loss: float = 0.0
    """summed over events"""
    events: int = 0
    """of those batches that were not skipped"""
    seen: int = 0
    """events of all"""


def steps_of(game: Game, guard: Guard) -> SharedSteps:
    """How the guard's processes take the game's steps, as its configuration says."""
    every = game.config.local_steps
    local = every > 1 and guard.processes.size > 1
    return LocalSteps(guard, game, every) if local else SharedSteps(guard)


class SharedSteps:
    """Every step is of all processes, or of the one that there is."""

    def __init__(self, guard: Guard) -> None:
        self.guard, self.processes = guard, guard.processes
        self.is_whole = True
        """whether all processes hold the same state now, weights and moments"""

    def take(self, step: Step, batch: BatchTensors, where: str) -> Taken:
        """Take a step; returns what has been learned of batches since the last call. Raises
        NumericsError as `Guard.step` does."""
        loss, n = self.guard.step(step, batch, where), self.processes.n_events
        return Taken(seen=n) if loss is None else Taken(loss * n, n, n)

    def meet(self) -> Taken:
        """Have all processes hold the same state; returns as `take`."""
        return Taken()


class LocalSteps(SharedSteps):
    """Steps that each process takes alone; all take the mean after every so many.

    A batch that one process cannot take is left out by that process. The others learn of it when
    they meet."""

    def __init__(self, guard: Guard, game: Game, every: int) -> None:
        super().__init__(guard)
        self.every, self.optimisers = every, game.part()
        self.waiting, self.meetings = 0, 0
        """steps since all have met, and how often they have since they last had the same state"""
        self.before: list[float] = []
        """each player's steps when all last had the same state"""
        self.own = Taken()
        self.refused: list[RefusedBatch] = []
        self.failure = ""

    def take(self, step: Step, batch: BatchTensors, where: str) -> Taken:
        """As the base says; nothing is known between meetings."""
        if self.is_whole:
            self.before = [optimiser.counters[0] for optimiser in self.optimisers.values()]
        self._take(step, batch, 0 if batch.source.is_filler else batch.n_events, where)
        self.waiting, self.is_whole = self.waiting + 1, False
        if self.waiting < self.every:
            return Taken()
        return self._met(whole=self.meetings + 1 == WHOLE)

    def _take(self, step: Step, batch: BatchTensors, n: int, where: str) -> None:
        loss, events, seen = self.own
        takes = n > 0 and not self.failure
        try:
            # who takes no step draws as the others do
            loss += self.processes.step_alone(step if takes else _no_step, batch) * n
            events += n
        except StepRefusedError as refusal:
            try:
                self.refused.append(self.guard.looked_at(step, batch, where, refusal))
            except NumericsError as error:
                # the others wait for this process at the meeting
                self.failure = str(error)
        self.own = Taken(loss, events, seen + n)

    def meet(self) -> Taken:
        """As the base says. Raises NumericsError in all processes where one has met what may not be
        skipped."""
        return Taken() if self.is_whole else self._met(whole=True)

    def _met(self, whole: bool) -> Taken:
        own, refused, failure = self.own, self.refused, self.failure
        self.waiting, self.own, self.refused = 0, Taken(), []
        self.meetings, self.is_whole = 0 if whole else self.meetings + 1, whole
        counters = [list(optimiser.counters) for optimiser in self.optimisers.values()]
        told = self.processes.agree(
            [own, failure, refused, counters, self.processes.stop.signum or 0]
        )
        shares, failures, batches, of_players, signals = zip(*told, strict=True)
        self.processes.heard(max(signals))
        if any(failures):
            raise NumericsError(next(one for one in failures if one))
        for one in (RefusedBatch(*one) for theirs in batches for one in theirs):
            self.guard.leave_out(one)
        taken = [Taken(*share) for share in shares]
        n_events = sum(one.events for one in taken)
        # one more each: a process without events since the last meeting may have moments to bring
        weights = [(one.events + 1) / (n_events + len(taken)) for one in taken]
        self._average(weights, list(zip(*of_players, strict=True)), whole)
        return Taken(math.fsum(one.loss for one in taken), n_events, sum(one.seen for one in taken))

    def _average(
        self, weights: list[float], counters: list[tuple[tuple[float, float], ...]], whole: bool
    ) -> None:
        """Take the mean; `counters` are each player's, of each process."""
        players = zip(self.optimisers.values(), counters, self.before, strict=True)
        for optimiser, of_processes, before in players:
            # a process that has left out a step counts as the others do
            steps, log_decay = max(of_processes, key=lambda one: one[0])
            if steps > before:
                optimiser.set_counters(steps, log_decay)
                optimiser.settle()
                self.processes.average(weights, *optimiser.moves(whole))
                self.processes.traffic.steps += int(steps - before) if whole else 0


def _no_step(batch: BatchTensors) -> float:
    return 0.0
