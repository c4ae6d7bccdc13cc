"""The training loop: exact epochs, a generator that catches up, then rounds; early stop on validation; best state kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgaum.config import Config
from fastgaum.engine.game import FusedGame
from fastgaum.errors import NumericsError
from fastgaum.models.choice_model import SCORING_SESSIONS
from fastgaum.models.networks import Networks
from fastgaum.models.regularisers import Regulariser
from fastgaum.models.tensors import BatchTensors, to_tensors
from fastgaum.sessions.batches import Sessions, assemble, batches, blocks
from fastgaum.training.best_state import BestState
from fastgaum.training.game import Game
from fastgaum.training.guard import Guard
from fastgaum.training.observers import EpochRow, Observer
from fastgaum.training.scoring import Figures, figures

CATCH_UP_GAP = 2e-3
"""the generator has caught up when its mean training gap is below this"""
GAP_SESSIONS = 20_000
"""the training gap is taken over so many sessions at most, the same ones in every epoch"""
HELD_EVENTS = 50_000
"""sessions that are scored after every epoch stay assembled up to so many events; above, they are assembled each time"""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation sessions under one space, and how to name a session in an error."""

    train: Sessions
    validation: Sessions
    session_name: Callable[[int], str]


class Scored:
    """Sessions that are scored again and again, as batches; they stay assembled while they are few."""

    def __init__(
        self, encoded: Sessions, device: torch.device, most_sessions: int | None = None, without: Iterable[int] = ()
    ) -> None:
        self.encoded, self.device = encoded, device
        n = min(encoded.n_sessions, most_sessions or encoded.n_sessions)
        # spread over the log: its order may be that of time
        rows = np.linspace(0, encoded.n_sessions, n, endpoint=False).astype(np.int32)
        self.rows = np.setdiff1d(rows, list(without)).astype(np.int32)
        few = encoded.n_events * (n / max(encoded.n_sessions, 1)) <= HELD_EVENTS
        self.held = list(self._assembled()) if few else None

    def __iter__(self) -> Iterator[BatchTensors]:
        return iter(self.held) if self.held is not None else self._assembled()

    def _assembled(self) -> Iterator[BatchTensors]:
        for sessions in blocks(self.encoded, self.rows, SCORING_SESSIONS):
            yield to_tensors(assemble(self.encoded, sessions), self.device)


class Trainer:
    """One run: owns the random streams, the game and the best state so far."""

    def __init__(
        self, networks: Networks, config: Config, regulariser: Regulariser, data: TrainingData, unknown_of_id: Tensor,
        outside: bool, observer: Observer, device: torch.device,
    ) -> None:  # fmt: skip
        self.networks = networks
        self.config = config
        self.regulariser = regulariser
        self.data = data
        self.outside = outside
        self.observer = observer
        self.device = device
        engine = FusedGame if FusedGame.supports(networks, config, device) else Game
        self.game: Game | FusedGame = engine(networks, config, regulariser, unknown_of_id.to(device), outside)
        self.guard = Guard(self.game, networks, config, data.train, data.session_name, device)
        self.order = np.random.default_rng(config.seed)
        self.train = Scored(data.train, device, GAP_SESSIONS)
        self.validation = Scored(data.validation, device)
        self.rows: list[EpochRow] = []
        self.best_score = math.inf
        self.best_state = BestState(networks)

    def run(self) -> list[EpochRow]:
        """Train through all phases; the networks end with the best validated weights.

        Raises:
            NumericsError: a loss, a gradient or a weight is not finite (or too many batches were skipped for that); the
                networks then hold the last good state.
        """
        try:
            self._phases()
        except NumericsError:
            self._restore()
            raise
        finally:
            self.game.release()
            self.best_state.close()
        return self.rows

    def _phases(self) -> None:
        if self.config.players == "exact":
            self._phase("exact", self.game.exact_step, self.config.epochs)
        else:
            if self.config.warm_start:
                self._phase("exact", self.game.exact_step, self.config.warm_start)
                self._catch_up()
            self._phase("rounds", self.game.round, self.config.epochs)

    def _phase(self, phase: str, step: Callable[[BatchTensors], float], epochs: int) -> None:
        """Epochs of one kind until the validation score stops improving; ends on the best state."""
        waited, drops = 0, self.config.lr_drops
        share = self.config.rounds_lr if phase == "rounds" else 1.0
        self.game.set_learning_rates(1.0, share)
        for _ in range(epochs):
            started = time.perf_counter()
            loss = self._epoch(step)
            row = self._validated(phase, loss, started)
            waited = 0 if row.best else waited + 1
            if waited >= self.config.patience:
                if drops == 0:
                    break
                drops, waited = drops - 1, 0
                self._restore()
                self.game.set_learning_rates(3.0 ** (drops - self.config.lr_drops), share)
        self._restore()

    def _catch_up(self) -> None:
        """Generator steps alone, the reward fixed, until the gap is small; then the best state includes this generator."""
        for _ in range(self.config.catch_up):
            started = time.perf_counter()
            self._epoch(self._generator_only)
            self.best_score = math.inf
            if self._validated("generator", math.nan, started).gap < CATCH_UP_GAP:
                break

    def _generator_only(self, batch: BatchTensors) -> float:
        self.game.generator_turn(batch, self.config.generator_steps)
        return 0.0

    def _epoch(self, step: Callable[[BatchTensors], float]) -> float:
        total, n_events = 0.0, 0
        n_batches = math.ceil(self.data.train.n_sessions / self.config.batch_sessions)
        for done, batch in enumerate(self._shuffled(), start=1):
            loss = self.guard.step(step, batch, f"epoch {len(self.rows) + 1}, batch {done}")
            if loss is not None:
                total += loss * batch.n_events
                n_events += batch.n_events
            self.observer.on_batch(done, max(done, n_batches))
        return total / n_events if n_events else math.nan

    def _shuffled(self) -> Iterator[BatchTensors]:
        for batch in batches(self.data.train, self.config.batch_sessions, self.order):
            yield to_tensors(batch, self.device)

    def _restore(self) -> None:
        self.game.settle()
        self.best_state.restore()

    def _validated(self, phase: str, loss: float, started: float) -> EpochRow:
        seconds = time.perf_counter() - started
        self.game.settle()
        skipped, at_fault = self.guard.of_epoch()
        if skipped:
            # they have no gap
            self.train = Scored(self.data.train, self.device, GAP_SESSIONS, without=self.guard.found)
        validation = self._figures(self.validation)
        gap = self._figures(self.train).gap if self.networks.generator is not None and phase != "exact" else 0.0
        value = validation.loss if self.config.select == "loss" else -validation.prec1
        if not math.isfinite(value):
            raise NumericsError(
                f"the validation loss is {value} after epoch {len(self.rows) + 1}: the last good state is kept"
            )
        best = value < self.best_score
        if best:
            self.guard.check_weights(f"after epoch {len(self.rows) + 1}")
            self.best_score = value
            self.best_state.keep()
        adversarial = phase != "exact" and self.networks.generator is not None
        row = EpochRow(
            epoch=len(self.rows) + 1,
            phase=phase,
            loss=loss,
            val_loss=validation.loss,
            val_prec1=validation.prec1,
            val_generator_prec1=validation.generator_prec1 if adversarial else math.nan,
            gap=gap,
            val_gap=validation.gap if adversarial else 0.0,
            events_per_second=self.data.train.n_events / max(seconds, 1e-9),
            best=best,
            skipped=skipped,
            at_fault=at_fault,
        )
        self.rows.append(row)
        self.observer.on_epoch(row)
        return row

    def _figures(self, scored: Scored) -> Figures:
        return figures(self.networks, scored, self.regulariser, self.config.eta, self.outside)
