"""Hashes of users and sessions that are the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl

Hashes = npt.NDArray[np.uint64]


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


def mixed_bits(bits: Hashes) -> Hashes:
    """SplitMix64 of each 64 bits (Steele, Lea and Flood 2014), as `kernels.draws.mixed`."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
