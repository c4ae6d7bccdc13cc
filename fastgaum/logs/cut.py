"""Packed logs, cut into some of their sessions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.log import ROLES, SessionLog

MAX_ROWS = 2**31 - 1
"""offsets are int32"""


def check_size(n_rows: int) -> None:
    """Raise LogFormatError if offsets of `n_rows` candidates do not fit int32."""
    if n_rows > MAX_ROWS:
        raise LogFormatError(
            f"the log has {n_rows} rows, at most {MAX_ROWS} fit 32-bit offsets: split it into "
            "several logs"
        )


def pick_rows(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """The picked rows' own offsets, shape (n_rows + 1,), and the positions of their entries. Raises
    IndexError for a row that does not exist.

    >>> offsets, rows = np.array([0, 2, 3, 6], np.int32), np.array([2, 0], np.int32)
    >>> [part.tolist() for part in pick_rows(offsets, rows)]
    [[0, 3, 5], [3, 4, 5, 0, 1]]"""
    rows = np.asarray(rows, np.int32)
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(offsets) - 1):
        raise IndexError(f"a row outside 0 … {len(offsets) - 2} was asked for")
    starts = offsets[rows]
    picked = np.append(0, np.cumsum(offsets[rows + 1] - starts, dtype=np.int64)).astype(np.int32)
    index = np.arange(picked[-1], dtype=np.int32)
    index += np.repeat(starts - picked[:-1], np.diff(picked))
    return picked, index


def stable_order(keys: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The order that sorts keys of at least 0, equal ones as they come, shape (n_keys,)."""
    if (keys[1:] >= keys[:-1]).all():
        return np.arange(len(keys))
    bits = len(keys).bit_length()
    if int(keys.max()).bit_length() + bits > 63:
        return np.argsort(keys, kind="stable")
    # numpy sorts numbers several times as fast as it finds their order: each takes its place along
    packed = (keys.astype(np.int64, copy=False) << bits) | np.arange(len(keys))
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def slice_sessions(log: SessionLog, rows: npt.ArrayLike) -> SessionLog:
    """Return the log of the given sessions (rows of `log`), in the given order; items, users and
    categories keep their codes. Raises IndexError for a row that is not in the log."""
    picked = np.asarray(rows)
    if len(picked) and picked.dtype.kind not in "iu":
        raise IndexError(
            f"rows are {picked.dtype}, session numbers are required: np.flatnonzero makes them of "
            "a mask"
        )
    if len(picked) and (picked.min() < 0 or picked.max() >= log.n_sessions):
        raise IndexError(
            f"rows go from {picked.min()} to {picked.max()}, the log has sessions 0 to "
            f"{log.n_sessions - 1}"
        )
    picked = picked.astype(np.int32)
    session_offsets, events = pick_rows(log.session_offsets, picked)
    display_offsets, candidates = pick_rows(log.display_offsets, events)
    actions = log.actions
    return dataclasses.replace(
        log,
        session_offsets=session_offsets,
        display_offsets=display_offsets,
        actions=actions and actions.picked(*pick_rows(actions.offsets, events)),
        **log.picked(session=picked, event=events, candidate=candidates),
    )


def join_sessions(logs: Sequence[SessionLog]) -> SessionLog:
    """The sessions of several logs that have the same items, categories and kinds of actions, and
    whose users differ; one after another."""
    first = logs[0]

    def join(parts: Iterable[Any]) -> Any:
        found = list(parts)
        return pl.concat(found) if isinstance(found[0], pl.Series) else np.concatenate(found)

    def offsets(parts: Iterable[IntArray]) -> IntArray:
        sizes = np.concatenate([np.diff(part) for part in parts])
        return np.append(0, np.cumsum(sizes, dtype=np.int64)).astype(np.int32)

    check_size(sum(log.n_candidates for log in logs))
    arrays = {
        name: join(getattr(log, name) for log in logs)
        for name, of in ROLES.items()
        if of != "item" and getattr(first, name) is not None
    }
    columns = {
        name: one
        if one.of == "item"
        else one.with_values(join(log.columns[name].values for log in logs))
        for name, one in first.columns.items()
    }
    actions = first.actions
    if actions is not None:
        each = [log.actions for log in logs if log.actions is not None]
        actions = dataclasses.replace(
            actions,
            offsets=offsets(one.offsets for one in each),
            items=join(one.items for one in each),
            kinds=join(one.kinds for one in each),
            left_out=sum(one.left_out for one in each),
        )
    return dataclasses.replace(
        first,
        session_offsets=offsets(log.session_offsets for log in logs),
        display_offsets=offsets(log.display_offsets for log in logs),
        columns=columns,
        actions=actions,
        **arrays,
    )
