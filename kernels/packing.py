"""Tiles of sequences of unequal length that advance together.

A worked miniature: offsets [0, 1, 4, 4, 6] → lengths 1, 3, 0, 2 → order [1, 3, 0, 2]: in any run of
the order, the sequences that hold a token at a given step are its first few. A tile is such a run,
narrow enough to stay in cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf


class Sequences(NamedTuple):
    """Sequences of tokens."""

    order: Array
    """sequences, the longest first"""
    offsets: Array
    """start of each sequence in the tokens, (n_sequences + 1,)"""


@jit
def order_by_length(offsets: Array, order: Array) -> None:
    """Write the sequences by falling length, (n_sequences,): a stable counting sort."""
    n_sequences = len(offsets) - 1
    longest = 0
    for sequence in range(n_sequences):
        longest = max(longest, offsets[sequence + 1] - offsets[sequence])
    # place[length]: how many sequences are longer, and then one more for each of that length placed
    # before
    place = np.zeros(longest + 1, np.int32)
    for sequence in range(n_sequences):
        length = offsets[sequence + 1] - offsets[sequence]
        if length > 0:
            place[length - 1] += 1
    for length in range(longest - 1, -1, -1):
        place[length] += place[length + 1]
    for sequence in range(n_sequences):
        length = offsets[sequence + 1] - offsets[sequence]
        order[place[length]] = sequence
        place[length] += 1


@jit
def cut_tiles(offsets: Array, order: Array, most_rows: int, most_tokens: int, tiles: Array) -> int:
    """Cut `order` into tiles of at most `most_rows` sequences and about `most_tokens` tokens;
    return how many.

    Tile k is order[tiles[k]:tiles[k + 1]]; `tiles` has room for n_sequences + 1. A tile holds a
    multiple of four sequences, whatever their length, as long as there are any: the matrix product
    takes four rows at a time."""
    n_tiles = n_tokens = 0
    tiles[0] = 0
    for rank in range(len(order)):
        sequence = order[rank]
        length = offsets[sequence + 1] - offsets[sequence]
        rows = rank - tiles[n_tiles]
        if rows == most_rows or (rows > 0 and rows % 4 == 0 and n_tokens + length > most_tokens):
            n_tiles += 1
            tiles[n_tiles] = rank
            n_tokens = 0
        n_tokens += length
    if len(order) > 0:
        n_tiles += 1
        tiles[n_tiles] = len(order)
    return n_tiles


@jit
def group_tiles(offsets: Array, order: Array, tiles: Array, n_tokens: int, parts: Array) -> int:
    """Group neighbouring tiles into parts of at least `n_tokens` tokens (the last may have fewer);
    return how many.

    Part k is tiles[parts[k]:parts[k + 1]]; `parts` has room for as many entries as `tiles`.
    """
    n_parts = held = 0
    parts[0] = 0
    for tile in range(len(tiles) - 1):
        for rank in range(tiles[tile], tiles[tile + 1]):
            held += offsets[order[rank] + 1] - offsets[order[rank]]
        if held >= n_tokens or tile == len(tiles) - 2:
            n_parts += 1
            parts[n_parts] = tile + 1
            held = 0
    return n_parts


@jit_leaf
def padded(rows: int) -> int:
    """How many rows to give to the matrix product: three left over of four take longer than
    four."""
    return rows if rows < 3 else (rows + 3) // 4 * 4


@jit_leaf
def room(tiles: Array) -> int:
    """How many rows the widest tile needs in a buffer of states."""
    rows = 0
    for tile in range(len(tiles) - 1):
        rows = max(rows, tiles[tile + 1] - tiles[tile])
    return padded(rows)


@jit_leaf
def length_of(rank: int, sequences: Sequences) -> int:
    """How many tokens the sequence at that place of the order has."""
    order, offsets = sequences
    sequence = order[rank]
    return int(offsets[sequence + 1] - offsets[sequence])


@jit_leaf
def still_running(step: int, first: int, active: int, sequences: Sequences) -> int:
    """How many of order[first:first + active] are longer than `step`; at least one must be."""
    while length_of(first + active - 1, sequences) <= step:
        active -= 1
    return active


@jit_leaf
def now_running(step: int, first: int, last: int, active: int, sequences: Sequences) -> int:
    """The same on the way back, from the `active` that are longer than step + 1."""
    while first + active < last and length_of(first + active, sequences) > step:
        active += 1
    return active
