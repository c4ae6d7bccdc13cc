"""Reads of test splits: every committed table is counted, and says how often others came before."""

from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fastgaum.bench import readme
from fastgaum.bench.readme import objects, path_of, read, read_counts
from fastgaum.bench.reads import (
    DRAWN,
    OWN,
    TEST_READS,
    Reads,
    count_reads,
    figures_of_test,
    reads_before,
    reads_to_text,
)

NO_TEST_FIGURES = {
    **dict.fromkeys(("bench", "bench-http", "bench-short"), "speeds"),
    "decisions": "made-up users, or those of the other half of a log",
    "learning-curve": "validation",
    "portfolio": "folds of training and validation users",
    "fidelity/search_clicks": "validation, since the log has no test split of its own",
    **dict.fromkeys(("ope", "foreign", "rounds"), "made-up logs"),
    **dict.fromkeys(
        ("transfer", "transfer-events", "transfer-logging", "transfer-settings", "transfer-wrong"),
        "made-up logs",
    ),
    "away": "policies, judged by learned worlds of the other half of the users",
    **dict.fromkeys(
        (
            *("policies/search_clicks", "policies/taobao", "policies/yelp"),
            *("policies/yelp-agents", "policies/yelp-own", "policies/yoochoose"),
        ),
        "policies, judged by learned worlds of the other half of the users",
    ),
    "wikispeedia-loop": "games without those of the test split",
}
"""objects without a read, and what they are of"""
FIELDS = {"date", "by", "why", "models", "evaluations", "split"}
OF_TABLE = {"table", "commit", "figures"}


def a_table(log: str = "shop", nll: float = 0.5, **more: Any) -> dict[str, Any]:
    cells = [
        {"dataset": log, "model": model, "head": "reward", "k": k, "mean": 10.0 * k, "nll": nll}
        for model in ("logit", "fastgaum")
        for k in (1, 2)
    ]
    return {
        "machine": {"commit": "0123abc", "argv": ["fastgaum", "compare", "my shop"]},
        "datasets": {log: {}},
        "cells": cells,
        "seeds": 3,
        "resplit": None,
        **more,
    }


@pytest.mark.parametrize("name", sorted(objects()))
def test_every_committed_table_of_test_figures_is_counted(name: str) -> None:
    reads, found = read_counts(), figures_of_test(read(name))
    assert (not found) == (name in NO_TEST_FIGURES), "say in NO_TEST_FIGURES why it reads none"
    for one in found:
        assert [r for r in reads[one.log] if one.is_of(r)], "run python bench/readme.py"


def test_the_file_is_as_it_is_written() -> None:
    text, reads = path_of(TEST_READS).read_text(encoding="utf-8"), read_counts()
    assert reads_to_text(reads) == text
    for log, of_log in reads.items():
        dates = [date.fromisoformat(one["date"]) for one in of_log]
        assert dates == sorted(dates), log
        for one in of_log:
            of_table = OF_TABLE if "figures" in one else set()
            assert set(one) - {"times"} == FIELDS | of_table, (log, one)
            assert one["split"] in (OWN, DRAWN)
            assert one["by"]
            assert one["why"]
            assert one["models"]
            assert one["evaluations"] >= one.get("times", 1) >= 1


@pytest.mark.parametrize(
    ("log", "table", "split"), [("lpmc", "logs/lpmc", OWN), ("ebnerd", "logs/ebnerd", DRAWN)]
)
def test_a_page_says_what_the_file_says(log: str, table: str, split: str) -> None:
    of_log = json.loads(path_of(TEST_READS).read_text(encoding="utf-8"))[log]
    (*_, made) = [at for at, one in enumerate(of_log) if one.get("table") == table]
    n = sum(one.get("times", 1) for one in of_log[:made] if one["split"] == split)
    assert n > 1
    page = (path_of(table).parents[2] / "other-logs.md").read_text(encoding="utf-8")
    block = page.partition(f"<!-- {log}:begin -->")[2].partition(f"<!-- {log}:end -->")[0]
    assert f"was read before this table: {log} at least {n} times." in block


def test_a_table_without_a_read_is_refused_until_it_is_counted() -> None:
    by_hand = {"date": "2026-11-30", "by": "evaluate", "why": "?", "models": ["logit"]}
    reads: Reads = {"shop": [{**by_hand, "evaluations": 2, "split": OWN, "times": 2}]}
    table = a_table()
    with pytest.raises(ValueError, match=r"no read .* test figures of shop .*bench/readme\.py"):
        reads_before(reads, [table])
    assert len(count_reads(reads, {"logs/shop": table}, "2026-12-01")) == 1
    assert reads["shop"][1] | {"figures": ""} == {
        "date": "2026-12-01",
        "by": "fastgaum compare 'my shop'",
        "why": "a table",
        "models": ["logit", "fastgaum"],
        "evaluations": 6,
        "split": OWN,
        "table": "logs/shop",
        "commit": "0123abc",
        "figures": "",
    }
    line = "The test split was read before this table: shop at least 2 times."
    assert reads_before(reads, [table]) == line
    # made again with the same figures, in another order and with more keys: nothing was seen anew
    again = copy.deepcopy(table)
    again["cells"] = [cell | {"ece": 0.1} for cell in reversed(again["cells"])]
    assert count_reads(reads, {"logs/shop": again}, "2026-12-02") == []
    # one figure that is new
    again["cells"][0]["nll"] = 0.4
    assert len(count_reads(reads, {"logs/shop": again}, "2026-12-02")) == 1
    assert reads_before(reads, [again]) == line.replace("2 times", "3 times")
    assert reads_before(reads, [table]) == line
    assert reads_before(reads, [table, again]) == line.replace("2 times", "3 times")


def test_one_line_for_all_logs_and_splits() -> None:
    reads: Reads = {}
    own, drawn = a_table(), a_table(resplit=[1, 2])
    other = a_table("news", 0.7)
    count_reads(reads, {"own": own, "drawn": drawn, "other": other}, "2026-12-01")
    assert [one["evaluations"] for one in reads["shop"]] == [6, 12]
    assert (
        reads_before(reads, [own]) == "No read of the test split before this table is written down."
    )
    drawn_again, own_again = a_table(nll=0.6, resplit=[3]), a_table(nll=0.6)
    count_reads(reads, {"drawn": drawn_again, "own": own_again}, "2026-12-02")
    assert reads_before(reads, [own_again, other, drawn_again]) == (
        "The test split was read before this table: shop at least 1 time. A test split that seeds "
        "drew was read before this table: shop at least 1 time (its own test split 1 time)."
    )


def test_validation_figures_are_no_read() -> None:
    of_lists = read("click-models")
    validation = [row for row in of_lists["rows"] if row["split"] == "validation"]
    assert figures_of_test({**of_lists, "rows": validation}) == []
    (found,) = figures_of_test(of_lists)
    # two fits of the linear model, CLAX's four with as many seeds as its rows say
    assert found.evaluations == sum(row["seeds"] for row in of_lists["rows"]) / 2 > len(validation)
    assert figures_of_test({**read("fidelity/yelp"), "split": "validation"}) == []
    assert reads_before({}, [read("learning-curve")]) == ""


def test_the_script_counts_what_lies_in_docs_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tmp_path / "docs" / "tables"
    (tables / "logs").mkdir(parents=True)
    (tmp_path / "README.md").write_text("no marks", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("[project]", encoding="utf-8")
    (tables / f"{TEST_READS}.json").write_text("{}", encoding="utf-8")
    (tables / "logs" / "shop.json").write_text(json.dumps(a_table()), encoding="utf-8")
    for name, value in (("ROOT", tmp_path), ("SECTIONS", ()), ("FIGURES", {})):
        monkeypatch.setattr(readme, name, value)
    readme.main()
    assert "counted: logs/shop reads the test split of shop (own)" in capsys.readouterr().out
    (counted,) = read_counts()["shop"]
    assert (counted["table"], counted["commit"]) == ("logs/shop", "0123abc")
    readme.main()
    assert read_counts() == {"shop": [counted]}
    assert "counted" not in capsys.readouterr().out
