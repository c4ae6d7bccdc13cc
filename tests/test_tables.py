"""The pages' tables are what the script writes today from the committed objects: never by hand,
never stale in form."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fastgaum.baselines.registry import MODELS
from fastgaum.bench.excerpts import (
    ENDED,
    NUMBER,
    PUBLISHED,
    SHOWN,
    SPEED,
    made_at,
    paper_to_markdown,
    results_to_markdown,
    set_numbers,
    speed_to_markdown,
    which_model_to_markdown,
)
from fastgaum.bench.readme import (
    FACE,
    FIDELITY,
    FIGURES,
    GRIDS,
    NOT_RUN,
    OTHER_LOGS,
    POLICIES,
    RACES,
    ROOT,
    SECTIONS,
    Section,
    index_of,
    insert,
    pages,
    path_of,
    read,
)
from fastgaum.policies.registry import POLICIES as POLICY_NAMES
from fastgaum.reports.grid import parse_resplits
from fastgaum.reports.plots import COLOURS, colour

DATA = ("published", "verdicts")
"""blocks of published figures, and of a comparison with them, whose own tables say it"""
UNNAMED = "The object does not name its commit."
COMMITTED = sorted({name for section in SECTIONS for name in section.objects})


def page_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda one: f"{one.page} {one.marker}")
def test_page_is_what_its_objects_give(section: Section) -> None:
    """Also before a command of the page has run: then its table says so."""
    text = (ROOT / section.page).read_text(encoding="utf-8")
    assert insert(text, section.text(), section.marker) == text, "run python bench/readme.py"


def test_every_object_is_of_a_run_that_ended_well() -> None:
    for name in COMMITTED:
        if path_of(name).is_file():
            result = read(name)
            assert not result.get("failed")
            assert not result.get("smoke")
    tables = {str(read(name)["published_table"]) for name in GRIDS}
    assert len(tables) == 1, "the same in all objects"


@pytest.mark.parametrize("name", [*GRIDS, *(f"logs/{name}" for name in OTHER_LOGS)])
def test_page_shows_the_command_of_its_object(name: str) -> None:
    """Its models, protocol and seeds: a table from another command would mislead whoever repeats
    it."""
    other = name.startswith("logs/")
    page = "docs/other-logs.md" if other else "docs/results.md"
    file = re.escape(f"docs/tables/{name}.json")
    (command,) = re.findall(
        rf"^fastgaum reproduce .*--json {file} --overwrite$", page_of(page), re.MULTILINE
    )
    options = dict(re.findall(r"--(\S+) (\S+)", command))
    models = MODELS if options["models"] == "all" else tuple(options["models"].split(","))
    if other:
        assert (
            {"fastgaum", "logit", "click-rate"}
            <= set(models)
            <= {*MODELS, "fastgaum-exact", *ENDED}
        )
        assert options["datasets"] == name.removeprefix("logs/")
    if not path_of(name).is_file():
        return
    result = read(name)
    assert models == tuple(dict.fromkeys(cell["model"] for cell in result["cells"]))
    assert options["datasets"].split(",") == list(result["datasets"])
    assert options.get("protocol", "bags") == result["protocol"]
    assert int(options["seeds"]) == result["seeds"]
    splits = parse_resplits(options["resplit"]) if "resplit" in options else None
    assert splits == result["resplit"]


COMMAND = re.compile(r"^(?:fastgaum|python) .*--json docs/tables/(\S+)\.json.*$", re.MULTILINE)
MADE_BY = re.compile(r"[Mm]ade by (`[^`]+`.*?) of commit 06cd207\b")
"""commands whose code that commit is the last to hold"""
CHANGES_NO_FIGURE = r" --(overwrite|quiet|(jobs|data-dir|json)[ =]\S+)"


def words_of(command: str) -> list[str]:
    """The program's name and the words of a command, but those that change no figure."""
    program, *words = shlex.split(re.sub(CHANGES_NO_FIGURE, "", command.removeprefix("python ")))
    return [program.rpartition("/")[2], *sorted(words)]


def test_commands_of_pages_are_those_of_their_objects() -> None:
    """The whole command, `--set` included. No object that was made before the end of November 2026
    holds its own."""
    shown = {}
    for text in map(page_of, map(str, pages())):
        ended = "\n".join(
            one for said in MADE_BY.findall(text) for one in re.findall("`(.+?)`", said)
        )
        shown |= {one[1]: one[0] for one in COMMAND.finditer(f"{text}\n{ended}")}
    assert set(shown) >= {"bags", "logs/wikispeedia", "ope", "away", "transfer"}
    for name, command in shown.items():
        argv = read(name).get("machine", {}).get("argv") if path_of(name).is_file() else None
        assert argv is None or words_of(command) == words_of(shlex.join(argv)), name


def test_a_command_is_compared_whole() -> None:
    argv = ["ope.py", "l2", "--set", "depth=4", "--json", "-", "--jobs=2"]
    shown = words_of("python bench/ope.py l2 --json a.json --set depth=4 --overwrite")
    assert words_of(shlex.join(argv)) == shown
    assert words_of("python bench/ope.py l2 --set depth=5") != shown


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_ended_names_the_commit_that_holds_it(page: Path) -> None:
    text = MADE_BY.sub("", page_of(str(page)))
    scripts = set(re.findall(r"(?<![\w/])bench/[\w/]+\.py", text))
    assert sorted(name for name in scripts if not (ROOT / name).is_file()) == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_numbers_in_prose_are_those_of_their_objects() -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    assert [page.name for page, text in texts.items() if set_numbers(text, read) != text] == [], (
        "run python bench/readme.py"
    )
    # a comment in another form would never be set again
    comments = sum(text.count("<!--=") for text in texts.values())
    assert comments == sum(len(NUMBER.findall(text)) for text in texts.values()) > 10


def test_numbers_of_races_are_of_the_newest_object() -> None:
    """No mark names a group of races or figures that a newer object also has."""
    with_races = {path.stem for path in path_of("bench").parent.glob("*.json")}
    assert set(RACES) == {name for name in with_races if "races" in read(name)}
    groups = {
        name: {one["group"] for part in ("races", "figures") for one in read(name)[part]}
        for name in RACES
    }
    stale = []
    for page in pages():
        for name, steps, _ in NUMBER.findall(page.read_text(encoding="utf-8")):
            found = re.search(r"group=([^ >]+)", steps)
            newer = RACES[: RACES.index(name)] if name in RACES else ()
            if found and any(found[1] in groups[one] for one in newer):
                stale.append(f"{page.name}: {name} > {steps}")
    assert stale == [], f"quote the newer of {', '.join(RACES)}"


def test_race_objects_are_in_the_order_of_their_commits() -> None:
    commits = [read(name)["machine"]["commit"] for name in RACES]
    for newer, older in itertools.pairwise(commits):
        order = ["git", "merge-base", "--is-ancestor", older, newer]
        code = subprocess.run(order, cwd=ROOT, capture_output=True, check=False).returncode
        if code > 1:
            pytest.skip("the history of these commits is not here")
        assert code == 0


def test_the_site_begins_with_the_readme() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert text == index_of((ROOT / "README.md").read_text(encoding="utf-8")), (
        "run python bench/readme.py"
    )


def test_a_number_in_prose_is_one_number_of_its_object() -> None:
    rows = {"rows": [{"k": 1, "nll": 0.5}, {"k": 2, "nll": 0.25}]}
    stale = "NLL <!--= some/log > rows > k=2 > nll : .3f -->9<!--/-->."
    assert set_numbers(stale, lambda name: rows) == stale.replace(">9<", ">0.250<")
    for steps in ("rows", "rows > nll", "rows > k=3 > nll", "rows > 0 > brier"):
        with pytest.raises(ValueError, match=r"docs/tables/log\.json has not one number at"):
            set_numbers(f"<!--= log > {steps} : .3f -->9<!--/-->", lambda name: rows)


BY_HAND = {
    "3.11": "lowest version of Python, pyproject.toml",
    "3.13": "highest version of Python that it names",
    "1.97": "the loss that the race quality-wikispeedia is run to, bench/bench_quality.py",
    "2.4": "50/√450",
    ".667": "design log at 06cd207, LPMC again: what was asked of the test year",
    **dict.fromkeys(
        (".6455", ".6475"), "design log at 06cd207, numbers, tastes and members: validation"
    ),
    "35.9": "published: Chen et al. 2019",
    "55.0": "published: Chen et al. 2019",
}
"""decimals that a page may have in its prose, and where each comes from"""


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/index.md",
        "docs/results.md",
        "docs/other-logs.md",
        "docs/performance.md",
        "docs/guide/which-model.md",
    ],
)
def test_decimals_in_prose_come_from_objects(name: str) -> None:
    """Whoever writes a figure by hand forgets it when the object is made anew."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for part in (
        r"^<!-- (.+):begin -->$.*?^<!-- \1:end -->$",
        r"^```.*?^```$",
        NUMBER.pattern,
        r"`[^`\n]*`|<[^>]*>|\]\([^)]*\)",
    ):
        text = re.sub(part, "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?<![\w.])\d*\.\d+", text)
    assert [number for number in found if number not in BY_HAND] == [], (
        "set it by a comment of bench/excerpts.py, or say in BY_HAND where it is from"
    )


def test_a_table_says_which_commit_made_it() -> None:
    for page in pages():
        blocks = re.findall(
            r"^<!-- (.+):begin -->$(.*?)^<!-- \1:end -->$",
            page.read_text(encoding="utf-8"),
            re.MULTILINE | re.DOTALL,
        )
        for name, block in blocks:
            said = any(text in block for text in ("Made at commit", UNNAMED, NOT_RUN))
            assert name in DATA or said, (page, name)
    one, other = ({"machine": {"commit": commit}} for commit in ("0123456789", "abcdef0123"))
    assert made_at(one) == "Made at commit 0123456." == made_at(one, one)
    assert made_at(one, other) == "Made at commits 0123456, abcdef0."
    assert made_at(one, {}) == UNNAMED
    assert made_at({}) == UNNAMED == made_at({"machine": {"commit": None}})


def test_fidelity_reports_are_of_these_splits() -> None:
    reports = [read(f"fidelity/{name}") for name in FIDELITY]
    splits = ["test", "test", "test", "validation"]
    assert [(one["log"]["name"], one["split"]) for one in reports] == list(
        zip(FIDELITY, splits, strict=True)
    )
    assert {report["preset"] for report in reports} == {"fastgaum"}


def test_policies_are_judged_by_users_that_training_did_not_fit() -> None:
    """Every policy is there at every size. The sizes, reward and pools of the first object are those
    that the page's command asks for."""
    for of in POLICIES:
        name, result = of.removesuffix("-own"), read(f"policies/{of}")
        assert result["notes"] == []
        if of.endswith("-own"):
            assert result["world"] == f"runs/{name}-half"
            continue
        for k in {row["k"] for row in result["rows"]}:
            assert {row["policy"] for row in result["rows"] if row["k"] == k} >= set(POLICY_NAMES)
        assert result["world"] == f"runs/{name}-other-half, policies of runs/{name}-half"
        assert result["seeds"] >= 5
    (command,) = re.findall(
        rf"^fastgaum rl evaluate .*--json docs/tables/policies/{POLICIES[0]}.json$",
        page_of("docs/guide/transfer.md"),
        re.MULTILINE,
    )
    options = dict(re.findall(r"(-k|--\S+) +([^- ]\S*)", command))
    result = read(f"policies/{POLICIES[0]}")
    assert options["-k"].split(",") == [
        str(k) for k in dict.fromkeys(row["k"] for row in result["rows"])
    ]
    assert (options["--reward"], int(options["--horizon"])) == (result["reward"], result["horizon"])
    assert f"{options['--pool']} of {options['--pool-size']}" == result["pool"]
    changed = dict(setting.split("=") for setting in re.findall(r"--set (\S+)", command))
    assert {key: str(result["config"][key]) for key in changed} == changed


@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_colours_for_dark_pages(name: str) -> None:
    file = ROOT / "docs" / f"{name}.svg"
    there = all(path_of(one).is_file() for one in FIGURES[name][0])
    assert file.is_file() == there, "run python bench/readme.py"
    if not file.is_file():
        return
    head, _, rest = file.read_text(encoding="utf-8").partition("</style>")
    assert "prefers-color-scheme: dark" in head, "run python bench/readme.py"
    used = set(re.findall(r"#[0-9a-f]{6}\b", rest))
    assert {colour("card"), colour("ink")} <= used <= {light for light, _ in COLOURS.values()}


def test_short_tables_are_of_their_objects() -> None:
    """Every model and log of them, also where it loses; a row that a table lacks is a dash. Of
    published models it has the likeliest."""
    objects = [read(name) for name in FACE]
    table = [row for row in results_to_markdown(*objects).splitlines() if row.startswith("|")]
    lines = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table]
    rows = {label: cells for label, *cells in lines}
    for place, (result, log) in enumerate((one, log) for one in objects for log in one["datasets"]):
        cells = [c for c in result["cells"] if (c["dataset"], c["k"]) == (log, 1)]
        by_model = {cell["model"]: cell for cell in cells if cell["head"] == "reward"}
        for model, called in SHOWN.items():
            found = rows[f"{called} (`{model}`)"][place].replace("**", "")
            one = by_model.get(model)
            assert found == ("–" if one is None else f"{one['mean']:.1f} / {one['nll']:.3f}")
        published = result["datasets"][log].get("published_models", [])
        if published:
            best = min(published, key=lambda one: one["nll"])
            found = rows[f"{best['model']}, best published"][place]
            assert found == f"{best['mean']:.1f} / {best['nll']:.3f}"
    assert [label for label in rows if label.endswith("published")] == ["XGBoost, best published"]
    paper = paper_to_markdown(read("identity"), read("identity-game"))
    for model, own in PUBLISHED.items():
        for row in ("{0}, published", "`{1}` here, likelihood alone", "`{1}` here, with the game"):
            assert f"| {row.format(model, own)} |" in paper
    text = speed_to_markdown(read("bench-short"))
    assert all(f"| {what} |" in text for what in SPEED.values())


def test_a_row_below_a_published_one_is_not_bold() -> None:
    cell = {"dataset": "lpmc", "model": "fastgaum", "head": "reward", "k": 1, "mean": 74.6}
    cell |= {"nll": 0.6569, "bold": True, "selection": "loss"}
    others = {"model": "XGBoost", "mean": 74.5, "nll": 0.6568, "source": "someone, 2023"}

    def table(mean: float) -> str:
        facts = {
            "n_test_events": 9,
            "n_test_users": 3,
            "published_models": [others | {"mean": mean}],
        }
        return results_to_markdown({"seeds": 3, "datasets": {"lpmc": facts}, "cells": [cell]})

    assert "| **74.6** / 0.657 |" in table(74.5)
    assert "Bold: highest of its log and" in table(74.5)
    assert "| 74.6 / 0.657 |" in table(74.72)
    assert "| XGBoost, best published | 74.7 / 0.657 |" in table(74.72)
    assert "Published for lpmc: someone, 2023." in table(74.72)


def test_which_model_takes_the_cheapest_that_no_other_beats() -> None:
    def cell(model: str, nll: float, low: float, seconds: float) -> dict[str, Any]:
        versus = {"model": "pool", "diff": low + 0.1, "ci": [low, low + 0.2]}
        figures = {"nll": nll, "mean": -nll, "seconds": seconds, "vs_best_other": versus}
        named = {"dataset": "mine", "model": model, "head": "reward", "k": 1}
        return {**named, **figures, "nll_vs_best_other": versus}

    cells = [
        *(cell("pool", 0.4, -0.1, 9.0), cell("fastgaum", 0.5, -0.05, 3.0)),
        *(cell("logit", 0.6, 0.0, 2.0), cell("click-rate", 0.7, 0.1, 0.1)),
    ]
    facts: dict[str, Any] = {"yelp": {"holds": ["order"]}, "mine": {}}
    facts["movielens-small"] = {"simulated": {}}
    everywhere = [{**one, "dataset": log} for log in facts for one in cells]
    table = which_model_to_markdown({"datasets": facts, "cells": everywhere})
    best = "`fastgaum` 0.500 (3.0 s) | +0.050 (-0.050 to +0.150, `pool`)"
    assert f"| yelp | 1,725 | 3.9 | order | {best} |" in table
    assert "| `logit` (2.0 s) |" in table
    assert UNNAMED in table
    assert "| movielens-small | 100,004 | 10.0 | ?, displays made up |" in table
    assert "| mine | ? | ? | ? |" in table
    # by events, and a log that the registry does not have comes last
    logs = re.findall(r"^\| ([a-z-]+) \|", table, re.MULTILINE)
    assert [log for log in logs if log in facts] == ["yelp", "movielens-small", "mine"]
    *_, row = (line for line in table.splitlines() if line.startswith("| movielens-small"))
    assert row.endswith("| – |")


def test_an_excerpt_says_that_ours_never_reached_a_loss() -> None:
    races, group = read("bench-short"), "quality-wikispeedia"
    late = [
        {**figure, "value": 0.0, "holds": False} if figure["group"] == group else figure
        for figure in races["figures"]
    ]
    rows = speed_to_markdown({**races, "figures": late}).splitlines()
    (row,) = (row for row in rows if SPEED[group] in row)
    assert "| ours never reached it |" in row
    assert "0 ×" not in row
