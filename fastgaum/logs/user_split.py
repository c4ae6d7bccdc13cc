"""Which part of a split a user falls into: a hash of the user's id and of the seed.

So a split depends neither on the order of sessions nor on the other users: a log that has grown
keeps it. Shares hold in expectation. A log so small that a part stays empty gives it the user whose
hash is nearest to the part's own, so that three users are enough for three parts; this too is free
of order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, as_given, require_whole

Hashes = npt.NDArray[np.uint64]
SplitArray = npt.NDArray[np.int8]
FRACTIONS = (0.5, 0.25, 0.25)
WITHIN_HALF = (0.75, 0.25, 0.0)
USER_RULES = ("user", "half", "other-half")
"""rules that split whole users by a seed"""


def hash_texts(texts: pl.Series) -> Hashes:
    """A 64-bit hash of each text's UTF-8 (BLAKE2b), the same on every machine; shape (n,)."""
    distinct = texts.unique()
    joined = b"".join(
        hashlib.blake2b(text.encode(), digest_size=8).digest() for text in distinct.to_list()
    )
    hashes = pl.Series(np.frombuffer(joined, dtype="<u8").astype(np.uint64))
    return texts.replace_strict(distinct, hashes, return_dtype=pl.UInt64).to_numpy()


def mix_hashes(hashes: Hashes, others: Hashes) -> Hashes:
    """One hash of two, each bit of which depends on all bits of both (SplitMix64); shape (n,)."""
    return mixed_bits(hashes + mixed_bits(others))


def mixed_bits(bits: Hashes) -> Hashes:
    """64 bits that look random of each 64 bits: SplitMix64 (Steele, Lea and Flood 2014), as
    `kernels.draws.mixed` of a single key."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def split_by_user(hashes: Hashes, seed: int, fractions: Sequence[float] = FRACTIONS) -> SplitArray:
    """Split of each session, shape (n_sessions,), by the hash of its user and the seed.

    Args:
        hashes: of each session's user, shape (n_sessions,).
        seed: another one gives another split.
        fractions: expected shares of users in train, validation and test.

    Raises:
        ConfigError: the shares do not sum to 1, or the seed is no whole number.
    """
    drawn, of_session = _drawn(hashes, seed)
    return _parts(drawn, require_shares(fractions))[of_session]


def split_by_half(hashes: Hashes, seed: int, other: bool = False) -> SplitArray:
    """Split of each session, shape (n_sessions,): one half of the users trains (three quarters of
    them) and validates, the rest is the test split.

    `other` swaps the halves: with the same seed, training and validation users of the two splits
    are each other's test users. The arguments are those of `split_by_user`."""
    drawn, of_session = _drawn(hashes, seed)
    if other:
        drawn = ~drawn
    parts = np.full(len(drawn), 2, np.int8)
    half = drawn < np.uint64(1 << 63)
    parts[half] = _parts(drawn[half] << np.uint64(1), WITHIN_HALF)
    return parts[of_session]


def split_by_rule(hashes: Hashes, rule: str, seed: int) -> SplitArray:
    """Split of each session, shape (n_sessions,), by one of USER_RULES."""
    if rule == "user":
        return split_by_user(hashes, seed)
    return split_by_half(hashes, seed, rule == "other-half")


def _drawn(hashes: Hashes, seed: int) -> tuple[Hashes, npt.NDArray[np.intp]]:
    """What the seed draws for each distinct user, and the user of each session."""
    require_whole("seed", seed)
    distinct, of_session = np.unique(hashes, return_inverse=True)
    of_seed = np.full(len(distinct), int(seed) % (1 << 64), np.uint64)
    return mix_hashes(distinct, of_seed), of_session


def _parts(drawn: Hashes, fractions: Sequence[float]) -> SplitArray:
    """Part of each distinct user: where its 64 bits, read as a number from 0 to 1, fall among the
    shares."""
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
    """Parts of n things in order, bounds rounded half up: n = 5 of (0.5, 0.25, 0.25) → [0, 0, 0, 1,
    2]."""
    bounds = np.floor(np.cumsum(require_shares(fractions)[:2]) * n + 0.5).astype(np.int64)
    return np.searchsorted(bounds, np.arange(n), side="right").astype(np.int8)


def shuffled_split(n: int, seed: int, fractions: Sequence[float] = FRACTIONS) -> SplitArray:
    """Split of n users of a log that is made, not read, shape (n,): the shares are exact, and the
    log keeps it."""
    return split_in_order(n, fractions)[np.random.default_rng(seed).permutation(n)]


def require_shares(fractions: Sequence[float]) -> tuple[float, ...]:
    """The shares of train, validation and test. Raises ConfigError unless they are three numbers
    that sum to 1."""
    shares = tuple(fractions) if isinstance(fractions, Sequence | np.ndarray) else (fractions,)
    numbers = all(isinstance(share, int | float) for share in shares)
    if not numbers or len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ConfigError(
            f"fractions are {', '.join(map(as_given, shares))}, three shares of train, validation "
            "and test that sum to 1 are required"
        )
    return shares
