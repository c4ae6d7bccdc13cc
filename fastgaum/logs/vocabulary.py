"""The numbering of a column's texts: items, or the values of a field."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import IntArray

NO_CODE = -1
"""code of a text that is missing, or not in the vocabulary"""
MISSING = "\0missing"
"""text of a missing value, in the vocabulary of a field whose training has some"""


@dataclass(frozen=True)
class Vocabulary:
    """Distinct texts and their codes 0, 1, 2 …

    >>> fruit = Vocabulary.of(pl.Series(["pear", "fig", None, "pear"]))
    >>> fruit.codes(pl.Series(["pear", "plum", None, "fig"])).tolist()
    [1, -1, -1, 0]
    """

    texts: pl.Series
    """the text of each code, distinct and without gaps, length n"""

    @classmethod
    def of(cls, texts: pl.Series) -> Vocabulary:
        """The distinct texts of a column in sorted order: codes do not depend on the order of
        rows."""
        return cls(texts.drop_nulls().unique().sort())

    @cached_property
    def _table(self) -> pl.DataFrame:
        codes = pl.Series("code", np.arange(len(self.texts), dtype=np.int32))
        return pl.DataFrame([self.texts.alias("text"), codes])

    def codes(self, texts: pl.Series) -> IntArray:
        """Code of each text, -1 for a gap or an unknown text; shape (len(texts),)."""
        # a cast to Enum makes a table of all texts each time
        asked = texts.cast(pl.String).alias("text").to_frame()
        found = asked.join(self._table, on="text", how="left", maintain_order="left")["code"]
        return found.fill_null(NO_CODE).to_numpy().astype(np.int32, copy=False)

    def codes_from(self, other: Vocabulary) -> IntArray:
        """This vocabulary's code of each code of another one, and for code -1, at the end, that of
        `MISSING`; shape (len(other) + 1,): `ours.codes_from(theirs)[their_codes]`."""
        return np.append(self.codes(other.texts), self.codes(pl.Series([MISSING])))

    def decode(self, codes: npt.NDArray[np.integer]) -> pl.Series:
        """Text of each code, a gap for -1; length len(codes)."""
        return self.texts.gather(pl.Series(codes).replace(NO_CODE, None))
