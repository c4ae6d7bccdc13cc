"""Splits: whole users at random, or sessions by time. 50 % train, 25 % validation, 25 % test unless
told otherwise.

The rules `half` and `other-half` make two runs that share no user: the users of one half train
(three quarters of them) and validate, those of the other are the test split, and the other way
round. Policies are trained in one run's world and judged in the other's."""

from __future__ import annotations

from collections.abc import Sequence

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
