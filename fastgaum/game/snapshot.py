"""A trainer at one moment, as plain values and tensors: all that it needs to go on with its next
batch to the same bytes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.game.observers import EpochRow

if TYPE_CHECKING:
    from fastgaum.game.loop import Trainer

PHASES = ("", "exact", "generator", "rounds")
"""in the order in which a run goes through them"""


@dataclass
class Position:
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
    order: dict[str, Any] = field(default_factory=dict)
    """state of the random stream of the data's order, before the running epoch's sessions were
    shuffled"""

    def enter(self, phase: str, drops: int) -> bool:
        """Whether a phase is still to run; one that has not begun begins. Raises ValueError for an
        unknown phase."""
        behind = PHASES.index(phase) - PHASES.index(self.phase)
        if behind > 0:
            self.phase, self.epochs, self.waited, self.drops, self.ended = phase, 0, 0, drops, False
        return behind >= 0

    def begin_epoch(self, order: np.random.Generator) -> None:
        """No batch of the epoch is done; its order is drawn from here."""
        self.batches, self.loss, self.events, self.order = (
            0,
            0.0,
            0,
            dict(order.bit_generator.state),
        )


@dataclass(frozen=True)
class Snapshot:
    """What `Trainer` is made of beyond its configuration and its data."""

    facts: dict[str, Any]
    """position, rows, best score: plain values for JSON"""
    tensors: dict[str, Tensor]
    """weights now and at their best, optimisers, random streams"""

    @property
    def position(self) -> Position:
        """Where the run is."""
        return Position(**self.facts["position"])

    @property
    def rows(self) -> list[EpochRow]:
        """The epochs so far."""
        return [EpochRow(**row) for row in self.facts["rows"]]


def take(trainer: Trainer) -> Snapshot:
    """The trainer at this moment; tensors are its own, not copies: write them before it goes on."""
    tensors = {f"now.{name}": value for name, value in trainer.networks.state_dict().items()}
    if trainer.rows:
        # before the first epoch the best weights are the seed's
        tensors |= {f"best.{name}": value for name, value in trainer.best_state.tensors().items()}
    for player, optimiser in trainer.game.optimisers().items():
        tensors |= {
            f"optimiser.{player}.{name}": value for name, value in optimiser.state().items()
        }
        tensors[f"optimiser.{player}.counters"] = torch.tensor(
            optimiser.counters, dtype=torch.float64
        )
    tensors["random.cpu"] = torch.get_rng_state()
    if trainer.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(trainer.device)
    facts = {
        "position": dataclasses.asdict(trainer.at),
        "rows": [row.to_dict() for row in trainer.rows],
        "best_score": trainer.best_score,
        "guard": {
            "skipped": trainer.guard.skipped,
            "found": sorted(trainer.guard.found),
            "of_last_epoch": trainer.guard.of_last_epoch,
        },
    }
    return Snapshot(facts, tensors)


def put(trainer: Trainer, snapshot: Snapshot) -> None:
    """Bring a fresh trainer of the same configuration and data to where the snapshot was taken.

    Its observer is told on the way, when the networks hold the best weights.

    Raises:
        KeyError, ValueError, TypeError, RuntimeError: the snapshot is damaged, or another
            configuration's or device's.
    """
    tensors = snapshot.tensors
    trainer.at, trainer.rows, trainer.best_score = (
        snapshot.position,
        snapshot.rows,
        float(snapshot.facts["best_score"]),
    )
    trainer.order.bit_generator.state = trainer.at.order
    guard = snapshot.facts["guard"]
    trainer.guard.skipped, trainer.guard.found = int(guard["skipped"]), set(guard["found"])
    trainer.guard.of_last_epoch = list(guard["of_last_epoch"])
    if trainer.guard.found:
        trainer.leave_out_found()
    if trainer.rows:
        _load(trainer.networks, tensors, "best.")
        trainer.best_state.keep()
    trainer.observer.on_resume(trainer.rows)
    _load(trainer.networks, tensors, "now.")
    for player, optimiser in trainer.game.optimisers().items():
        for name, value in optimiser.state().items():
            former = tensors[f"optimiser.{player}.{name}"]
            if former.shape != value.shape or former.dtype != value.dtype:
                raise ValueError(
                    f"'{player}.{name}' has shape {tuple(former.shape)}, {tuple(value.shape)} is "
                    "required"
                )
            value.copy_(former)
        optimiser.set_counters(*tensors[f"optimiser.{player}.counters"].tolist())
    torch.set_rng_state(tensors["random.cpu"])
    if trainer.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], trainer.device)


def _load(networks: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    networks.load_state_dict(
        {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    )
