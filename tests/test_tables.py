"""The pages' tables are what the script writes today from the committed objects: never by hand,
never stale in form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fastgaum.baselines.registry import MODELS
from fastgaum.bench.excerpts import (
    ENDED,
    NUMBER,
    made_at,
    set_numbers,
)
from fastgaum.bench.readme import (
    FIGURES,
    GRIDS,
    NOT_RUN,
    OTHER_LOGS,
    ROOT,
    SECTIONS,
    Section,
    index_of,
    insert,
    pages,
    path_of,
    read,
)
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
MADE_BY = re.compile(r"[Mm]ade by (`[^`]+`.*?) at commit 06cd207\b")
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


@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_colours_for_dark_pages(name: str) -> None:
    file = ROOT / "docs" / f"{name}.svg"
    assert file.is_file() == path_of(FIGURES[name][0]).is_file(), "run python bench/readme.py"
    if not file.is_file():
        return
    head, _, rest = file.read_text(encoding="utf-8").partition("</style>")
    assert "prefers-color-scheme: dark" in head, "run python bench/readme.py"
    used = set(re.findall(r"#[0-9a-f]{6}\b", rest))
    assert {colour("card"), colour("ink")} <= used <= {light for light, _ in COLOURS.values()}
