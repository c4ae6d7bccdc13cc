"""A scorer over packed display sets, forward and backward, in one kernel.

    z0 = Σ_{f in bag} E_f + W_x numbers + W_s state + b,  a0 = act(z0) … z_l = W_l a_{l−1} + b_l,
    score = w a_L + b  (+ Σ_f e_f + w_x numbers + b, the wide path)

A tile of about TILE candidates goes forward, through the loss, and back, while in cache. Dense
parameters lie in one flat array; `starts` says where, `widths` how wide each hidden layer is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import AHEAD, Array, jit_fast, jit_leaf, jit_part, prefetch_row
from .activations import ONE, RELU, ZERO, activate
from .choice import GIVEN, SCORES, Loss, loss_gradient
from .draws import DropoutRule, drop
from .row_loops import add, add_columns, matrix

TILE = 256
"""candidates of a tile at most, unless one event has more"""
TURN = 512
"""candidates from which weights are transposed first, a quarter quicker in BLAS"""

BIAS, NUMBERS, STATE, WIDE, LINEAR, REST = 0, 1, 2, 3, 4, 5
"""positions in `starts`: first bias, W_x, W_s, the wide path's bias and w_x (or towers' w), then
each later layer (W, then b)"""


class ScorerInputs(NamedTuple):
    """Packed display sets and the states that score them."""

    display_offsets: Array  # each event's first candidate, (n_events + 1,)
    ids: Array  # (n_candidates, n_fields)
    numbers: Array  # (n_candidates, d)
    states: Array  # (n_events, S)
    slots: Array
    """row of `ScorerOutputs.rows` for each id, int32, (n_candidates, n_fields), numbered for each
    range of events in order of appearance; not read where nothing is learned"""


class ScorerWeights(NamedTuple):
    """All parameters of a scorer."""

    table: Array  # (n_ids, widths[0])
    wide_table: Array  # of the wide path, (n_ids, 1); of length 0 for none
    dense: Array  # all others, flat
    starts: Array  # where each begins in `dense`; −1 for none
    widths: Array  # units of each hidden layer
    kind: int  # the activation


class ScorerOutputs(NamedTuple):
    """Arrays that a pass over a range of events writes: with SCORES only the scores; with GIVEN not
    those, and `grad_scores` is read."""

    scores: Array  # what is added to the scorer's, then the scores, (n_candidates,)
    log_totals: Array  # log Σ exp(eta · score), (n_events,)
    grad_scores: Array  # (n_candidates,)
    dense: Array  # gradient, as `ScorerWeights.dense`, of this range of events alone
    rows: Array  # gradient of each slot's row of the table, (n_slots, width)
    wide_rows: Array  # of the wide path's, (n_slots, 1), or (0, 1)
    states: Array  # gradient, (n_events, S), or (0, S) where not wanted


@jit_fast
def scorer_pass(
    first_event: int,
    last_event: int,
    inputs: ScorerInputs,
    weights: ScorerWeights,
    dropout: DropoutRule,
    loss: Loss,
    written: ScorerOutputs,
) -> None:
    """Score the candidates of events first to last − 1, each with one at least, and learn from
    them; SCORES scores alone. dropout: of every hidden layer."""
    display_offsets, ids, numbers, states, _ = inputs
    table, wide_table, dense, starts, widths, kind = weights
    key, threshold, scale = dropout
    scores, grad_scores, grad_dense = written.scores, written.grad_scores, written.dense
    n_events, n_fields = last_event - first_event, ids.shape[1]
    n_numbers, state_dim, width = numbers.shape[1], states.shape[1], widths[0]
    n_layers = len(widths)
    begin, end = display_offsets[first_event], display_offsets[last_event]
    learning, dropping, wide = loss.kind != SCORES, threshold > 0, len(wide_table) > 0
    from_numbers = matrix(dense, starts[NUMBERS], width, n_numbers).T
    turning = end - begin >= TURN
    turned = _turned(dense, starts, widths) if turning else dense[:0]
    # taken out of the loops: what is read through an index inside one is not known to stay the
    # same, and costs a factor 2
    linear_start, linear = max(starts[LINEAR], 0), starts[LINEAR] >= 0 and n_numbers > 0
    of_numbers = dense[linear_start : linear_start + n_numbers]
    grad_numbers = grad_dense[linear_start : linear_start + n_numbers]
    wide_bias = dense[starts[WIDE]] if wide else ZERO
    before = widths[n_layers - 1]
    last_start = starts[REST + n_layers - 1]
    of_last, last_bias = dense[last_start : last_start + before], dense[last_start + before]
    grad_last = grad_dense[last_start : last_start + before + 1]

    rows, total, widest = _room(first_event, last_event, display_offsets, widths)
    activations, tile_scores = np.empty(rows * total, dense.dtype), np.empty(rows, dense.dtype)
    backward = rows * widest if learning else 0
    grad, other = np.empty(backward, dense.dtype), np.empty(backward, dense.dtype)
    product = np.empty(widest * max(widest, n_numbers) + n_numbers, dense.dtype)
    sums = np.empty((n_events, width), dense.dtype)
    grad_sums = np.zeros((n_events if learning else 0, width), dense.dtype)
    np.dot(
        states[first_event:last_event],
        matrix(dense, starts[STATE], width, state_dim).T,
        sums,
    )
    first_bias = dense[starts[BIAS] : starts[BIAS] + width]
    for i in range(n_events):
        add(sums[i], first_bias)
    if learning:
        _clear(grad_dense, starts, widths, end > begin)
        if linear:
            grad_numbers[:] = ZERO
    filled = inputs.slots[begin, 0] if learning and end > begin and n_fields > 0 else 0

    event = first_event
    while event < last_event:
        start = display_offsets[event]
        last = event + 1
        while last < last_event and display_offsets[last + 1] - start <= TILE:
            last += 1
        stop = display_offsets[last]
        count = stop - start
        values = matrix(activations, 0, count, width)
        if n_numbers > 0:
            np.dot(numbers[start:stop], from_numbers, values)
        else:
            values[:] = ZERO
        for i in range(event, last):
            of_event = sums[i - first_event]
            for candidate in range(display_offsets[i], display_offsets[i + 1]):
                if candidate + AHEAD < end:
                    for f in range(n_fields):
                        prefetch_row(table, ids[candidate + AHEAD, f])
                row = values[candidate - start]
                for f in range(n_fields):
                    add(row, table[ids[candidate, f]])
                activate(row, of_event, kind)
        if dropping:
            drop(activations[: count * width], start * width, key, threshold, scale)
        at, before, layer_start = 0, width, 0
        for layer in range(1, n_layers):
            after, weight_start = widths[layer], starts[REST + layer - 1]
            at += count * before
            deeper = matrix(activations, at, count, after)
            if turning:
                np.dot(values, matrix(turned, layer_start, before, after), deeper)
            else:
                np.dot(values, matrix(dense, weight_start, after, before).T, deeper)
            layer_start += after * before
            bias = dense[weight_start + after * before : weight_start + after * before + after]
            for i in range(count):
                activate(deeper[i], bias, kind)
            values, before = deeper, after
            if dropping:
                flat = activations[at : at + count * before]
                drop(flat, start * before, np.uint32(key + layer), threshold, scale)
        if loss.kind != GIVEN:
            np.dot(values, of_last, tile_scores[:count])
            for i in range(count):
                scores[start + i] += tile_scores[i] + last_bias
            if linear:
                np.dot(numbers[start:stop], of_numbers, tile_scores[:count])
                add(scores[start:stop], tile_scores)
            if wide:
                for candidate in range(start, stop):
                    scores[candidate] += wide_bias
                    for f in range(n_fields):
                        scores[candidate] += wide_table[ids[candidate, f], 0]
        if learning:
            if loss.kind != GIVEN:
                loss_gradient(
                    event, last, scores, display_offsets, loss, grad_scores, written.log_totals
                )
            g = grad_scores[start:stop]
            total_g = ZERO
            for i in range(count):
                total_g += g[i]
            grad_last[before] += total_g
            np.dot(values.T, g, product[:before])
            add(grad_last[:before], product)
            if wide:
                grad_dense[starts[WIDE]] += total_g
            if linear:
                np.dot(numbers[start:stop].T, g, product[:n_numbers])
                add(grad_numbers, product)
            out = matrix(grad, 0, count, before)
            for i in range(count):
                row = out[i]
                for j in range(before):
                    row[j] = g[i] * of_last[j]
            for layer in range(n_layers - 1, -1, -1):
                # stands here once for all layers: each copy costs a third of a second to compile
                _to_sums(
                    grad[: count * before],
                    activations[at : at + count * before],
                    kind,
                    DropoutRule(np.uint32(key + layer), threshold, scale),
                    start * before,
                )
                if layer > 0:
                    after, before = before, widths[layer - 1]
                    at -= count * before
                    below = matrix(activations, at, count, before)
                    weight_start = starts[REST + layer - 1]
                    bias_start = weight_start + after * before
                    add_columns(out, grad_dense[bias_start : bias_start + after])
                    if start == begin:
                        np.dot(out.T, below, matrix(grad_dense, weight_start, after, before))
                    else:
                        np.dot(out.T, below, matrix(product, 0, after, before))
                        add(grad_dense[weight_start:bias_start], product)
                    deeper = matrix(other, 0, count, before)
                    np.dot(out, matrix(dense, weight_start, after, before), deeper)
                    grad, other = other, grad
                    out = deeper
            if n_numbers > 0:
                np.dot(out.T, numbers[start:stop], matrix(product, 0, width, n_numbers))
                add(grad_dense[starts[NUMBERS] : starts[NUMBERS] + width * n_numbers], product)
            for i in range(event, last):
                of_event = grad_sums[i - first_event]
                for candidate in range(display_offsets[i], display_offsets[i + 1]):
                    add(of_event, out[candidate - start])
            filled = _add_to_slots(inputs.slots[start:stop], out, g, filled, written)
        event = last
    if learning:
        add_columns(grad_sums, grad_dense[starts[BIAS] : starts[BIAS] + width])
        of_states = states[first_event:last_event]
        np.dot(grad_sums.T, of_states, matrix(grad_dense, starts[STATE], width, state_dim))
        if len(written.states) > 0:
            from_state = matrix(dense, starts[STATE], width, state_dim)
            np.dot(grad_sums, from_state, written.states[first_event:last_event])


@jit_leaf
def _room(first_event: int, last_event: int, offsets: Array, widths: Array) -> tuple[int, int, int]:
    """The rows of the largest tile, and the sum and the largest of the widths."""
    total = widest = 0
    for layer in range(len(widths)):
        total += widths[layer]
        widest = max(widest, widths[layer])
    rows = min(TILE, offsets[last_event] - offsets[first_event])
    for event in range(first_event, last_event):
        rows = max(rows, offsets[event + 1] - offsets[event])
    return rows, total, widest


@jit_leaf
def _clear(grad_dense: Array, starts: Array, widths: Array, learned: bool) -> None:
    """Zero what tiles add to: all but the layers' weights, unless there is no tile."""
    n_layers = len(widths)
    if not learned:
        grad_dense[:] = ZERO
        return
    grad_dense[: starts[REST]] = ZERO
    for layer in range(1, n_layers + 1):
        before, after = widths[layer - 1], widths[layer] if layer < n_layers else 1
        end = starts[REST + layer - 1] + after * before
        grad_dense[end - (before if layer == n_layers else 0) : end + after] = ZERO


@jit_part
def _turned(dense: Array, starts: Array, widths: Array) -> Array:
    """The transposed weights of the layers between first and last."""
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


@jit_leaf
def _to_sums(
    grad: Array, values: Array, kind: int, dropout: DropoutRule, counter: np.uint32
) -> None:
    """Take a tile's gradient back through dropout and activation, in place; arrays are flat."""
    key, threshold, scale = dropout
    if kind == RELU:
        for j in range(len(grad)):
            # a unit that was dropped is 0 too
            grad[j] = grad[j] * scale if values[j] > ZERO else ZERO
        return
    if threshold > 0:
        # the kept values were scaled: divide the scale out before the derivative is read off them
        drop(grad, counter, key, threshold, scale)
        for j in range(len(values)):
            values[j] /= scale
    for j in range(len(grad)):
        grad[j] *= min(values[j], ZERO) + ONE


@jit_leaf
def _add_to_slots(
    slots: Array, of_bags: Array, grad_scores: Array, filled: int, written: ScorerOutputs
) -> int:
    """Add a tile's gradients to the slots that its bags name; return how many slots, `filled`
    before, hold something."""
    rows, wide_rows = written.rows, written.wide_rows
    wide = len(wide_rows) > 0
    for i in range(len(of_bags)):
        row = of_bags[i]
        for f in range(slots.shape[1]):
            slot = slots[i, f]
            target = rows[slot]
            if slot == filled:
                # zeros and then the same sum: with a copy for the first sum neither
                # loop is vectorised, and it takes 23 ns for 4
                target[:] = ZERO
                if wide:
                    wide_rows[slot, 0] = ZERO
                filled += 1
            add(target, row)
            if wide:
                wide_rows[slot, 0] += grad_scores[i]
    return filled
