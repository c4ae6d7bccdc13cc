"""Hashes of users and sessions that are the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import Float64Array

Hashes = npt.NDArray[np.uint64]
_OF_SAMPLES = np.uint64(0x5A3D_1E5C)
"""splits and folds of users are by the same hashes: samples are to be free of them"""


def hash_texts(texts: pl.Series) -> Hashes:
    """A 64-bit hash of each text's UTF-8 (BLAKE2b); shape (n,)."""
    distinct = texts.unique()
    joined = b"".join(
        hashlib.blake2b(text.encode(), digest_size=8).digest() for text in distinct.to_list()
    )
    hashes = pl.Series(np.frombuffer(joined, dtype="<u8").astype(np.uint64))
    return texts.replace_strict(distinct, hashes, return_dtype=pl.UInt64).to_numpy()


def mix_hashes(hashes: Hashes, others: Hashes) -> Hashes:
    """One hash of two, each bit of which depends on all bits of both (SplitMix64); shape (n,)."""
    return mixed_bits(hashes + mixed_bits(others))


def sampling_numbers(hashes: Hashes) -> Float64Array:
    """The permanent random number of each user, from 0 to below 1, by the hash of its id alone
    (Ohlsson, "Coordination of samples using permanent random numbers", 1995); shape (n,). Users
    below a share are a sample, which holds that of any smaller share."""
    bits = mixed_bits(hashes ^ _OF_SAMPLES) >> np.uint64(11)
    return np.asarray(bits.astype(np.float64) * 2.0**-53)


def find_shared(of_parts: Sequence[Hashes]) -> tuple[int, int, np.uint64] | None:
    """Two parts that have the same hash, and this hash; None if no two have one. Those of a part
    differ."""
    part = np.repeat(np.arange(len(of_parts)), [len(hashes) for hashes in of_parts])
    hashes = np.concatenate(of_parts)
    order = np.argsort(hashes, kind="stable")
    twice = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if not len(twice):
        return None
    one, other = order[twice[0] : twice[0] + 2]
    return int(part[one]), int(part[other]), hashes[one]


def mixed_bits(bits: Hashes) -> Hashes:
    """SplitMix64 of each 64 bits (Steele, Lea and Flood 2014), as `kernels.draws.mixed`."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    # in place: of a large log each copy is a page fault for every page
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits
