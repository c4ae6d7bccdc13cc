"""Tables of worlds from their JSON objects: fidelity reports and policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastgaum.policies.evaluation import Recommendation
from fastgaum.reports.table import Block, Json, TableColumn, blocks_to_markdown, num, span, table_of

DIGITS = {"%": 1, "nats": 3, "places": 2, "clicks": 2, "log": 2, "ratio": 2}
ALPHA = 0.05
"""below this, an adjusted p-value says that log and world differ"""


def fidelity_blocks(report: Json) -> list[Block]:
    """The statistics, their groups and the policies of one report."""
    title = (
        f"{report['log']['name']}, {report['split']} split: the world ({report['head']}) against "
        "the log"
    )
    sides = [column.title for column in _sides("%")]
    heads = ("statistic", "unit", *sides, "test", "p", "p, Holm")
    rows = tuple(map(_statistic, report["statistics"]))
    parts = [Block(title, heads, rows, tuple(_fidelity_notes(report)))]
    for one in report["statistics"]:
        # dozens of groups are for the figure
        if one["groups"] and one["test"] == "chi2":
            note = f"{one['what']}; {'percent' if one['unit'] == '%' else one['unit']}"
            columns = (TableColumn("group", "label"), *_sides(one["unit"]))
            parts.append(table_of(one["name"], columns, one["groups"], [note]))
    policies = report["policies"]
    columns = (TableColumn("policy", "name"), *_sides("%"))
    parts.append(table_of("Policies", columns, policies["values"], _policy_notes(report)))
    return parts


def fidelity_markdown(report: Json) -> str:
    """A fidelity report as markdown."""
    return blocks_to_markdown(fidelity_blocks(report))


def fidelity_summary(reports: Sequence[Json]) -> str:
    """Several reports as two markdown tables: statistics by log, and how far log and world agree on
    policies."""
    names = [report["log"]["name"] for report in reports]
    order, by_log = _by_name([report["statistics"] for report in reports])

    def short(one: Json) -> str:
        arrow = f"{_arrow(one, one['unit'])} " if one["test"] == "mean" else ""
        return f"{arrow}({num(one['p_holm'], 3)})"

    rows = [(name, *(short(one[name]) if name in one else "" for one in by_log)) for name in order]
    rows.append(
        ("calibration error, % (world's own)", *(_ece(report["calibration"]) for report in reports))
    )
    bold = frozenset(
        (i, j + 1)
        for i, name in enumerate(order)
        for j, one in enumerate(by_log)
        if name in one and differs(one[name])
    )
    notes = [
        f"{report['log']['name']}, {report['split']} split: {report['events']} events of "
        f"{report['users']} users, each session replayed {report['replicas']} times; "
        f"{_verdict(report)}"
        for report in reports
    ]
    first = Block(
        "Log → world",
        ("statistic", *names),
        tuple(rows),
        ("logged → simulated, (p, Holm); a distribution has its p alone; bold: p < 0.05", *notes),
        bold,
    )
    policies, values = _by_name([report["policies"]["values"] for report in reports])
    lines = [
        (name, *(_arrow(one[name], "%") if name in one else "" for one in values))
        for name in policies
    ]
    lines += [
        (f"{name}{what}", *(_correlation(report, name)[place] for report in reports))
        for name in ("spearman", "kendall")
        for place, what in enumerate(("", ", were the world true", ": p"))
    ]
    second = Block("Policies, log → world", ("policy", *names), tuple(lines), _policy_notes(None))
    return blocks_to_markdown((first, second))


def _by_name(parts: Sequence[Sequence[Json]]) -> tuple[list[str], list[dict[str, Json]]]:
    by_name = [{one["name"]: one for one in part} for part in parts]
    longest_first = sorted(by_name, key=len, reverse=True)
    return list(dict.fromkeys(name for part in longest_first for name in part)), by_name


def differs(one: Json) -> bool:
    """Whether a statistic's adjusted p-value says that log and world differ."""
    p = one["p_holm"]
    return p is not None and p < ALPHA


def _correlation(report: Json, name: str) -> tuple[str, str, str]:
    one = report["policies"][name]
    value, expected = (
        f"{num(one[key], 2)} ({span(one[ends], 2)})"
        for key, ends in (("value", "ci"), ("expected", "expected_ci"))
    )
    return value, expected, num(one["p"], 3)


def _sides(unit: str) -> tuple[TableColumn, ...]:
    digits, factor = DIGITS[unit], 100 if unit == "%" else 1
    return tuple(
        TableColumn(title, key, digits, factor, signed=side == "difference", none="-")
        for side in ("logged", "simulated", "difference")
        for title, key in ((side, side), ("95 %", f"{side}_ci"))
    )


def _statistic(one: Json) -> tuple[str, ...]:
    mean = one["test"] == "mean"
    sides = [column.text(one) if mean else "" for column in _sides(one["unit"])]
    if one["test"] == "ks":
        sides[-2] = num(one["distance"], 3)
    unit = one["unit"] if mean else ""
    return (one["name"], unit, *sides, one["test"], num(one["p"], 3), num(one["p_holm"], 3))


def _arrow(value: Json, unit: str) -> str:
    columns = _sides(unit)
    return f"{columns[0].text(value)} → {columns[2].text(value)}"


def _ece(calibration: Json) -> str:
    low, middle, high = calibration["ece_simulated"]
    return (
        f"{100 * calibration['ece']:.1f} ({100 * middle:.1f}, {100 * low:.1f} to {100 * high:.1f})"
    )


def _verdict(report: Json) -> str:
    tested = [one for one in report["statistics"] if one["p_holm"] is not None]
    wrong = [one["name"] for one in tested if differs(one)]
    names = f": {', '.join(wrong)}" if wrong else ""
    return f"{len(wrong)} of {len(tested)} tests say that log and world differ{names}"


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
        f"95 % intervals: {report['draws']} bootstrap draws of users; p: as many permutations of a "
        "user's logged and simulated"
        " sessions, small where the log is no draw of the world; Holm: adjusted for all tests of "
        "the table"
    )
    yield "difference of a distribution (ks): the largest of the cumulated shares, from 0 to 1"
    yield (
        f"{_verdict(report)}; what is not told apart is not thereby the same: the interval of the "
        "difference says how far it may be"
    )
    calibration = report["calibration"]
    yield (
        "on logged histories the model's distribution has a mean entropy of "
        f"{num(calibration['entropy'], 3)} nats, which is what"
        f" surprise is where it is calibrated; calibration error {_ece(calibration)} %, in "
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


def _policy_notes(report: Json | None) -> tuple[str, ...]:
    what = (
        "value: percent of events whose choice is the item that the policy recommends of those "
        "displayed"
    )
    if report is None:
        return (what,)
    lines = [
        "{} {}; were the log one more draw of the world {}, as low as here with p = {}".format(
            name, *_correlation(report, name)
        )
        for name in ("spearman", "kendall")
    ]
    return (what, *lines)


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
        notes += [
            Recommendation(**{key: one[key] for key in one if key != "k"}).to_text()
            for one in result.get("recommended", ())
            if one["k"] == k
        ]
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
