"""Share: the part of a whole that one of several processes takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastgaum.logs.log import IntArray


@dataclass(frozen=True)
class Share:
    """The share of process `rank` of `size`; shares of one whole are ranges side by side, as equal
    as they can be."""

    rank: int = 0
    size: int = 1

    def span(self, n: int) -> tuple[int, int]:
        """First and last + 1 of this share of n things.

        >>> [Share(rank, 3).span(7) for rank in range(3)]
        [(0, 2), (2, 4), (4, 7)]
        """
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def of(self, things: IntArray) -> IntArray:
        """This share of an array."""
        first, last = self.span(len(things))
        return things[first:last]


WHOLE = Share()


def within(positions: IntArray, first: int, last: int) -> IntArray:
    """Those positions that lie in a range, in their order."""
    return positions[np.logical_and(positions >= first, positions < last)]
