"""One player's parameters as the engine trains them: a flat block of dense ones, with AdamW, and
tables, with lazy AdamW (`kernels/optimiser.py`); clipped together as by
torch.nn.utils.clip_grad_norm_."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastgaum import threads
from fastgaum.arrays import FloatArray
from fastgaum.engine.tables import BETA1, BETA2, EPS, SHARED_FLOATS, SparseTable
from fastgaum.errors import StepRefusedError
from fastgaum.kernels import optimiser as kernels


class PlayerOptimiser:
    """Owns a player's dense parameters in one flat array; the modules' become views of it."""

    def __init__(
        self,
        dense: Iterable[nn.Parameter],
        tables: Iterable[SparseTable],
        lr: float,
        weight_decay: float,
        clip: float,
        undecayed: Iterable[nn.Parameter] = (),
    ) -> None:
        """Take the parameters; `undecayed` ones stand last, without weight decay."""
        self.parameters = [*dense, *(free := list(undecayed))]
        self.tables: list[SparseTable] = list(tables)
        self.lr, self.weight_decay, self.clip = lr, weight_decay, clip
        self.step_number, self.log_decay = 0, 0.0
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters]).float()
        self.values, self.grad = flat.numpy(), np.zeros(flat.numel(), np.float32)
        self.n_decayed = flat.numel() - sum(parameter.numel() for parameter in free)
        self.m, self.v = np.zeros_like(self.grad), np.zeros_like(self.grad)
        self.start: dict[int, int] = {}
        at = 0
        for parameter in self.parameters:
            self.start[id(parameter)] = at
            parameter.data = flat[at : at + parameter.numel()].view(parameter.shape)
            at += parameter.numel()

    def place(self, parameter: torch.Tensor) -> int:
        """Where a parameter begins in the flat arrays."""
        return self.start[id(parameter)]

    def value_of(self, parameter: torch.Tensor) -> FloatArray:
        """A dense parameter's values, a view."""
        return self._view(self.values, parameter)

    def grad_of(self, parameter: torch.Tensor) -> FloatArray:
        """Where a dense parameter's gradient is written, a view."""
        return self._view(self.grad, parameter)

    def step(self, loss: float = 0.0) -> float:
        """Take a step; return the loss. Raises StepRefusedError, with nothing moved, for a gradient
        that is not finite."""
        norm = self.norm()
        if not math.isfinite(norm):
            for table in self.tables:
                table.named = None
            raise StepRefusedError(f"the norm of the gradient is {norm}")
        self.step_number += 1
        shrink = min(1.0, self.clip / (norm + 1e-6))
        small = np.float32
        corrections = (
            np.float32(1 - 0.9**self.step_number),
            np.float32(math.sqrt(1 - 0.999**self.step_number)),
        )
        rates = kernels.AdamRates(
            small(shrink),
            small(self.lr),
            small(self.lr * self.weight_decay),
            BETA1,
            BETA2,
            *corrections,
            EPS,
        )
        flat = self.values, self.m, self.v, self.grad
        end = self.n_decayed
        cuts = [
            (slice(at, min(at + SHARED_FLOATS, end)), rates) for at in range(0, end, SHARED_FLOATS)
        ]
        if end < len(self.grad):
            cuts.append((slice(end, None), rates._replace(decay=small(0))))
        self.log_decay += math.log1p(-self.lr * self.weight_decay)
        moved = [self.grad, *self._row_gradients()]
        calls: list[threads.Call] = []
        for table in self.tables:
            calls += table.moves(shrink, self.lr, self.log_decay, corrections)
        for cut, of_cut in cuts:
            calls.append((kernels.adam_dense, (*(part[cut] for part in flat), of_cut)))
        _run_worth(calls, moved)
        return loss

    def settle(self) -> None:
        """Give every table row the weight decay that it has waited for."""
        if self.weight_decay:
            for table in self.tables:
                kernels.decay_rows(table.values, table.shrunk, self.log_decay)

    @property
    def counters(self) -> tuple[float, float]:
        """Steps taken, and the logarithm of the weight decay of them all."""
        return float(self.step_number), self.log_decay

    def set_counters(self, steps: float, log_decay: float) -> None:
        """Go on counting from here."""
        self.step_number, self.log_decay = int(steps), log_decay

    def norm(self) -> float:
        """The norm of the whole gradient; not finite only where the gradient is not."""
        flat = [self.grad, *self._row_gradients()]
        squares = _squares(flat)
        if not math.isfinite(squares):
            # the quick sums square in float32, which overflows from 1e19 on
            squares = sum(float(np.square(one, dtype=np.float64).sum()) for one in flat)
        return math.sqrt(squares)

    def _row_gradients(self) -> list[FloatArray]:
        return [table.grad.reshape(-1) for table in self.tables if table.named is not None]

    def state(self) -> dict[str, torch.Tensor]:
        """Memory of a step beside the counters, by name; to be written to."""
        arrays: dict[str, npt.NDArray[Any]] = {"m": self.m, "v": self.v}
        for i, table in enumerate(self.tables):
            arrays |= {f"table.{i}.m": table.m, f"table.{i}.v": table.v}
            arrays[f"table.{i}.shrunk"] = table.shrunk
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def release(self) -> None:
        """Give each parameter an array of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()

    def _view(self, flat: FloatArray, parameter: torch.Tensor) -> FloatArray:
        at = self.place(parameter)
        return flat[at : at + parameter.numel()].reshape(parameter.shape)


def _squares(flat: Sequence[FloatArray]) -> float:
    sums = [np.empty(-(-len(values) // kernels.BLOCK)) for values in flat]
    calls: list[threads.Call] = [
        (kernels.sum_of_squares, (values, part, own))
        for values, own in zip(flat, sums, strict=True)
        for part in range(len(own))
    ]
    _run_worth(calls, flat)
    return sum(float(own.sum()) for own in sums)


def _run_worth(calls: Sequence[threads.Call], read: Sequence[FloatArray]) -> None:
    if sum(map(len, read)) > SHARED_FLOATS:
        threads.run_chains([[call] for call in calls])
    else:
        for function, arguments in calls:
            function(*arguments)
