"""Splits, and logs cut and joined. Whole users are split at random, or sessions by time: 50 %
train, 25 % validation, 25 % test if no shares are given.

The rules `half` and `other-half` make two runs that share no user: the users of one half train
(three quarters of them) and validate, those of the other are the test split, and the other way
round. Policies are trained in one run's world and judged in the other's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.columns import show
from fastgaum.logs.log import IntArray, SessionLog

FRACTIONS = (0.5, 0.25, 0.25)
HALF = (0.375, 0.125, 0.5)
USER_RULES = ("user", "half", "other-half")
"""rules that split whole users by a seed"""


def resplit(log: SessionLog, seed: int, fractions: Sequence[float] = FRACTIONS) -> SessionLog:
    """Return the log with a new split of whole users: all sessions of a user fall into one part.

    `fractions` are the shares of users in train, validation and test and sum to 1 (ConfigError
    otherwise). The same log, seed and fractions give the same split."""
    return log.with_split(split_by_user(log.users, seed, fractions))


def resplit_by(log: SessionLog, rule: str, seed: int) -> SessionLog:
    """Return the log split by one of USER_RULES; `half` and `other-half` of one seed share no
    training or validation user."""
    return log.with_split(split_by_rule(log.users, rule, seed))


def split_by_rule(users: IntArray, rule: str, seed: int) -> npt.NDArray[np.int8]:
    """Split of each session, shape (n_sessions,), by one of USER_RULES."""
    if rule == "user":
        return split_by_user(users, seed)
    return split_by_half(users, seed, rule == "other-half")


def split_by_half(users: IntArray, seed: int, other: bool = False) -> npt.NDArray[np.int8]:
    """Split of each session, shape (n_sessions,): one half of the users trains and validates, the
    rest is the test split.

    `other` swaps the halves: with the same seed, training and validation users of the two splits
    are each other's test users. Of an odd number of users the one in the middle is in no half: it
    is a test user of both."""
    distinct, user_of_session = np.unique(users, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    parts = np.full(len(distinct), 2, np.int8)
    half = order[-(len(order) // 2) :] if other else order[: len(order) // 2]
    parts[half[: len(order) // 2]] = _parts(len(order) // 2, (2 * HALF[0], 2 * HALF[1], 0))
    return parts[user_of_session]


def split_by_user(
    users: IntArray, seed: int, fractions: Sequence[float] = FRACTIONS
) -> npt.NDArray[np.int8]:
    """Split of each session, shape (n_sessions,), drawn over its distinct users."""
    distinct, user_of_session = np.unique(users, return_inverse=True)
    parts = _parts(len(distinct), fractions)
    return parts[np.random.default_rng(seed).permutation(len(distinct))][user_of_session]


def split_by_time(
    first_order: pl.Series, fractions: Sequence[float] = FRACTIONS
) -> npt.NDArray[np.int8]:
    """Split of each session, shape (n_sessions,), by the time of its first event: the earliest
    sessions train.

    Sessions of one time keep their order in the log. Raises LogFormatError if all sessions start at
    the same value: the event column then counts events within a session and is no time."""
    if len(first_order) > 1 and first_order.n_unique() == 1:
        raise LogFormatError(
            "split='time' needs times that differ between sessions, every session starts at "
            f"{show(first_order[0])}:"
            " name a time column (columns={'event': 'NAME'}) or use split='user'"
        )
    split = np.empty(len(first_order), dtype=np.int8)
    split[np.argsort(first_order.to_physical().to_numpy(), kind="stable")] = _parts(
        len(first_order), fractions
    )
    return split


def _parts(n: int, fractions: Sequence[float]) -> npt.NDArray[np.int8]:
    """Parts of n things in order, bounds rounded half up: n = 5 of (0.5, 0.25, 0.25) → [0, 0, 0, 1,
    2]."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ConfigError(
            f"fractions are {tuple(fractions)}, three shares of train, validation and test that "
            "sum to 1 are required"
        )
    bounds = np.floor(np.cumsum(fractions[:2]) * n + 0.5).astype(np.int64)
    return np.searchsorted(bounds, np.arange(n), side="right").astype(np.int8)


def pick_rows(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return the picked rows' own offsets, shape (n_rows + 1,), and the flat positions of their
    entries.

    >>> offsets, rows = np.array([0, 2, 3, 6], np.int32), np.array([2, 0], np.int32)
    >>> [part.tolist() for part in pick_rows(offsets, rows)]
    [[0, 3, 5], [3, 4, 5, 0, 1]]

    Raises:
        IndexError: a row does not exist.
    """
    # numba takes half a second to import, and most logs that are read are not cut
    from fastgaum.kernels.batching import picked_size, ragged_index

    offsets, rows = np.asarray(offsets), np.asarray(rows, dtype=np.int32)
    n = picked_size(offsets, rows)
    if n < 0:
        raise IndexError(f"a row outside 0 … {len(offsets) - 2} was asked for")
    picked, index = np.empty(len(rows) + 1, dtype=np.int32), np.empty(n, dtype=np.int32)
    ragged_index(offsets, rows, picked, index)
    return picked, index


def slice_sessions(log: SessionLog, rows: npt.ArrayLike) -> SessionLog:
    """Return the log of the given sessions, in the given order; items, users and categories keep
    their codes.

    `rows` are rows of `log`, shape (n_rows,). Raises IndexError for a row that is not in the log.
    """
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
    return dataclasses.replace(
        log,
        session_offsets=session_offsets,
        display_offsets=display_offsets,
        items=log.items[candidates],
        choices=log.choices[events],
        split=log.split[picked],
        users=log.users[picked],
        session_ids=log.session_ids.gather(picked),
        event_ids=log.event_ids.gather(events),
        views=None if log.views is None else log.views[candidates],
        candidate_fields={
            name: values[candidates] for name, values in log.candidate_fields.items()
        },
    )


def join_logs(parts: Sequence[SessionLog]) -> SessionLog:
    """Return the sessions of all parts as one log; at least one part, all of the same items, fields
    and categories.

    Users of different parts are different users.
    """
    if len(parts) == 1:
        return parts[0]

    def offsets(each: Sequence[IntArray]) -> IntArray:
        lengths = np.concatenate([np.diff(one) for one in each])
        return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int32)

    def values(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    first = parts[0]
    users = np.cumsum([0, *(int(part.users.max(initial=-1)) + 1 for part in parts[:-1])])
    return dataclasses.replace(
        first,
        session_offsets=offsets([part.session_offsets for part in parts]),
        display_offsets=offsets([part.display_offsets for part in parts]),
        users=np.concatenate(
            [part.users + start for part, start in zip(parts, users, strict=True)]
        ).astype(np.int32),
        session_ids=pl.concat([part.session_ids for part in parts]),
        event_ids=pl.concat([part.event_ids for part in parts]),
        views=None if first.views is None else values("views"),
        candidate_fields={
            name: np.concatenate([part.candidate_fields[name] for part in parts])
            for name in first.candidate_fields
        },
        items=values("items"),
        choices=values("choices"),
        split=values("split"),
    )
