"""Tiles of sequences of unequal length that advance together: in any run of the order, the first
few sequences hold a token at a given step; a tile is a run that the cache holds.

offsets [0, 1, 4, 4, 6] → lengths 1, 3, 0, 2 → order [1, 3, 0, 2]"""

from __future__ import annotations

from typing import NamedTuple

from ._jit import Array, jit, jit_leaf


class Sequences(NamedTuple):
    """Sequences of tokens."""

    order: Array  # sequences, the longest first
    offsets: Array  # start of each sequence in the tokens, (n_sequences + 1,)


@jit
def cut_tiles(offsets: Array, order: Array, most_rows: int, most_tokens: int, tiles: Array) -> int:
    """Cut `order` into tiles of at most `most_rows` sequences and about `most_tokens` tokens;
    return how many. Tile k is order[tiles[k]:tiles[k + 1]], a multiple of four sequences while
    there are any. `tiles`: (n_sequences + 1,)."""
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
    """Group neighbouring tiles into parts of at least `n_tokens` tokens, the last excepted; return
    how many. Part k is tiles[parts[k]:parts[k + 1]]; `parts` is as long as `tiles`."""
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
    """How many rows to give to the matrix product."""
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
    """How many of order[first:first + active] are longer than `step`, at least one."""
    while length_of(first + active - 1, sequences) <= step:
        active -= 1
    return active


@jit_leaf
def now_running(step: int, first: int, last: int, active: int, sequences: Sequences) -> int:
    """The same on the way back, from the `active` that are longer than step + 1."""
    while first + active < last and length_of(first + active, sequences) > step:
        active += 1
    return active
