"""The LSTM on batches of few tokens, where cutting tiles and sharing them over threads takes longer than the recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastgaum.engine.history import FusedRecurrent
from fastgaum.engine.memory import Array
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.kernels import direction, packing
from fastgaum.models.tensors import Bags

FEW = 64
"""tokens up to which all sequences advance together on one thread; with 20 units a batch of 60 takes as long either way"""
_NO_ROW, _NO_BIAS = np.empty((0, 1), np.float32), np.empty(0, np.float32)


class FusedLstm(FusedRecurrent):
    """`FusedRecurrent` for one LSTM layer: one kernel call each way where tokens are few, tiles elsewhere."""

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        super().bind(optimiser)
        self.weight = optimiser.value_of(self.encoder.weight_hh[0])

    def _after_tokens(self, tokens: Bags, offsets: torch.Tensor) -> Array:
        self.few = tokens.n_bags <= FEW
        if not self.few:
            return super()._after_tokens(tokens, offsets)
        self.tokens, self.offsets, self.starts = tokens, offsets, offsets.numpy()
        n, n_sequences, size = tokens.n_bags, len(self.starts) - 1, self.state_dim
        self.gates = self._gates(tokens, "gates").numpy()
        self.order = self.scratch.ints(f"{self.name}.order", n_sequences)
        packing.order_by_length(self.starts, self.order)
        self.h, self.c = (self.scratch.floats(f"{self.name}.{part}", n, size) for part in ("h", "c"))
        held = self.weight, self.gates, self.c, self.h
        direction.direction_forward(self.order, self.starts, False, _NO_ROW, _NO_ROW, _NO_BIAS, *held, 0)
        # as the passes for generated histories read them
        self.zeros = torch.from_numpy(np.zeros((n_sequences, size), np.float32))
        self.layers = [tuple(map(torch.from_numpy, (self.h, self.c, self.gates)))]
        return self.h

    def _back(self, grad: Array, slot_of: Any) -> None:
        if not self.few:
            super()._back(grad, slot_of)
            return
        n = len(grad)
        sums = self.scratch.floats(f"{self.name}.sums", n, 4 * self.state_dim)
        held = _NO_ROW, self.weight, self.gates, self.c, grad
        direction.direction_backward(self.order, self.starts, False, *held, 0, sums, _NO_ROW)
        zeros = self.zeros.numpy()
        packing.weight_gradient(0, n, n, sums, self.h, zeros, self.starts, self.grad_hh[0], _NO_BIAS)
        self._gates_back(self.tokens, torch.from_numpy(sums), slot_of)
