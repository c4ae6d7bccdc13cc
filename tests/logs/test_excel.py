"""What Excel writes: columns divided by semicolons or tabs, decimal commas."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fastgaum.errors import ConfigError
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from tests.logs.bad_logs import refused

ROWS = [("u1", "0", "a", "1"), ("u1", "0", "b", "0"), ("u1", "1", "a", "0"), ("u2", "0", "b", "1")]
GERMAN = ["1.087,46", "421,33", "12", "0,5"]


def text_of(sign: str, prices: list[str]) -> str:
    lines = [("session", "event", "item", "chosen", "price")]
    lines += [(*row, price) for row, price in zip(ROWS, prices, strict=True)]
    return "\n".join(sign.join(line) for line in lines) + "\n"


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "tabs.txt"])
def test_a_sheet_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    text = text_of("\t" if name == "tabs.txt" else ";", GERMAN)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    log = read_log(path, candidate_fields=["price"])
    np.testing.assert_allclose(log.columns["price"].values, [1087.46, 421.33, 12, 0.5])
    assert log.session_ids.to_list() == ["u1", "u2"]


def test_what_is_open_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text_of(";", ["1,234", "5,678", "2,345", "9,876"]))
    refused(path, "has 'price' = '1,234'.*name their decimal sign", candidate_fields=["price"])
    for decimal, first in ((",", 1.234), (".", 1234.0)):
        options = ReadOptions.of(candidate_fields=["price"], decimal=decimal, name="log")
        log = read_log(path, options=options)
        assert log.columns["price"].values[0] == np.float32(first)
    path.write_text(text_of(";", ["1.234", "5.678", "2.345", "9.876"]))
    refused(path, "'price' has values such as '1.234' alone.*--decimal", candidate_fields=["price"])
    for decimal, first in ((",", 1234.0), (".", 1.234)):
        log = read_log(path, candidate_fields=["price"], decimal=decimal)
        assert log.columns["price"].values[0] == np.float32(first)
    path.write_text(text_of(";", ["950", "1.087", "1.250", "890"]))
    refused(path, "'price' has values such as '1.087' alone, or", candidate_fields=["price"])
    path.write_text(text_of("|", GERMAN).replace("item", "it;em"))
    refused(path, "has one column, .*: name what divides columns, --delimiter ';'")
    named = read_log(path, delimiter="|", columns={"item": "it;em"})
    assert named.n_events == 3


@pytest.mark.parametrize(
    ("decimal", "prices", "says"),
    [
        (".", ["40,9", "27,26", "12", "0,5"], r"'40,9' \(3 such values.*said to be '\.'"),
        (",", ["40.9", "27.26", "12", "0.5"], r"'40.9' \(3 such values.*said to be ','"),
    ],
)
def test_numbers_of_the_other_sign_are_refused(
    decimal: str, prices: list[str], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text_of(";", prices))
    refused(path, says, candidate_fields=["price"], decimal=decimal)


@pytest.mark.parametrize("options", [{}, {"decimal": ","}])
def test_times_have_decimal_commas(options: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text_of(";", GERMAN).replace("u1;0", "u1;2,5"))
    assert read_log(path, **options).event_ids.to_list() == [1.0, 2.5, 0.0]  # type: ignore[arg-type]


@pytest.mark.parametrize("of", ["item", "user"])
def test_tables_beside_a_log_have_the_same_sign(of: str, tmp_path: Path) -> None:
    path, table = tmp_path / "log.csv", tmp_path / "table.csv"
    path.write_text(text_of(";", GERMAN).replace("session", "user"))
    names = ("a", "b") if of == "item" else ("u1", "u2")
    table.write_text(f"{of};size\n{names[0]};12,500\n{names[1]};950\n")
    log = read_log(path, **{f"{of}_table": table}, decimal=",")  # type: ignore[arg-type]
    assert log.columns["size"].values.tolist() == [12.5, 950.0]
    table.write_text(table.read_text().replace(",", "."))
    refused(path, "table.csv: 'size' has values such as '12.500'", **{f"{of}_table": table})


@pytest.mark.parametrize("wrong", [{"delimiter": ";;"}, {"delimiter": "\n"}, {"decimal": ";"}])
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
