"""Guard: a batch whose loss or gradient is not finite moves nothing, and the training stops there
or goes on without it.

A game refuses such a step before anything has moved (`StepRefusedError`): it looks at the loss and
at the gradient's norm, which a step computes in any case."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fastgaum.config import Config
from fastgaum.errors import NumericsError, StepRefusedError
from fastgaum.nets.tensors import BatchTensors

MOST_NAMED = 5


class Guard:
    """Takes the steps of one run.

    Attributes:
        skipped: batches skipped in the run so far.
        left_out: sessions of these, by their rows in the log.
    """

    def __init__(self, networks: nn.Module, config: Config) -> None:
        self.networks, self.config = networks, config
        self.skipped, self.left_out = 0, set[int]()
        self._of_epoch: list[str] = []

    def step(
        self, step: Callable[[BatchTensors], float], batch: BatchTensors, where: str
    ) -> float | None:
        """Take a step on a batch, which an error calls `where`; returns its loss, None if the batch
        was skipped.

        Raises:
            NumericsError: the batch may not be skipped, or a weight is not finite.
        """
        try:
            return step(batch)
        except StepRefusedError as refusal:
            self.check_weights(f"in {where}, where {refusal}")
            what, stays = f"{refusal} in {where}", "the last good state is kept"
        if self.config.on_nonfinite == "stop":
            raise NumericsError(
                f"{what}; {stays}; check the numbers there, lower lr or clip, or set "
                "on_nonfinite=skip to leave such batches out"
            )
        self.skipped += 1
        if self.skipped > self.config.most_skipped:
            raise NumericsError(
                f"{what}; with it {self.skipped} batches are to be skipped, at most "
                f"{self.config.most_skipped} are (most_skipped): {stays}; check the numbers, or "
                "lower lr or clip"
            )
        self._of_epoch.append(what)
        self.left_out.update(batch.source.rows.tolist())
        return None

    def check_weights(self, when: str) -> None:
        """Raise NumericsError where a weight is not finite: no batch can cure it then."""
        for name, weight in self.networks.named_parameters():
            # a sum is quicker than a look at each; where it overflows, each is looked at
            if not weight.detach().sum().isfinite() and not weight.detach().isfinite().all():
                raise NumericsError(
                    f"the weights '{name}' are not finite {when}: the last good state is kept; "
                    "lower lr or clip"
                )

    def end_epoch(self) -> list[str]:
        """Why and where each batch of the epoch that ends was skipped."""
        found, self._of_epoch = self._of_epoch, []
        return found


def in_words(skipped: list[str]) -> str:
    """The first few skipped batches."""
    return "; ".join(skipped[:MOST_NAMED]) + (" …" if len(skipped) > MOST_NAMED else "")
