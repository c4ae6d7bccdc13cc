"""The pages' tables are what the script writes today from the committed objects: never by hand, never stale in form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastgaum.bench.readme import (
    ADAPTATION,
    FIDELITY,
    FIGURE,
    PAGES,
    POLICIES,
    RACES,
    RACES_PAGES,
    ROOT,
    VERDICTS,
    adaptations_to_markdown,
    fidelity_to_markdown,
    has,
    insert,
    policies_to_markdown,
    read,
    read_races,
    verdicts,
    with_races,
)
from fastgaum.metrics.table import blocks, to_markdown
from fastgaum.policies import registry as policies
from fastgaum.reproduce import parse_resplits


@pytest.mark.parametrize("page", PAGES)
def test_page_is_what_its_object_gives(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert insert(text, to_markdown(read(PAGES[page]))) == text, "run python bench/readme.py"


def test_verdicts_are_what_the_identity_table_gives() -> None:
    text = (ROOT / VERDICTS[0]).read_text(encoding="utf-8")
    assert insert(text, verdicts(*map(read, VERDICTS[1:])), "verdicts") == text, "run python bench/readme.py"


@pytest.mark.parametrize("page", PAGES)
def test_page_shows_the_command_of_its_object(page: str) -> None:
    """Its models, protocol and seeds: a table from another command would mislead whoever repeats it."""
    result = read(PAGES[page])
    text = (ROOT / page).read_text(encoding="utf-8")
    (command,) = re.findall(rf"^fastgaum reproduce .*--json {re.escape(PAGES[page])}$", text, re.MULTILINE)
    options = dict(re.findall(r"--(\S+) (\S+)", command))
    models = list(dict.fromkeys(cell["model"] for cell in result["cells"]))
    assert options["datasets"].split(",") == list(result["datasets"])
    assert options["models"] in ("all", ",".join(models))
    assert options.get("protocol", "bags") == result["protocol"]
    assert int(options["seeds"]) == result["seeds"]
    assert (parse_resplits(options["resplit"]) if "resplit" in options else None) == result["resplit"]
    assert result["failed"] == []


def test_fidelity_page_is_what_its_reports_give() -> None:
    text = (ROOT / FIDELITY[0]).read_text(encoding="utf-8")
    reports = [read(file) for file in FIDELITY[1]]
    assert insert(text, fidelity_to_markdown(reports), "fidelity") == text, "run python bench/readme.py"
    assert {(report["log"]["name"], report["split"]) for report in reports} == {
        ("yelp", "test"), ("taobao", "test"), ("yoochoose", "test"), ("search_clicks", "validation")
    }  # fmt: skip
    assert {report["preset"] for report in reports} == {"fastgaum"}


def test_policies_page_is_what_its_objects_give() -> None:
    text = (ROOT / POLICIES[0]).read_text(encoding="utf-8")
    results = [read(file) for file in POLICIES[1]]
    assert insert(text, policies_to_markdown(results), "policies") == text, "run python bench/readme.py"
    for file, result in zip(POLICIES[1], results, strict=True):
        name = Path(file).stem.removesuffix("-own")
        assert result["notes"] == []
        if file.endswith("-own.json"):
            assert result["world"] == f"runs/{name}-half"
            continue
        # every policy is there at every size, and judges are users that training did not fit
        sizes = dict.fromkeys(row["k"] for row in result["rows"])
        assert [(row["policy"], row["k"]) for row in result["rows"]] == [
            (p, k) for k in sizes for p in policies.POLICIES
        ]
        assert result["world"] == f"runs/{name}-other-half, policies of runs/{name}-half"
        assert result["seeds"] >= 5


def test_policies_page_shows_the_command_of_its_objects() -> None:
    """The sizes, reward and pools of the first object are those that the page's command asks for."""
    text = (ROOT / POLICIES[0]).read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(rf"^fastgaum rl evaluate .*--json {re.escape(POLICIES[1][0])}$", text, re.MULTILINE)
    options = dict(re.findall(r"(-k|--\S+) +([^- ]\S*)", command))
    result = read(POLICIES[1][0])
    assert options["-k"].split(",") == [str(k) for k in dict.fromkeys(row["k"] for row in result["rows"])]
    assert (options["--reward"], int(options["--horizon"])) == (result["reward"], result["horizon"])
    assert f"{options['--pool']} of {options['--pool-size']}" == result["pool"]
    changed = dict(setting.split("=") for setting in re.findall(r"--set (\S+)", command))
    assert {key: str(result["config"][key]) for key in changed} == changed


def test_policies_page_is_what_its_adaptation_curves_give() -> None:
    text = (ROOT / POLICIES[0]).read_text(encoding="utf-8")
    results = [read(file) for file in ADAPTATION]
    assert insert(text, adaptations_to_markdown(results), "adaptation") == text, "run python bench/readme.py"
    for file, result in zip(ADAPTATION, results, strict=True):
        name = Path(file).stem.removesuffix("-adapt")
        assert (result["run"], result["in"]) == (f"runs/{name}-half", f"runs/{name}-other-half")
        assert {row["policy"] for row in result["rows"]} == {"pre-trained", "untrained"}


def test_figure_names_the_rows_of_its_object() -> None:
    figure = (ROOT / FIGURE[0]).read_text(encoding="utf-8")
    texts = set(re.findall(r">([^<>\n]+)</text>", figure))
    result = read(FIGURE[1])
    assert set(result["datasets"]) <= texts
    rows = {row[0].removesuffix(" †") for block in blocks(result)[:-1] for row in block.rows}
    assert {row for row in rows if not row.startswith(("floor", "best published", "authors"))} <= texts


@pytest.mark.parametrize("page", RACES_PAGES)
def test_page_is_what_the_races_give(page: str) -> None:
    result = read_races()
    text = (ROOT / page).read_text(encoding="utf-8")
    if result is None:
        for marker in ("races", "scaling"):
            assert not has(text, marker) or f"<!-- {marker}:begin -->\n<!-- {marker}:end -->" in text
        pytest.skip(f"{RACES} is not there: `make bench` writes it")
    assert with_races(page, text, result) == text, "run python bench/readme.py"
    assert not result["smoke"]
    assert result["failed"] == []
