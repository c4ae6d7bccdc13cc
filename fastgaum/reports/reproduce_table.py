"""The table of `reproduce` from its JSON object: blocks of text cells with the lines below them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from fastgaum.presets import PRESETS
from fastgaum.reports.published_figures import rows_of_others
from fastgaum.reports.table import Block, Json, TableColumn, num, signed, spread, table_of

KS = ("1", "2")
OURS = ("fastgaum", "reward")
"""the row that is compared in words"""
FLOOR_MODELS = {
    "random": "random",
    "train_click_rate": "click-rate",
    "train_click_count": "click-count",
}
"""models that are floors with a row's figures"""
RESULT_COLUMNS = (
    TableColumn("model", "label"),
    TableColumn("prec@1", "prec1"),
    TableColumn("95 %", "ci1", 1),
    TableColumn("prec@2", "prec2"),
    TableColumn("95 %", "ci2", 1),
    TableColumn("vs best other", "versus"),
    TableColumn("NLL", "nll", 3, ends="brackets", none="-"),
    TableColumn("ECE", "ece", 3, none="-"),
    TableColumn("gap", "gap", 4),
    TableColumn("published", "published"),
    TableColumn("seconds", "seconds", 1, none="-"),
)
ORACLE = TableColumn("random → oracle", "way")
IDENTITY_MARK = " †"
WEIGHTED = "figures are means weighted by the log's weights of events"

ByK = Mapping[str, Json]
"""the cells of one row by k"""


def reproduce_blocks(result: Json) -> list[Block]:
    """One block per data set of a reproduce object, and the published table where it has to do
    with one."""
    parts = [_block(result, name, facts) for name, facts in result["datasets"].items()]
    if "published_table" in result:
        parts.append(published_block(result["published_table"]))
    return parts


def published_block(table: Json) -> Block:
    """The whole published table, prec@1 / prec@2, as `others.published_table` gives it."""
    rows, missing = table["rows"], table["not_released"]
    datasets = list(dict.fromkeys(dataset for row in rows.values() for dataset in row))
    columns = [f"{name} (not released)" if name in missing else name for name in datasets]

    cells = [
        (
            model,
            *(
                " / ".join(spread(by_k[k]["mean"], by_k[k]["sd"]) for k in KS if k in by_k)
                for by_k in (row.get(dataset, {}) for dataset in datasets)
            ),
        )
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


def rows_by_model(cells: Iterable[Json], dataset: str) -> dict[tuple[str, str], ByK]:
    """The cells of one data set by (model, head) and k, best prec@1 first."""
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for cell in cells:
        if cell["dataset"] == dataset:
            rows.setdefault((cell["model"], cell["head"]), {})[str(cell["k"])] = cell
    return dict(sorted(rows.items(), key=lambda row: -_known(row[1]["1"]["mean"], -math.inf)))


def likeliest(cells: Iterable[Json]) -> Json:
    """The cell with the lowest NLL."""
    return min(cells, key=lambda cell: _known(cell["nll"], math.inf))


def label_of(key: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """The model, and its head where it has two."""
    model, head = key
    return f"{model}, {head}" if sum(name == model for name, _ in rows) > 1 else model


def is_uncalibrated(cell: Json) -> bool:
    """Whether the NLL is of utilities whose scale another figure chose: a table from before
    `calibrated loss` put its scale into the weights."""
    return bool(cell["selection"] == "calibrated loss" and not cell.get("calibrated"))


def _block(result: Json, name: str, facts: Json) -> Block:
    rows = rows_by_model(result["cells"], name)
    floors = {
        f"floor: {floor.replace('_', ' ')}": rows.get((model, "reward"))
        for floor, model in FLOOR_MODELS.items()
        if floor in facts["floors"]
    }
    lines: list[Json] = []
    for one in rows_of_others(facts):
        by_k = floors.get(one["label"])
        line = _precisions(one["prec"]) if by_k is None else _figures(by_k)
        if one["nll"] is not None:
            line["nll"] = one["nll"]["mean"]
        lines.append(line | {"label": one["label"]})
    for key, by_k in rows.items():
        if by_k not in floors.values():
            mark = IDENTITY_MARK if by_k["1"]["protocol"] != result["protocol"] else ""
            bold = [f"prec{k}" for k in KS if by_k[k].get("bold")]
            doubt = ", not calibrated" if is_uncalibrated(by_k["1"]) else ""
            label = label_of(key, rows) + doubt + mark
            lines.append({"label": label, "bold": bold, **_figures(by_k)})
    columns = [*RESULT_COLUMNS]
    if facts.get("oracle") is not None:
        oracle = facts["oracle"]
        precs = {f"prec{k}": num(oracle[k]) for k in KS}
        lines.append({"label": "oracle", "nll": oracle["nll"], **precs})
        columns.append(ORACLE)
    marked = any(line["label"].endswith(IDENTITY_MARK) for line in lines)
    notes = [*notes_of(result, name, facts, rows, marked=marked)]
    for run in result.get("failed", []):
        if run["dataset"] == name:
            split = "" if run["resplit"] is None else f"split {run['resplit']}, "
            which = f"{run['model']} ({split}seed {run['seed']})"
            notes.append(f"failed, so without a row: {which}: {run['reason']}")
    title = f"{name}, protocol {result['protocol']}"
    return table_of(title, columns, lines, notes, lambda line: line.get("bold", ()))


def _precisions(by_k: ByK) -> Json:
    return {f"prec{k}": spread(by_k[k]["mean"], by_k[k]["sd"]) for k in KS}


def _figures(by_k: ByK) -> Json:
    one = by_k["1"]
    row: Json = {key: one[key] for key in ("nll", "nll_ci", "ece", "gap", "seconds") if key in one}
    row |= _precisions(by_k) | {f"ci{k}": by_k[k]["ci"] for k in KS}
    versus, way = one.get("vs_best_other"), one.get("way_to_oracle")
    if versus is not None:
        row["versus"] = _difference(versus)
    if one["published"] is not None:
        published = (by_k[k]["published"] for k in KS)
        row["published"] = " / ".join(num(value) for value in published if value is not None)
    if way is not None and not math.isnan(way):
        row["way"] = f"{round(100 * way)} %"
    return row


def _difference(part: Json, digits: int = 1, *, named: bool = False) -> str:
    low, high = (signed(end, digits) for end in part["ci"])
    other = f", {part['model']}" if named else ""
    return f"{signed(part['diff'], digits)} ({low} to {high}{other})"


def _known(figure: float | None, otherwise: float) -> float:
    return otherwise if figure is None or math.isnan(figure) else figure


def notes_of(
    result: Json, name: str, facts: Json, rows: Mapping[tuple[str, str], ByK], *, marked: bool
) -> Iterator[str]:
    """The lines below one data set's table; `marked`: a row reads the identity alone."""
    yield _what_was_run(result, facts)
    if facts.get("weighted"):
        yield WEIGHTED
    if "simulated" in facts:
        simulated = facts["simulated"]
        yield (
            f"displays were never logged: they are made up by the rule {simulated['rule']}, and"
            ' "fewest displays earlier in the session" alone scores prec@1'
            f" {num(simulated['trace'])}"
        )
    for source in dict.fromkeys(one["source"] for one in facts.get("published_models", [])):
        yield f"published: {source}"
    for one in facts.get("others", ()):
        known = one["fingerprint"] and not result["resplit"]
        unknown = "" if known else "; whether it is of these test events is not known"
        yield f"others, {one['model']}: {one['source']}{unknown}"
    # `compare` reads a log as its user says
    if facts.get("published_best") and (result["resplit"] or "reading" in result):
        yield "the published figures are of the released split: compare with care"
    if facts.get("published_best") and result["protocol"] == "views":
        yield (
            "protocol views is not comparable with the published figures, which know no view counts"
        )
    if marked:
        yield (
            "†: reads the identity alone, whatever the protocol: it has no input for what else "
            f"{result['protocol']} says"
        )
    cells = [by_k["1"] for by_k in rows.values()]
    if any(cell.get("vs_best_other") for cell in cells):
        yield (
            "vs best other: paired difference of prec@1 to the best row of another model, with its "
            "95 % interval; bold: the best of its column, floors and published rows included, its "
            "interval above 0 against every other model"
        )
        if ours := rows.get(OURS):
            leads = (f"prec@{k} {_difference(ours[k]['vs_best_other'], named=True)}" for k in KS)
            yield f"{OURS[0]} against the best other model: {', '.join(leads)}"
        lowest = likeliest(cells)
        lead = _difference(lowest["nll_vs_best_other"], 4, named=True)
        yield f"lowest NLL of the models fitted here: {lowest['model']} {lead}"
    # objects from before folds lack the key
    for is_mean, where in (
        (False, "epoch chosen on validation"),
        (True, "epoch of each fit on folds chosen on the fold that it left out"),
    ):
        some = [c for c in cells if bool(c.get("folds")) == is_mean and c["selection"] != "—"]
        if some:
            yield f"{where} by {_grouped((c['model'], c['selection']) for c in some)}"
    folded = [(c["model"], str(c["folds"])) for c in cells if c.get("folds")]
    for n_folds in dict.fromkeys(n for _, n in folded):
        names = ", ".join(dict.fromkeys(model for model, n in folded if n == n_folds))
        yield f"mean of the fits on {n_folds} folds of users over training and validation: {names}"
    tried: dict[str, list[tuple[str, str]]] = {}
    for cell in cells:
        if cell.get("settings_tried"):
            tried.setdefault(_compared_on(cell), []).append(
                (cell["model"], str(cell["settings_tried"]))
            )
    for where, fits in tried.items():
        yield f"settings compared {where}: {_grouped(fits)}"
    shares = [
        f"{what}: {s['percent']:.0f} %"
        for what, s in facts["shares"].items()
        if s["percent"] is not None
    ]
    if shares:
        yield "; ".join(shares)
    # seeds are drawn since objects name the unit
    seeds = " and seeds" if "unit" in facts and result["seeds"] > 1 else ""
    yield f"intervals: 95 %, from a bootstrap over {facts.get('unit', 'users')}{seeds}"


def _compared_on(cell: Json) -> str:
    """Where a row's settings were compared."""
    if not cell.get("folds"):
        return "on the validation split within each fit"
    if cell["model"] in PRESETS:
        return "once for all fits, each setting on folds of users that its trials left out"
    return "within each fit, on the fold of users that it left out"


def _what_was_run(result: Json, facts: Json) -> str:
    seeds, resplit = result["seeds"], result["resplit"]
    units = f"{facts['n_test_users']} {facts.get('unit', 'users')}"
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
    reading = result.get("reading", {})
    rule = reading.get("split_by", "auto")
    if not resplit and rule not in ("auto", "file"):
        seed = "" if rule == "time" else f", seed {reading.get('split_seed', 0)}"
        split = f"split by --split-by {rule}{seed}"
    elif not resplit:
        split = "the log's own split"
    elif len(resplit) == 1:
        split = f"users split anew with seed {resplit[0]}"
    else:
        in_a_row = resplit == list(range(resplit[0], resplit[0] + len(resplit)))
        seeds_of = f"{resplit[0]}..{resplit[-1]}" if in_a_row else ", ".join(map(str, resplit))
        split = f"pooled over {len(resplit)} splits of the users anew (seeds {seeds_of})"
    return (
        f"{facts['n_test_events']} test events of {units}, {counted}, {split};"
        " ± standard deviation over seeds, gap on the training split"
    )


def _grouped(pairs: Iterable[tuple[str, str]]) -> str:
    groups: dict[str, list[str]] = {}
    for name, value in dict(pairs).items():
        groups.setdefault(value, []).append(name)
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in groups.items())
