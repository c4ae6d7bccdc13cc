"""Numbers as networks read them: standardised, and cut into pieces.

Cut at its training quantiles b₀ < b₁ < … a number is also read as the share of each piece below it,
(x − b_{t−1}) / (b_t − b_{t−1}) within 0 and 1: a linear map of it bends at the quantiles (Gorishniy
et al., "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from fastgaum.arrays import BoolArray, Float64Array, FloatArray, LongArray
from fastgaum.kernels.candidate_formulas import encode_rows

MOST = np.finfo(np.float32).max
BEND = 3.0
"""of a robust number, in interquartile ranges"""
FEWEST_CUTS = 3
"""distinct quantiles from which a number is cut: two are the ends of a line"""


@dataclass
class Moments:
    """Mean, sum of squares, least and most of each column (Chan et al. 1979)."""

    count: int = 0
    mean: Float64Array = field(default_factory=lambda: np.zeros(0))
    squares: Float64Array = field(default_factory=lambda: np.zeros(0))
    least: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    most: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, numbers: FloatArray) -> None:
        """Count a block, (n, n_columns)."""
        if len(numbers):
            mean = numbers.mean(0, dtype=np.float64)
            squares = np.square(numbers - mean).sum(0)
            self.combine(Moments(len(numbers), mean, squares, numbers.min(0), numbers.max(0)))

    def combine(self, block: Moments) -> None:
        """Count what another has counted."""
        if block.count == 0:
            return
        if self.count == 0:
            vars(self).update(vars(block))
            return
        shift, total = block.mean - self.mean, self.count + block.count
        self.mean = self.mean + shift * (block.count / total)
        between = shift**2 * (self.count * block.count / total)
        self.squares = self.squares + block.squares + between
        self.least = np.minimum(self.least, block.least)
        self.most = np.maximum(self.most, block.most)
        self.count = total

    def scale(self) -> FloatArray:
        """Standard deviation of each column, 1 where it is 0: a rounding of its largest value."""
        scale = np.sqrt(self.squares / max(self.count, 1)).astype(np.float32)
        largest = np.maximum(np.abs(self.least), np.abs(self.most)) if self.count else scale
        return np.where(scale > 1e-6 * np.minimum(largest, 1), scale, np.float32(1))


@dataclass(frozen=True)
class NumberCode:
    """A number of networks is a raw number less `start`, over `scale`, within `least` and
    `most`."""

    columns: LongArray
    """the raw number's column, shape (n_numbers,), as all others"""
    start: FloatArray
    scale: FloatArray
    """above 0"""
    least: FloatArray
    most: FloatArray
    bend: FloatArray
    """a number x is read as x / √(1 + (x / bend)²), which stays within ± bend; 0: as it is"""

    @property
    def n_numbers(self) -> int:
        """How many numbers networks read."""
        return len(self.columns)

    def of(self, which: LongArray | BoolArray) -> NumberCode:
        """The code of some of the numbers."""
        return NumberCode(*(getattr(self, one.name)[which] for one in fields(NumberCode)))

    def write(self, raw: FloatArray, numbers: FloatArray) -> None:
        """Write raw numbers, (n, n_raw), as networks read them, (n, n_numbers)."""
        encode_rows(
            raw, self.columns, self.start, self.scale, self.least, self.most, self.bend, numbers
        )


def standardised(
    moments: Moments, n_raw: int, own: Sequence[int] | LongArray | None = None
) -> NumberCode:
    """Standard deviations from the training mean of n_raw numbers; nothing counted: as they are.
    `own`: columns that the log has, in units of any size; None: all. Others are made of rounded
    numbers: below 1e-6 they are rounding."""
    mean, scale = np.zeros(n_raw, np.float32), np.ones(n_raw, np.float32)
    if moments.count:
        mean, scale = moments.mean.astype(np.float32), moments.scale()
        if own is not None:
            scale[~np.isin(np.arange(n_raw), own) & (scale <= 1e-6)] = 1
    bound = np.full(n_raw, MOST, np.float32)
    return NumberCode(np.arange(n_raw), mean, scale, -bound, bound, np.zeros(n_raw, np.float32))


def made_robust(code: NumberCode, raw: FloatArray, columns: Sequence[int]) -> NumberCode:
    """A code of the same numbers, of which those at `columns` are centred and scaled by the median
    and quartiles of `raw`, (n, n_raw), and bent, so that no number far from the others has weight
    without bound (Holzmüller et al., "Better by Default", NeurIPS 2024). Where the quartiles are
    equal, half the range is the scale; a number that never varies stays as it was."""
    first, middle, third = np.quantile(raw, (0.25, 0.5, 0.75), axis=0).astype(np.float32)
    spread, half = third - first, (raw.max(0) - raw.min(0)) / 2
    # in the unit of the deviation: what is below a millionth of it is rounding
    scale = np.where(spread > 1e-6 * code.scale, spread, half)
    varies = (scale > 1e-6 * code.scale) & np.isin(np.arange(len(scale)), columns)
    return replace(
        code,
        start=np.where(varies, middle, code.start),
        scale=np.where(varies, scale, code.scale).astype(np.float32),
        bend=np.where(varies, np.float32(BEND), np.float32(0)),
    )


def add_pieces(
    code: NumberCode, raw: FloatArray, n_pieces: int, columns: Sequence[int]
) -> NumberCode:
    """A code, and the numbers of `columns` once more, each cut at its quantiles in `raw`, (n,
    n_raw), into n_pieces at most, of mean 0; one of few values is not."""
    if not n_pieces or not len(raw):
        return code
    pieces = [_pieces(raw[:, at], at, n_pieces) for at in columns]
    return _joined([code, *(one for one in pieces if one is not None)])


def signed_last(
    code: NumberCode,
    raw: FloatArray,
    n_pieces: int,
    columns: Sequence[int],
    left: Sequence[int],
) -> NumberCode:
    """A code without the numbers of the columns `left`, and with those of `columns` last, one
    column after another, each as it is and then cut into n_pieces at most by `raw`, (n, n_raw)."""
    parts = [code.of(~np.isin(code.columns, left))]
    for at in columns:
        alone = code.of(np.flatnonzero(code.columns == at)[:1])
        parts.append(add_pieces(alone, raw, n_pieces, [at]))
    return _joined(parts)


def _joined(parts: Sequence[NumberCode]) -> NumberCode:
    names = [one.name for one in fields(NumberCode)]
    return NumberCode(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _pieces(values: FloatArray, column: int, n_pieces: int) -> NumberCode | None:
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, n_pieces + 1)).astype(np.float32))
    if len(cuts) < FEWEST_CUTS:
        return None
    start, scale = cuts[:-1], np.diff(cuts)
    share = np.clip((values[:, None] - start) / scale, 0, 1).mean(0)
    columns = np.full(len(start), column)
    unbent = np.zeros(len(start), np.float32)
    return NumberCode(columns, start + share * scale, scale, -share, 1 - share, unbent)
