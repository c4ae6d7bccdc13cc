"""A wide table is the log of its long form, and what could be read in two ways is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fastgaum as fg
from fastgaum.cli.app import main
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.options import parse_wide

ITEMS, WIDE = ["TRAIN", "SM", "CAR"], "{TRAIN,SM,CAR}_{field}"
N = 60


def tables(headway: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same choices of 20 persons, wide and long; the headway of a car is not there, or 0."""
    rng = np.random.default_rng(0)
    choice = rng.integers(0, 3, N)
    available = rng.random((N, 3)) > 0.3
    available[np.arange(N), choice] = True
    time, cost, wait = rng.uniform(1, 9, (3, N, 3)).round(2)
    wait[:, 2] = 0
    income = rng.uniform(1, 5, N).round(2)
    person, each = np.arange(N) // 3, np.repeat(np.arange(N), 3)
    wide = {"ID": person, "INCOME": income, "CHOICE": choice + 1}
    for k, item in enumerate(ITEMS):
        wide |= {f"{item}_TT": time[:, k], f"{item}_CO": cost[:, k]}
        wide |= {f"{item}_AV": available[:, k].astype(int)}
        if item != "CAR" and headway:
            wide[f"{item}_HE"] = wait[:, k]
    long = {
        "session": person[each],
        "event": np.tile(np.repeat(np.arange(3), 3), N // 3),
        "user": person[each],
        "item": ITEMS * N,
        "chosen": (np.arange(3) == choice[:, None]).astype(int).ravel(),
        "TT": time.ravel(),
        "CO": cost.ravel(),
        "HE": wait.ravel(),
        "AV": available.astype(int).ravel(),
        "INCOME": income[each],
    }
    return pl.DataFrame(wide), pl.DataFrame(long)


def of_wide(table: Any, fields: tuple[str, ...] = ("TT", "CO"), **more: Any) -> fg.SessionLog:
    columns = {"user": "ID", **more.pop("columns", {})}
    asked = {"available": "AV", "context_fields": ["INCOME"], **more}
    return fg.read_log(table, wide=WIDE, columns=columns, candidate_fields=fields, **asked)


def of_long(table: pl.DataFrame, fields: tuple[str, ...] = ("TT", "CO")) -> fg.SessionLog:
    return fg.read_log(table, available="AV", candidate_fields=fields, context_fields=["INCOME"])


def alike(one: fg.SessionLog, other: fg.SessionLog) -> bool:
    """But for counts of repeated rows, of which only the long layout has some."""
    logs = (dataclasses.replace(log, views=None) for log in (one, other))
    return len({log.fingerprint for log in logs}) == 1


def test_a_wide_table_is_its_long_form(tmp_path: Path) -> None:
    wide, long = tables()
    expected = of_long(long)
    assert 0 < expected.n_candidates < 3 * N
    assert alike(of_wide(wide), expected)
    named = wide.with_columns(CHOICE=pl.Series(ITEMS).gather(wide["CHOICE"] - 1))
    assert alike(of_wide(named), expected)
    places = wide.with_columns(CHOICE=pl.col("CHOICE") - 1)
    assert alike(of_wide(places, columns={"chosen_index": "CHOICE"}), expected)
    renamed = wide.rename({"CHOICE": "taken"})
    assert alike(of_wide(renamed, columns={"chosen": "taken"}), expected)
    assert alike(of_wide(wide.to_pandas()), expected)
    wide.write_csv(tmp_path / "wide.csv")
    wide.write_parquet(tmp_path / "wide.parquet")
    for name in ("wide.csv", "wide.parquet"):
        read = of_wide(tmp_path / name, name="log")
        assert alike(read, expected)
    turned = wide.rename(lambda one: "_".join(reversed(one.split("_"))))
    other = fg.read_log(
        turned,
        wide="{field}_{TRAIN, SM,CAR}",
        columns={"user": "ID"},
        candidate_fields=["TT", "CO"],
        available="AV",
        context_fields=["INCOME"],
    )
    assert alike(other, expected)


def test_without_a_session_or_a_user_a_row_is_a_session() -> None:
    wide, _ = tables()
    log = fg.read_log(wide, wide=WIDE, candidate_fields=["TT"], available="AV")
    assert (log.n_sessions, log.n_events) == (N, N)
    log = fg.read_log(wide.rename({"ID": "user_id"}), wide=WIDE, candidate_fields=["TT"])
    assert (log.n_sessions, log.n_events, log.n_candidates) == (N // 3, N, 3 * N)


def test_a_field_that_an_item_lacks_is_0_there_and_said() -> None:
    wide, long = tables(headway=True)
    with pytest.warns(UserWarning, match="no column CAR_HE: there the field is 0"):
        log = of_wide(wide, ("TT", "CO", "HE"))
    assert alike(log, of_long(long, ("TT", "CO", "HE")))


def test_no_choice_is_no_click_and_may_be_to_come() -> None:
    wide, _ = tables()
    none = wide.with_columns(CHOICE=pl.when(pl.col("ID") > 9).then("CHOICE"))
    assert (of_wide(none).choices < 0).sum() == N // 2
    later = of_wide(wide.drop("CHOICE"), columns={"chosen": ""})
    assert (later.choices < 0).all()
    model = fg.logit(of_wide(wide))
    with pytest.raises(LogFormatError, match="a wide table"):
        model.predict(wide)
    again = fg.read_log(wide, options=model.reading)
    assert model.predict(again).equals(model.predict(of_wide(wide)))


def test_the_command_line_reads_it_and_a_run_remembers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, _ = tables(headway=True)
    file, run = tmp_path / "wide.csv", tmp_path / "run"
    wide.write_csv(file)
    fields = [word for name in ("TT", "HE") for word in ("--candidate-field", name)]
    read = ["--wide", WIDE, "--column", "user=ID", "--available", "AV", *fields]
    assert main(["train", str(file), "-o", str(run), "--preset", "logit", *read]) == 0
    said = capsys.readouterr().err
    assert "no column CAR_HE: there the field is 0" in said
    assert "columns not read: INCOME, TRAIN_CO, SM_CO, CAR_CO" in said
    assert main(["evaluate", str(run), str(file)]) == 0


@pytest.mark.parametrize(
    ("change", "asked", "says"),
    [
        ({"CHOICE": 0}, {}, r"row 1 has 'CHOICE' = 0, an item \(TRAIN, SM, CAR\) or its code from"),
        ({"CHOICE": "BUS"}, {}, "row 1 has 'CHOICE' = BUS"),
        ({"TT": 1.0}, {}, "column 'TT' stands beside those that --wide makes 'TT' of"),
        ({"items": 1.0}, {}, "column 'items' stands beside"),
        ({}, {"fields": ("TI",)}, "no column TRAIN_TI or SM_TI.* fields are TT, CO, AV"),
        ({}, {"columns": {"chosen": "taken"}}, r"no column says what was chosen \(accepted: taken"),
        ({"CAR_AV": None}, {}, "no column CAR_AV, the availability of every item is required"),
    ],
)
def test_what_is_not_clear_is_refused(
    change: dict[str, Any], asked: dict[str, Any], says: str
) -> None:
    wide, _ = tables()
    for name, value in change.items():
        wide = wide.drop(name) if value is None else wide.with_columns(pl.lit(value).alias(name))
    with pytest.raises(LogFormatError, match=says):
        of_wide(wide, **asked)


def test_a_column_of_two_items_is_refused() -> None:
    wide = pl.DataFrame({"id": [1, 2], "choice": [1, 2], "A_B_x": [1.0, 2], "A_C_x": [1.0, 2]})
    with pytest.raises(LogFormatError, match="column 'A_B_x' is of two items or fields"):
        fg.read_log(wide, wide="{A,A_B}_{field}", candidate_fields=["B_x", "x"])


@pytest.mark.parametrize(
    "pattern", ["{item}_{field}", "{A,B}", "{A}_{field}", "{A,A}_{field}", "{A,}_{field}", 3]
)
def test_patterns_that_say_too_little(pattern: Any) -> None:
    with pytest.raises(ConfigError, match="wide is"):
        fg.read_log(tables()[0], wide=pattern)


def test_codes_and_names_that_differ_are_refused() -> None:
    assert parse_wide("{1,2}_{field}") == (("1", "2"), "{item}_{field}")
    with pytest.raises(ConfigError, match="a choice of 1 may be an item or the code of the first"):
        parse_wide("{2,1}_{field}")


def test_a_saved_log_is_no_wide_table(tmp_path: Path) -> None:
    fg.save_log(of_wide(tables()[0]), tmp_path / "saved")
    with pytest.raises(LogFormatError, match="its rows are no table"):
        fg.load(tmp_path / "saved", wide=WIDE)
