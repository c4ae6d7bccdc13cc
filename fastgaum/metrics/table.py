"""The reproduce table from its JSON object: blocks of text cells, for a terminal or as markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KS = ("1", "2")


@dataclass(frozen=True)
class Block:
    """A titled table of text cells and the lines below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def blocks(result: Mapping[str, Any]) -> list[Block]:
    """One block per data set of a reproduce object: floors, what others reached, models × heads, oracle where known."""
    return [_block(result, name, facts) for name, facts in result["datasets"].items()]


def to_markdown(result: Mapping[str, Any]) -> str:
    """The same blocks as markdown."""
    return "\n".join(_markdown(block) for block in blocks(result))


def _block(result: Mapping[str, Any], name: str, facts: Mapping[str, Any]) -> Block:
    has_oracle = facts.get("oracle") is not None
    columns = ["model", "prec@1", "95 %", "prec@2", "95 %", "NLL", "ECE", "gap", "published", "seconds"]
    rows = [*_floor_rows(facts), *_published_rows(facts), *_model_rows(result["cells"], name)]
    if has_oracle:
        oracle = facts["oracle"]
        rows.append(["oracle", _num(oracle["1"]), "", _num(oracle["2"]), "", _num(oracle["nll"], 3), "", "", "", ""])
        columns.append("random → oracle")
        rows = [[*row, _way(row[0], result["cells"], name)] for row in rows]
    title = f"{name}, protocol {result['protocol']}"
    return Block(title, tuple(columns), tuple(map(tuple, rows)), tuple(_notes(result, name, facts)))


def _floor_rows(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    for floor, precs in facts["floors"].items():
        yield [f"floor: {floor.replace('_', ' ')}", _num(precs["1"]), "", _num(precs["2"]), *[""] * 6]


def _published_rows(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    best = facts.get("published_best") or {}
    if best:
        names = [best[k]["model"] for k in KS if k in best]
        cells = [_spread(best[k]["mean"], best[k]["sd"]) if k in best else "" for k in KS]
        yield [f"best published: {' / '.join(dict.fromkeys(names))}", cells[0], "", cells[1], *[""] * 6]
    for model, precs in (facts.get("authors_code") or {}).items():
        yield [f"authors' code: {model}", _num(precs.get("1")), "", _num(precs.get("2")), *[""] * 6]


def _model_rows(cells: Sequence[Mapping[str, Any]], dataset: str) -> Iterator[list[str]]:
    for label, by_k in _by_row(cells, dataset).items():
        one = by_k["1"]
        published = [by_k[k]["published"] for k in KS]
        yield [
            label,
            *(text for k in KS for text in (_spread(by_k[k]["mean"], by_k[k]["sd"]), _span(by_k[k]["ci"]))),
            _num(one["nll"], 3),
            _num(one["ece"], 3),
            "" if one["gap"] is None else _num(one["gap"], 4),
            "" if published[0] is None else " / ".join(_num(value) for value in published),
            _num(one["seconds"]),
        ]


def _by_row(cells: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Cells of one data set by table row and k."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for cell in cells:
        if cell["dataset"] == dataset:
            rows.setdefault(f"{cell['model']}, {cell['head']}", {})[str(cell["k"])] = cell
    return rows


def _way(label: str, cells: Sequence[Mapping[str, Any]], dataset: str) -> str:
    """How much of the way from random to oracle a row goes, at prec@1."""
    cell = _by_row(cells, dataset).get(label, {}).get("1")
    return "" if cell is None or cell.get("way_to_oracle") is None else f"{100 * cell['way_to_oracle']:.0f} %"


def _notes(result: Mapping[str, Any], name: str, facts: Mapping[str, Any]) -> Iterator[str]:
    seeds = result["seeds"]
    split = "the log's own split" if result["resplit"] is None else f"users split anew with seed {result['resplit']}"
    events = f"{facts['n_test_events']} test events of {facts['n_test_users']} users"
    yield (
        f"{events}, {seeds} seed{'s' if seeds > 1 else ''}, {split};"
        " ± standard deviation over seeds, 95 % interval from a bootstrap over users, gap on the training split"
    )
    if facts.get("published_best") and result["resplit"] is not None:
        yield "the published figures are of the released split: compare with care"
    if facts.get("published_best") and result["protocol"] == "views":
        yield "protocol views is not comparable with the published figures, which know no view counts"
    rules = {cell["model"]: cell["selection"] for cell in result["cells"] if cell["dataset"] == name}
    if rules:
        models = {rule: [model for model in rules if rules[model] == rule] for rule in rules.values()}
        chosen = ", ".join(f"{rule} ({', '.join(names)})" for rule, names in models.items())
        yield f"epoch chosen on validation by {chosen}"
    shares = [f"{what}: {s['percent']:.0f} %" for what, s in facts["shares"].items() if s["percent"] is not None]
    if shares:
        yield "; ".join(shares)


def _markdown(block: Block) -> str:
    rule = [":--", *["--:"] * (len(block.columns) - 1)]
    lines = [f"### {block.title}", "", *map(_markdown_row, (block.columns, rule, *block.rows))]
    return "\n".join([*lines, "", *(f"- {note}" for note in block.notes), ""])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _num(value: float | None, digits: int = 1) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _spread(mean: float, sd: float | None) -> str:
    """Mean ± standard deviation; a single seed has none to show."""
    return f"{_num(mean)} ±{_num(sd)}" if sd else _num(mean)


def _span(ci: Sequence[float]) -> str:
    return f"{_num(ci[0])} to {_num(ci[1])}"
