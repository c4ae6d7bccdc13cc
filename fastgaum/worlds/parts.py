"""What a call asks of users of one or several learned worlds, part by part, on all threads.

A population says what there is to do as `Work`. Members of a set have theirs done together: each
has few users, and one after the other would let threads wait for the last part of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fastgaum import threads
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import FloatArray, IntArray, Response

PART = 256
"""users per part at most: a cut that depends on the number of users alone"""


@dataclass(frozen=True)
class Work:
    """What one population has to do."""

    part: Callable[[int, int], None]
    """does it for users first to last − 1"""
    cuts: list[tuple[int, int]]
    """the parts"""
    finish: Callable[[], None]
    """does what is left when all parts are done"""


def do(works: Sequence[Work]) -> None:
    """Do the parts of all populations on all threads, then what is left of each."""

    def do_part(work: Work, first: int, last: int) -> None:
        work.part(first, last)

    threads.run(do_part, [(work, *cut) for work in works for cut in work.cuts])
    for work in works:
        work.finish()


def cuts_of(n: int) -> list[tuple[int, int]]:
    """n users in parts of nearly one size, none above `PART`: a small last part would let a thread
    wait."""
    n_parts = -(-n // PART)
    ends = [n * part // n_parts for part in range(n_parts + 1)] if n else []
    return list(pairwise(ends))


def no_choices(n: int) -> Response:
    """The response of n users who choose nothing, for a step to write to."""
    return Response(np.full(n, -1, np.int32), np.full(n, -1, np.int32), np.zeros(n, np.float32))


class Buffers:
    """What a step writes on its way, for n slates of one length."""

    def __init__(self, catalogue: Catalogue, n: int, k: int) -> None:
        n_rows = 1 if catalogue.position_column < 0 else 2
        n_numbers = catalogue.space.n_numbers
        self.rows: IntArray = np.full((n, k, n_rows), -1, np.int32)
        self.numbers: FloatArray = np.empty((n, k, n_numbers), np.float32)
        self.scores: FloatArray = np.empty((n, k), np.float32)
        self.probs: FloatArray = np.empty((n, k), np.float32)
        self.none: FloatArray = np.empty(n, np.float32)
        self.chosen: IntArray = np.empty((n, 1, n_rows), np.int32)
        self.chosen_numbers: FloatArray = np.empty((n, 1, n_numbers), np.float32)
