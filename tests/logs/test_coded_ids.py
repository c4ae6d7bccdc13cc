"""Ids that are whole numbers, near each other or far apart, are the texts of those numbers."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.logs.columns import CodedIds

RANGES = {
    pl.Int8: (-(2**7), 2**7 - 1),
    pl.UInt8: (0, 2**8 - 1),
    pl.Int32: (-(2**31), 2**31 - 1),
    pl.Int64: (-(2**63), 2**63 - 1),
    pl.UInt64: (0, 2**64 - 1),
}


@given(st.data())
def test_codes_are_those_of_the_numbers_texts(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([*RANGES]))
    least, most = RANGES[dtype]
    # near one number, often the least or the most of the type; and anywhere
    centre = data.draw(st.sampled_from([least, most]) | st.integers(least, most))
    near = st.integers(max(least, centre - 3), min(most, centre + 3))
    values = data.draw(st.lists(near | st.integers(least, most), min_size=1, max_size=12))
    if data.draw(st.booleans()):
        values = data.draw(st.lists(near, min_size=3, max_size=12))
    coded = CodedIds.of(pl.Series("item", values, dtype=dtype), "item")
    assert coded.as_text().to_list() == [str(value) for value in values]
    assert coded.texts.n_unique() == len(coded.texts) == len(set(values))
