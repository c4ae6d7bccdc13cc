"""Set the pages' tables and figures again from the committed JSON of their commands: `python
bench/readme.py`.

It counts reads of test splits that no read of docs/tables/test-reads.json has (`reads.py`), and
puts what `SECTIONS` makes of docs/tables/NAME.json between the lines <!-- MARKER:begin --> and
<!-- MARKER:end --> of a page, draws `FIGURES` (extra `plots`), and sets numbers in the prose that
stand between comments of `excerpts.NUMBER`. tests/test_tables.py fails when a page is not that."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fastgaum.bench.excerpts import (
    draw_leads,
    fidelity_summary,
    made_at,
    paper_cells_to_markdown,
    paper_to_markdown,
    results_to_markdown,
    set_numbers,
    speed_to_markdown,
    which_model_to_markdown,
)
from fastgaum.bench.experiments.decisions import lines_of
from fastgaum.bench.figures import draw_calibration, draw_games, draw_rounds, draw_transfer
from fastgaum.bench.races import groups
from fastgaum.bench.reads import TEST_READS, Reads, count_reads, reads_before, reads_to_text
from fastgaum.bench.report import to_markdown as races_to_markdown
from fastgaum.reports.behaviour import STATISTICS
from fastgaum.reports.published_figures import published_row
from fastgaum.reports.reproduce_table import published_block, reproduce_blocks
from fastgaum.reports.table import (
    Block,
    Json,
    block_to_markdown,
    blocks_to_markdown,
    rows_to_markdown,
)
from fastgaum.reports.world_tables import policy_blocks

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = "Not run yet: the command above writes this table."
NEAR = 3.0
"""points of prec@1 within which a published cell counts as reproduced"""


def path_of(name: str) -> Path:
    return ROOT / "docs" / "tables" / f"{name}.json"


def read(name: str) -> Json:
    """A committed object; that of the races without those that are gone."""
    value: Json = json.loads(path_of(name).read_text(encoding="utf-8"))
    if name == "bench":
        known = groups()
        for part in ("races", "figures"):
            value[part] = [one for one in value[part] if one["group"] in known]
    return value


def objects() -> dict[str, Json]:
    """All committed objects by name."""
    folder = path_of("*").parent
    names = (path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.json")))
    return {str(name): read(str(name)) for name in names if str(name) != TEST_READS}


def read_counts() -> Reads:
    found: Reads = json.loads(path_of(TEST_READS).read_text(encoding="utf-8"))
    return found


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def insert(page: str, table: str, marker: str) -> str:
    """Return the page with the table between its markers.

    >>> insert("a\\n<!-- table:begin -->old<!-- table:end -->\\nb", "new", "table")
    'a\\n<!-- table:begin -->\\n\\nnew\\n\\n<!-- table:end -->\\nb'
    """
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    head, found, rest = page.partition(begin)
    _, also, tail = rest.partition(end)
    if not (found and also):
        raise ValueError(f"the page has no place for '{marker}'")
    return f"{head}{begin}\n\n{table.strip()}\n\n{end}{tail}"


def index_of(readme: str) -> str:
    """The first page of the site: the README, with links as they are there; what lies outside of
    the site is named only."""
    text = re.sub(r'(\]\(|src="|srcset=")docs/', r"\1", readme)
    return re.sub(r"\[([^\]]+)\]\([A-Z]+\.md\)", r"\1", text)


def with_address(readme: str) -> str:
    """The README with the address of pyproject.toml to clone from, or the word ADDRESS."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "ADDRESS")
    return re.sub(r"^git clone \S+ fastgaum\b", f"git clone {address} fastgaum", readme, flags=re.M)


def grid_tables(result: Json) -> str:
    """A comparison's tables without the published one, which stands on a page once."""
    shown = {name: value for name, value in result.items() if name != "published_table"}
    return blocks_to_markdown(reproduce_blocks(shown))


def of_today(report: Json) -> Json:
    """A report on fidelity with the statistics that the code still makes."""
    kept = [one for one in report["statistics"] if one["name"] in STATISTICS]
    return {**report, "statistics": kept}


def fidelity_tables(*reports: Json) -> str:
    (made,) = {made_at(report) for report in reports}
    return f"{fidelity_summary([*map(of_today, reports)])}\n\n{made}"


def verdicts(result: Json, bags: Json) -> str:
    """Our prec@1 under identity beside each published cell that a row of ours repeats, and why
    where they differ."""
    with_bags = {
        (c["dataset"], c["model"], c["head"]): c["mean"] for c in bags["cells"] if c["k"] == 1
    }
    lines = [("row", "model", "log", "published", "ours", "difference", "reproduced")]
    for cell in result["cells"]:
        if cell["k"] != 1 or cell["published"] is None:
            continue
        row = published_row(cell["model"], cell["head"])
        difference = cell["mean"] - cell["published"]
        verdict = _verdict(cell, difference, result["datasets"][cell["dataset"]]["floors"])
        # what the numbers of bags bring, where identities alone fall short
        value = with_bags.get((cell["dataset"], cell["model"], cell["head"]))
        if difference < -NEAR and value is not None:
            verdict += f"; {value:.1f} under `bags`"
        named = (str(row), f"`{cell['model']}`", cell["dataset"], f"{cell['published']:.1f}")
        lines.append((*named, f"{cell['mean']:.1f}", f"{difference:+.1f}", verdict))
    return rows_to_markdown(lines, left=(0, 1, 2, 6))


def _verdict(cell: Json, difference: float, floors: Mapping[str, Mapping[str, float]]) -> str:
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


@dataclass(frozen=True)
class Section:
    """A place of a page, and what stands there."""

    page: str
    marker: str
    objects: Sequence[str]
    render: Callable[..., str]
    """of one object, or of all together"""
    together: bool = False
    of_test: bool = True
    """whether it may show test figures of an object that has some: then a line says how often the
    split was read before"""

    def text(self) -> str:
        """What is to stand there; before an object is there, that it is not."""
        if not all(path_of(name).is_file() for name in self.objects):
            return NOT_RUN
        found = [read(name) for name in self.objects]
        tables = (
            self.render(*found)
            if self.together
            else "\n\n".join(f"{self.render(one)}\n\n{made_at(one)}" for one in found)
        )
        line = reads_before(read_counts(), found) if self.of_test else ""
        return f"{tables}\n\n{line}" if line else tables


def in_blocks(blocks: Callable[[Json], Sequence[Block]]) -> Callable[[Json], str]:
    return lambda result: blocks_to_markdown(blocks(result))


RACES = ("bench-http", "bench-short", "bench")
"""objects of `fastgaum bench`, the newest first: of a group that two have, pages quote the newer"""
GRIDS = ("bags", "identity", "resplits", "relations")
"""objects of `fastgaum reproduce` of logs with published figures"""
OTHER_LOGS = [
    "lpmc",
    "lpmc-persons",
    "tastenet",
    "clara2",
    "wikispeedia",
    "search_clicks",
    "ebnerd",
    "movielens-small",
]
FIDELITY = ("yelp", "taobao", "yoochoose", "search_clicks")
FACE = ("bags", "logs/wikispeedia", "logs/lpmc")
"""objects of README's table and of the drawing of leads"""
POLICIES = ("yelp", "yelp-own", "taobao", "yoochoose", "search_clicks")
"""what policies earn; -own: judged where they were trained"""
OTHER, TRANSFER, WHICH = (
    f"docs/{page}.md" for page in ("other-logs", "guide/transfer", "guide/which-model")
)
SECTIONS = (
    *(Section("docs/results.md", name, [name], grid_tables) for name in GRIDS),
    *(Section(OTHER, name, [f"logs/{name}"], grid_tables) for name in OTHER_LOGS),
    Section(
        WHICH,
        "which-model",
        [
            "bags",
            *(f"logs/{path.stem}" for path in sorted(path_of("logs/*").parent.glob("*.json"))),
        ],
        which_model_to_markdown,
        together=True,
    ),
    Section(
        "docs/published-numbers.md",
        "published",
        ["bags"],
        lambda result: block_to_markdown(published_block(result["published_table"])),
        together=True,
        of_test=False,
    ),
    Section(
        "docs/published-numbers.md",
        "paper",
        ["identity", "identity-game"],
        paper_to_markdown,
        together=True,
    ),
    Section("README.md", "results", FACE, results_to_markdown, together=True),
    Section("README.md", "paper-cells", ["identity"], paper_cells_to_markdown, together=True),
    Section("docs/published-numbers.md", "verdicts", ["identity", "bags"], verdicts, together=True),
    Section(
        "docs/guide/fidelity.md",
        "fidelity",
        [f"fidelity/{name}" for name in FIDELITY],
        fidelity_tables,
        together=True,
    ),
    Section(
        TRANSFER, "policies", [f"policies/{name}" for name in POLICIES], in_blocks(policy_blocks)
    ),
    Section(
        "docs/guide/environment.md", "agents", ["policies/yelp-agents"], in_blocks(policy_blocks)
    ),
    Section(
        "docs/guide/decisions.md",
        "decisions",
        ["decisions"],
        lambda one: rows_to_markdown(lines_of(one)),
        of_test=False,
    ),
    Section("docs/performance.md", "races", ["bench"], races_to_markdown),
    Section("docs/performance.md", "speed", ["bench-short"], speed_to_markdown, together=True),
)
FIGURE_ROWS = ("paper-lstm", "wd-ccf", "xgboost", "fastgaum")
"""models of the drawing of leads"""
FIGURES: dict[str, tuple[Sequence[str], Callable[..., None]]] = {
    "leads": (FACE, partial(draw_leads, models=FIGURE_ROWS)),
    "leads-narrow": (FACE, partial(draw_leads, models=FIGURE_ROWS, narrow=True)),
    "fidelity": ([f"fidelity/{log}" for log in FIDELITY], draw_calibration),
    "transfer": (["transfer"], draw_transfer),
    "transfer-narrow": (["transfer"], partial(draw_transfer, narrow=True)),
    "rounds": (["rounds"], draw_rounds),
    "closed-loop": (["wikispeedia-loop"], draw_games),
}
"""by the name of its file, a figure's objects and what draws it; narrow: on a phone"""


def main() -> None:
    reads = read_counts()
    counted = count_reads(reads, objects(), datetime.now(UTC).date().isoformat())
    path_of(TEST_READS).write_text(reads_to_text(reads), encoding="utf-8")
    for section in SECTIONS:
        path = ROOT / section.page
        page = insert(path.read_text(encoding="utf-8"), section.text(), section.marker)
        path.write_text(page, encoding="utf-8")
    for name, (of, draw) in FIGURES.items():
        if all(path_of(one).is_file() for one in of):
            draw(*map(read, of), path=ROOT / "docs" / f"{name}.svg")
    for path in pages():
        path.write_text(set_numbers(path.read_text(encoding="utf-8"), read), encoding="utf-8")
    readme = with_address((ROOT / "README.md").read_text(encoding="utf-8"))
    (ROOT / "README.md").write_text(readme, encoding="utf-8")
    (ROOT / "docs" / "index.md").write_text(index_of(readme), encoding="utf-8")
    for line in counted:
        print(line)


if __name__ == "__main__":
    main()
