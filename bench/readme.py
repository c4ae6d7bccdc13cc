"""Set the pages' tables and figures again from the committed JSON of their commands: `python
bench/readme.py`.

`fastgaum reproduce … --json docs/tables/NAME.json` writes the JSON (each page shows its command);
this puts it between the page's markers, the lines <!-- table:begin --> and <!-- table:end -->, and
draws docs/prec1.svg (extra `plots`). README.md has excerpts of two of them between its markers
`results` and `speed`. docs/guide/fidelity.md takes its table from docs/tables/fidelity/, a report
of `fastgaum fidelity … --json` per log. docs/guide/policies.md takes its tables from
docs/tables/policies/, objects of `fastgaum rl evaluate … --json` and of `fastgaum rl adapt …
--json`. docs/other-logs.md takes its tables from docs/tables/logs/, and click models' rows from
docs/tables/click-models.json, which `make click-models` writes. docs/guide/closed-loop.md takes its
tables from docs/tables/wikispeedia-loop.json, which `bench/wikispeedia_loop.py` writes,
docs/guide/off-policy.md from docs/tables/ope.json, which `bench/ope.py` writes.
docs/guide/transfer.md takes its tables from docs/tables/transfer*.json, objects of
`bench/experiments/transfer.py`, and docs/tables/away.json, which `bench/away.py` writes; README.md has a figure
and a sentence from the first of them. docs/performance.md takes its races
from docs/tables/bench.json, which `make bench` writes. Numbers in the prose of a page between
comments of `excerpts.NUMBER` are set too. tests/test_tables.py fails when a page is not what this
would write."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastgaum.bench.away import away_blocks
from fastgaum.bench.click_lists import click_models_to_markdown
from fastgaum.bench.excerpts import (
    made_at,
    results_to_markdown,
    set_numbers,
    speed_to_markdown,
)
from fastgaum.bench.experiments.loop_table import draw_loop, loop_to_markdown
from fastgaum.bench.experiments.transfer_table import (
    draw_transfer,
    transfer_blocks,
    transfer_sentence,
    transfer_summary,
)
from fastgaum.bench.ope import study_to_markdown
from fastgaum.bench.report import to_markdown as races_to_markdown
from fastgaum.bench.run import groups
from fastgaum.reports.log_facts import published_row
from fastgaum.reports.reproduce_table import published_block, reproduce_blocks
from fastgaum.reports.table import block_to_markdown, blocks_to_markdown
from fastgaum.reports.world_tables import adaptation_block, fidelity_summary, policy_blocks

ROOT = Path(__file__).resolve().parents[1]
README = "README.md"
TABLES = (
    ("docs/results.md", "bags", "docs/tables/bags.json"),
    ("docs/results.md", "identity", "docs/tables/identity.json"),
    ("docs/resplits.md", "table", "docs/tables/resplits.json"),
    ("docs/concepts/relations.md", "table", "docs/tables/relations.json"),
)
"""page, marker, and the object whose whole table stands between the markers"""
OTHER_LOGS = tuple(
    ("docs/other-logs.md", name, f"docs/tables/logs/{name}.json")
    for name in ("clara2", "wikispeedia", "search_clicks", "ebnerd", "movielens-small")
)
"""the same, of logs without published figures; an object that is not there yet has a line that says
so"""
NOT_RUN = "Not run yet: the command above writes this table."
CLICK_MODELS = ("docs/other-logs.md", "docs/tables/click-models.json")
"""page with click models' rows between its markers `click-models`, and the object"""
RESULTS = (README, "docs/tables/bags.json")
"""page with an excerpt of a table between its markers `results`, and the object"""
FIGURE = ("docs/prec1.svg", "docs/tables/bags.json")
NARROW_FIGURE = "docs/prec1-narrow.svg"
"""the same on a phone"""
VERDICTS = ("docs/published-numbers.md", "docs/tables/identity.json", "docs/tables/bags.json")
PUBLISHED = ("docs/results.md", "docs/tables/bags.json")
"""page with the whole published table between its markers `published`, and an object that holds it
"""
FIDELITY = (
    "docs/guide/fidelity.md",
    tuple(
        f"docs/tables/fidelity/{name}.json"
        for name in ("yelp", "taobao", "yoochoose", "search_clicks")
    ),
)
"""page that shows fidelity reports beside each other, between its markers `fidelity`, and the
reports"""
FIDELITY_FIGURE = ("docs/fidelity.svg", "docs/tables/fidelity/search_clicks.json")
POLICIES = (
    "docs/guide/policies.md",
    tuple(
        f"docs/tables/policies/{name}.json"
        for name in ("yelp", "yelp-own", "taobao", "yoochoose", "search_clicks")
    ),
)
"""page that shows what policies earn, between its markers `policies`, and the objects; -own: judged
where they were trained"""
ADAPTATION = tuple(f"docs/tables/policies/{name}-adapt.json" for name in ("yelp", "yoochoose"))
"""objects whose curves that page shows between its markers `adaptation`"""
RACES = "docs/tables/bench.json"
RACES_PAGES = ("docs/performance.md", README)
"""page with all races between its markers `races`, and the one with an excerpt between its markers
`speed`"""
TRANSFER = "docs/guide/transfer.md"
"""page with what was promised and paid, between markers of the names of `TRANSFERS`"""
TRANSFERS = tuple(
    f"docs/tables/{name}.json"
    for name in ("transfer", "transfer-logging", "transfer-wrong", "transfer-events")
)
"""its objects; README has the figure and the sentence of the first, between its markers
`transfer`, and of the last the trained policy alone is shown"""
TRANSFER_FIGURES = ("docs/transfer.svg", "docs/transfer-narrow.svg")
AWAY = "docs/tables/away.json"
"""object whose tables that page shows between its markers `away`"""
LOOP = ("docs/guide/closed-loop.md", "docs/tables/wikispeedia-loop.json")
"""page with what learned players do on their own, between its markers `loop`, and the object"""
LOOP_FIGURE = "docs/closed-loop.svg"
OPE = ("docs/guide/off-policy.md", "docs/tables/ope.json")
"""page with errors of off-policy values, between its markers `ope`, and the object"""
PROMISED = "clicks that learned worlds promise of ten policies, against those that true users pay"
NEAR = 3.0
"""points of prec@1 within which a published cell counts as reproduced"""


def read(file: str) -> dict[str, Any]:
    """A committed object."""
    value: dict[str, Any] = json.loads((ROOT / file).read_text(encoding="utf-8"))
    return value


def pages() -> list[Path]:
    """README and all pages of docs."""
    return [ROOT / README, *sorted((ROOT / "docs").rglob("*.md"))]


def has(page: str, marker: str) -> bool:
    """Whether a page has a place for something."""
    return f"<!-- {marker}:begin -->" in page


def read_races() -> dict[str, Any]:
    """The object of the races, without those that are gone."""
    result = read(RACES)
    kept = {
        name: [one for one in result[name] if one["group"] in groups()]
        for name in ("races", "figures")
    }
    return {**result, **kept}


def with_races(text: str, result: dict[str, Any]) -> str:
    """Return a page's text with what it shows of the races, where it has a place for it."""
    if has(text, "races"):
        text = insert(text, f"{races_to_markdown(result)}\n\n{made_at(result)}", "races")
    if has(text, "speed"):
        text = insert(text, speed_to_markdown(result), "speed")
    return text


def insert(page: str, table: str, marker: str = "table") -> str:
    """Return the page with the table between its markers.

    >>> insert("a\\n<!-- table:begin -->old<!-- table:end -->\\nb", "new")
    'a\\n<!-- table:begin -->\\n\\nnew\\n\\n<!-- table:end -->\\nb'
    """
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n\n{table.strip()}\n\n{end}{tail}"


def table_of(result: dict[str, Any]) -> str:
    """A reproduce object's tables; the published one, the same in all of them, stands on a page
    once."""
    shown = {name: value for name, value in result.items() if name != "published_table"}
    return f"{blocks_to_markdown(reproduce_blocks(shown))}\n\n{made_at(result)}"


def other_log_of(file: str) -> str:
    """The tables of an object, or that it is not there yet."""
    return table_of(read(file)) if (ROOT / file).is_file() else NOT_RUN


def policies_to_markdown(results: Iterable[dict[str, Any]]) -> str:
    """The policy tables of some objects, one after the other."""
    return "\n\n".join(
        f"{blocks_to_markdown(policy_blocks(result))}\n\n{made_at(result)}" for result in results
    )


def adaptations_to_markdown(results: Iterable[dict[str, Any]]) -> str:
    """The tables of some adaptation curves, one after the other."""
    return "\n\n".join(
        f"{blocks_to_markdown([adaptation_block(result)])}\n\n{made_at(result)}"
        for result in results
    )


def fidelity_to_markdown(reports: list[dict[str, Any]]) -> str:
    """Fidelity reports beside each other, all of one commit."""
    (made,) = {made_at(report) for report in reports}
    return f"{fidelity_summary(reports)}\n\n{made}"


def transfers_to_markdown(file: str) -> str:
    """What an object says was promised and paid, or that it is not there yet."""
    if not (ROOT / file).is_file():
        return NOT_RUN
    result = read(file)
    if file == TRANSFERS[-1]:
        return f"{transfer_summary(result)}\n\n{made_at(result)}"
    parts = [
        transfer_summary(result),
        blocks_to_markdown(transfer_blocks(result)),
        made_at(result),
    ]
    if file == TRANSFERS[0]:
        parts.insert(1, f"![{PROMISED}](../{Path(TRANSFER_FIGURES[0]).name})")
    return "\n\n".join(parts)


def away_to_markdown() -> str:
    """What an object says of policies at home and away, or that it is not there yet."""
    if not (ROOT / AWAY).is_file():
        return NOT_RUN
    result = read(AWAY)
    return f"{blocks_to_markdown(away_blocks(result))}\n\n{made_at(result)}"


def transfer_excerpt() -> str:
    """README's figure and sentence; nothing before there is an object."""
    if not (ROOT / TRANSFERS[0]).is_file():
        return ""
    wide, narrow = TRANSFER_FIGURES
    return (
        f'<picture><source media="(max-width: 44em)" srcset="{narrow}"><img src="{wide}" '
        f'alt="{PROMISED}"></picture>\n\n{transfer_sentence(read(TRANSFERS[0]))} Points below the '
        f"line: the learned world was too optimistic. [Promised and paid]({TRANSFER}) has the "
        f"tables. {made_at(read(TRANSFERS[0]))}"
    )


def loop_page() -> str:
    """What the object says of players who walk on their own, or that it is not there yet."""
    if not (ROOT / LOOP[1]).is_file():
        return NOT_RUN
    label = "clicks to the target, levels of categories and distance by click, humans and players"
    result = read(LOOP[1])
    return f"![{label}](../{Path(LOOP_FIGURE).name})\n\n{loop_to_markdown(result)}\n\n{made_at(result)}"


def ope_page() -> str:
    """What the object says of off-policy values, or that it is not there yet."""
    if not (ROOT / OPE[1]).is_file():
        return NOT_RUN
    result = read(OPE[1])
    return f"{study_to_markdown(result)}\n\n{made_at(result)}"


def click_models_page(result: dict[str, Any]) -> str:
    """The rows of click models."""
    return f"{click_models_to_markdown(result)}\n\n{made_at(result)}"


def verdicts(result: dict[str, Any], bags: dict[str, Any]) -> str:
    """Our prec@1 under identity beside each published cell that a row of ours repeats, and why
    where they differ."""
    with_bags = {
        (c["dataset"], c["model"], c["head"]): c["mean"] for c in bags["cells"] if c["k"] == 1
    }
    lines = [
        "| row | model | log | published | ours | difference | reproduced |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for cell in result["cells"]:
        if cell["k"] != 1 or cell["published"] is None:
            continue
        row = published_row(cell["model"], cell["head"])
        difference = cell["mean"] - cell["published"]
        floors = result["datasets"][cell["dataset"]]["floors"]
        lines.append(
            f"| {row} | `{cell['model']}` | {cell['dataset']} | {cell['published']:.1f} | "
            f"{cell['mean']:.1f} |"
            f" {difference:+.1f} | "
            f"{_verdict(cell, difference, floors)}{_or_bags(cell, difference, with_bags)} |"
        )
    return "\n".join(lines)


def _verdict(cell: dict[str, Any], difference: float, floors: dict[str, dict[str, float]]) -> str:
    if abs(difference) <= NEAR:
        return "yes"
    if cell["published"] < floors["random"]["1"]:
        return "no: the published cell lies below a random order"
    if difference > 0:
        best = max(precision["1"] for precision in floors.values())
        return "no, higher" + (
            ": the published cell lies below the best floor" if cell["published"] < best else ""
        )
    if cell["dataset"] == "taobao":
        return "no: identities say nothing of 39 % of the clicked items"
    return "no, lower"


def _or_bags(
    cell: dict[str, Any], difference: float, with_bags: dict[tuple[str, str, str], float]
) -> str:
    """What the same model reaches with the numbers of bags, where identities alone fall short of
    the published cell."""
    value = with_bags.get((cell["dataset"], cell["model"], cell["head"]))
    return "" if difference >= -NEAR or value is None else f"; {value:.1f} under `bags`"


def put(page: str, marker: str, text: str) -> None:
    """Write a text between a page's markers."""
    path = ROOT / page
    path.write_text(insert(path.read_text(encoding="utf-8"), text, marker), encoding="utf-8")


def main() -> None:
    """Write the pages and the figures."""
    from fastgaum.reports.figures import draw_fidelity, draw_precision

    for page, marker, file in TABLES:
        put(page, marker, table_of(read(file)))
    for page, marker, file in OTHER_LOGS:
        put(page, marker, other_log_of(file))
    put(CLICK_MODELS[0], "click-models", click_models_page(read(CLICK_MODELS[1])))
    put(
        PUBLISHED[0],
        "published",
        block_to_markdown(published_block(read(PUBLISHED[1])["published_table"])),
    )
    put(RESULTS[0], "results", results_to_markdown(read(RESULTS[1])))
    put(VERDICTS[0], "verdicts", verdicts(*map(read, VERDICTS[1:])))
    put(FIDELITY[0], "fidelity", fidelity_to_markdown([read(file) for file in FIDELITY[1]]))
    put(POLICIES[0], "policies", policies_to_markdown(map(read, POLICIES[1])))
    put(POLICIES[0], "adaptation", adaptations_to_markdown(map(read, ADAPTATION)))
    for file in TRANSFERS:
        put(TRANSFER, Path(file).stem, transfers_to_markdown(file))
    put(TRANSFER, "away", away_to_markdown())
    put(README, "transfer", transfer_excerpt())
    put(LOOP[0], "loop", loop_page())
    put(OPE[0], "ope", ope_page())
    if (ROOT / LOOP[1]).is_file():
        draw_loop(read(LOOP[1]), ROOT / LOOP_FIGURE)
    if (ROOT / TRANSFERS[0]).is_file():
        for name, narrow in zip(TRANSFER_FIGURES, (False, True), strict=True):
            draw_transfer(read(TRANSFERS[0]), ROOT / name, narrow=narrow)
    draw_precision(read(FIGURE[1]), ROOT / FIGURE[0])
    draw_precision(read(FIGURE[1]), ROOT / NARROW_FIGURE, narrow=True)
    draw_fidelity(read(FIDELITY_FIGURE[1]), ROOT / FIDELITY_FIGURE[0])
    for page in RACES_PAGES:
        path = ROOT / page
        path.write_text(
            with_races(path.read_text(encoding="utf-8"), read_races()), encoding="utf-8"
        )
    for path in pages():
        path.write_text(set_numbers(path.read_text(encoding="utf-8"), read), encoding="utf-8")


if __name__ == "__main__":
    main()
