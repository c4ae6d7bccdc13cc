"""Tables of worlds from their JSON objects: fidelity reports and policies."""

from __future__ import annotations

from collections.abc import Iterator

from fastgaum.policies.advice import Advice
from fastgaum.reports.table import (
    Block,
    Json,
    TableColumn,
    block_to_markdown,
    num,
    table_of,
)

DIGITS = {"%": 1, "nats": 3, "places": 2, "log": 2}


def fidelity_block(report: Json) -> Block:
    """The statistics of one report, the difference in bold where its interval leaves out 0."""
    title = (
        f"{report['log']['name']}, {report['split']} split: the world ({report['head']}) against "
        "the log"
    )
    rows = tuple(
        (one["name"], one["unit"], *(column.text(one) for column in sides_of(one["unit"])))
        for one in report["statistics"]
    )
    heads = ("statistic", "unit", *(column.title for column in sides_of("%")))
    bold = frozenset((i, 6) for i, one in enumerate(report["statistics"]) if differs(one))
    return Block(title, heads, rows, tuple(_fidelity_notes(report)), bold)


def fidelity_markdown(report: Json) -> str:
    """A fidelity report as markdown."""
    return block_to_markdown(fidelity_block(report))


def differs(one: Json) -> bool:
    """Whether the interval of a statistic's difference leaves out 0."""
    low, high = one["difference_ci"]
    return low is not None and high is not None and not low <= 0 <= high


def sides_of(unit: str) -> tuple[TableColumn, ...]:
    """Columns of a statistic: logged, simulated and their difference, each with its interval."""
    digits, factor = DIGITS[unit], 100 if unit == "%" else 1
    return tuple(
        TableColumn(title, key, digits, factor, signed=side == "difference", none="-")
        for side in ("logged", "simulated", "difference")
        for title, key in ((side, side), ("95 %", f"{side}_ci"))
    )


def ece_text(calibration: Json) -> str:
    """The model's calibration error, and in brackets that of the world's own sessions."""
    low, middle, high = calibration["ece_simulated"]
    return (
        f"{100 * calibration['ece']:.1f} ({100 * middle:.1f}, {100 * low:.1f} to {100 * high:.1f})"
    )


def _fidelity_notes(report: Json) -> Iterator[str]:
    yield (
        f"{report['events']} events in {report['sessions']} sessions of {report['users']} users, "
        f"each session replayed {report['replicas']} times on the displays that the log shows; "
        "rates in percent"
    )
    # objects from before folds lack both
    n_folds, out_of_fold = report.get("folds"), report.get("out_of_fold_sessions")
    if n_folds and out_of_fold != report["sessions"]:
        yield f"each simulated user lives in the world of one of the model's {n_folds} fits"
    if out_of_fold:
        yield (
            f"{out_of_fold} sessions are of users who trained the model: out of fold, by the fit "
            "that left the user out, with the counts of the other folds"
        )
    if report.get("weighted"):
        yield "each event counts once on both sides: the log's weights of events are not read"
    if report["left_out_sessions"]:
        yield (
            f"{report['left_out_sessions']} sessions of the split are of users who were not drawn: "
            "raise the number of episodes"
        )
    yield (
        f"95 % intervals: {report['draws']} bootstrap draws of users, the same on both sides; "
        "bold: the interval of the difference leaves out 0"
    )
    calibration = report["calibration"]
    yield (
        "on logged histories the model's distribution has a mean entropy of "
        f"{num(calibration['entropy'], 3)} nats, which is what"
        f" surprise is where it is calibrated; calibration error {ece_text(calibration)} %, in "
        "brackets that of the world's own sessions"
    )
    if report["new_items"]:
        yield (
            f"{100 * report['new_items']:.1f} % of the displayed candidates are items that the "
            "model never met"
        )
    if report["fields_averaged"]:
        fields = ", ".join(report["fields_averaged"])
        yield f"a simulated candidate has its item's mean of {fields}, a logged one its own"


POLICY_COLUMNS = (
    TableColumn("policy", "policy"),
    TableColumn("cumulative reward", "return", 3),
    TableColumn("95 %", "return_ci", 3),
    TableColumn("click rate", "click_rate", 3),
    TableColumn("95 %", "click_rate_ci", 3),
    TableColumn("vs best other", "lead"),
    TableColumn("95 %", "lead_ci", 3),
)
LOWER_BOUND = TableColumn("lower bound", "lower_bound", 3)
"""of a table that was made in a set of worlds"""
DISPLAY_COLUMNS = (
    TableColumn("policy", "policy"),
    TableColumn("diversity", "diversity", 3, none="-"),
    TableColumn("coverage, %", "coverage", 1, 100),
    TableColumn("Gini", "gini", 3),
    TableColumn("decoys, %", "decoys", 1, 100),
)
DISPLAY_NOTE = (
    "diversity: mean cosine distance of two items of a slate, by the items' features; coverage: "
    "share of the pools' items that were shown; Gini: of how often each of them was, 0: all alike; "
    "decoys: share of the displayed items below the median utility of their user's pool"
)


def policy_blocks(result: Json) -> list[Block]:
    """Two blocks per k, rows by cumulative reward: what was earned, bold where the lead's interval
    is above 0, and what was shown."""
    blocks = []
    for k in dict.fromkeys(row["k"] for row in result["rows"]):
        rows = sorted(
            (_with_lead(row) for row in result["rows"] if row["k"] == k),
            key=lambda row: -float(row["return"]),
        )
        columns = [*POLICY_COLUMNS]
        notes = [
            f"reward: {result['reward']}, {result['horizon']} steps, pool {result['pool']}, "
            f"{result['seeds']} seeds of {result['users']} users; intervals: Student's, over "
            + ("seeds" if result["seeds"] > 1 else "the users of one training"),
            "vs best other: paired difference of cumulative reward on the same users; bold: its "
            "interval lies above 0",
        ]
        if all("lower_bound" in row for row in rows):
            columns.append(LOWER_BOUND)
            notes.append("lower bound: exceeded in 95 % of new worlds, by the spread of the set's")
        notes += [str(Advice.of(one)) for one in result.get("advice", ()) if one["k"] == k]
        title = f"{result['world']}, k = {k}"
        blocks.append(table_of(title, columns, rows, notes, lambda row: row["bold"]))
        if all("gini" in row for row in rows):
            blocks.append(table_of(f"displays, k = {k}", DISPLAY_COLUMNS, rows, [DISPLAY_NOTE]))
    return blocks


def _with_lead(row: Json) -> Json:
    versus = row.get("versus")
    if versus is None:
        return row | {"bold": ()}
    return row | {
        "lead": f"{versus['diff']:+.3f} ({versus['policy']})",
        "lead_ci": versus["ci"],
        "bold": ("return",) if versus["ci"][0] > 0 else (),
    }
