"""The lines below a table: on what, how often, chosen how, compared how, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastgaum.reports.figures_text import num, ranges, signed

Rows = Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]]
"""cells by (model, head) and k"""


def notes_of(
    result: Mapping[str, Any], name: str, facts: Mapping[str, Any], rows: Rows, *, marked: bool
) -> Iterator[str]:
    """What a reader must know to read one data set's table; `marked`: a row reads the identity
    alone."""
    yield _what_was_run(result, facts)
    if "simulated" in facts:
        simulated = facts["simulated"]
        yield (
            f"displays were never logged: they are made up by the rule {simulated['rule']}, and"
            ' "fewest displays earlier in the session" alone scores prec@1'
            f" {num(simulated['trace'])}"
        )
    if facts.get("published_best") and result["resplit"]:
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
    yield from _comparison(result.get("comparison", {}).get(name, {}))
    cells = [by_k["1"] for by_k in rows.values()]
    chosen = _grouped(
        (cell["model"], cell["selection"]) for cell in cells if cell["selection"] != "—"
    )
    if chosen:
        yield f"epoch chosen on validation by {chosen}"
    yield from _budget(result, cells)
    shares = [
        f"{what}: {s['percent']:.0f} %"
        for what, s in facts["shares"].items()
        if s["percent"] is not None
    ]
    if shares:
        yield "; ".join(shares)


def failures_of(result: Mapping[str, Any], name: str) -> Iterator[str]:
    """One line per failed run of a data set; its model has no row."""
    for run in result.get("failed", []):
        if run["dataset"] == name:
            split = "" if run["resplit"] is None else f"split {run['resplit']}, "
            which = f"{run['model']} ({split}seed {run['seed']})"
            yield f"failed, so without a row: {which}: {run['reason']}"


def _what_was_run(result: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    seeds, resplit = result["seeds"], result["resplit"]
    events = f"{facts['n_test_events']} test events of {facts['n_test_users']} users"
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
    if not resplit:
        split = "the log's own split"
    elif len(resplit) == 1:
        split = f"users split anew with seed {resplit[0]}"
    else:
        split = f"pooled over {len(resplit)} splits of the users anew (seeds {ranges(resplit)})"
    return (
        f"{events}, {counted}, {split};"
        " ± standard deviation over seeds, 95 % interval from a bootstrap over users, gap on the "
        "training split"
    )


def _comparison(by_k: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not any(part["best"]["vs_best_other"] for part in by_k.values()):
        return
    yield (
        "vs best other: paired difference of prec@1 to the best row of another model, with its 95 "
        "% interval over users;"
        " bold: the best of its column, its interval above 0 against every other model"
    )
    ours = {
        k: part["ours"]
        for k, part in by_k.items()
        if part["ours"] and part["ours"]["vs_best_other"]
    }
    if ours:
        texts = [f"prec@{k} {_against(part['vs_best_other'])}" for k, part in ours.items()]
        model = next(iter(ours.values()))["model"]
        yield f"{model} against the best other model: {', '.join(texts)}"


def _against(part: Mapping[str, Any]) -> str:
    low, high = part["ci"]
    return f"{signed(part['diff'])} ({signed(low)} to {signed(high)}, {part['model']})"


def _budget(result: Mapping[str, Any], cells: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """How many settings each model's search compared; what a fit itself compares comes on top."""
    cells = list(cells)
    models = {cell["model"] for cell in cells}
    tuning = {model: facts for model, facts in result.get("tuning", {}).items() if model in models}
    searched = _grouped((model, num(facts["settings_tried"], 0)) for model, facts in tuning.items())
    if searched:
        yield f"settings tried on validation folds per model: {searched}"
    fits = _grouped(
        (c["model"], str(c["settings_tried"])) for c in cells if c.get("settings_tried")
    )
    if fits:
        yield f"settings compared on the validation split within each fit: {fits}"


def _grouped(pairs: Iterable[tuple[str, str]]) -> str:
    """Names by what they share: 'loss (fastgaum, logit), prec@1 (paper-pw)'."""
    groups: dict[str, list[str]] = {}
    for name, value in dict(pairs).items():
        groups.setdefault(value, []).append(name)
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in groups.items())
