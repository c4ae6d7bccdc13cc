"""One player's parameters as the engine trains them: a flat block of the dense ones, and tables by
touched rows.

AdamW for the block and for very large matrices (`product.py`); for tables lazy AdamW or row-wise
Adagrad (`kernels/rows.py` says where they differ from dense). The gradient is clipped over all
together, as torch.nn.utils.clip_grad_norm_ does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fastgaum import threads
from fastgaum.engine.buffers import Array, Buffer
from fastgaum.engine.product import ProductWeight, step_products, wide_squares
from fastgaum.errors import RefusedByAllError, StepRefusedError
from fastgaum.kernels import rows as kernels
from fastgaum.processes import Processes, RowGradient

BETA1, BETA2, EPS = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
SHARED_FLOATS = 1 << 17
"""a table update of fewer floats is not worth a second thread"""
PARTS = 8
Rule = Literal["adam", "adagrad"]


class NamedRoom:
    """Memory of a `Named`, to be used again by the next one."""

    def __init__(self) -> None:
        self.slots, self.rows, self.starts, self.bags = (Buffer(np.int32) for _ in range(4))


class Named:
    """The distinct rows that a batch's ids name, numbered once for all tables over the same ids."""

    def __init__(self, ids: Any, offsets: Any, slot_of: Any, room: NamedRoom | None = None) -> None:
        """Number them. `slot_of` (n_ids,) is −1 throughout, and is so again afterwards.

        Raises IndexError for an id that is not one of them."""
        self.offsets, self.room = offsets, room or NamedRoom()
        self.slots, self.rows = self.room.slots(len(ids)), self.room.rows(len(ids))
        self.count = int(kernels.number_rows(ids, slot_of, self.slots, self.rows))
        if self.count < 0:
            raise IndexError(
                f"id {ids[-1 - self.count]} is not one of the {len(slot_of)} ids of the feature "
                "space"
            )

    @cached_property
    def bags(self) -> tuple[Any, Any]:
        """Bags that name each slot: their starts (count + 1,) and the bags (nnz,)."""
        starts, bags = self.room.starts(self.count + 1), self.room.bags(len(self.slots))
        kernels.group_bags(self.slots, self.offsets, starts, bags)
        return starts, bags

    def parts(self, width: int) -> list[tuple[int, int]]:
        """Cut the slots into ranges named about equally often; each slot's sum is one range's, so
        the cut changes no bit."""
        if self.slots.size * width <= SHARED_FLOATS:
            return [(0, self.count)]
        even = np.arange(1, PARTS) * (self.slots.size / PARTS)
        cuts = sorted({0, self.count, *np.searchsorted(self.bags[0], even).tolist()})
        return list(pairwise(cuts))


class SparseTable:
    """A table of one block of rows per id, (n_ids · block, width), of which a step reads and writes
    the named ids only."""

    def __init__(
        self, parameter: nn.Parameter, n_ids: int, rule: Rule, reads: str = "candidates"
    ) -> None:
        """`reads`: "candidates" or "tokens", whose ids name its rows."""
        self.parameter, self.rule, self.reads = parameter, rule, reads
        self._grad = Buffer()
        self.n_ids, self.width = n_ids, parameter.numel() // n_ids
        self.values = parameter.detach().view(n_ids, self.width).numpy()
        self.shrunk = np.zeros(n_ids)
        if rule == "adam":
            self.m, self.v = np.zeros_like(self.values), np.zeros_like(self.values)
        else:
            self.squares = np.zeros(n_ids, np.float32)
        self.named: Named | None = None
        self.grad: Array = self._grad(0, self.width)

    def buffer(self, named: Named) -> Array:
        """Where the summed gradient of the named rows is written, (n_named, width)."""
        self.named = named
        self.grad = self._grad(named.count, self.width)
        return self.grad

    def add(self, named: Named, grad: Array) -> None:
        """Sum the gradients of bags, (n_bags, width), into the rows that the bags name."""
        total = self.buffer(named)
        threads.run(
            kernels.add_rows,
            [(grad, *named.bags, *part, total) for part in named.parts(self.width)],
        )

    def update(
        self, shrink: float, lr: float, log_decay: float, corrections: tuple[np.float32, np.float32]
    ) -> None:
        """Move the named rows."""
        if self.named is None:
            return
        count = self.named.count
        parts = [(0, count)]
        if count * self.width > SHARED_FLOATS:
            size = math.ceil(count / 8)
            parts = [(first, min(first + size, count)) for first in range(0, count, size)]
        rows, small = self.named.rows, np.float32
        if self.rule == "adam":
            state = kernels.AdamRows(self.values, self.m, self.v, self.shrunk)
            steps = small(shrink), small(lr), log_decay
            rates = kernels.AdamRates(*steps, BETA1, BETA2, *corrections, EPS)
            threads.run(
                kernels.adam_rows, [(state, rows, self.grad, *part, rates) for part in parts]
            )
        else:
            held = (self.values, rows, self.grad, self.squares, self.shrunk)
            threads.run(
                kernels.adagrad_rows,
                [(*held, *part, small(shrink), small(lr), log_decay, EPS) for part in parts],
            )
        self.named = None

    def moments(self) -> dict[str, Any]:
        """What the rows remember, by name: the rule's own arrays, and each row's weight decay so
        far."""
        of_rule = {"m": self.m, "v": self.v} if self.rule == "adam" else {"squares": self.squares}
        return {**of_rule, "shrunk": self.shrunk}

    def settle(self, log_decay: float) -> None:
        """Give every row the weight decay that it has waited for."""
        kernels.decay_rows(self.values, self.shrunk, 0, self.n_ids, log_decay)


class PlayerOptimiser:
    """Owns a player's dense parameters in one flat array, of which the modules' own parameters
    become views."""

    def __init__(
        self,
        dense: Iterable[nn.Parameter],
        tables: Iterable[SparseTable],
        lr: float,
        weight_decay: float,
        clip: float,
        products: Iterable[ProductWeight] = (),
    ) -> None:
        self.parameters = list(dense)
        self.tables, self.products = list(tables), list(products)
        self.lr, self.weight_decay, self.clip = lr, weight_decay, clip
        self.step_number, self.log_decay = 0, 0.0
        self.frozen = False
        """whether `step` only looks at the gradient and moves nothing"""
        self.shared: SharedGradient | None = None
        """brings the gradient to the other processes of the training, where there are any"""
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters]).float()
        self.values, self.grad = flat.numpy(), np.zeros(flat.numel(), np.float32)
        self.m, self.v = np.zeros_like(self.grad), np.zeros_like(self.grad)
        self.start: dict[int, int] = {}
        at = 0
        for parameter in self.parameters:
            self.start[id(parameter)] = at
            parameter.data = flat[at : at + parameter.numel()].view(parameter.shape)
            at += parameter.numel()

    def place(self, parameter: nn.Parameter) -> int:
        """Where a parameter begins in the flat arrays."""
        return self.start[id(parameter)]

    def value_of(self, parameter: nn.Parameter) -> Array:
        """A dense parameter's values, a view."""
        return self._view(self.values, parameter)

    def grad_of(self, parameter: nn.Parameter) -> Array:
        """Where a dense parameter's gradient is written, a view."""
        return self._view(self.grad, parameter)

    def step(self, loss: float = 0.0) -> float:
        """One step with the gradients that stand in the block and in the tables' buffers, of a
        batch with this loss.

        Returns the loss: of several processes' batch, that of the whole.

        Raises:
            StepRefusedError: the gradient is not finite; nothing has moved.
        """
        refusal = StepRefusedError
        if self.shared is not None and not self.frozen:
            loss, refusal = self.shared(self, loss), RefusedByAllError
        norm = self.norm()
        if self.frozen or not math.isfinite(norm):
            for table in self.tables:
                table.named = None
            if self.frozen and math.isfinite(norm):
                return loss
            raise refusal(f"the norm of the gradient is {norm}")
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
        flat = self.values, self.grad, self.m, self.v
        cuts = range(0, len(self.values), SHARED_FLOATS)
        threads.run(
            kernels.adam_dense,
            [(*(part[at : at + SHARED_FLOATS] for part in flat), rates) for at in cuts],
        )
        if self.products:
            step_products(self.products, rates)
        self.log_decay += math.log1p(-self.lr * self.weight_decay)
        for table in self.tables:
            table.update(shrink, self.lr, self.log_decay, corrections)
        return loss

    def norm(self) -> float:
        """The norm of the whole gradient; not finite only where the gradient is not."""
        flat = [
            self.grad,
            *(table.grad.reshape(-1) for table in self.tables if table.named is not None),
        ]
        squares = sum(map(_squares, flat)) + sum(weight.squares() for weight in self.products)
        if not math.isfinite(squares):
            # the quick sums square in float32, which overflows from 1e19 on
            squares = sum(map(wide_squares, flat)) + sum(
                weight.wide_squares() for weight in self.products
            )
        return math.sqrt(squares)

    def settle(self) -> None:
        """Bring every table row up to date with its weight decay: before anything reads the whole
        table."""
        if self.weight_decay:
            for table in self.tables:
                table.settle(self.log_decay)

    @property
    def counters(self) -> tuple[float, float]:
        """Steps taken, and the logarithm of the weight decay of them all."""
        return float(self.step_number), self.log_decay

    def set_counters(self, steps: float, log_decay: float) -> None:
        """Go on counting from here."""
        self.step_number, self.log_decay = int(steps), log_decay

    def state(self) -> dict[str, torch.Tensor]:
        """What a step remembers beside the counters, by name, in the optimiser's own memory: it may
        be written to."""
        arrays = {"m": self.m, "v": self.v}
        for i, table in enumerate(self.tables):
            arrays |= {f"table.{i}.{name}": array for name, array in table.moments().items()}
        for i, weight in enumerate(self.products):
            arrays |= {f"product.{i}.m": weight.m, f"product.{i}.v": weight.v}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def release(self) -> None:
        """Give each parameter an array of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()

    def _view(self, flat: Array, parameter: nn.Parameter) -> Array:
        at = self.place(parameter)
        return flat[at : at + parameter.numel()].reshape(parameter.shape)


class SharedGradient:
    """Overwrites what stands in a player's gradient buffers by the mean over all processes."""

    def __init__(self, processes: Processes, slot_of: Any) -> None:
        """`slot_of` (n_ids,) is the game's, −1 throughout."""
        self.processes, self.slot_of = processes, slot_of
        self.rooms = {"candidates": NamedRoom(), "tokens": NamedRoom()}

    def __call__(self, optimiser: PlayerOptimiser, loss: float) -> float:
        """Returns the loss of the whole batch. Raises RefusedByAllError where a process cannot
        take the step."""
        # a gradient left as thin factors grows with the batch: games that have such are autograd's
        # here
        assert not optimiser.products
        # a scorer's wide and deep tables name the same rows, whose ids go out once
        groups = [list(group) for _, group in groupby(optimiser.tables, lambda one: one.reads)]
        rows = [_row_gradient(group) for group in groups]
        loss, rows = self.processes.mean(loss, torch.from_numpy(optimiser.grad), rows)
        for group, one in zip(groups, rows, strict=True):
            self._put(group, one)
        return loss

    def _put(self, group: list[SparseTable], gradient: RowGradient) -> None:
        """Sum the processes' rows into the tables' buffers, one process after the other."""
        ids = gradient.ids.numpy()
        if not len(ids):
            for table in group:
                table.named = None
            return
        offsets = np.arange(len(ids) + 1, dtype=np.int32)
        named = Named(ids, offsets, self.slot_of, self.rooms[group[0].reads])
        for table, rows in zip(group, gradient.rows, strict=True):
            total = table.buffer(named)
            kernels.merge_rows(rows.numpy(), named.slots, np.float32(1), 0, total)


def _row_gradient(group: list[SparseTable]) -> RowGradient:
    named = group[0].named
    if named is None:
        none = torch.empty(0, dtype=torch.int32)
        return RowGradient(none, [torch.empty(0, table.width) for table in group])
    ids = torch.from_numpy(named.rows[: named.count])
    return RowGradient(ids, [torch.from_numpy(table.grad) for table in group])


def _squares(values: Array) -> float:
    sums = np.empty(-(-len(values) // kernels.BLOCK))
    if len(sums) == 1:
        kernels.sum_of_squares(values, 0, sums)
        return float(sums[0])
    threads.run(kernels.sum_of_squares, [(values, part, sums) for part in range(len(sums))])
    return float(sums.sum())
