"""Steps of AdamW on dense arrays, and of lazy AdamW on the table rows that a batch names:
`number_rows`, `group_bags`, `add_rows`, then `adam_rows`.

ids [7, 2, 7] → slots [0, 1, 0], rows [7, 2], bags [0, 2] and [1]; gradients a, b, c → [a + c,
b]."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import (
    AHEAD,
    Array,
    Real,
    jit,
    jit_fast,
    prefetch_entry,
    prefetch_row,
)
from .activations import ONE
from .row_loops import add, copy

IN_FLIGHT = 512
"""floats asked for ahead: a core keeps some 30 cache lines under way"""
BLOCK = 1 << 17
"""floats of a part in `sum_of_squares`"""


class AdamRates(NamedTuple):
    """The numbers of one step of AdamW."""

    shrink: Real  # scales the gradient (clipping)
    lr: Real
    decay: Real  # lr · weight decay; for rows that wait, the logarithm of all decay so far
    beta1: Real
    beta2: Real
    correction1: Real  # 1 − β1^t
    correction2: Real  # √(1 − β2^t)
    eps: Real


@jit
def number_rows(ids: Array, slot_of: Array, slots: Array, rows: Array) -> int:
    """Write each id's slot, (nnz,), and each slot's row; return how many slots, or −1 − i where
    ids[i] is no row. `slot_of` (n_rows,) is −1 throughout before and after."""
    count = 0
    bad = len(ids)
    for i in range(len(ids)):
        row = ids[i]
        if row < 0 or row >= len(slot_of):
            bad = i
            break
        slot = slot_of[row]
        if slot < 0:
            slot = count
            slot_of[row] = slot
            rows[slot] = row
            count += 1
        slots[i] = slot
    for slot in range(count):
        slot_of[rows[slot]] = -1
    return count if bad == len(ids) else -1 - bad


@jit
def group_bags(slots: Array, offsets: Array, starts: Array, bags: Array) -> None:
    """Write the bags that name each slot, in order: bags[starts[s]:starts[s + 1]]. One that names a
    slot twice stands twice.

    slots (nnz,), offsets (n_bags + 1,) → starts (n_slots + 1,), bags (nnz,): [0, 1, 0], [0, 2, 3] →
    [0, 2, 3], [0, 1, 0]"""
    starts[:] = 0
    for i in range(len(slots)):
        starts[slots[i] + 1] += 1
    for slot in range(1, len(starts)):
        starts[slot] += starts[slot - 1]
    for bag in range(len(offsets) - 1):
        for i in range(offsets[bag], offsets[bag + 1]):
            bags[starts[slots[i]]] = bag
            starts[slots[i]] += 1
    for slot in range(len(starts) - 1, 0, -1):
        starts[slot] = starts[slot - 1]
    starts[0] = 0


@jit_fast
def add_rows(grad: Array, starts: Array, bags: Array, first: int, last: int, total: Array) -> None:
    """Write the sum of grad[bag], (n_bags, d), over the bags of slots first to last − 1, in order,
    to total (n_slots, d)."""
    ahead = max(IN_FLIGHT // max(grad.shape[1], 1), 1)
    stop = starts[last]
    for slot in range(first, last):
        row = total[slot]
        for entry in range(starts[slot], starts[slot + 1]):
            if entry + ahead < stop:
                prefetch_row(grad, bags[entry + ahead])
            if entry == starts[slot]:
                copy(row, grad[bags[entry]])
            else:
                add(row, grad[bags[entry]])


@jit_fast
def sum_of_squares(values: Array, part: int, sums: Array) -> None:
    """Write Σ x² over values[part · BLOCK : (part + 1) · BLOCK] to sums[part], in float64 of sums
    over 256."""
    total = 0.0
    for i in range(part * BLOCK, min((part + 1) * BLOCK, len(values)), 256):
        few = values[i] * 0
        for j in range(i, min(i + 256, len(values))):
            few += values[j] * values[j]
        total += np.float64(few)
    sums[part] = total


@jit_fast
def adam_dense(values: Array, m: Array, v: Array, grad: Array, rates: AdamRates) -> None:
    """Take one step of AdamW (Loshchilov & Hutter, ICLR 2019) on flat arrays."""
    shrink, lr, decay, beta1, beta2, correction1, correction2, eps = rates
    step, grow = lr / correction1, ONE / correction2
    for i in range(len(values)):
        g = grad[i] * shrink
        m[i] = beta1 * m[i] + (ONE - beta1) * g
        v[i] = beta2 * v[i] + (ONE - beta2) * g * g
        values[i] = values[i] * (ONE - decay) - step * m[i] / (np.sqrt(v[i]) * grow + eps)


@jit_fast
def adam_rows(
    table: Array, m: Array, v: Array, shrunk: Array, rows: Array, grad: Array, rates: AdamRates
) -> None:
    """Take one step of lazy AdamW: the `rows` of a table (n_rows, d) move by their gradients,
    (len(rows), d); all others, and their moments, wait.

    A waiting row loses no weight decay: `shrunk`, (n_rows,), is the logarithm of what it has had,
    `rates.decay` of what it should have had. If every step names every row this is AdamW."""
    shrink, lr, log_decay, beta1, beta2, correction1, correction2, eps = rates
    step, grow = lr / correction1, ONE / correction2
    for slot in range(len(rows)):
        row = rows[slot]
        if slot + AHEAD < len(rows):
            prefetch_row(table, rows[slot + AHEAD])
            prefetch_row(m, rows[slot + AHEAD])
            prefetch_row(v, rows[slot + AHEAD])
            prefetch_entry(shrunk, rows[slot + AHEAD])
        keep = table.dtype.type(np.exp(log_decay - shrunk[row]))
        shrunk[row] = log_decay
        for j in range(table.shape[1]):
            g = grad[slot, j] * shrink
            first_moment = beta1 * m[row, j] + (ONE - beta1) * g
            second_moment = beta2 * v[row, j] + (ONE - beta2) * g * g
            m[row, j] = first_moment
            v[row, j] = second_moment
            table[row, j] = table[row, j] * keep - step * first_moment / (
                np.sqrt(second_moment) * grow + eps
            )


@jit_fast
def decay_rows(table: Array, shrunk: Array, log_decay: Real) -> None:
    """Give every row the weight decay that it has waited for; shrunk: (n_rows,)."""
    for row in range(len(shrunk)):
        if shrunk[row] != log_decay:
            keep = table.dtype.type(np.exp(log_decay - shrunk[row]))
            for j in range(table.shape[1]):
                table[row, j] *= keep
            shrunk[row] = log_decay
