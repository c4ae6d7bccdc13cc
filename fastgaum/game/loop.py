"""The training loop: exact epochs, a generator that catches up, then rounds; early stop on
validation; best state kept."""

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
from fastgaum.features.batches import Sessions, assemble, batches, blocks, count_batches, windows
from fastgaum.features.share import WHOLE, Share
from fastgaum.features.streamed_sessions import StreamedSessions
from fastgaum.game.best_state import BestState
from fastgaum.game.checkpoint import Keeper
from fastgaum.game.game import Game
from fastgaum.game.guard import Guard
from fastgaum.game.observers import EpochRow, Observer
from fastgaum.game.scoring import Figures, figures
from fastgaum.game.snapshot import Position
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import Regulariser
from fastgaum.nets.scores import SCORING_SESSIONS
from fastgaum.nets.tensors import BatchTensors, to_tensors
from fastgaum.parallel.exchange import Exchange
from fastgaum.parallel.ranks import Ranks, in_step

CATCH_UP_GAP = 2e-3
"""the generator has caught up when its mean training gap is below this"""
GAP_SESSIONS = 20_000
"""the training gap is taken over so many sessions at most, the same ones in every epoch"""
HELD_EVENTS = 50_000
"""sessions that are scored after every epoch stay assembled up to so many events; above, they are
assembled each time"""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation sessions under one space, and how to name a session in an error."""

    train: Sessions | StreamedSessions
    validation: Sessions | StreamedSessions
    session_name: Callable[[int], str]


class Scored:
    """Sessions that are scored again and again, as batches; they stay assembled while they are
    few."""

    def __init__(
        self,
        encoded: Sessions | StreamedSessions,
        device: torch.device,
        most_sessions: int | None = None,
        without: Iterable[int] = (),
        share: Share = WHOLE,
    ) -> None:
        self.encoded, self.device = encoded, device
        n = min(encoded.n_sessions, most_sessions or encoded.n_sessions)
        # spread over the log: its order may be that of time
        self.positions = share.of(
            np.linspace(0, encoded.n_sessions, n, endpoint=False).astype(np.int64)
        )
        self.without = list(without)
        few = encoded.n_events * (len(self.positions) / max(encoded.n_sessions, 1)) <= HELD_EVENTS
        self.held = list(self._assembled()) if few else None

    def __iter__(self) -> Iterator[BatchTensors]:
        return iter(self.held) if self.held is not None else self._assembled()

    def _assembled(self) -> Iterator[BatchTensors]:
        first = 0
        for window in windows(self.encoded):
            low, high = np.searchsorted(self.positions, [first, first + window.n_sessions])
            positions = (self.positions[low:high] - first).astype(np.int32)
            first += window.n_sessions
            if len(positions):
                sessions, rows = window.load()
                right = positions[~np.isin(rows[positions], self.without)]
                for picked in blocks(sessions, right, SCORING_SESSIONS):
                    yield to_tensors(assemble(sessions, picked), self.device)


class Trainer:
    """One run: owns the random streams, the game and the best state so far."""

    def __init__(
        self,
        networks: Networks,
        config: Config,
        regulariser: Regulariser,
        data: TrainingData,
        unknown_of_id: Tensor,
        outside: bool,
        observer: Observer,
        device: torch.device,
        keeper: Keeper | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.networks = networks
        self.config = config
        self.regulariser = regulariser
        self.data = data
        self.outside = outside
        self.observer = observer
        self.device = device
        self.ranks, self.keeper = ranks or Ranks(), keeper or Keeper()
        # by hand, the gradient of a bilstm's matrices is never written, so it cannot be summed over
        # processes
        by_hand = FusedGame.supports(networks, config, device) and not (
            self.ranks.size > 1 and config.history == "bilstm"
        )
        engine = FusedGame if by_hand else Game
        self.game: Game | FusedGame = engine(
            networks, config, regulariser, unknown_of_id.to(device), outside
        )
        self.exchange: Exchange | None = None
        if self.ranks.size > 1:
            self.exchange = Exchange(self.ranks, self.keeper.stop)
            self.game.share(self.exchange)
        self.guard = Guard(
            self.game, networks, config, data.train, data.session_name, device, self.exchange
        )
        self.order = np.random.default_rng(config.seed)
        self.at = Position()
        self.at.begin_epoch(self.order)
        self.train = Scored(data.train, device, GAP_SESSIONS, share=self.ranks.share)
        self.validation = Scored(data.validation, device, share=self.ranks.share)
        self.rows: list[EpochRow] = []
        self.best_score = math.inf
        self.best_state = BestState(networks)

    def run(self) -> list[EpochRow]:
        """Train through all phases; the networks end with the best validated weights.

        Raises:
            NumericsError: a loss, a gradient or a weight is not finite (or too many batches were
                skipped for that); the networks then hold the last good state.
            Interrupted: a signal asked for it; the keeper has saved the run.
        """
        try:
            with self.keeper.watching(self):
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
        at = self.at
        if not at.enter(phase, self.config.lr_drops):
            return
        self._set_learning_rates()
        while at.epochs < epochs and not at.ended:
            best = self._validated(phase, *self._epoch(step)).best
            at.epochs, at.waited = at.epochs + 1, 0 if best else at.waited + 1
            if at.waited >= self.config.patience:
                at.ended = at.drops == 0
                if not at.ended:
                    at.drops, at.waited = at.drops - 1, 0
                    self._restore()
                    self._set_learning_rates()
            self.keeper.after_epoch(self, last=at.ended or at.epochs == epochs)
        self._restore()

    def _set_learning_rates(self) -> None:
        share = self.config.rounds_lr if self.at.phase == "rounds" else 1.0
        self.game.set_learning_rates(3.0 ** (self.at.drops - self.config.lr_drops), share)

    def _catch_up(self) -> None:
        """Generator steps alone, the reward fixed, until the gap is small; then the best state
        includes this generator."""
        at = self.at
        if not at.enter("generator", at.drops):
            return
        while at.epochs < self.config.catch_up and not at.ended:
            _, rate = self._epoch(self._generator_only)
            self.best_score = math.inf
            at.ended = self._validated("generator", math.nan, rate).gap < CATCH_UP_GAP
            at.epochs += 1
            self.keeper.after_epoch(self)

    def _generator_only(self, batch: BatchTensors) -> float:
        self.game.generator_turn(batch, self.config.generator_steps)
        return 0.0

    def _epoch(self, step: Callable[[BatchTensors], float]) -> tuple[float, float]:
        """The rest of the running epoch: its mean loss, and the events per second of what was done
        here."""
        at, started, seen = self.at, time.perf_counter(), 0
        n_batches = count_batches(self.data.train, self.config.batch_sessions)
        for batch in self._shuffled():
            loss = self.guard.step(
                step, batch, f"epoch {len(self.rows) + 1}, batch {at.batches + 1}"
            )
            n_events = batch.n_events if self.exchange is None else self.exchange.total_events
            if loss is not None:
                at.loss += loss * n_events
                at.events += n_events
            at.batches, seen = at.batches + 1, seen + n_events
            self.observer.on_batch(at.batches, max(at.batches, n_batches))
            self.keeper.after_batch(self)
        mean = at.loss / at.events if at.events else math.nan
        at.begin_epoch(self.order)
        return mean, seen / max(time.perf_counter() - started, 1e-9)

    def _shuffled(self) -> Iterator[BatchTensors]:
        train, size = self.data.train, self.config.batch_sessions
        if isinstance(train, StreamedSessions) and train.given is not None:
            # who was handed shards of its own makes batches of its own, each process's a part of
            # one; after a resume others may be handed out, so none is skipped
            found = in_step(batches(train, max(size // self.ranks.size, 1), self.order), self.ranks)
        else:
            found = batches(train, size, self.order, self.at.batches, self.ranks.share)
        for batch in found:
            yield to_tensors(batch, self.device)

    def leave_out_found(self) -> None:
        """Take the gap over sessions other than those that the guard has found at fault: they have
        none."""
        without, share = self.guard.found, self.ranks.share
        self.train = Scored(self.data.train, self.device, GAP_SESSIONS, without, share)

    def _restore(self) -> None:
        self.game.settle()
        self.best_state.restore()

    def _validated(self, phase: str, loss: float, rate: float) -> EpochRow:
        self.game.settle()
        self.ranks.require_in_step(self.networks)
        skipped, at_fault = self.guard.of_epoch()
        if skipped:
            self.leave_out_found()
        validation = self._figures(self.validation)
        gap = (
            self._figures(self.train).gap
            if self.networks.generator is not None and phase != "exact"
            else 0.0
        )
        value = validation.loss if self.config.select == "loss" else -validation.prec1
        if not math.isfinite(value):
            raise NumericsError(
                f"the validation loss is {value} after epoch {len(self.rows) + 1}: the last good "
                "state is kept"
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
            events_per_second=rate,
            best=best,
            skipped=skipped,
            at_fault=at_fault,
        )
        self.rows.append(row)
        self.observer.on_epoch(row)
        return row

    def _figures(self, scored: Scored) -> Figures:
        return figures(
            self.networks, scored, self.regulariser, self.config.eta, self.outside, self.ranks.total
        )
