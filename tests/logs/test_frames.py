"""Frames in memory: of any library, the log of the file that they would be written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import load, read_log
from fastgaum.logs.synthetic import synthesise

ABSENT = "pandas and pyarrow are not installed: `pip install .[frames]`"


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """A long log with ids of text, missing text, and a number."""
    frame = to_frame(synthesise(200, preset="sample")[0]).drop("event_label", strict=False)
    brand = pl.when(pl.col("item").hash(0) % 3 > 0).then("item")
    return frame.with_columns(brand=brand, price=pl.col("item").hash(1) % 7 / 4)


@pytest.fixture(scope="module")
def file(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "log.parquet"
    frame.write_parquet(path)
    return path


class Foreign:
    """A frame of a library that has nothing but the interface."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("role", ["event", "user", "chosen"])
def test_periods_and_intervals_of_pandas_are_refused(role: str) -> None:
    pandas = pytest.importorskip("pandas", reason=ABSENT)
    pytest.importorskip("pyarrow", reason=ABSENT)
    frame = pandas.DataFrame({"session": [1], "event": [1], "item": ["a"], "chosen": [1]})
    for values in (pandas.period_range("2025-01", periods=1), pandas.cut([1], [0, 2])):
        with pytest.raises(LogFormatError, match=f"column '{role}' holds Extension"):
            read_log(frame.assign(**{role: values}))


def pandas_of(frame: pl.DataFrame) -> Any:
    pytest.importorskip("pyarrow", reason=ABSENT)
    return pytest.importorskip("pandas", reason=ABSENT).DataFrame(frame.to_dict(as_series=False))


def pyarrow_of(frame: pl.DataFrame) -> Any:
    pytest.importorskip("pyarrow", reason=ABSENT)
    return frame.to_arrow()


FRAMES: dict[str, Callable[[pl.DataFrame], Any]] = {
    "polars": lambda frame: frame,
    "polars lazy": pl.DataFrame.lazy,
    "foreign": Foreign,
    "pandas": pandas_of,
    "pandas with an index of columns": lambda f: pandas_of(f).set_index(["session", "event"]),
    "pandas with some rows": lambda f: pandas_of(f.vstack(f[:3]))[: f.height],
    "pandas of odd rows": lambda f: pandas_of(f).set_axis(range(3, 3 + f.height)),
    "pyarrow": pyarrow_of,
    "pyarrow reader": lambda frame: pyarrow_of(frame).to_reader(),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_is_the_log_of_its_file(frame: pl.DataFrame, file: Path, kind: str) -> None:
    fields = {"candidate_fields": ["brand", "price"]}
    log = read_log(FRAMES[kind](frame), **fields, name="shop")
    assert log.fingerprint == read_log(file, **fields).fingerprint
    assert log.name == "shop"
    assert log.columns["brand"].categories.len() > 1
    assert (log.columns["brand"].values == -1).any()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"session": [1]}, r"got dict: .*polars\.DataFrame\(…\) makes a frame"),
        (pl.DataFrame(), "no session column .*the columns are none"),
        (pl.Series([1]), r"the polars\.Series cannot be read as a frame of columns"),
        (pl.LazyFrame({"a": [1]}).select("b"), r"the polars\.LazyFrame cannot be read .*\"b\""),
    ],
    ids=["dictionary", "empty", "series", "lazy"],
)
def test_what_is_no_frame_is_refused(source: Any, says: str) -> None:
    with pytest.raises(LogFormatError, match=says):
        read_log(source)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda pd: pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (lambda pd: pd.DataFrame({"session": [1, "x"]}), "for column session"),
        (lambda pd: pd.DataFrame({"session": [object()]}), "for column session"),
    ],
)
def test_frames_of_pandas_that_are_refused(make: Callable[[Any], Any], says: str) -> None:
    pytest.importorskip("pyarrow", reason=ABSENT)
    bad = make(pytest.importorskip("pandas", reason=ABSENT))
    with pytest.raises(LogFormatError, match=rf"pandas\.DataFrame cannot be read.*{says}"):
        read_log(bad)


def test_a_frame_of_a_library_that_lacks_another() -> None:
    class Lacking:
        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
            raise ImportError("Import pyarrow failed")

    with pytest.raises(LogFormatError, match=r"Lacking .*absent.*`pip install pyarrow`"):
        read_log(Lacking())


def test_a_frame_has_no_name_of_the_registry(frame: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match=r"got a polars\.DataFrame.*fastgaum\.read_log"):
        load(frame)  # type: ignore[arg-type]
