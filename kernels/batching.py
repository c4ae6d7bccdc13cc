"""Batch assembly straight from the packed arrays: whole sessions picked in any order, never padded."""

from __future__ import annotations

from ._jit import Array, jit


@jit
def ragged_index(offsets: Array, rows: Array, picked_offsets: Array, index: Array) -> None:
    """Write the flat positions of the picked rows' entries, row after row.

    offsets [0, 2, 3, 6], rows [2, 0] → picked_offsets [0, 3, 5], index [3, 4, 5, 0, 1]
    """
    out = 0
    picked_offsets[0] = 0
    for row in range(len(rows)):
        for position in range(offsets[rows[row]], offsets[rows[row] + 1]):
            index[out] = position
            out += 1
        picked_offsets[row + 1] = out


@jit
def history_tokens(
    session_offsets: Array,
    display_offsets: Array,
    choices: Array,
    keep_last: bool,
    token_offsets: Array,
    token_candidates: Array,
) -> int:
    """Write the chosen candidate (or -1 for no click) of each event that a later state reads; return how many.

    The choice of a session's last event is read by no state of the session, so it is skipped unless `keep_last`.
    session_offsets [0, 2, 3], choices [1, 0, 2], display_offsets [0, 3, 5, 8] → token_offsets [0, 1, 1], tokens [1]
    """
    out = 0
    token_offsets[0] = 0
    skip = 0 if keep_last else 1
    for session in range(len(session_offsets) - 1):
        for event in range(session_offsets[session], session_offsets[session + 1] - skip):
            token_candidates[out] = display_offsets[event] + choices[event] if choices[event] >= 0 else -1
            out += 1
        token_offsets[session + 1] = out
    return out
