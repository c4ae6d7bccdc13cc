"""What this machine can do at most, probed in about a second: matrix products and random rows.

A kernel cannot be faster than its arithmetic at the peak of a matrix product, nor than its rows at
the speed at which rows come from memory in random order. Both are the best of several short tries
with the threads in use."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from fastgaum import threads
from fastgaum.kernels._jit import Array, jit_fast

ROW = 64
"""floats of a gathered row: 256 bytes, four cache lines"""
TABLE_ROWS = 2**20
"""rows of the gathered table: 256 MiB, more than a last-level cache holds"""
GATHERS = 2**18
"""rows gathered in one try"""
SIDES = (768, 1536)
"""sides of the square matrices that are multiplied"""
LEAST_TRIES, SECONDS = 3, 0.15
"""tries of one kind: so many at least, and more while so much time has not passed"""


@dataclass(frozen=True)
class Ceilings:
    """Probed peaks."""

    sgemm_gflops: float
    """float32 matrix product, 10⁹ operations per second, the faster of torch's BLAS and that of the
    kernels"""
    gather_gbps: float
    """rows of 64 floats read in random order, 10⁹ bytes per second"""

    def to_dict(self) -> dict[str, float]:
        """The entry of the JSON object."""
        return asdict(self)


def probe() -> Ceilings:
    """Probe both ceilings with the threads in use."""
    return Ceilings(sgemm_gflops=sgemm() / 1e9, gather_gbps=gather() / 1e9)


def sgemm(sides: tuple[int, ...] = SIDES) -> float:
    """Operations per second of the fastest float32 product of square matrices.

    torch shares one product over its threads; kernels call their own BLAS on one product per
    thread. Which is faster differs between machines, and a ceiling is the higher."""
    return max(
        2.0 * side**3 * rate for side in sides for rate in (_torch_rate(side), _kernel_rate(side))
    )


def gather(table_rows: int = TABLE_ROWS, gathers: int = GATHERS) -> float:
    """Bytes per second of reading rows of 64 floats in random order."""
    # ones, not zeros: pages that were never written are all one page
    table = np.ones((table_rows, ROW), dtype=np.float32)
    rows = np.random.default_rng(0).integers(0, table_rows, gathers, dtype=np.int32)
    parts = [
        (table, part, np.zeros(ROW, np.float32))
        for part in np.array_split(rows, 8 * threads.get_threads())
    ]
    return table.itemsize * ROW * gathers * _best_rate(lambda: threads.run(sum_rows, parts))


def _torch_rate(side: int) -> float:
    """Products per second."""
    a, b, out = (torch.ones(side, side) for _ in range(3))
    return _best_rate(lambda: torch.mm(a, b, out=out))


def _kernel_rate(side: int) -> float:
    """Products per second, of all threads together."""
    n = threads.get_threads()
    ones = np.ones((side, side), dtype=np.float32)
    parts = [(ones, ones, np.empty_like(ones)) for _ in range(n)]
    return n * _best_rate(lambda: threads.run(product, parts))


def _best_rate(call: Callable[[], object]) -> float:
    """Calls per second of the fastest try; one before them compiles and warms the caches."""
    call()
    best, tries, first = float("inf"), 0, time.perf_counter()
    while tries < LEAST_TRIES or time.perf_counter() - first < SECONDS:
        tries += 1
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return 1.0 / best


@jit_fast
def product(a: Array, b: Array, out: Array) -> None:
    """Write the matrix product."""
    np.dot(a, b, out)


@jit_fast
def sum_rows(table: Array, rows: Array, total: Array) -> None:
    """Add the named rows to total (64,): every byte is read, and what is written stays in the
    nearest cache."""
    for row in rows:
        for j in range(ROW):
            total[j] += table[row, j]
