"""The training loop: exact epochs, a generator that starts as the best response, then rounds; early
stop on validation; the best weights stay."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from fastgaum.arrays import IntArray
from fastgaum.errors import NumericsError, StepRefusedError
from fastgaum.features.parts import Windows
from fastgaum.features.sessions import EncodedSessions
from fastgaum.game.checkpoint import (
    Checkpointer,
    KeptWeights,
    OptimiserState,
    Phase,
    TrainerState,
    TrainingPosition,
)
from fastgaum.game.game import AVERAGES, Game, averaged_share
from fastgaum.game.observers import EpochRow, Observer, Observers
from fastgaum.game.processes import Averaging, Processes
from fastgaum.game.scoring import Figures, HeldBatches, figures
from fastgaum.nets.batches import Batch, batches
from fastgaum.state_file import check_like

CATCH_UP_GAP = 2e-3
"""mean training gap below which the generator has caught up"""
GAP_SESSIONS = 5000
"""sessions at most that the training gap is taken over"""
AVERAGE_SHARE = 0.2
"""share of an epoch's end of rounds in their average"""
COLD_RATE = 0.5
"""share of the learning rates in rounds without a warm start, or the generator is left behind"""
TAKEN_BACK = 3
"""epochs taken back that end rounds after a warm start, unless patience is smaller"""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation sessions under one feature space."""

    train: EncodedSessions
    validation: EncodedSessions
    drawn: IntArray | None = None
    """positions in `train` of sessions that an epoch reads; None: each once"""
    windows: Windows | None = None
    """of a log in parts, of which `train` is a sample; None: `train` is all"""

    def n_batches(self, epoch: int, batch_sessions: int) -> int:
        """Batches of an epoch, from 0, where none is too large."""
        sizes = [self.train.n_sessions if self.drawn is None else len(self.drawn)]
        if self.windows is not None:
            sizes = [self.windows.n_sessions(one) for one in self.windows.numbers(epoch)]
        return sum(-(-size // batch_sessions) for size in sizes)

    def batches(
        self, epoch: int, batch_sessions: int, order: np.random.Generator, part: slice
    ) -> Iterator[Batch]:
        """The batches of an epoch, shuffled, of which a process reads a part; of a log in parts it
        has windows of its own."""
        if self.windows is None:
            yield from batches(self.train, batch_sessions, order, part, self.drawn)
            return
        for window in self.windows.read(epoch):
            yield from batches(window, batch_sessions, order)


def require_finite_weights(networks: nn.Module, when: str) -> None:
    """Raise NumericsError where a weight is not finite."""
    for name, weight in networks.named_parameters():
        # a sum is quicker than a look at each; where it overflows, each is looked at
        if not weight.detach().sum().isfinite() and not weight.detach().isfinite().all():
            raise NumericsError(
                f"the weights '{name}' are not finite {when}: the last good state is kept; "
                "lower lr or clip"
            )


class Trainer:
    """One run: owns the random streams, the game and the best state so far."""

    def __init__(
        self,
        game: Game,
        data: TrainingData,
        observers: Observers | None = None,
        checkpointer: Checkpointer | None = None,
        processes: Processes | None = None,
        *,
        starts: bool = False,
        warmed: Sequence[EpochRow] = (),
    ) -> None:
        """Prepare a run on the device of the game's networks. starts: whether they have another
        model's weights, which are validated before the first epoch. warmed: epochs of a warm start
        that was made before, whose best weights the networks have."""
        networks, config = game.networks, game.config
        self.game, self.networks, self.config = game, networks, config
        self.data, self.observers = data, observers or Observers()
        self.processes, self.checkpointer = processes or Processes(), checkpointer or Checkpointer()
        self.starts, self.warmed = starts, warmed
        self.device = next(networks.parameters()).device
        self.averaging = Averaging(game, self.processes)
        self.order, self.at = np.random.default_rng(config.seed), TrainingPosition()
        part = self.processes.part
        self.train = HeldBatches(data.train, self.device, GAP_SESSIONS, part, data.drawn)
        self.validation = HeldBatches(data.validation, self.device, part=part)
        self.rows: list[EpochRow] = []
        self.best_score = math.inf
        self.calibrated = config.select == "calibrated loss"
        self.best_weights, self.latest = KeptWeights(networks), KeptWeights(networks)
        self.average: KeptWeights | None = None

    def run(self) -> list[EpochRow]:
        """Train through all phases; the networks end with the best validated weights.

        Raises NumericsError for a loss, a gradient or a weight that is not finite; the networks
        then hold the last good state."""
        error: BaseException | None = None
        try:
            former = self.checkpointer.go_on(self.load_state)
            # an observer sees the best weights so far
            self.observers.tell(Observer.on_fit_begin, self.config, self.rows)
            if former is not None:
                self._load_present(former)
            elif self.warmed:
                self._take_over(self.warmed)
            self._phases()
            self._calibrate()
        except BaseException as found:
            error = found
            if isinstance(error, NumericsError):
                self._restore()
                self._calibrate()
            raise
        finally:
            self.game.release()
            self.observers.tell(Observer.on_fit_end, self.rows, error)
        return self.rows

    def _take_over(self, warmed: Sequence[EpochRow]) -> None:
        """Tell the epochs of the warm start as if they were made now."""
        for row in warmed:
            self.observers.tell(Observer.on_epoch_begin, row.epoch)
            self.rows.append(row)
            self.observers.tell(Observer.on_epoch_end, row)
        self.best_score = min(row.score for row in warmed)

    def _calibrate(self) -> None:
        """Scale the best weights' utilities as the score that chose them did."""
        if self.calibrated and math.isfinite(self.best_score):
            self.networks.scale(self._figures(self.validation, calibrated=True).scale)

    def _phases(self) -> None:
        if self.starts and self.at.enter("start", 0) and not self.rows:
            # what that model has learned stays, unless an epoch is better
            self._validated("start", math.nan, 0.0)
        if self.config.players == "exact":
            if not self.warmed:
                self._phase("exact", self.game.exact_step, self.config.epochs)
        else:
            if self.config.warm_start and not self.warmed:
                self._phase("exact", self.game.exact_step, self.config.warm_start)
            self._catch_up()
            if self.config.warm_start:
                self._averaged_rounds()
            else:
                self._phase("rounds", self.game.round, self.config.epochs)

    def _phase(self, phase: Phase, step: Callable[[Batch], float], epochs: int) -> None:
        """Epochs of one kind until the validation score stops improving; an exact one is validated,
        and kept where it is best, as a moving average of weights."""
        at = self.at
        if not at.enter(phase, self.config.lr_drops):
            return
        if phase == "exact" and self.average is None:
            self.average = KeptWeights(self.networks)
        self._set_learning_rates(self.config.lr_drops)
        while at.epochs < epochs and not at.ended:
            loss, rate = self._epoch(step)
            if self.average is not None:
                self.latest.copy()
                self.average.restore()
            best = self._validated(phase, loss, rate).best
            if self.average is not None:
                self.latest.restore()
            at.epochs, at.waited = at.epochs + 1, 0 if best else at.waited + 1
            if at.waited >= self.config.patience:
                at.ended = at.drops == 0
                if not at.ended:
                    at.drops, at.waited = at.drops - 1, 0
                    self._restore()
                    self._set_learning_rates(self.config.lr_drops)
            self.checkpointer.after_epoch(self.state, last=at.ended or at.epochs == epochs)
        self._restore()
        self.average = None

    def _enter_average(self, shares: int) -> None:
        assert self.average is not None
        self.game.settle()
        self.at.averaged += 1
        self.average.approach(averaged_share(self.at.averaged, shares))

    def _averaged_rounds(self) -> None:
        """Rounds after a warm start: an average of the weights at the epochs' ends is validated; an
        epoch whose average is no better is taken back, and the learning rates drop."""
        at, epochs = self.at, self.config.epochs
        drops = min(TAKEN_BACK, self.config.patience) - 1
        if not at.enter("rounds", drops):
            return
        while at.epochs < epochs and not at.ended:
            self._set_learning_rates(drops)
            loss, rate = self._epoch(self.game.round)
            self.game.settle()
            self.latest.copy()
            # the average so far is the best: one that is not was taken back
            self.best_weights.leave(AVERAGE_SHARE)
            if self._validated("rounds", loss, rate).best:
                self.latest.restore()
            else:
                self._restore()
                at.ended, at.drops = at.drops == 0, max(at.drops - 1, 0)
            at.epochs += 1
            self.checkpointer.after_epoch(self.state, last=at.ended or at.epochs == epochs)
        self._restore()

    def _set_learning_rates(self, drops: int) -> None:
        rounds = self.at.phase == "rounds"
        cold = COLD_RATE if rounds and not self.config.warm_start else 1.0
        share = self.config.rounds_lr if rounds else 1.0
        self.game.set_learning_rates(cold * 3.0 ** (self.at.drops - drops), share)

    def _catch_up(self) -> None:
        """Start the generator as the reward's best response, or take generator steps alone until
        the gap is small."""
        at, drops = self.at, self.config.lr_drops
        if not at.enter("generator", at.drops if self.config.warm_start else drops):
            return
        # after a resume, optimisers have the rates of the beginning
        self._set_learning_rates(drops)
        if at.epochs == 0:
            self.networks.start_generator(self.config.eta)
            self.best_weights.copy()
            at.ended = self._figures(self.train).gap < CATCH_UP_GAP
        while at.epochs < self.config.catch_up and not at.ended:
            _, rate = self._epoch(self._generator_only)
            self.best_score = math.inf
            at.ended = self._validated("generator", math.nan, rate).gap < CATCH_UP_GAP
            at.epochs += 1
            self.checkpointer.after_epoch(self.state)

    def _generator_only(self, batch: Batch) -> float:
        self.game.generator_turn(batch, self.config.generator_steps)
        return 0.0

    def _epoch(self, step: Callable[[Batch], float]) -> tuple[float, float]:
        """Train an epoch; return its mean loss, and events per second."""
        started, epoch = time.perf_counter(), len(self.rows) + 1
        loss, n_events = 0.0, 0.0
        self.averaging.remember()
        data, batch_sessions = self.data, self.config.batch_sessions
        n_batches = data.n_batches(epoch - 1, batch_sessions)
        steps = None
        if data.windows is not None and self.processes.size > 1:
            # all take as many steps, for they meet at some
            steps = n_batches = min(self.processes.agree(n_batches))
        # several processes have the same weights at an epoch's end alone
        shares = min(AVERAGES, n_batches) if self.processes.size == 1 else 1
        self.observers.tell(Observer.on_epoch_begin, epoch)
        drawn = data.batches(epoch - 1, batch_sessions, self.order, self.processes.part)
        for done, one in enumerate(islice(drawn, steps), start=1):
            batch = one.to(self.device)
            try:
                loss += self._step(step, batch, f"epoch {epoch}, batch {done}") * batch.n_events
            except NumericsError as error:
                self.averaging.meet(str(error))
                raise
            n_events += batch.n_events
            self.averaging.after_step()
            if self.average is not None and done * shares % n_batches < shares and done < n_batches:
                self._enter_average(shares)
            self.observers.tell(Observer.on_batch_end, done, max(done, n_batches))
        self.averaging.end_epoch()
        if self.average is not None:
            self._enter_average(shares)
        loss, n_events = self.processes.sum([loss, n_events])
        return loss / n_events, n_events / max(time.perf_counter() - started, 1e-9)

    def _step(self, step: Callable[[Batch], float], batch: Batch, where: str) -> float:
        """Take a step; return its loss. Raises NumericsError where it is refused, which names
        `where`, or the weights if they are at fault."""
        try:
            return step(batch)
        except StepRefusedError as refusal:
            require_finite_weights(self.networks, f"in {where}, where {refusal}")
            raise NumericsError(
                f"{refusal} in {where}; the last good state is kept; check the numbers there, or "
                "lower lr or clip"
            ) from refusal

    def state(self) -> TrainerState:
        """The trainer between two epochs; arrays are its own, not copies."""
        on_card = self.device.type == "cuda"
        return TrainerState(
            position=self.at,
            rows=self.rows,
            best_score=self.best_score,
            weights=self.networks.state_dict(),
            best=self.best_weights.copies,
            average={} if self.average is None else self.average.copies,
            optimisers={
                player: OptimiserState(optimiser.counters, optimiser.state())
                for player, optimiser in self.game.optimisers().items()
            },
            order=dict(self.order.bit_generator.state),
            random=torch.get_rng_state(),
            random_of_card=torch.cuda.get_rng_state(self.device) if on_card else None,
        )

    def load_state(self, state: TrainerState) -> None:
        """Bring a fresh trainer of the same configuration and data to where `state` was taken, with
        the best weights. Raises KeyError, ValueError, TypeError, RuntimeError for another's
        state."""
        self.at, self.rows, self.best_score = state.position, state.rows, state.best_score
        self.order.bit_generator.state = state.order
        self._load_present(state)
        for player, optimiser in self.game.optimisers().items():
            former = state.optimisers[player]
            for name, value in optimiser.state().items():
                check_like(f"'{player}.{name}'", former.tensors[name], value)
                value.copy_(former.tensors[name])
            optimiser.set_counters(*former.counters)
        if state.average:
            self.networks.load_state_dict(state.average)
            self.average = KeptWeights(self.networks)
        self.networks.load_state_dict(state.best)
        self.best_weights.copy()

    def _load_present(self, state: TrainerState) -> None:
        self.networks.load_state_dict(state.weights)
        torch.set_rng_state(state.random)
        if state.random_of_card is not None:
            torch.cuda.set_rng_state(state.random_of_card, self.device)

    def _restore(self) -> None:
        self.game.settle()
        self.best_weights.restore()
        self.at.averaged = 0

    def _validated(self, phase: str, loss: float, rate: float) -> EpochRow:
        self.game.settle()
        validation = self._figures(self.validation, calibrated=self.calibrated)
        has_generator = self.networks.generator is not None
        adversarial = has_generator and phase in ("generator", "rounds")
        gap = self._figures(self.train).gap if adversarial else 0.0
        value = validation.calibrated_loss if self.calibrated else validation.loss
        if not math.isfinite(value):
            raise NumericsError(
                f"the validation loss is {value} after epoch {len(self.rows) + 1}: the last good "
                "state is kept"
            )
        best = value < self.best_score
        if best:
            require_finite_weights(self.networks, f"after epoch {len(self.rows) + 1}")
            self.best_score = value
            self.best_weights.copy()
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
            val_calibrated_loss=validation.calibrated_loss,
        )
        self.rows.append(row)
        self.observers.tell(Observer.on_epoch_end, row)
        return row

    def _figures(self, held: HeldBatches, *, calibrated: bool = False) -> Figures:
        game, eta, total = self.game, self.config.eta, self.processes.sum
        return figures(
            game.outputs, held, game.regulariser, eta, game.no_click, total, calibrated=calibrated
        )
