"""Vocabulary: the one numbering of texts (items, or the values of a field), and where the feature
ids of items begin.

An item has up to three numbers. Its *code* is its place among the log's items (`log.items` holds
codes). Its *row* is its place among the items that training displayed: a feature space's own
vocabulary. Its *feature id* is its row plus `N_RESERVED`, because the first ids have a meaning of
their own. A vocabulary turns the codes of one numbering into those of another (`codes_from`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

NO_CLICK_ID = 0
"""feature id of "no click" in a history"""
UNKNOWN_ITEM_ID = 1
"""feature id of every item that training did not display"""
N_RESERVED = 2
"""feature ids before the first item's: the item of row r has the feature id r + N_RESERVED"""
NO_CODE = -1
"""code of a text that is missing, or not in the vocabulary"""

Codes = npt.NDArray[np.int32]


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

    @classmethod
    def union(cls, parts: Iterable[Vocabulary]) -> Vocabulary:
        """The texts of all parts, sorted; at least one part."""
        return cls.of(pl.concat([part.texts.rename("") for part in parts]))

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.texts)

    def codes(self, texts: pl.Series) -> Codes:
        """Code of each text, -1 for a gap or a text that is not in the vocabulary; shape
        (len(texts),)."""
        found = texts.cast(pl.Enum(self.texts), strict=False).to_physical()
        return found.cast(pl.Int32).fill_null(NO_CODE).to_numpy().astype(np.int32, copy=False)

    def codes_from(self, other: Vocabulary) -> Codes:
        """This vocabulary's code of each code of another one; shape (len(other) + 1,).

        The last entry is -1 and belongs to code -1, so that an array of codes is turned by
        indexing: `ours.codes_from(theirs)[their_codes]`."""
        return np.append(self.codes(other.texts), np.int32(NO_CODE))

    def decode(self, codes: npt.NDArray[np.integer]) -> pl.Series:
        """Text of each code, a gap for -1; length len(codes)."""
        return self.texts.gather(pl.Series(codes).replace(NO_CODE, None))
