"""Splits of whole users into train, validation and test, and of sessions by time.

A user's part is a hash of its id and of the seed, free of the order of sessions and of other users.
Shares hold in expectation; an empty part gets the nearest user. By `half` the users of one half
train (three quarters) and validate, by `other-half` those of the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, require_known, require_whole
from fastgaum.logs.columns import show
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.hashes import Hashes, hash_texts, mix_hashes
from fastgaum.logs.log import TEST, SessionLog, require_log

SplitArray = npt.NDArray[np.int8]
FRACTIONS = (0.5, 0.25, 0.25)
WITHIN_HALF = (0.75, 0.25, 0.0)
USER_RULES = ("user", "half", "other-half")


def halves(log: SessionLog, seed: int = 0) -> tuple[SessionLog, SessionLog]:
    """Two logs that share no user, about a half of the users each, with all their sessions: to
    learn on one, and to judge among the users of the other. Raises ConfigError for a log of a
    single user."""
    require_log(log)
    first = split_users(log.user_hashes, seed, "half") != TEST
    if first.all() or not first.any():
        raise ConfigError(
            f"the log has {len(np.unique(log.user_hashes)):,} users, too few for two halves by the "
            f"seed {seed}: take another seed, or more users"
        )
    one, other = (slice_sessions(log, np.flatnonzero(rows)) for rows in (first, ~first))
    return one, other


def resplit(log: SessionLog, seed: int) -> SessionLog:
    """Return the log with a new split of whole users, 50/25/25, the same in every order of the
    sessions and in a log that has grown. Raises ConfigError."""
    return resplit_by(log, "user", seed)


def resplit_by(log: SessionLog, rule: str, seed: int) -> SessionLog:
    """Return the log split by one of USER_RULES: `half` and `other-half` of one seed share no
    training or validation user. Raises ConfigError."""
    require_log(log)
    require_known("rule", rule, USER_RULES)
    return log.with_split(split_users(log.user_hashes, seed, rule))


def split_users(hashes: Hashes, seed: int, rule: str = "user") -> SplitArray:
    """Split of each session, shape (n_sessions,), by one of USER_RULES; hashes: of each session's
    user, shape (n_sessions,). Raises ConfigError for no whole seed."""
    drawn, of_session = draw_users(hashes, seed)
    if rule == "user":
        return _parts(drawn, FRACTIONS)[of_session]
    if rule == "other-half":
        drawn = ~drawn
    parts = np.full(len(drawn), TEST, np.int8)
    half = drawn < np.uint64(1 << 63)
    parts[half] = _parts(drawn[half] << np.uint64(1), WITHIN_HALF)
    return parts[of_session]


def split_to_fit(hashes: Hashes, seed: int) -> SplitArray:
    """Three quarters of the users train, the others validate; as `split_users`."""
    drawn, of_session = draw_users(hashes, seed)
    return _parts(drawn, WITHIN_HALF)[of_session]


def draw_users(hashes: Hashes, seed: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """64 random bits of each user, (n_users,), and the user of each session; hashes: of each
    session's user, (n_sessions,). Raises ConfigError for no whole seed."""
    require_whole("seed", seed)
    distinct, of_session = np.unique(hashes, return_inverse=True)
    seeds = np.full(len(distinct), int(seed) % (1 << 64), np.uint64)
    return mix_hashes(distinct, seeds), of_session


def _parts(drawn: Hashes, fractions: Sequence[float]) -> SplitArray:
    """Part of each user: where its 64 bits, read as a number from 0 to 1, fall among the shares."""
    at = (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53
    bounds = np.array([0.0, fractions[0], fractions[0] + fractions[1], 1.0])
    if fractions[2] == 0:
        bounds[2] = 1.0
    parts = np.searchsorted(bounds[1:3], at, side="right").astype(np.int8)
    wanted = [part for part in range(3) if fractions[part] > 0][: len(at)]
    for part in wanted:
        sizes = np.bincount(parts, minlength=3)
        if not sizes[part]:
            away = np.maximum(bounds[part] - at, at - bounds[part + 1])
            spare = np.flatnonzero((sizes[parts] > 1) | ~np.isin(parts, wanted))
            parts[spare[np.lexsort((at[spare], away[spare]))[0]]] = part
    return parts


def split_in_order(n: int, fractions: Sequence[float] = FRACTIONS) -> SplitArray:
    """Parts of n things in order, bounds rounded half up: n = 5 → [0, 0, 0, 1, 2]."""
    bounds = np.floor(np.cumsum(fractions[:2]) * n + 0.5).astype(np.int64)
    return np.searchsorted(bounds, np.arange(n), side="right").astype(np.int8)


def shuffled_split(n: int, seed: int, fractions: Sequence[float] = FRACTIONS) -> SplitArray:
    """Split of n users of a log that is made, shape (n,): the shares are exact."""
    return split_in_order(n, fractions)[np.random.default_rng(seed).permutation(n)]


def split_by_time(log: SessionLog, first_order: pl.Series) -> SplitArray:
    """Split of each session, shape (n_sessions,), by the time of its first event, then the hash of
    its id. Raises LogFormatError if all sessions start at the same value."""
    if len(first_order) > 1 and first_order.n_unique() == 1:
        raise LogFormatError(
            "split='time' needs times that differ between sessions, every session starts at "
            f"{show(first_order[0])}: name a time column, --column event=NAME "
            "(columns={'event': 'NAME'}), or use --split-by user (split='user')"
        )
    split = np.empty(len(first_order), np.int8)
    times = first_order.rank("dense").to_numpy()
    split[np.lexsort((hash_texts(log.session_ids), times))] = split_in_order(len(first_order))
    return split
