"""Promised and paid, from its JSON object: tables and the figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastgaum.reports.plots import colour, panels_in_file
from fastgaum.reports.table import Block, Json, TableColumn, block_to_markdown, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = TableColumn("gap closed, %", "gap_closed", 1, 100, ends="half", none="-")
SHARE = TableColumn("of the truth's, %", "of_truth", 1, 100, ends="half")
FIGURES = (
    GAP,
    TableColumn("promised", "promised", 2, ends="half"),
    TableColumn("lower bound", "bound", 2, ends="half"),
    TableColumn("paid", "paid", 2, ends="half"),
    TableColumn("optimism, %", "optimism", 1, 100, ends="half"),
    TableColumn("of the bound, %", "bound_optimism", 1, 100, ends="half"),
    SHARE,
    TableColumn("of the optimum, %", "of_optimum", 1, 100, ends="half"),
    TableColumn("decoys, %", "decoys", 1, 100),
)
AGREEMENT = TableColumn("rank agreement", "rank_agreement", 2, ends="half")
FRAME = ("popular", "greedy")
"""slates of a learned world that stand between random ones and training on the truth"""
GREEDY = FRAME[-1]


def transfer_blocks(result: Json) -> list[Block]:
    """A table for each setting, a row per policy."""
    return [_block(setting, result) for setting in result["settings"]]


def transfer_summary(result: Json) -> str:
    """The trained policy alone, a row per setting and learned world, without a title; and how often
    recommendations were right."""
    rows = []
    for setting in result["settings"]:
        for learned in setting["learned"]:
            row = row_in(setting, result["policy"], learned["world"]) | learned
            row["where"] = f"{setting['world']}, {learned['world']}"
            row["log"] = f"{setting['events']:,} events, {setting['logging']}"
            for name in FRAME:
                of_frame = row_in(setting, name, learned["world"])
                row |= {name: of_frame[GAP.key], f"{name}_ci": of_frame[f"{GAP.key}_ci"]}
            rows.append(row)
    columns = (
        TableColumn("true users, learner's world", "where"),
        TableColumn("log", "log"),
        GAP,
        *(replace(GAP, title=f"{name} slates'", key=name) for name in FRAME),
        *FIGURES[1 : FIGURES.index(SHARE) + 1],
        AGREEMENT,
    )
    block = table_of("", columns, rows, [_gap_note(result), *_advice_notes(result)])
    return "\n".join(block_to_markdown(block).splitlines()[2:]).strip()


def _gap_note(result: Json) -> str:
    return (
        f"gap closed: 0 is what random slates are paid, 100 what {result['policy']} is that was "
        "trained on the truth; -: that may be paid no more than random slates"
    )


def _advice_notes(result: Json) -> Iterator[str]:
    """In how many settings what a set recommends was paid no less: by its mean lead, and by the
    upper end of the lead's interval over seeds, which also forgives losses that seeds cannot
    show."""
    learned = [one for setting in result["settings"] for one in setting["learned"]]
    leads = [
        (one["recommended_lead"], one["recommended_lead_ci"][1])
        for one in learned
        if one.get("recommended")
    ]
    if leads:
        by_mean = sum(mean >= 0 for mean, _ in leads)
        by_interval = sum((mean if high is None else high) >= 0 for mean, high in leads)
        yield (
            f"what a set recommends, {result['policy']} or greedy slates, was paid at least as "
            f"much as the other in {by_mean} of {len(leads)} settings by the mean over seeds; in "
            f"{by_interval} the 95 % interval of its lead did not lie below 0"
        )


def row_in(setting: Json, policy: str, world: str) -> Json:
    row: Json = next(
        row for row in setting["rows"] if (row["policy"], row["world"]) == (policy, world)
    )
    return row


def _block(setting: Json, result: Json) -> Block:
    figures = [one for one in FIGURES if any(one.key in row for row in setting["rows"])]
    rows = [row | {"made": f"{row['policy']}, {row['world']}"} for row in setting["rows"]]
    title = (
        f"{setting['world']}: {setting['what']}; {setting['events']:,} events of "
        f"{setting['logging']} slates"
    )
    columns = (TableColumn("policy, made in", "made"), *figures)
    return table_of(title, columns, rows, _notes(setting, result))


def _notes(setting: Json, result: Json) -> Iterator[str]:
    yield (
        f"clicks of {result['horizon']} slates of {result['k']}, mean of {result['seeds']} seeds "
        f"of {result['users']} users; ±: half of the 95 % interval, Student's over seeds"
    )
    yield _gap_note(result)
    for learned in setting["learned"]:
        regret, lead, kendall = (
            TableColumn("", name, 2, ends="half").text(learned)
            for name in ("regret", "lead_over_greedy", "kendall")
        )
        yield (
            f"{learned['world']}: {result['policy']} earns {regret} less than where it was trained "
            f"on the truth, and {lead} more than greedy slates of the learned world"
        )
        yield (
            f"{learned['world']}: rank agreement of promised and paid over the ten policies, "
            f"Kendall's tau of the pairs that the truth tells apart, "
            f"{AGREEMENT.text(learned)}; of all pairs {kendall}"
        )
        held, times = bound_held(setting, learned["world"])
        trained, of_trained = bound_held(setting, learned["world"], result["policy"])
        if times:
            yield (
                f"{learned['world']}: the lower bound was at most what was paid in {held} of "
                f"{times} cases, a policy and a seed each; of {result['policy']}, which was "
                f"trained in the set, in {trained} of {of_trained}"
            )
        if "recommended" in learned:
            names = Counter(learned["recommended"]).most_common()
            losses = [max(0.0, -lead) for lead in learned["recommended_lead_by_seed"]]
            right = sum(loss == 0.0 for loss in losses)
            lead, low = learned["promised_lead"], learned["lead_bound"]
            yield (
                f"{learned['world']}: recommends {', '.join(f'{a} ({n})' for a, n in names)} by its "
                f"own users, where {result['policy']} earns {lead:.2f} more than greedy slates, "
                f"lower bound {low:.2f}; right in {right} of {len(losses)} seeds, paid "
                f"{sum(losses) / len(losses):.2f} less than the better of the two"
            )
    if any("of_optimum" in row for row in setting["rows"]):
        yield f"the best policy there is earns {setting['optimum']:.3f}"


def bound_held(setting: Json, world: str, policy: str | None = None) -> tuple[int, int]:
    """How often the lower bound of a learned world was at most what was paid, and of how many
    cases, a policy and a seed each: of one policy, or of all."""
    pairs = [
        (bound, paid)
        for row in setting["rows"]
        if row["world"] == world and "bound" in row and policy in (None, row["policy"])
        for bound, paid in zip(row["bound_by_seed"], row["paid_by_seed"], strict=True)
        if bound is not None and bound == bound
    ]
    return sum(bound <= paid for bound, paid in pairs), len(pairs)


def draw_transfer(result: Json, path: Path, *, narrow: bool = False) -> None:
    """Draw promised against paid and write it, atomically: a panel per setting, a dot per policy.
    If `narrow`, panels stand one below the other. Raises OutputError for another ending than .svg
    or .png, ConfigError without matplotlib."""
    n = len(result["settings"])
    size = (3.6, 0.6 + 3.0 * n) if narrow else (0.6 + 2.9 * n, 3.4)
    with panels_in_file(path, size, n, narrow=narrow) as panels:
        for panel, setting in zip(panels, result["settings"], strict=True):
            _panel(panel, setting, result["policy"])


def _panel(panel: Axes, setting: Json, trained: str) -> None:
    made_in = [learned["world"] for learned in setting["learned"]]
    rows = [row for row in setting["rows"] if row["world"] == made_in[-1]]
    values = [row[key] for row in rows for key in ("promised", "paid")]
    low, high = min(values), max(values)
    panel.plot([low, high], [low, high], color=colour("line"), linewidth=1, label="promised = paid")
    of_truth = {
        row["policy"]: row["paid"] for row in setting["rows"] if row["world"] not in made_in
    }
    truth, chance = of_truth[trained], of_truth["random"]
    if truth > chance:
        panel.secondary_yaxis(
            "right",
            functions=(
                lambda paid: 100 * (paid - chance) / (truth - chance),
                lambda share: chance + share * (truth - chance) / 100,
            ),
        ).set_ylabel("gap closed, %")
    panel.axhline(
        truth, color=colour("floor"), linestyle="--", linewidth=1, label="trained on the truth"
    )
    kinds = {
        trained: ("reward", "trained in the learned world"),
        GREEDY: ("generator", "greedy in the learned world"),
    }
    # the policies that have a colour of their own come last, on top
    for row in sorted(rows, key=lambda row: row["policy"] in kinds):
        role, label = kinds.get(row["policy"], ("muted", "other policies"))
        if None not in row["paid_ci"]:
            panel.vlines(
                row["promised"], *row["paid_ci"], color=colour(role), linewidth=1, alpha=0.6
            )
        panel.plot(
            row["promised"],
            row["paid"],
            "o",
            color=colour(role),
            markersize=5 if row["policy"] in kinds else 3.5,
            label=None if label in panel.get_legend_handles_labels()[1] else label,
        )
    panel.set_title(f"{setting['world']}\n{setting['events']:,} events, {setting['logging']}")
    panel.set_xlabel("clicks promised by the learned world")
    panel.set_ylabel("clicks paid by the true users")
