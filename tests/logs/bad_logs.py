"""Two good logs, changed until they are bad, and the one line with which they are refused."""

from __future__ import annotations

import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs.read import read_log

GOOD = {
    "session": ["u3", "u3", "u3", "u4"],
    "event": [17, 17, 18, 1],
    "item": ["a", "b", "a", "b"],
    "chosen": [1, 0, 0, 1],
    "price": [1.0, 2.0, 3.0, 4.0],
}


NESTED = {
    "session": ["u3", "u3"],
    "event": [17, 18],
    "items": [["a", "b"], ["c"]],
    "chosen": ["a", None],
}


def refused(frame_or_path, message: str, **options) -> str:
    with pytest.raises(LogFormatError, match=message) as caught:
        read_log(frame_or_path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def long(**changes) -> pl.DataFrame:
    return pl.DataFrame({**GOOD, **changes}, strict=False)


def nested(**changes) -> pl.DataFrame:
    return pl.DataFrame({**NESTED, **changes}, strict=False)
