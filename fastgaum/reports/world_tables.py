"""Tables of worlds from their JSON objects, as blocks of text cells: fidelity reports, alone or
several beside each other; policies, one block for each size of slates; and adaptation curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastgaum.reports.table import Block, Json, blocks_to_markdown, num, span

DIGITS = {"%": 1, "nats": 3, "places": 2, "clicks": 2, "log": 2, "ratio": 2}
ALPHA = 0.05
"""below this, an adjusted p-value says that log and world differ"""


def fidelity_blocks(report: Json) -> list[Block]:
    """The statistics, their groups, and the policies of one report."""
    title = (
        f"{report['log']['name']}, {report['split']} split: the world ({report['head']}) against "
        "the log"
    )
    parts = [
        Block(
            title,
            STATISTICS,
            tuple(map(_statistic, report["statistics"])),
            tuple(_fidelity_notes(report)),
        )
    ]
    for one in report["statistics"]:
        # what has dozens of groups is for the figure
        if one["groups"] and one["test"] == "chi2":
            rows = tuple((group["label"], *_sides(group, one["unit"])) for group in one["groups"])
            parts.append(
                Block(
                    one["name"], ("group", *SIDES), rows, (f"{one['what']}; {_unit(one['unit'])}",)
                )
            )
    rows = tuple((value["name"], *_sides(value, "%")) for value in report["policies"]["values"])
    parts.append(
        Block("Policies", ("policy", *SIDES), rows, tuple(_policy_notes(report["policies"])))
    )
    if report["states"] is not None:
        parts.append(_states(report["states"]))
    return parts


def _states(states: Json) -> Block:
    """The Fréchet distance, as one row."""
    row = (
        f"{states['states']} states of {states['dim']} numbers",
        num(states["distance"], 3),
        num(states["expected"], 3),
        span(states["expected_ci"], 3),
        num(states["p"], 3),
        num(states["halves"], 3),
    )
    columns = ("Fréchet distance", "log", "replica", "95 %", "p", "halves of the log")
    notes = (
        "of the log's states from those of all replicas, and of a replica's from those of all other"
        " versions: what it is where log and world are alike; p: not adjusted",
        "halves of the log: of two random halves of its users, which have half as many states",
    )
    return Block("States of sessions", columns, (row,), notes)


def fidelity_markdown(report: Json) -> str:
    """The same fidelity_blocks as markdown."""
    return blocks_to_markdown(fidelity_blocks(report))


def fidelity_summary(reports: Sequence[Json]) -> str:
    """Several reports as two markdown tables: statistics by log, and how far log and world agree on
    policies."""
    names = [report["log"]["name"] for report in reports]
    by_log = [{one["name"]: one for one in report["statistics"]} for report in reports]
    order = list(
        dict.fromkeys(
            name for names_of in sorted(by_log, key=len, reverse=True) for name in names_of
        )
    )
    rows = [(name, *(_short(one[name]) if name in one else "" for one in by_log)) for name in order]
    rows.append(
        ("calibration error, % (world's own)", *(_ece(report["calibration"]) for report in reports))
    )
    # reports of an earlier version have no states
    states = [report.get("states") for report in reports]
    if any(states):
        rows.append(
            (
                "Fréchet distance of states (replica's)",
                *("" if one is None else _distance(one) for one in states),
            )
        )
    bold = frozenset(
        (i, j + 1)
        for i, name in enumerate(order)
        for j, one in enumerate(by_log)
        if name in one and differs(one[name])
    )
    notes = [
        f"{report['log']['name']}, {report['split']} split: {report['events']} events of "
        f"{report['users']} users, each session"
        f" replayed {report['replicas']} times; {_verdict(report)}"
        for report in reports
    ]
    first = Block(
        "Log → world",
        ("statistic", *names),
        tuple(rows),
        ("logged → simulated, (p, Holm); a distribution has its p alone; bold: p < 0.05", *notes),
        bold,
    )
    agreed = [
        (f"{correlation}{what}", *(cell(report["policies"][correlation]) for report in reports))
        for correlation in ("spearman", "kendall")
        for what, cell in (
            ("", _correlation),
            (", were the world true", _expected),
            (": p", lambda one: num(one["p"], 3)),
        )
    ]
    policies = [
        value["name"]
        for value in max((report["policies"]["values"] for report in reports), key=len)
    ]
    values = [
        {value["name"]: value for value in report["policies"]["values"]} for report in reports
    ]
    lines = [
        (name, *(_arrow(one[name], "%") if name in one else "" for one in values))
        for name in policies
    ]
    second = Block(
        "Policies, log → world", ("policy", *names), (*lines, *agreed), _policy_notes(None)
    )
    return blocks_to_markdown((first, second))


def differs(one: Json) -> bool:
    """Whether a statistic's adjusted p-value says that log and world differ."""
    p = one["p_holm"]
    return p is not None and p < ALPHA


SIDES = ("logged", "95 %", "simulated", "95 %", "difference", "95 %")
STATISTICS = ("statistic", "unit", *SIDES, "test", "p", "p, Holm")


def _statistic(one: Json) -> tuple[str, ...]:
    sides = _sides(one, one["unit"]) if one["test"] == "mean" else ("",) * len(SIDES)
    if one["test"] == "ks":
        sides = (*sides[:-2], num(one["distance"], 3), "")
    unit = one["unit"] if one["test"] == "mean" else ""
    return (one["name"], unit, *sides, one["test"], num(one["p"], 3), num(one["p_holm"], 3))


def _sides(value: Json, unit: str) -> tuple[str, ...]:
    cells = []
    for side in ("logged", "simulated", "difference"):
        cells += [_number(value[side], unit, side), _unit_span(value[f"{side}_ci"], unit, side)]
    return tuple(cells)


def _number(value: float | None, unit: str, side: str = "") -> str:
    if value is None:
        return "-"
    # + 0.0: a rounded -0.0 is 0.0
    text = num(round(100 * value if unit == "%" else value, DIGITS[unit]) + 0.0, DIGITS[unit])
    return f"+{text}" if side == "difference" and not text.startswith("-") else text


def _unit_span(ends: Sequence[float | None], unit: str, side: str = "") -> str:
    return f"{_number(ends[0], unit, side)} to {_number(ends[1], unit, side)}"


def _unit(unit: str) -> str:
    return "percent" if unit == "%" else unit


def _arrow(value: Json, unit: str) -> str:
    return f"{_number(value['logged'], unit)} → {_number(value['simulated'], unit)}"


def _short(one: Json) -> str:
    p = f"({num(one['p_holm'], 3)})"
    return f"{_arrow(one, one['unit'])} {p}" if one["test"] == "mean" else p


def _ece(calibration: Json) -> str:
    low, middle, high = calibration["ece_simulated"]
    return (
        f"{100 * calibration['ece']:.1f} ({100 * middle:.1f}, {100 * low:.1f} to {100 * high:.1f})"
    )


def _distance(states: Json) -> str:
    low, high = states["expected_ci"]
    expected = f"{num(states['expected'], 2)}, {num(low, 2)} to {num(high, 2)}"
    return f"{num(states['distance'], 2)} ({expected})"


def _correlation(one: Json) -> str:
    return f"{num(one['value'], 2)} ({num(one['ci'][0], 2)} to {num(one['ci'][1], 2)})"


def _expected(one: Json) -> str:
    low, high = one["expected_ci"]
    return f"{num(one['expected'], 2)} ({num(low, 2)} to {num(high, 2)})"


def _verdict(report: Json) -> str:
    tested = [one for one in report["statistics"] if one["p_holm"] is not None]
    wrong = [one["name"] for one in tested if differs(one)]
    names = f": {', '.join(wrong)}" if wrong else ""
    return f"{len(wrong)} of {len(tested)} tests say that log and world differ{names}"


def _fidelity_notes(report: Json) -> Iterator[str]:
    yield (
        f"{report['events']} events in {report['sessions']} sessions of {report['users']} users, "
        "each session replayed"
        f" {report['replicas']} times on the displays that the log shows; rates in percent"
    )
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


def _policy_notes(policies: Json | None) -> tuple[str, ...]:
    what = (
        "value: percent of events whose choice is the item that the policy recommends of those "
        "displayed"
    )
    if policies is None:
        return (what,)
    lines = [
        f"{name} {_correlation(policies[name])}; were the log one more draw of the world "
        f"{_expected(policies[name])},"
        f" as low as here with p = {num(policies[name]['p'], 3)}"
        for name in ("spearman", "kendall")
    ]
    return (what, *lines)


SHOWN = (1, 2, 5, 10)
"""episodes of an adaptation curve that its table shows"""
POLICY_COLUMNS = (
    "policy",
    "cumulative reward",
    "95 %",
    "click rate",
    "95 %",
    "vs best other",
    "95 %",
)

LOWER_BOUND = "lower bound"
"""column of a table that was made in a set of worlds"""


def policy_blocks(result: Json) -> list[Block]:
    """One block per k, rows by cumulative reward; bold where the interval of the lead excludes
    0."""
    blocks = []
    for k in dict.fromkeys(row["k"] for row in result["rows"]):
        rows = sorted(
            (row for row in result["rows"] if row["k"] == k), key=lambda row: -row["return"]
        )
        bold = {
            (i, 1) for i, row in enumerate(rows) if row.get("versus") and row["versus"]["ci"][0] > 0
        }
        cells, notes = list(map(_cells, rows)), _policy_table_notes(result)
        columns: tuple[str, ...] = POLICY_COLUMNS
        if all("lower_bound" in row for row in rows):
            columns = (*columns, LOWER_BOUND)
            cells = [
                (*one, num(row["lower_bound"], 3)) for one, row in zip(cells, rows, strict=True)
            ]
            notes = (
                *notes,
                f"{LOWER_BOUND}: exceeded in 95 % of new worlds, by the spread of the set's",
            )
        blocks.append(
            Block(
                f"{result['world']}, k = {k}",
                columns,
                tuple(cells),
                notes,
                frozenset(bold),
            )
        )
    return blocks


def adaptation_block(result: Json) -> Block:
    """The curve of `fastgaum rl adapt`: a row per number of users met, some of them, the
    pre-trained beside the untrained."""
    met = {(row["policy"], row["users"]): row for row in result["rows"]}
    users = sorted({users for _, users in met})
    rows = []
    for at in (users[episode - 1] for episode in SHOWN if episode <= len(users)):
        one, other = met["pre-trained", at], met["untrained", at]
        rows.append(
            (
                f"{at:,}",
                num(one["return"], 3),
                span(one["ci"], 3),
                num(other["return"], 3),
                span(other["ci"], 3),
            )
        )
    columns = ("users met", "pre-trained", "95 %", "untrained", "95 %")
    return Block(
        f"{result['policy']} meets the users of {result['in']}",
        columns,
        tuple(rows),
        (),
        frozenset(),
    )


def _cells(row: Json) -> tuple[str, ...]:
    versus = row.get("versus")
    lead = (
        ("", "")
        if versus is None
        else (f"{versus['diff']:+.3f} ({versus['policy']})", span(versus["ci"], 3))
    )
    return (
        row["policy"],
        num(row["return"], 3),
        span(row["return_ci"], 3),
        num(row["click_rate"], 3),
        span(row["click_rate_ci"], 3),
        *lead,
    )


def _policy_table_notes(result: Json) -> tuple[str, ...]:
    seeds = result["seeds"]
    return (
        f"reward: {result['reward']}, {result['horizon']} steps, pool {result['pool']}, {seeds} "
        f"seeds of {result['users']} users;"
        " intervals: Student's, over seeds",
        "vs best other: paired difference of cumulative reward on the same users; bold: its "
        "interval lies above 0",
        *result["notes"],
    )
