"""A scorer over packed display sets, forward and backward: nothing of it is an operator between
other operators.

    z0 = Σ_{f in bag} E_f (U, if the embedding is small) + W_x numbers + W_s state + b,  a0 =
    act(z0) … z_l = W_l a_{l−1} + b_l,  score = w a_L + b  (+ Σ_f e_f + w_x numbers + b, the wide
    path)

Candidates go through in tiles of TILE rows that stay in cache. All dense parameters lie in one flat
array; `starts` says where each does, `widths` how wide each hidden layer is. The hidden activations
of all candidates are kept, layer after layer, for the way back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import AHEAD, Array, jit_fast, jit_part, prefetch_row
from .activations import activate, through_activation
from .draws import DropoutRule, drop
from .products import add, add_scaled, copy, dot, matrix

TILE = 96
TURN = 512
"""candidates from which the layers' weights are transposed first: BLAS takes a quarter longer with
a transposed matrix"""

BIAS, NUMBERS, STATE, UP, WIDE, REST = 0, 1, 2, 3, 4, 5
"""positions in `starts`: first bias, W_x, W_s, U, the wide path (bias, then w_x), then each later
layer (W, then b)"""


class ScorerInputs(NamedTuple):
    """Packed display sets and the states that score them."""

    display_offsets: Array
    """each event's first candidate, shape (n_events + 1,)"""
    ids: Array
    """shape (n_candidates, n_fields)"""
    numbers: Array
    """shape (n_candidates, d)"""
    states: Array
    """shape (n_events, S)"""


class ScorerWeights(NamedTuple):
    """All parameters of a scorer."""

    table: Array
    """shape (n_ids, widths[0]), or (n_ids, item_dim)"""
    wide_table: Array
    """of the wide path, shape (n_ids, 1); of length 0 where there is none"""
    dense: Array
    """all others, flat"""
    starts: Array
    """where each of them begins in `dense`; −1 for one that is not there"""
    widths: Array
    """units of each hidden layer"""
    kind: int
    """the activation"""


class ScorerPass(NamedTuple):
    """What a forward pass writes."""

    state_sums: Array
    """W_s state, shape (n_events, widths[0])"""
    activations: Array
    """flat, n_candidates × Σ widths"""
    scores: Array
    """shape (n_candidates,)"""


class ScorerGrads(NamedTuple):
    """The gradient that a backward pass over a range of events reads, `scores`, and what it
    writes."""

    scores: Array
    """shape (n_candidates,)"""
    dense: Array
    """as `ScorerWeights.dense`; it belongs to this range of events alone"""
    rows: Array
    """of each candidate's bag, shape (n_candidates, width of the table)"""
    sums: Array
    """scratch, shape (n_events, widths[0])"""
    states: Array
    """shape (n_events, S)"""


@jit_fast
def scorer_forward(
    first_event: int,
    last_event: int,
    inputs: ScorerInputs,
    weights: ScorerWeights,
    dropout: DropoutRule,
    written: ScorerPass,
) -> None:
    """Write the scores of the events' candidates, the activations and the state sums.

    Args:
        first_event, last_event: the range of events, the last left out.
        inputs: of all events.
        weights: the parameters.
        dropout: of every hidden layer.
        written: of all events."""
    display_offsets, ids, numbers, states = inputs
    table, wide_table, dense, starts, widths, kind = weights
    key, threshold, scale = dropout
    state_sums, activations, scores = written
    n, n_fields = ids.shape
    n_numbers, state_dim, width, n_layers = (
        numbers.shape[1],
        states.shape[1],
        widths[0],
        len(widths),
    )
    begin, end = display_offsets[first_event], display_offsets[last_event]
    from_numbers = matrix(dense, starts[NUMBERS], width, n_numbers).T
    turning = end - begin >= TURN
    turned = _turned(dense, starts, widths) if turning else dense[:0]
    from_state = matrix(dense, starts[STATE], width, state_dim).T
    item_dim = table.shape[1] if starts[UP] >= 0 else 0
    up = matrix(dense, max(starts[UP], 0), item_dim, width)
    bag = np.empty((TILE, max(item_dim, 1)), dense.dtype)
    lifted = np.empty((TILE, width), dense.dtype)
    wide = len(wide_table) > 0
    np.dot(states[first_event:last_event], from_state, state_sums[first_event:last_event])
    # taken out of the loops: what is read through an index inside one is not known to stay the
    # same, and costs a factor 2
    wide_part = dense[max(starts[WIDE], 0) : max(starts[WIDE], 0) + 1 + n_numbers]
    dropping = threshold > 0
    event = first_event
    for start in range(begin, end, TILE):
        stop = min(start + TILE, end)
        values = matrix(activations, 0, n, width)
        if n_numbers > 0:
            np.dot(numbers[start:stop], from_numbers, values[start:stop])
        if item_dim > 0:
            _gather(table, ids, start, stop, bag)
            np.dot(bag[: stop - start], up, lifted[: stop - start])
        for candidate in range(start, stop):
            while candidate >= display_offsets[event + 1]:
                event += 1
            if candidate + AHEAD < end:
                for f in range(n_fields):
                    prefetch_row(table, ids[candidate + AHEAD, f])
            row = values[candidate]
            if n_numbers == 0:
                copy(row, state_sums[event])
            else:
                add(row, state_sums[event])
            if item_dim > 0:
                add(row, lifted[candidate - start])
            else:
                for f in range(n_fields):
                    add(row, table[ids[candidate, f]])
        at, before, layer_start, bias_start = 0, width, 0, starts[BIAS]
        # activation and dropout stand here once for all layers: each copy of them costs a third of
        # a second to compile
        for layer in range(n_layers):
            if layer > 0:
                after = widths[layer]
                weight_start = starts[REST + layer - 1]
                bias_start = weight_start + after * before
                at += n * before
                deeper = matrix(activations, at, n, after)
                if turning:
                    np.dot(
                        values[start:stop],
                        matrix(turned, layer_start, before, after),
                        deeper[start:stop],
                    )
                else:
                    np.dot(
                        values[start:stop],
                        matrix(dense, weight_start, after, before).T,
                        deeper[start:stop],
                    )
                layer_start += after * before
                values, before = deeper, after
            bias = dense[bias_start : bias_start + before]
            for candidate in range(start, stop):
                row = values[candidate]
                activate(row, bias, kind)
                if dropping:
                    drop(row, candidate * before, np.uint32(key + layer), threshold, scale)
        last = dense[starts[REST + n_layers - 1] : starts[REST + n_layers - 1] + before + 1]
        for candidate in range(start, stop):
            score = dot(values[candidate], last) + last[before]
            if wide:
                score += wide_part[0] + dot(numbers[candidate], wide_part[1:])
                for f in range(n_fields):
                    score += wide_table[ids[candidate, f], 0]
            scores[candidate] = score


@jit_part
def _turned(dense: Array, starts: Array, widths: Array) -> Array:
    """The transposed weights of the layers between the first and the last, one after another."""
    total = 0
    for layer in range(1, len(widths)):
        total += widths[layer] * widths[layer - 1]
    result = np.empty(total, dense.dtype)
    at = 0
    for layer in range(1, len(widths)):
        after, before = widths[layer], widths[layer - 1]
        source, target = (
            matrix(dense, starts[REST + layer - 1], after, before),
            matrix(result, at, before, after),
        )
        for i in range(after):
            for j in range(before):
                target[j, i] = source[i, j]
        at += after * before
    return result


@jit_part
def _gather(table: Array, ids: Array, start: int, stop: int, bag: Array) -> None:
    """Sum each candidate's table rows."""
    for candidate in range(start, stop):
        row = bag[candidate - start]
        row[:] = 0
        for f in range(ids.shape[1]):
            add(row, table[ids[candidate, f]])


@jit_fast
def scorer_backward(
    first_event: int,
    last_event: int,
    inputs: ScorerInputs,
    weights: ScorerWeights,
    dropout: DropoutRule,
    activations: Array,
    grads: ScorerGrads,
) -> None:
    """Write the gradients of the dense parameters, of each candidate's bag and of the states.

    Args:
        first_event, last_event: the range of events, the last left out.
        inputs: as the forward pass read them.
        weights: as the forward pass read them.
        dropout: as in the forward pass.
        activations: as the forward pass wrote them; destroyed where there was dropout.
        grads: what is read and written."""
    display_offsets, ids, numbers, states = inputs
    table, wide_table, dense, starts, widths, kind = weights
    key, threshold, scale = dropout
    grad_scores, grad_dense, grad_rows, grad_sums, grad_states = grads
    wide = len(wide_table) > 0
    n = len(ids)
    n_numbers, state_dim, width, n_layers = (
        numbers.shape[1],
        states.shape[1],
        widths[0],
        len(widths),
    )
    begin, end = display_offsets[first_event], display_offsets[last_event]
    item_dim = table.shape[1] if starts[UP] >= 0 else 0
    up = matrix(dense, max(starts[UP], 0), item_dim, width)
    widest = 0
    for layer in range(n_layers):
        widest = max(widest, widths[layer])
    grad = np.empty(TILE * widest, dense.dtype)
    other = np.empty(TILE * widest, dense.dtype)
    product = np.empty(widest * max(widest, n_numbers, state_dim), dense.dtype)
    bag = np.empty((TILE, max(item_dim, 1)), dense.dtype)
    grad_wide = grad_dense[max(starts[WIDE], 0) : max(starts[WIDE], 0) + 1 + n_numbers]
    # the layers' weights are written by the first tile, all else is added to
    layers = starts[REST] if end > begin else len(grad_dense)
    grad_dense[:layers] = 0
    for layer in range(1, n_layers + 1):
        after = widths[layer] if layer < n_layers else 1
        ends = starts[REST + layer - 1] + after * widths[layer - 1]
        grad_dense[ends - (widths[layer - 1] if layer == n_layers else 0) : ends + after] = 0
    grad_sums[first_event:last_event] = 0
    event = first_event
    for start in range(begin, end, TILE):
        stop = min(start + TILE, end)
        count = stop - start
        at = 0
        for layer in range(n_layers - 1):
            at += n * widths[layer]
        before = widths[n_layers - 1]
        values = matrix(activations, at, n, before)
        ends = starts[REST + n_layers - 1]
        last, grad_last = dense[ends : ends + before], grad_dense[ends : ends + before + 1]
        out = matrix(grad, 0, count, before)
        for candidate in range(start, stop):
            g = grad_scores[candidate]
            grad_last[before] += g
            add_scaled(grad_last[:before], g, values[candidate])
            row = out[candidate - start]
            for j in range(before):
                row[j] = g * last[j]
            if wide:
                grad_wide[0] += g
                add_scaled(grad_wide[1:], g, numbers[candidate])
        for layer in range(n_layers - 1, -1, -1):
            # once for all layers, as on the way forward
            _to_sums(out, values, start, kind, np.uint32(key + layer), threshold, scale)
            bias_start = starts[BIAS]
            if layer > 0:
                bias_start = starts[REST + layer - 1] + before * widths[layer - 1]
            _add_columns(out, grad_dense[bias_start : bias_start + before])
            if layer > 0:
                after, before = before, widths[layer - 1]
                at -= n * before
                below = matrix(activations, at, n, before)
                weight_start = starts[REST + layer - 1]
                if start == begin:
                    np.dot(
                        out.T, below[start:stop], matrix(grad_dense, weight_start, after, before)
                    )
                else:
                    np.dot(out.T, below[start:stop], matrix(product, 0, after, before))
                    add(grad_dense[weight_start : weight_start + after * before], product)
                deeper = matrix(other, 0, count, before)
                np.dot(out, matrix(dense, weight_start, after, before), deeper)
                grad, other = other, grad
                out, values = deeper, below
        if n_numbers > 0:
            sums = matrix(product, 0, width, n_numbers)
            np.dot(out.T, numbers[start:stop], sums)
            add(grad_dense[starts[NUMBERS] : starts[NUMBERS] + width * n_numbers], product)
        for candidate in range(start, stop):
            while candidate >= display_offsets[event + 1]:
                event += 1
            add(grad_sums[event], out[candidate - start])
        if item_dim > 0:
            _gather(table, ids, start, stop, bag)
            sums = matrix(product, 0, item_dim, width)
            np.dot(bag[:count].T, out, sums)
            add(grad_dense[starts[UP] : starts[UP] + item_dim * width], product)
            np.dot(out, up.T, grad_rows[start:stop])
        else:
            for i in range(count):
                copy(grad_rows[start + i], out[i])
    events = grad_sums[first_event:last_event]
    np.dot(
        events, matrix(dense, starts[STATE], width, state_dim), grad_states[first_event:last_event]
    )
    np.dot(
        events.T,
        states[first_event:last_event],
        matrix(grad_dense, starts[STATE], width, state_dim),
    )


@jit_part
def _to_sums(
    grad: Array,
    values: Array,
    start: int,
    kind: int,
    key: np.uint32,
    threshold: np.uint32,
    scale: np.float32,
) -> None:
    """Take a tile's gradient back through dropout and activation, in place."""
    width = grad.shape[1]
    for i in range(len(grad)):
        row = values[start + i]
        if threshold > 0:
            # the kept values were scaled: divide the scale out before the derivative is read off
            # them
            drop(grad[i], (start + i) * width, key, threshold, scale)
            for j in range(width):
                row[j] /= scale
        through_activation(grad[i], row, kind)


@jit_part
def _add_columns(grad: Array, total: Array) -> None:
    """Add the sum of each column."""
    for i in range(len(grad)):
        add(total, grad[i])
