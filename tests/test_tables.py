"""The pages' tables are what the script writes today from the committed objects: never by hand,
never stale in form."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from fastgaum.baselines.registry import MODELS
from fastgaum.bench.away import LOGS, AwayPlan
from fastgaum.bench.excerpts import (
    NUMBER,
    OTHERS,
    OURS,
    SPEED,
    made_at,
    results_to_markdown,
    set_numbers,
    speed_to_markdown,
)
from fastgaum.bench.experiments.known_worlds import KNOWN_WORLDS, WELL_SPECIFIED
from fastgaum.bench.ope import SETTINGS
from fastgaum.bench.readme import (
    ADAPTATION,
    AWAY,
    CLICK_MODELS,
    FIDELITY,
    FIDELITY_FIGURE,
    FIGURE,
    LOOP,
    LOOP_FIGURE,
    OPE,
    OTHER_LOGS,
    POLICIES,
    PUBLISHED,
    RACES_PAGES,
    RESULTS,
    ROOT,
    TABLES,
    TRANSFER,
    TRANSFER_FIGURES,
    TRANSFERS,
    VERDICTS,
    adaptations_to_markdown,
    away_to_markdown,
    click_models_page,
    fidelity_to_markdown,
    has,
    insert,
    loop_page,
    ope_page,
    other_log_of,
    pages,
    policies_to_markdown,
    read,
    read_races,
    table_of,
    transfer_excerpt,
    transfers_to_markdown,
    verdicts,
    with_races,
)
from fastgaum.bench.wikispeedia_games import LIMIT
from fastgaum.policies.registry import POLICIES as POLICY_NAMES
from fastgaum.reports.grid import parse_resplits
from fastgaum.reports.plots import COLOURS, colour
from fastgaum.reports.reproduce_table import published_block, reproduce_blocks
from fastgaum.reports.table import block_to_markdown

DATA = ("published", "verdicts")
"""blocks of published figures, and of a comparison with them, whose own tables say it"""
UNNAMED = "The object does not name its commit."


@pytest.mark.parametrize(("page", "marker", "file"), TABLES)
def test_page_is_what_its_object_gives(page: str, marker: str, file: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert has(text, marker)
    assert insert(text, table_of(read(file)), marker) == text, "run python bench/readme.py"


def test_published_table_is_what_an_object_holds_and_all_hold_the_same() -> None:
    page, file = PUBLISHED
    text = (ROOT / page).read_text(encoding="utf-8")
    table = block_to_markdown(published_block(read(file)["published_table"]))
    assert has(text, "published")
    assert insert(text, table, "published") == text, "run python bench/readme.py"
    assert {str(read(other)["published_table"]) for _, _, other in TABLES} == {
        str(read(file)["published_table"])
    }


def test_readme_s_results_are_an_excerpt_of_their_object() -> None:
    text = (ROOT / RESULTS[0]).read_text(encoding="utf-8")
    assert has(text, "results")
    assert insert(text, results_to_markdown(read(RESULTS[1])), "results") == text, (
        "run python bench/readme.py"
    )


def test_verdicts_are_what_the_identity_table_gives() -> None:
    text = (ROOT / VERDICTS[0]).read_text(encoding="utf-8")
    assert insert(text, verdicts(*map(read, VERDICTS[1:])), "verdicts") == text, (
        "run python bench/readme.py"
    )


@pytest.mark.parametrize(("page", "file"), [(page, file) for page, _, file in TABLES])
def test_page_shows_the_command_of_its_object(page: str, file: str) -> None:
    result = read(file)
    require_command(options_of(page, file), result)
    assert result["failed"] == []


@pytest.mark.parametrize(("page", "marker", "file"), OTHER_LOGS)
def test_page_of_other_logs_is_what_its_objects_give(page: str, marker: str, file: str) -> None:
    """Also before a command of the page has run: then its table says so."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert has(text, marker)
    assert insert(text, other_log_of(file), marker) == text, "run python bench/readme.py"
    options = options_of(page, file)
    assert options["datasets"] == marker
    assert {"fastgaum", "logit", "click-rate"} < set(options["models"].split(","))
    assert set(options["models"].split(",")) <= set(MODELS)
    if (ROOT / file).is_file():
        result = read(file)
        require_command(options, result)
        assert result["failed"] == []


def test_page_of_other_logs_shows_the_click_models() -> None:
    page, file = CLICK_MODELS
    text = (ROOT / page).read_text(encoding="utf-8")
    assert has(text, "click-models")
    assert insert(text, click_models_page(read(file)), "click-models") == text, (
        "run python bench/readme.py"
    )


def test_numbers_in_prose_are_those_of_their_objects() -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    assert [page.name for page, text in texts.items() if set_numbers(text, read) != text] == [], (
        "run python bench/readme.py"
    )
    # a comment in another form would never be set again
    comments = sum(text.count("<!--=") for text in texts.values())
    assert comments == sum(len(NUMBER.findall(text)) for text in texts.values()) > 10


def test_a_number_in_prose_is_one_number_of_its_object() -> None:
    rows = {"rows": [{"k": 1, "nll": 0.5}, {"k": 2, "nll": 0.25}]}
    stale = "NLL <!--= some/log > rows > k=2 > nll : .3f -->9<!--/-->."
    assert set_numbers(stale, lambda file: rows) == stale.replace(">9<", ">0.250<")
    for steps in ("rows", "rows > nll", "rows > k=3 > nll", "rows > 0 > brier"):
        with pytest.raises(ValueError, match=r"docs/tables/log\.json has not one number at"):
            set_numbers(f"<!--= log > {steps} : .3f -->9<!--/-->", lambda file: rows)


BY_HAND = {
    "3.11": "lowest version of Python, pyproject.toml",
    "1.97": "the loss that the race quality-wikispeedia is run to, bench/bench_quality.py",
    "2.4": "50/√450",
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
        "docs/resplits.md",
        "docs/other-logs.md",
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
            assert name in DATA or "Made at commit " in block or UNNAMED in block, (page, name)
    assert made_at({"machine": {"commit": "0123456789"}}) == "Made at commit 0123456."
    assert made_at({}) == UNNAMED == made_at({"machine": {"commit": None}})


def options_of(page: str, file: str) -> dict[str, str]:
    """The options of the page's command that writes an object."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (command,) = re.findall(
        rf"^fastgaum reproduce .*--json {re.escape(file)} --overwrite$", text, re.MULTILINE
    )
    return dict(re.findall(r"--(\S+) (\S+)", command))


def require_command(options: dict[str, str], result: dict[str, Any]) -> None:
    """Its models, protocol and seeds: a table from another command would mislead whoever repeats
    it."""
    models = tuple(dict.fromkeys(cell["model"] for cell in result["cells"]))
    assert options["datasets"].split(",") == list(result["datasets"])
    assert (MODELS if options["models"] == "all" else tuple(options["models"].split(","))) == models
    assert options.get("protocol", "bags") == result["protocol"]
    assert int(options["seeds"]) == result["seeds"]
    assert (parse_resplits(options["resplit"]) if "resplit" in options else None) == result[
        "resplit"
    ]


def test_fidelity_page_is_what_its_reports_give() -> None:
    text = (ROOT / FIDELITY[0]).read_text(encoding="utf-8")
    reports = [read(file) for file in FIDELITY[1]]
    assert insert(text, fidelity_to_markdown(reports), "fidelity") == text, (
        "run python bench/readme.py"
    )
    assert {(report["log"]["name"], report["split"]) for report in reports} == {
        ("yelp", "test"),
        ("taobao", "test"),
        ("yoochoose", "test"),
        ("search_clicks", "validation"),
    }
    assert {report["preset"] for report in reports} == {"fastgaum"}


def test_policies_page_is_what_its_objects_give() -> None:
    text = (ROOT / POLICIES[0]).read_text(encoding="utf-8")
    results = [read(file) for file in POLICIES[1]]
    assert insert(text, policies_to_markdown(results), "policies") == text, (
        "run python bench/readme.py"
    )
    for file, result in zip(POLICIES[1], results, strict=True):
        name = Path(file).stem.removesuffix("-own")
        assert result["notes"] == []
        if file.endswith("-own.json"):
            assert result["world"] == f"runs/{name}-half"
            continue
        # every policy is there at every size, and judges are users that training did not fit
        for k in {row["k"] for row in result["rows"]}:
            assert {row["policy"] for row in result["rows"] if row["k"] == k} >= set(POLICY_NAMES)
        assert result["world"] == f"runs/{name}-other-half, policies of runs/{name}-half"
        assert result["seeds"] >= 5


def test_policies_page_shows_the_command_of_its_objects() -> None:
    """The sizes, reward and pools of the first object are those that the page's command asks
    for."""
    text = (ROOT / POLICIES[0]).read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(
        rf"^fastgaum rl evaluate .*--json {re.escape(POLICIES[1][0])}$", text, re.MULTILINE
    )
    options = dict(re.findall(r"(-k|--\S+) +([^- ]\S*)", command))
    result = read(POLICIES[1][0])
    assert options["-k"].split(",") == [
        str(k) for k in dict.fromkeys(row["k"] for row in result["rows"])
    ]
    assert (options["--reward"], int(options["--horizon"])) == (result["reward"], result["horizon"])
    assert f"{options['--pool']} of {options['--pool-size']}" == result["pool"]
    changed = dict(setting.split("=") for setting in re.findall(r"--set (\S+)", command))
    assert {key: str(result["config"][key]) for key in changed} == changed


@pytest.mark.parametrize("file", TRANSFERS)
def test_promised_and_paid_is_what_its_objects_give(file: str) -> None:
    """Also before a command of the page has run: then its table says so."""
    text = (ROOT / TRANSFER).read_text(encoding="utf-8")
    marker = Path(file).stem
    assert has(text, marker)
    assert insert(text, transfers_to_markdown(file), marker) == text, "run python bench/readme.py"
    (command,) = re.findall(
        rf"^python bench/experiments/transfer\.py (.*)--json {re.escape(file)}$", text, re.MULTILINE
    )
    if not (ROOT / file).is_file():
        return
    result = read(file)
    options = re.search(r"--logging (\S+)", command)
    worlds = command.partition("--")[0].split() or list(WELL_SPECIFIED)
    logging = options[1].split(",") if options else ["random"]
    sizes = re.search(r"--events (\S+)", command)
    events = [int(size) for size in sizes[1].split(",")] if sizes else []
    assert [(one["world"], one["logging"], one["events"]) for one in result["settings"]] == [
        (world, who, n)
        for world in worlds
        for who in logging
        for n in events or [KNOWN_WORLDS[world].events]
    ]
    assert result["seeds"] >= 5


def test_home_and_away_is_what_its_object_gives() -> None:
    """Also before the command of the page has run: then its table says so."""
    text = (ROOT / TRANSFER).read_text(encoding="utf-8")
    assert has(text, "away")
    assert insert(text, away_to_markdown(), "away") == text, "run python bench/readme.py"
    (logs,) = re.findall(rf"^python bench/away.py (.*) --json {re.escape(AWAY)}$", text, re.M)
    assert tuple(logs.split()) == LOGS
    if (ROOT / AWAY).is_file():
        result, plan = read(AWAY), AwayPlan()
        assert tuple(log["log"] for log in result["logs"]) == LOGS
        asked = (plan.seeds, plan.members, plan.users, plan.k, plan.horizon, plan.pool)
        names = ("seeds", "members", "users", "k", "horizon", "pool")
        assert tuple(result[name] for name in names) == asked


def test_readme_s_sentence_on_promised_and_paid_is_what_its_object_gives() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert has(text, "transfer")
    assert insert(text, transfer_excerpt(), "transfer") == text, "run python bench/readme.py"
    drawn = [(ROOT / name).is_file() for name in TRANSFER_FIGURES]
    assert drawn == [(ROOT / TRANSFERS[0]).is_file()] * 2, "run python bench/readme.py"


def test_policies_page_is_what_its_adaptation_curves_give() -> None:
    text = (ROOT / POLICIES[0]).read_text(encoding="utf-8")
    results = [read(file) for file in ADAPTATION]
    assert insert(text, adaptations_to_markdown(results), "adaptation") == text, (
        "run python bench/readme.py"
    )
    for file, result in zip(ADAPTATION, results, strict=True):
        name = Path(file).stem.removesuffix("-adapt")
        assert (result["run"], result["in"]) == (f"runs/{name}-half", f"runs/{name}-other-half")
        assert {row["policy"] for row in result["rows"]} == {"pre-trained", "untrained"}


def test_figure_names_the_rows_of_its_object() -> None:
    figure = (ROOT / FIGURE[0]).read_text(encoding="utf-8")
    texts = set(re.findall(r">([^<>\n]+)</text>", figure))
    result = read(FIGURE[1])
    assert set(result["datasets"]) <= texts
    rows = {
        row[0].removesuffix(" †") for block in reproduce_blocks(result)[:-1] for row in block.rows
    }
    assert {
        row for row in rows if not row.startswith(("floor", "best published", "authors"))
    } <= texts


@pytest.mark.parametrize("file", [FIGURE[0], FIDELITY_FIGURE[0]])
def test_figures_have_colours_for_dark_pages(file: str) -> None:
    head, _, rest = (ROOT / file).read_text(encoding="utf-8").partition("</style>")
    assert "prefers-color-scheme: dark" in head, "run python bench/readme.py"
    used = set(re.findall(r"#[0-9a-f]{6}\b", rest))
    assert {colour("card"), colour("ink")} <= used <= {light for light, _ in COLOURS.values()}


def test_the_page_of_players_on_their_own_is_what_its_object_gives() -> None:
    text = (ROOT / LOOP[0]).read_text(encoding="utf-8")
    assert has(text, "loop")
    assert insert(text, loop_page(), "loop") == text, "run python bench/readme.py"
    assert f"python bench/wikispeedia_loop.py play runs/wikispeedia --json {LOOP[1]}\n" in text
    assert (ROOT / LOOP_FIGURE).is_file() == (ROOT / LOOP[1]).is_file()
    if (ROOT / LOOP[1]).is_file():
        result = read(LOOP[1])
        assert list(result["bars"]) == list(result["players"])
        # every second of the log's 12,825 validation games
        assert (result["games"], result["limit"]) == (6_413, LIMIT)


def test_the_page_of_off_policy_values_is_what_its_object_gives() -> None:
    """Also before the page's command has run: then its table says so."""
    text = (ROOT / OPE[0]).read_text(encoding="utf-8")
    assert has(text, "ope")
    assert insert(text, ope_page(), "ope") == text, "run python bench/readme.py"
    assert f"python bench/ope.py --json {OPE[1]}\n" in text
    if (ROOT / OPE[1]).is_file():
        result = read(OPE[1])
        assert result["logs"] >= 100
        # a setting of an earlier study has a name of its own
        today = {one.name: dataclasses.asdict(one) for one in SETTINGS}
        for one in result["settings"]:
            assert today.get(one["name"], {}).items() <= one.items()


@pytest.mark.parametrize("page", RACES_PAGES)
def test_page_is_what_the_races_give(page: str) -> None:
    result = read_races()
    text = (ROOT / page).read_text(encoding="utf-8")
    assert has(text, "speed" if page == "README.md" else "races")
    assert with_races(text, result) == text, "run python bench/readme.py"
    assert not result["smoke"]
    assert result["failed"] == []


def test_excerpts_hide_nothing() -> None:
    """The README's short tables have rows that lose and targets that are missed, where the whole
    ones have any."""
    result, races = read(RESULTS[1]), read_races()
    rows = results_to_markdown(result).splitlines()
    for model in (*OTHERS, OURS):
        assert any(f"`{model}`" in row.split("|")[1] for row in rows if row.startswith("|")), model
    for name, facts in result["datasets"].items():
        best = facts["published_best"]["1"]
        assert any(f"{best['mean']:.1f} / " in row and best["model"] in row for row in rows), name
    text = speed_to_markdown(races)
    assert all(f"| {line.what} |" in text for line in SPEED)
    held = [
        one["holds"] for one in (*races["races"], *races["figures"]) if one["holds"] is not None
    ]
    assert f"{sum(held)} of {len(held)} targets are met." in text
    assert all(held) or "| no |" in text


def test_an_excerpt_says_that_ours_never_reached_a_loss() -> None:
    races, line = read_races(), next(line for line in SPEED if line.group == "quality-wikispeedia")
    late = [
        {**figure, "value": 0.0, "holds": False} if figure["group"] == line.group else figure
        for figure in races["figures"]
    ]
    rows = speed_to_markdown({**races, "figures": late}).splitlines()
    (row,) = (row for row in rows if line.what in row)
    assert "| ours never reached it |" in row
    assert "0 ×" not in row
