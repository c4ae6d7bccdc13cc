"""Sessions in memory whose numbers wait until a batch is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgaum import threads
from fastgaum.arrays import FloatArray
from fastgaum.features.numbers import Moments, varying_columns
from fastgaum.features.sessions import (
    EncodedSessions,
    Selection,
    cut_by_candidates,
    select_sessions,
)
from fastgaum.kernels.candidate_formulas import relate_to_sets, standardise_rows

if TYPE_CHECKING:
    from fastgaum.features.encoder import Encoder
    from fastgaum.features.space import FeatureSpace


ENCODED_AT_ONCE = 1 << 13
"""candidates whose numbers one thread makes at a time"""


@dataclass(frozen=True, kw_only=True)
class CompactSessions(EncodedSessions):
    """Encoded sessions whose numbers are made when a batch is: `assemble` makes of them the batches
    that `EncodedSessions` give. Their own `numbers` are the base numbers, not standardised: of a
    candidate's numbers nearly half are others less their mean over the display set."""

    varying: npt.NDArray[np.int64]
    """columns that also come less their mean over the display set, after all others"""
    mean: FloatArray
    """what numbers are standardised by, shape (n_numbers,)"""
    scale: FloatArray

    @classmethod
    def of(
        cls,
        encoded: EncodedSessions,
        space: FeatureSpace,
        blocks: Sequence[Moments],
        moments: Moments | None,
    ) -> CompactSessions:
        """Sessions with the numbers that `write_base` wrote, of which it returned the blocks. With
        `moments` they are counted there, and standardised by them, not by the space's own."""
        mean, scale = space.mean, space.scale
        if moments is not None:
            for block in blocks:
                moments.combine(block)
            if moments.count:
                mean, scale = moments.mean.astype(np.float32), moments.scale()
        varying = varying_columns(space.number_names, space.set_context)
        return cls(**vars(encoded), varying=varying, mean=mean, scale=scale)

    def numbers_of(self, part: Selection) -> FloatArray:
        """Numbers of the candidates of some of the sessions."""
        numbers = np.empty((len(part.candidates), len(self.mean)), np.float32)
        ends = part.display_offsets[part.session_offsets]

        def complete(run: slice) -> None:
            first, last = ends[run.start], ends[run.stop]
            events = part.session_offsets[[run.start, run.stop]]
            displays = part.display_offsets[events[0] : events[1] + 1] - first
            block = numbers[first:last]
            block[:, : self.numbers.shape[1]] = self.numbers[part.candidates[first:last]]
            relate_to_sets(displays, self.varying, 0, block)
            standardise_rows(self.mean, self.scale, block)

        threads.run(complete, [(run,) for run in cut_by_candidates(np.diff(ends), ENCODED_AT_ONCE)])
        return numbers

    def whole(self) -> EncodedSessions:
        """The same sessions with all of their numbers."""
        parts = {one.name: getattr(self, one.name) for one in fields(EncodedSessions)}
        everything = select_sessions(self, np.arange(self.n_sessions, dtype=np.int32))
        return EncodedSessions(**parts | {"numbers": self.numbers_of(everything)})


def write_base(
    encoded: EncodedSessions, encoder: Encoder, part: Selection, candidates: slice
) -> Moments:
    """Write the base numbers of a chunk to its place, not standardised; returns what there is to
    count of all of its numbers."""
    numbers, block = (
        np.empty((len(part.candidates), encoder.space.n_numbers), np.float32),
        Moments(),
    )
    encoder.write_numbers(part, numbers)
    encoded.numbers[candidates] = numbers[:, : encoded.numbers.shape[1]]
    if len(numbers):
        block.add(numbers)
    return block
