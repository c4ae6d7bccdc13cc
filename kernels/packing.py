"""The order in which sequences of unequal length advance together, and rows seen one step later.

A worked miniature: offsets [0, 1, 4, 4, 6] → lengths 1, 3, 0, 2 → order [1, 3, 0, 2], active [3, 2, 1]: at step 0 the
first three sequences of the order hold a token, at step 1 the first two, at step 2 the first one.
"""

from __future__ import annotations

from ._jit import Array, jit


@jit
def longest_sequence(offsets: Array) -> int:
    """Return the length of the longest sequence, 0 if there is none."""
    longest = 0
    for sequence in range(len(offsets) - 1):
        longest = max(longest, offsets[sequence + 1] - offsets[sequence])
    return longest


@jit
def order_by_length(offsets: Array, order: Array, active: Array) -> None:
    """Write the sequences by falling length (a stable counting sort) and how many are longer than each step.

    `order` has shape (n_sequences,); `active` has shape (longest,).
    """
    longest = len(active)
    n_sequences = len(offsets) - 1
    for step in range(longest):
        active[step] = 0
    for sequence in range(n_sequences):
        length = offsets[sequence + 1] - offsets[sequence]
        if length > 0:
            active[length - 1] += 1
    for step in range(longest - 2, -1, -1):
        active[step] += active[step + 1]
    # active[length] sequences are longer than `length`: they come before the first of that length
    placed = active.copy()
    n_empty = 0
    for sequence in range(n_sequences):
        length = offsets[sequence + 1] - offsets[sequence]
        if length == 0:
            order[(active[0] if longest > 0 else 0) + n_empty] = sequence
            n_empty += 1
        else:
            before = active[length] if length < longest else 0
            # placed[length - 1] counts down from active[length - 1]: the rest are still to come
            position = before + active[length - 1] - placed[length - 1]
            placed[length - 1] -= 1
            order[position] = sequence


@jit
def previous_rows(rows: Array, offsets: Array, start: Array, previous: Array) -> None:
    """Write each token's row one step earlier, and `start` at the first step: a0 a1 | b0 → start_a a0 | start_b."""
    width = rows.shape[1]
    for sequence in range(len(offsets) - 1):
        first = offsets[sequence]
        for row in range(first, offsets[sequence + 1]):
            for j in range(width):
                previous[row, j] = rows[row - 1, j] if row > first else start[sequence, j]
