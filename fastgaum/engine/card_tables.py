"""Tables over ids on a card: sums of the rows that bags name, their gradients by row, and steps of
the named rows; `tables` on the processor.

A batch's ids are sorted, so that one program sums all entries of an id. The buffers are as long as
the batch has ids: how many rows they name is never asked for."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from fastgaum.engine import card_kernels as kernels
from fastgaum.engine.card_batches import CardBatch
from fastgaum.engine.card_kernels import (
    BagEntries,
    BagFactors,
    CardRows,
    RowGradients,
    SortedEntries,
)
from fastgaum.engine.tables import Rule

BLOCK = 32
"""entries of a ragged segment that a program holds at a time"""


def held_columns(n: int) -> int:
    """Columns that a program holds at a time, of n."""
    return min(max(int(triton.next_power_of_2(n)), 2), 128)


def sum_bags(table: Tensor, bags: BagEntries) -> Tensor:
    """Return the sum of each bag's rows of a table, (n_bags, width)."""
    n_bags, width, bags_each = len(bags.offsets) - 1, table.shape[1], 16
    sums, columns = table.new_empty(n_bags, width), held_columns(width)
    programs = (-(-n_bags // bags_each), -(-width // columns))
    kernels.bag_sums[programs](table, bags, sums, n_bags, width, bags_each, columns)
    return sums


def sum_segments(values: Tensor, offsets: Tensor) -> Tensor:
    """Return the sum of each segment's rows, (n_segments, width)."""
    every = torch.arange(len(values), dtype=torch.int32, device=values.device)
    return sum_bags(values.contiguous(), BagEntries(every, offsets))


def sorted_entries(ids: Tensor, bags: Tensor) -> SortedEntries:
    """Sort a batch's ids, (nnz,), with the bag of each."""
    found, order = torch.sort(ids, stable=True)
    ends = torch.searchsorted(found, found, right=True, out_int32=True)
    return SortedEntries(found, bags[order], ends)


def candidate_entries(batch: CardBatch) -> SortedEntries:
    """The candidates' ids, sorted; bag i is candidate i."""
    return sorted_entries(batch.ids.reshape(-1), bag_of_entry(batch.ids))


def bag_of_entry(ids: Tensor) -> Tensor:
    """The bag of each entry of bags of equally many ids, (n_bags, n_fields), flat."""
    bags = torch.arange(len(ids), dtype=torch.int32, device=ids.device)
    return bags[:, None].expand(ids.shape).reshape(-1)


class CardTable:
    """A table over ids, (n_ids, width), of which a step reads and writes the named rows only."""

    def __init__(self, parameter: Tensor, n_ids: int, rule: Rule) -> None:
        values = parameter.detach().view(n_ids, -1)
        self.n_ids, self.width, self.rule = n_ids, values.shape[1], rule
        shrunk = torch.zeros(n_ids, dtype=torch.float64, device=values.device)
        m = torch.zeros_like(values) if rule == "adam" else values.new_zeros(0)
        v = torch.zeros_like(values) if rule == "adam" else values.new_zeros(n_ids)
        self.rows = CardRows(values, m, v, shrunk)

    def add(
        self, entries: SortedEntries, others: Tensor, factors: BagFactors | None = None
    ) -> None:
        """Sum the gradients of bags into the rows that they name: `others` (n_bags, width), after
        those that are `factors`."""
        if factors is None:
            # nothing is read of them
            factors = BagFactors(entries.bags, others, others, 0)
        n, columns = len(entries.ids), held_columns(self.width)
        sums = others.new_empty(n, self.width)
        squares = torch.empty(n, dtype=torch.float64, device=others.device)
        self.entries, self.grad = entries, RowGradients(sums, squares)
        kernels.row_sums[(n,)](
            entries, factors, others.contiguous(), self.grad, self.width, BLOCK, columns
        )

    def squares(self) -> Tensor:
        """Σ of the squares of the gradient, float64."""
        return self.grad.squares.sum()

    def update(self, rates: Tensor) -> None:
        """Move the named rows."""
        ids, adam = self.entries.ids, self.rule == "adam"
        columns = held_columns(self.width)
        kernels.step_rows[(len(ids),)](
            ids, self.grad.sums, self.rows, rates, self.width, adam, columns
        )

    def moments(self) -> dict[str, Tensor]:
        """What the rows remember, by name."""
        _, m, v, shrunk = self.rows
        return {**({"m": m, "v": v} if self.rule == "adam" else {"squares": v}), "shrunk": shrunk}

    def settle(self, log_decay: float) -> None:
        """Give every row the weight decay that it has waited for."""
        values, shrunk = self.rows.table, self.rows.shrunk
        values.mul_((log_decay - shrunk).exp()[:, None].to(values.dtype))
        shrunk.fill_(log_decay)
