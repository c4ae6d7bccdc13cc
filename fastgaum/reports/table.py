"""The reproduce table from its JSON object: blocks of text cells, for a terminal or as markdown.

Everything that is printed comes from the object, so that a table can be set again from a JSON file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastgaum.reports.figures_text import escaped, num, signed, spread
from fastgaum.reports.table_notes import failures_of, notes_of

KS = ("1", "2")
FLOOR_MODELS = {
    "random": "random",
    "train_click_rate": "click-rate",
    "train_click_count": "click-count",
}
"""the model that is a floor with a row's figures: its row stands among the floors, once, and is
never bold"""
COLUMNS = (
    "model",
    "prec@1",
    "95 %",
    "prec@2",
    "95 %",
    "vs best other",
    "NLL",
    "ECE",
    "gap",
    "published",
    "seconds",
)
IDENTITY_MARK = " †"

ByK = Mapping[str, Mapping[str, Any]]
"""the cells of one row by k"""


@dataclass(frozen=True)
class Block:
    """A titled table of text cells and the lines below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    bold: frozenset[tuple[int, int]] = frozenset()
    """row and column of the cells in bold"""


def blocks(result: Mapping[str, Any]) -> list[Block]:
    """One block per data set of a reproduce object, and the published table where it has to do with
    one of them.

    Rows: floors, what others published or reached, models × heads by prec@1, oracle where known.
    """
    parts = [_block(result, name, facts) for name, facts in result["datasets"].items()]
    return (
        [*parts, published_block(result["published_table"])]
        if "published_table" in result
        else parts
    )


def to_markdown(result: Mapping[str, Any]) -> str:
    """The same blocks as markdown."""
    return "\n".join(block_to_markdown(block) for block in blocks(result))


def published_block(table: Mapping[str, Any]) -> Block:
    """The whole published table, prec@1 / prec@2, as `published.published_table` gives it."""
    rows, missing = table["rows"], table["not_released"]
    datasets = list(dict.fromkeys(dataset for row in rows.values() for dataset in row))
    columns = [f"{name} (not released)" if name in missing else name for name in datasets]
    cells = [
        (model, *(_both(row.get(dataset, {})) for dataset in datasets))
        for model, row in rows.items()
    ]
    return Block(
        title="Published figures",
        columns=("model", *columns),
        rows=tuple(cells),
        notes=(
            "prec@1 / prec@2 in percent, ± as published: Chen et al. 2019 as the report's figure "
            "9 quotes them, and the"
            " report's own",
            f"published figures only: {', '.join(missing)} was never released",
        ),
    )


def rows_by_model(cells: Iterable[Mapping[str, Any]], dataset: str) -> dict[tuple[str, str], ByK]:
    """The cells of one data set by (model, head) and k, best prec@1 first, equals in the grid's
    order."""
    rows: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for cell in cells:
        if cell["dataset"] == dataset:
            rows.setdefault((cell["model"], cell["head"]), {})[str(cell["k"])] = cell
    return dict(sorted(rows.items(), key=lambda row: -_rank(row[1]["1"]["mean"])))


def label_of(key: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """What a row is called: the model, and its head where it has two."""
    model, head = key
    return f"{model}, {head}" if sum(name == model for name, _ in rows) > 1 else model


def _block(result: Mapping[str, Any], name: str, facts: Mapping[str, Any]) -> Block:
    rows = rows_by_model(result["cells"], name)
    floors = {floor: rows.get((FLOOR_MODELS.get(floor, ""), "reward")) for floor in facts["floors"]}
    lines = [_floor_row(floor, facts["floors"][floor], by_k) for floor, by_k in floors.items()]
    lines += _published_rows(facts)
    bold = set()
    for key, by_k in rows.items():
        if by_k in floors.values():
            continue
        bold |= {
            (len(lines), column)
            for k, column in zip(KS, (1, 3), strict=True)
            if by_k[k].get("bold")
        }
        mark = IDENTITY_MARK if by_k["1"]["protocol"] != result["protocol"] else ""
        lines.append([label_of(key, rows) + mark, *_figures(by_k)])
    columns: tuple[str, ...] = COLUMNS
    if facts.get("oracle") is not None:
        lines.append(_oracle_row(facts["oracle"]))
        columns = (*COLUMNS, "random → oracle")
    width = len(columns)
    texts = tuple(tuple((line + [""] * width)[:width]) for line in lines)
    marked = any(row[0].endswith(IDENTITY_MARK) for row in texts)
    notes = [*notes_of(result, name, facts, rows, marked=marked), *failures_of(result, name)]
    return Block(
        f"{name}, protocol {result['protocol']}", columns, texts, tuple(notes), frozenset(bold)
    )


def _floor_row(floor: str, precs: Mapping[str, Any], by_k: ByK | None) -> list[str]:
    """A floor, with the figures of the model that it is where the grid has it."""
    label = f"floor: {floor.replace('_', ' ')}"
    return (
        [label, num(precs["1"]), "", num(precs["2"])] if by_k is None else [label, *_figures(by_k)]
    )


def _published_rows(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    best = facts.get("published_best") or {}
    if best:
        names = [best[k]["model"] for k in KS if k in best]
        cells = [spread(best[k]["mean"], best[k]["sd"]) if k in best else "" for k in KS]
        yield [f"best published: {' / '.join(dict.fromkeys(names))}", cells[0], "", cells[1]]
    for model, precs in (facts.get("authors_code") or {}).items():
        yield [f"authors' code: {model}", num(precs.get("1")), "", num(precs.get("2"))]


def _oracle_row(oracle: Mapping[str, Any]) -> list[str]:
    return ["oracle", num(oracle["1"]), "", num(oracle["2"]), "", "", num(oracle["nll"], 3)]


def _figures(by_k: ByK) -> list[str]:
    """Everything of a row but its label."""
    one = by_k["1"]
    published = [by_k[k]["published"] for k in KS]
    way = one.get("way_to_oracle")
    return [
        *(
            text
            for k in KS
            for text in (spread(by_k[k]["mean"], by_k[k]["sd"]), _span(by_k[k]["ci"]))
        ),
        _versus(one.get("vs_best_other")),
        num(one["nll"], 3),
        num(one["ece"], 3),
        "" if one["gap"] is None else num(one["gap"], 4),
        ""
        if published[0] is None
        else " / ".join(num(value) for value in published if value is not None),
        num(one["seconds"]),
        "" if way is None or math.isnan(way) else f"{round(100 * way)} %",
    ]


def _versus(part: Mapping[str, Any] | None) -> str:
    return (
        ""
        if part is None
        else f"{signed(part['diff'])} ({signed(part['ci'][0])} to {signed(part['ci'][1])})"
    )


def _both(by_k: Mapping[str, Mapping[str, Any]]) -> str:
    return " / ".join(spread(by_k[k]["mean"], by_k[k]["sd"]) for k in KS if k in by_k)


def _span(ci: Sequence[float]) -> str:
    return f"{num(ci[0])} to {num(ci[1])}"


def _rank(mean: float | None) -> float:
    return -math.inf if mean is None or math.isnan(mean) else mean


def block_to_markdown(block: Block) -> str:
    """A block as markdown: a heading, a table, the notes as a list; names from data mark nothing
    up."""
    rule = [":--", *["--:"] * (len(block.columns) - 1)]
    rows = [
        [
            f"**{escaped(cell)}**" if (i, j) in block.bold else escaped(cell)
            for j, cell in enumerate(row)
        ]
        for i, row in enumerate(block.rows)
    ]
    columns = [escaped(column) for column in block.columns]
    lines = [f"### {escaped(block.title)}", "", *map(_markdown_row, (columns, rule, *rows))]
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in block.notes), ""])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
