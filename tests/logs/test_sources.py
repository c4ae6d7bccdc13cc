"""One rule for text and booleans in every source: the same log has one fingerprint, whether it is a
csv, a file with types, or a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fastgaum.baselines.registry import load_model, make_model
from fastgaum.errors import FastgaumError
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import read_log
from tests.logs.test_round_trip import WRITERS

ROWS = pl.DataFrame(
    {
        "session": ["a", "a", "b", "b"],
        "event": ["1", "1", "1", "1"],
        "item": ["7", "007", "7", "007"],
        "chosen": ["1", "0", "0", "1"],
        "user": ["01", "01", "1", "1"],
    }
)
KINDS = (".csv", ".parquet", ".arrow", ".ndjson")
VALUES: dict[str, list[Any]] = {
    "decimals": ["3.53", "4.10", "3.53", "12"],
    "exponents and signs": ["3.53e0", "+4.1", "-2", "1e2"],
    "whole numbers": ["3", "4", "3", "12"],
    "zip codes": ["02134", "10001", "02134", "10001"],
    "words": ["red", "7", "red", "blue"],
    "text of booleans": ["true", "false", "true", "false"],
    "booleans": [True, False, True, False],
    "booleans of R": ["TRUE", "FALSE", "TRUE", "FALSE"],
    "booleans of pandas": ["True", "False", "True", "False"],
    "gaps among words": ["red", None, "red", "blue"],
}


def fingerprints(folder: Path, rows: pl.DataFrame, **options: Any) -> set[str]:
    """Those of the log in each kind of file, and of frames of polars and pandas."""
    pandas = pytest.importorskip("pandas")
    as_objects = pandas.DataFrame(rows.to_dict(as_series=False), dtype=object)
    sources: list[Any] = [rows, rows.lazy(), as_objects]
    for kind in KINDS:
        WRITERS[kind](rows, folder / f"log{kind}")
        sources.append(folder / f"log{kind}")
    return {read_log(source, **options).fingerprint for source in sources}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_text_is_read_alike_in_every_source(tmp_path: Path, values: list[Any]) -> None:
    of_event = pl.Series([values[0], values[0], values[1], values[1]])
    rows = ROWS.with_columns(field=pl.Series(values), context=of_event)
    fields: dict[str, Any] = {"candidate_fields": ["field"], "context_fields": ["context"]}
    assert len(fingerprints(tmp_path, rows, **fields, columns={"user": "user"})) == 1


@pytest.mark.parametrize("kind", ["decimals", "zip codes", "booleans of R", "gaps among words"])
def test_a_table_is_read_alike_in_every_source(tmp_path: Path, kind: str) -> None:
    found = set()
    for suffix in KINDS:
        options: dict[str, Any] = {}
        for role, ids in (("item", ["7", "007"]), ("user", ["01", "1"])):
            options[f"{role}_table"] = file = tmp_path / f"{role}{suffix}"
            WRITERS[suffix](pl.DataFrame({role: ids, f"of_{role}": VALUES[kind][:2]}), file)
        found.add(read_log(ROWS, **options).fingerprint)
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["numbers", "booleans"])
def test_lists_of_text_are_numbers(tmp_path: Path, kind: str) -> None:
    """Of a nested log, in every file that has lists."""
    texts = {"numbers": [["3.5", "4"], ["1"]], "booleans": [["True", "false"], ["TRUE"]]}[kind]
    plain = {"numbers": [[3.5, 4], [1]], "booleans": [[1, 0], [1]]}[kind]
    rows = pl.DataFrame({"session": [1, 2], "items": [["x", "y"], ["z"]], "chosen": ["x", None]})
    wanted = read_log(rows.with_columns(p=pl.Series(plain)), candidate_fields=["p"])
    assert wanted.columns["p"].holds == "number"
    rows = rows.with_columns(p=pl.Series(texts))
    for suffix in (".parquet", ".ndjson"):
        WRITERS[suffix](rows, tmp_path / f"n{suffix}")
        found = read_log(tmp_path / f"n{suffix}", candidate_fields=["p"])
        assert found.fingerprint == wanted.fingerprint


def test_a_categorical_type_keeps_categories(tmp_path: Path) -> None:
    """Codes that are written as numbers stay apart, in a file that is made of the log too."""
    codes = pl.Series(["02134", "2134", "02134", None], dtype=pl.Categorical)
    log = read_log(ROWS.with_columns(zip=codes), candidate_fields=["zip"])
    assert log.columns["zip"].categories.to_list() == ["02134", "2134"]
    to_frame(log).write_parquet(tmp_path / "again.parquet")
    again = read_log(tmp_path / "again.parquet", candidate_fields=["zip"])
    assert again.columns["zip"].categories.to_list() == ["02134", "2134"]


def test_a_model_reads_a_part_as_it_read_the_whole(tmp_path: Path) -> None:
    """Sizes are categories because of one M; a display of 38 and 40 has the same ones."""
    n = 60
    rows = pl.DataFrame(
        {
            "session": [f"s{i // 2}" for i in range(2 * n)],
            "event": 0,
            "item": [f"i{i % 6}" for i in range(2 * n)],
            "chosen": [1, 0] * n,
            "size": ["38", "M", "40", "L"] * (n // 2),
            "flag": [*["True", "True", "unknown", "unknown"] * (n // 2)],
        }
    )
    log = read_log(rows, candidate_fields=["size"], context_fields=["flag"])
    model = make_model("logit", {})
    model.fit(log)
    model.save(tmp_path / "model")
    model = load_model(tmp_path / "model")
    part = rows.filter(pl.col("size").is_in(["38", "40"]) & (pl.col("session").is_in(["s0", "s2"])))
    assert set(part["size"]) <= {"38", "40"}
    probability = model.predict(part)["probability"]
    assert probability.is_finite().all()
    assert model.reading is not None
    numbers = read_log(part, candidate_fields=["size"], context_fields=["flag"])
    assert numbers.columns["size"].holds == "number"
    with pytest.raises(FastgaumError, match="categories"):
        model.predict(numbers)
