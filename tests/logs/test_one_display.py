"""A long log without a column of events: each session is one display, and that is said."""

from __future__ import annotations

import warnings
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.errors import LogFormatError
from fastgaum.logs.audit_facts import say_reading
from fastgaum.logs.datasets import resolve
from fastgaum.logs.read import as_log, load, read_log, read_with_rows

SURVEY = pl.DataFrame(
    {
        "session": ["a", "b", "a", "b", "c", "c"],
        "item": ["bus", "car", "car", "bike", "bus", "bike"],
        "chosen": [1, 0, 0, 1, 0, 0],
    }
)
SAID = "each session is one display"


def test_each_session_is_one_display(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=SAID) as said:
        log = read_log(SURVEY)
    assert said[0].filename == __file__
    assert (log.n_events, log.choices.tolist()) == (3, [0, 0, -1])
    SURVEY.write_csv(tmp_path / "log.csv")
    with pytest.warns(UserWarning, match=SAID):
        assert load(tmp_path / "log.csv").fingerprint == log.fingerprint
    with pytest.warns(UserWarning, match=SAID):
        as_log(SURVEY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_log(SURVEY, columns={"event": "session"}).choices.tolist() == [0, 0, -1]
    rows = read_with_rows(resolve(tmp_path / "log.csv"))[1]
    assert not any("order the events" in line for line in say_reading(log, rows))


def test_the_command_line_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SURVEY.write_csv(tmp_path / "log.csv")
    argv = ["data", "convert", str(tmp_path / "log.csv"), "-o", str(tmp_path / "out")]
    assert main(argv) == 0
    assert capsys.readouterr().err.count(SAID) == 1


def test_what_may_be_several_displays_is_refused_if_nothing_is_said() -> None:
    with pytest.raises(LogFormatError, match="did you mean 'date'"):
        read_log(SURVEY.with_columns(date=pl.lit("1 May")))
    frame = SURVEY.with_columns(chosen=pl.Series([1, 0, 1, 1, 0, 0]))
    with pytest.raises(LogFormatError, match=r"'a' has 2 chosen rows .*event=NAME.* --clicks each"):
        read_log(frame)
    with pytest.warns(UserWarning, match=SAID):
        assert read_log(frame, clicks="each").n_events == 5


def test_a_column_without_a_name_is_an_index() -> None:
    frame = SURVEY.with_columns(event=0).with_row_index("")
    log = read_log(frame)
    assert log.fingerprint == read_log(frame.drop("")).fingerprint
    assert as_log(frame).fingerprint == log.fingerprint


def test_an_index_of_a_table_is_no_field(tmp_path: Path) -> None:
    frame = SURVEY.with_columns(event=0)
    pl.DataFrame({"": [0, 1, 2], "item": ["bus", "car", "bike"], "k": [1, 2, 3]}).write_csv(
        tmp_path / "items.csv"
    )
    assert [*read_log(frame, item_table=tmp_path / "items.csv").columns] == ["k"]


def test_an_unread_past_has_its_option(tmp_path: Path) -> None:
    frame = SURVEY.with_columns(event=0, history=pl.lit("bus car"), other=1)
    frame.write_csv(tmp_path / "log.csv")
    log, rows = read_with_rows(resolve(tmp_path / "log.csv"))
    said = " ".join(say_reading(log, rows))
    assert "columns not read: history, other" in said
    assert "--past history reads the past" in said
    with pytest.raises(LogFormatError, match="past='history'"):
        as_log(frame)
