"""`fastgaum predict` gives back the rows that it was given, with columns beside them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fastgaum.baselines.registry import load_model
from fastgaum.cli.app import main

MADE = ["known", "utility", "probability", "no_click_probability", "trained_on"]


@pytest.fixture(scope="module")
def export() -> pl.DataFrame:
    """A messy export: rows of several users in no order, times with offsets, a column that
    nobody reads, an item in two rows."""
    rows = []
    for visit in range(60):
        for display in range(2):
            at = f"2024-03-30T{22 + display}:{visit:02}:46+01:00"
            clicked = (visit + display) % 4
            rows += [
                (
                    f"café-{visit}",
                    at,
                    f"i{(visit + place) % 9}",
                    int(place == clicked),
                    f"{place}.5",
                )
                for place in range(4)
            ]
    frame = pl.DataFrame(rows, ["visit", "at", "item", "clicked", "price"], orient="row")
    frame = frame.with_columns(note=pl.lit(" as it is; "), code=pl.lit("007"))
    frame = pl.concat([frame, frame.filter(pl.col("visit") == "café-3")])
    return frame.sample(fraction=1, shuffle=True, seed=2).with_columns(pl.col("clicked"))


OPTIONS = [
    *("--column", "session=visit", "--column", "event=at", "--column", "chosen=clicked"),
    *("--candidate-field", "price"),
]


@pytest.fixture(scope="module")
def run(export: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messy")
    export.write_csv(folder / "log.csv", separator=";")
    argv = ["train", str(folder / "log.csv"), "-o", str(folder / "run"), "--preset", "logit"]
    assert main([*argv, *OPTIONS]) == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("kind", "suffix"), [(".csv", ".csv"), (".csv.gz", ".parquet"), (".ndjson", ".csv")]
)
def test_rows_order_columns_and_clock_are_those_of_the_file(
    run: Path, export: pl.DataFrame, tmp_path: Path, kind: str, suffix: str
) -> None:
    log, out = tmp_path / f"log{kind}", tmp_path / f"out{suffix}"
    if kind == ".ndjson":
        export = export.with_columns(pl.col("price").cast(pl.Float64))
        export.write_ndjson(log)
    elif kind == ".csv":
        export.write_csv(log, separator=";")
    else:
        log.write_bytes(gzip.compress(export.write_csv(separator=";").encode()))
    assert main(["predict", str(run), str(log), "-o", str(out)]) == 0
    found = pl.read_csv(out, infer_schema=False) if suffix == ".csv" else pl.read_parquet(out)
    assert found.columns == [*export.columns, *MADE]
    kept = found.select(export.columns)
    assert kept.cast(pl.String).equals(export.cast(pl.String))
    if suffix == ".csv" and kind == ".csv":
        # text stays text, letter by letter
        assert out.read_text().splitlines()[1].startswith(",".join(_quoted(export.row(0))))
    events = found.unique(["visit", "at", "item"]).group_by("visit", "at")
    total = pl.col("probability").cast(pl.Float64).sum() + 0
    assert (events.agg(total)["probability"] - 1).abs().max() < 1e-4


def _quoted(row: tuple[object, ...]) -> list[str]:
    return [f'"{one}"' if "," in str(one) else str(one) for one in row]


def test_it_is_what_predict_does_with_a_frame(
    trained: Path, log_file: Path, tmp_path: Path
) -> None:
    frame = pl.read_parquet(log_file).sample(fraction=1, shuffle=True, seed=3)
    frame.write_parquet(tmp_path / "log.parquet")
    out, facts = tmp_path / "out.parquet", tmp_path / "facts.json"
    argv = ["predict", str(trained), str(tmp_path / "log.parquet"), "-o"]
    assert main([*argv, str(out), "--json", str(facts)]) == 0
    whole = load_model(trained).predict(frame)
    assert pl.read_parquet(out).equals(whole)
    assert json.loads(facts.read_text())["rows"] == frame.height
    # of a split, its rows
    assert main([*argv, str(tmp_path / "test.parquet"), "--split", "test"]) == 0
    test = pl.read_parquet(tmp_path / "test.parquet")
    assert_frame_equal(test, whole.filter(pl.col("split") == "test"), abs_tol=1e-6)


def test_rows_of_training_users_are_marked(
    trained: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they read depends on the rows: an order, or a session that is left out."""
    frame = pl.read_parquet(log_file)
    found = load_model(trained).predict(frame)
    assert found["trained_on"].equals((frame["split"] == "train").alias("trained_on"))
    last = pl.col("session") == frame.filter(pl.col("split") == "train")["session"][-1]
    for name, part in (("less", frame.filter(~last)), ("turned", frame.reverse())):
        part.write_parquet(tmp_path / f"{name}.parquet")
        argv = ["evaluate", str(trained), str(tmp_path / f"{name}.parquet")]
        for split in ("train", "all", "validation"):
            capsys.readouterr()
            assert main([*argv, "--split", split]) == 0
            noted = "is not the log that the model was trained on, row by row, and "
            assert (noted in capsys.readouterr().err) == (split != "validation")
    assert main(["evaluate", str(trained), str(log_file), "--split", "train"]) == 0
    assert "row by row" not in capsys.readouterr().err


def test_events_in_rows_get_lists(
    trained: Path, log_file: Path, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    frame = pl.read_parquet(log_file)
    clicked = pl.col("item").filter(pl.col("chosen") == 1).first()
    keys = ["session", "event", "user", "split"]
    nested = frame.group_by(keys, maintain_order=True).agg(
        pl.col("item").alias("items"), "price", clicked.alias("clicked")
    )
    nested = nested.rename({"clicked": "chosen"})
    nested.write_parquet(tmp_path / "log.parquet")
    argv = ["predict", str(trained), str(tmp_path / "log.parquet"), "-o"]
    assert "is an event, whose predictions are lists" in fails([*argv, str(tmp_path / "p.csv")])
    assert main([*argv, str(tmp_path / "p.parquet"), "--split", "validation"]) == 0
    found = pl.read_parquet(tmp_path / "p.parquet")
    assert found.select(nested.columns).equals(nested.filter(pl.col("split") == "validation"))
    assert found["utility"].list.len().equals(found["items"].list.len().alias("utility"))
    assert found["trained_on"].dtype == pl.Boolean


def test_what_has_no_place_is_refused(
    run: Path, export: pl.DataFrame, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    log = tmp_path / "log.parquet"
    typed = export.with_columns(pl.col("price").cast(pl.Float64))
    typed.with_columns(tags=pl.concat_list("note")).write_parquet(log)
    argv = ["predict", str(run), str(log), "-o", str(tmp_path / "p.csv")]
    assert "cannot hold the log's column 'tags' (List(String)) as it stands" in fails(argv)


def test_a_log_without_rows_is_written_by_candidate(
    trained: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.parquet"
    assert main(["predict", str(trained), str(saved), "-o", str(out)]) == 0
    assert "a row is a candidate of the log, by session, event and item" in capsys.readouterr().err
    found = pl.read_parquet(out)
    assert found.columns[:3] == ["session", "event", "item"]
    assert "trained_on" in found.columns


def test_an_error_has_the_clock_of_the_file(
    run: Path, export: pl.DataFrame, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    at = "2024-03-30T22:07:46+01:00"
    wrong = export.with_columns(clicked=pl.when(at=at).then(1).otherwise("clicked"))
    wrong.write_csv(tmp_path / "log.csv", separator=";")
    argv = ["train", str(tmp_path / "log.csv"), "-o", str(tmp_path / "other"), *OPTIONS]
    assert f"event {at} of session 'café-7' has 4 clicks" in fails(argv)
