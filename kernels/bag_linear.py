"""The linear map of a bag, Σ_f E_f (U) + W numbers + b, and its gradients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit_fast
from .row_loops import add


class BagArrays(NamedTuple):
    """Bags of ids and numbers."""

    ids: Array  # bag after bag
    offsets: Array  # start of each bag in `ids`, (n_bags + 1,)
    numbers: Array  # (n_bags, n_numbers)


class BagMap(NamedTuple):
    """Weights of the map, or their gradients."""

    table: Array  # (n_ids, out), or (n_ids, width) with `up`
    up: Array  # (width, out), or without a row
    weight: Array  # (out, n_numbers)
    bias: Array  # (out,)


@jit_fast
def bag_linear(
    first: int,
    last: int,
    bags: BagArrays,
    weights: BagMap,
    result: Array,
) -> None:
    """Write bags first to last − 1 mapped, (n_bags, out)."""
    ids, offsets, numbers = bags
    table, up, weight, bias = weights
    low, out = table.shape[1], result.shape[1]
    lifted = len(up) > 0
    sums = np.empty((max(last - first, 0), low if lifted else 0), result.dtype)
    if numbers.shape[1] > 0 and last > first:
        np.dot(numbers[first:last], weight.T, result[first:last])
    else:
        result[first:last] = 0
    for bag in range(first, last):
        row = result[bag]
        add(row, bias)
        if lifted:
            sums[bag - first] = 0
            for i in range(offsets[bag], offsets[bag + 1]):
                add(sums[bag - first], table[ids[i]])
        else:
            for i in range(offsets[bag], offsets[bag + 1]):
                add(row, table[ids[i]])
    if lifted and last > first:
        # in loops: an array expression brings numba's broadcasting and its error texts, seconds of
        # compilation
        lift = np.empty((last - first, out), result.dtype)
        np.dot(sums, up, lift)
        for bag in range(first, last):
            add(result[bag], lift[bag - first])


@jit_fast
def bag_linear_backward(
    grad: Array,
    bags: BagArrays,
    weights: BagMap,
    grads: BagMap,
) -> None:
    """Write the gradients from that of the result, (n_bags, out).

    That of `table` is each bag's sum of rows', not written without `up`: it is then `grad`."""
    ids, offsets, numbers = bags
    table, up = weights.table, weights.up
    grad_rows, grad_up, grad_weight, grad_bias = grads
    low = table.shape[1]
    grad_bias[:] = 0
    for bag in range(len(grad)):
        add(grad_bias, grad[bag])
    if numbers.shape[1] > 0 and len(grad) > 0:
        np.dot(grad.T, numbers, grad_weight)
    else:
        grad_weight[:] = 0
    if len(up) > 0 and len(grad) > 0:
        sums = np.zeros((len(grad), low), grad.dtype)
        for bag in range(len(grad)):
            for i in range(offsets[bag], offsets[bag + 1]):
                add(sums[bag], table[ids[i]])
        np.dot(sums.T, grad, grad_up)
        np.dot(grad, up.T, grad_rows)
    else:
        grad_up[:] = 0
