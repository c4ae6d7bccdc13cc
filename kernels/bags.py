"""Embedding bags: weighted sums of table rows, gathered by feature id; exactly a linear layer on
the multi-hot vector.

A worked miniature: offsets [0, 2, 2, 3] and ids [4, 1, 4] → bag 0 is rows 4 + 1, bag 1 is empty,
    bag 2 is row 4.

`weights` of length 0 stands for "every weight is 1": one compiled form then serves both cases.
"""

from __future__ import annotations

from ._jit import Array, jit_fast


@jit_fast
def bag_sum(table: Array, ids: Array, offsets: Array, weights: Array, result: Array) -> int:
    """Write the weighted sum of each bag's rows, (n_rows, d) → (n_bags, d); zeros for an empty bag.

    Returns −1, or the position in ids of the first id that is not a row of the table; the sum then
    stops there."""
    n_rows, width = table.shape
    weighted = len(weights) > 0
    for bag in range(len(offsets) - 1):
        for j in range(width):
            result[bag, j] = 0.0
        for i in range(offsets[bag], offsets[bag + 1]):
            row = ids[i]
            if row < 0 or row >= n_rows:
                return i
            if weighted:
                for j in range(width):
                    result[bag, j] += weights[i] * table[row, j]
            else:
                for j in range(width):
                    result[bag, j] += table[row, j]
    return -1


@jit_fast
def bag_scatter_add(
    grad_out: Array, ids: Array, offsets: Array, weights: Array, out_table: Array
) -> None:
    """Add weight · grad_out[bag] to each row named by the bag's ids, (n_bags, d) → (n_rows, d), in
    place.

    Ids have been checked by the forward pass. Duplicated ids add up, within a bag and between bags.
    """
    width = out_table.shape[1]
    weighted = len(weights) > 0
    for bag in range(len(offsets) - 1):
        for i in range(offsets[bag], offsets[bag + 1]):
            row = ids[i]
            if weighted:
                for j in range(width):
                    out_table[row, j] += weights[i] * grad_out[bag, j]
            else:
                for j in range(width):
                    out_table[row, j] += grad_out[bag, j]


@jit_fast
def bag_weight_grad(
    grad_out: Array, table: Array, ids: Array, offsets: Array, grad_weights: Array
) -> None:
    """Write ⟨grad_out[bag], table[id]⟩ for each entry of each bag, shape (nnz,)."""
    width = table.shape[1]
    for bag in range(len(offsets) - 1):
        for i in range(offsets[bag], offsets[bag + 1]):
            row = ids[i]
            dot = 0.0
            for j in range(width):
                dot += grad_out[bag, j] * table[row, j]
            grad_weights[i] = dot
