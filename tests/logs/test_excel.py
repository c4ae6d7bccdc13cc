"""What Excel writes: columns divided by semicolons or tabs; decimal commas and dates that are open
are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError
from fastgaum.logs.read import read_log
from tests.logs.bad_logs import refused

ROWS = [("u1", "0", "a", "1"), ("u1", "0", "b", "0"), ("u1", "1", "a", "0"), ("u2", "0", "b", "1")]


def text_of(sign: str, prices: list[str]) -> str:
    lines = [("session", "event", "item", "chosen", "price")]
    lines += [(*row, price) for row, price in zip(ROWS, prices, strict=True)]
    return "\n".join(sign.join(line) for line in lines) + "\n"


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "tabs.txt"])
def test_a_sheet_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    text = text_of("\t" if name == "tabs.txt" else ";", ["1087.46", "421.33", "12", "0.5"])
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    log = read_log(path, candidate_fields=["price"])
    np.testing.assert_allclose(log.columns["price"].values, [1087.46, 421.33, 12, 0.5])
    assert log.session_ids.to_list() == ["u1", "u2"]


def test_columns_without_a_known_sign_between_them(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text_of("|", ["1", "2", "3", "4"]).replace("item", "it;em"))
    refused(path, "has one column, .*: name what divides columns, --delimiter ';'")
    named = read_log(path, delimiter="|", columns={"item": "it;em"})
    assert named.n_events == 3


SAYS = "and most values are numbers.*write numbers as 1234.5"


@pytest.mark.parametrize("role", ["candidate_fields", "context_fields"])
@pytest.mark.parametrize("first", ["12,5", "1.087,46", "1,234"])
def test_decimal_commas_are_refused(role: str, first: str, tmp_path: Path) -> None:
    """No column of prices becomes one of categories; polars reads them on request."""
    path = tmp_path / "log.csv"
    path.write_text(text_of(";", [first, first, "2,5", "0,5"]))
    refused(path, f"has 'price' = '{first}'.*{SAYS}", **{role: ["price"]})
    frame = pl.read_csv(path, separator=";", decimal_comma=True)
    if first == "12,5":
        column = read_log(frame, **{role: ["price"]}).columns["price"]  # type: ignore[arg-type]
        assert 12.5 in column.values


@pytest.mark.parametrize("of", ["item", "user"])
def test_tables_beside_a_log_have_points(of: str, tmp_path: Path) -> None:
    path, table = tmp_path / "log.csv", tmp_path / "table.csv"
    path.write_text(text_of(";", ["1", "2", "3", "4"]).replace("session", "user"))
    names = ("a", "b") if of == "item" else ("u1", "u2")
    table.write_text(f"{of};size\n{names[0]};12,500\n{names[1]};950,5\n")
    says = f"table.csv: {of} '{names[0]}' has 'size' = '12,500', {SAYS}"
    refused(path, says, **{f"{of}_table": table})


@pytest.mark.parametrize("wrong", [{"delimiter": ";;"}, {"delimiter": "\n"}])
def test_signs_that_divide_nothing(wrong: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is required"):
        read_log(tmp_path, **wrong)


def test_rows_at_fault_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [["s", "0", "i", "1", "a"] for _ in range(6)]

    def says(column: int, value: str, *at: int) -> str:
        wrong = [[*row] for row in rows]
        for row in at:
            wrong[row][column] = value
        lines = ["session,event,item,chosen,query", *(",".join(row) for row in wrong)]
        path.write_text("\n".join(lines))
        return refused(path, "^log.csv: ")

    text = says(0, "", 2, 3, 4, 5)
    assert "row 3 has no session id (one of 4 such rows: 3, 4, 5, …): column 'session'" in text
    assert "(one of 2 such rows: 2, 5)" in says(2, "", 1, 4)
    assert "'chosen' = 'x' (one of 2 such rows: 4, 6), 0 (displayed)" in says(3, "x", 3, 5)
