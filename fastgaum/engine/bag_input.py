"""`BagLinear` by hand, where a history encoder reads its tokens: a gather of table rows forward,
their sums backward."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from torch import nn

from fastgaum import threads
from fastgaum.engine.buffers import Array, Buffer
from fastgaum.engine.optimiser import Named, PlayerOptimiser, SparseTable
from fastgaum.kernels import bag_linear as kernels
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.tensors import Bags

PART = 2048
"""tokens per part"""


class BagLayer:
    """One input projection's passes; its table is sparse, the rest is in its player's flat
    block."""

    def __init__(self, source: BagLinear) -> None:
        self.source = source
        self._projected, self._rows = Buffer(), Buffer()
        self.bias = cast(
            nn.Parameter, source.bias if source.numbers is None else source.numbers.bias
        )

    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the table."""
        numbers = self.source.numbers
        weight = None if numbers is None else cast(nn.Parameter, numbers.weight)
        return [part for part in (self.source.up, weight, self.bias) if part is not None]

    def own_table(self, n_ids: int, rule: Any) -> SparseTable:
        """Make the table sparse."""
        self.table = SparseTable(self.source.table, n_ids, rule, "tokens")
        return self.table

    def bind(self, optimiser: PlayerOptimiser) -> None:
        """Find the dense parameters in the flat block."""
        up, numbers, width = self.source.up, self.source.numbers, self.bias.numel()
        weight = None if numbers is None else cast(nn.Parameter, numbers.weight)
        none, empty = np.empty((0, width), np.float32), np.empty((width, 0), np.float32)
        self.values, self.grads = (
            (
                none if up is None else view(up),
                empty if weight is None else view(weight),
                view(self.bias),
            )
            for view in (optimiser.value_of, optimiser.grad_of)
        )

    def forward(self, tokens: Bags) -> Array:
        """The projection of each token, (n_tokens, width); valid until the next forward pass."""
        n = tokens.n_bags
        result = self._projected(n, self.bias.numel())
        fixed = (self.table.values, *_arrays(tokens), *self.values, result)
        threads.run(
            kernels.bag_linear,
            [(first, min(first + PART, n), *fixed) for first in range(0, n, PART)],
        )
        return result

    def backward(self, tokens: Bags, grad: Array, named: Named) -> None:
        """Leave all gradients where the optimiser reads them; `grad` (n_tokens, width), `named` of
        the tokens' ids."""
        up = self.values[0]
        rows = self._rows(len(grad), self.table.width) if len(up) else grad
        kernels.bag_linear_backward(
            grad, self.table.values, *_arrays(tokens), up, *self.grads, rows
        )
        self.table.add(named, rows)


def _arrays(bags: Bags) -> tuple[Any, Any, Array]:
    return bags.ids.numpy(), bags.offsets.numpy(), bags.numbers.numpy()
