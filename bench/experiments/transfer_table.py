"""Promised and paid, from its JSON object: tables, the sentence of the README, and the figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastgaum.reports.plots import colour, panels_in_file
from fastgaum.reports.table import Block, Json, TableColumn, block_to_markdown, num, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = (
    TableColumn("promised", "promised", 2, ends="half"),
    TableColumn("lower bound", "bound", 2, ends="half"),
    TableColumn("paid", "paid", 2, ends="half"),
    TableColumn("optimism, %", "optimism", 1, 100, ends="half"),
    TableColumn("of the bound, %", "bound_optimism", 1, 100, ends="half"),
    TableColumn("of the truth's, %", "of_truth", 1, 100, ends="half"),
    TableColumn("of the optimum, %", "of_optimum", 1, 100, ends="half"),
)
AGREEMENT = TableColumn("rank agreement", "rank_agreement", 2, ends="half")
GREEDY = "greedy"


def transfer_blocks(result: Json) -> list[Block]:
    """A table for each setting, a row per policy."""
    return [_block(setting, result) for setting in result["settings"]]


def transfer_summary(result: Json) -> str:
    """The trained policy alone, a row per setting and learned world, without a title."""
    rows = [
        row_in(setting, result["policy"], learned["world"])
        | learned
        | {
            "where": f"{setting['world']}, {learned['world']}",
            "log": f"{setting['events']:,} events, {setting['logging']}",
        }
        for setting in result["settings"]
        for learned in setting["learned"]
    ]
    named = (TableColumn("true users, learner's world", "where"), TableColumn("log", "log"))
    block = table_of("", (*named, *FIGURES[:-1], AGREEMENT), rows)
    return "\n".join(block_to_markdown(block).splitlines()[2:]).strip()


def transfer_sentence(result: Json) -> str:
    """What a policy that was trained among learned users earns of what training among the true ones
    would have given, in each setting."""
    parts, world = [], ""
    for setting in result["settings"]:
        world = setting["learned"][-1]["world"]
        row = row_in(setting, result["policy"], world)
        of_best = (
            f", {num(100 * row['of_optimum'])} % of the optimum" if "of_optimum" in row else ""
        )
        share = f"{FIGURES[-2].text(row)} %" if row["of_truth"] is not None else "no share"
        parts.append(
            f"{share} with {setting['what']} ({setting['events']:,} events, "
            f"{setting['logging']} slates{of_best})"
        )
    policy, seeds = result["policy"], result["seeds"]
    return (
        f"A policy ({policy}) trained among learned users ({world}) earns, among the true ones, "
        "this share of what the same training among the true ones gives: "
        f"{'; '.join(parts)}. Mean of {seeds} seeds. {_beside_greedy(result['settings'])}"
    )


def _beside_greedy(settings: Sequence[Json]) -> str:
    """Where the trained policy earns more or less than greedy slates, by its interval over
    seeds."""
    found: dict[str, list[str]] = {"more": [], "less": [], "neither more nor less": []}
    for setting in settings:
        low, high = setting["learned"][-1]["lead_over_greedy_ci"]
        known = low is not None and high is not None
        verdict = "more" if known and low > 0 else "less" if known and high < 0 else None
        found[verdict or "neither more nor less"].append(setting["what"])
    said = [
        f"{verdict} with {', and with '.join(worlds)}"
        for verdict, worlds in found.items()
        if worlds
    ]
    return (
        "By the interval over seeds it earns, beside greedy slates of the learned utilities, "
        f"{'; '.join(said)}."
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
    truth = next(
        row["paid"]
        for row in setting["rows"]
        if row["world"] not in made_in and row["policy"] == trained
    )
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
