"""The most that this machine can do: the best of several short tries of matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from fastgaum import threads
from fastgaum.kernels._jit import Array, jit_fast

SIDES = (768, 1536)
LEAST_TRIES, SECONDS = 3, 0.15
"""tries of one kind: so many at least, and more while so much time has not passed"""


def sgemm(sides: tuple[int, ...] = SIDES) -> float:
    """Operations per second of the fastest float32 product of square matrices: torch shares one
    product over its threads, kernels call their own BLAS on one product per thread."""
    return max(
        2.0 * side**3 * rate for side in sides for rate in (_torch_rate(side), _kernel_rate(side))
    )


def _torch_rate(side: int) -> float:
    a, b, out = (torch.ones(side, side) for _ in range(3))
    return _best_rate(lambda: torch.mm(a, b, out=out))


def _kernel_rate(side: int) -> float:
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
    np.dot(a, b, out)
