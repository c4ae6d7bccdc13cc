"""`fastgaum evaluate`: a trained model's figures on a split of a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastgaum.cli.options import AllowSeenUsers, DataDir, Device, JsonFile, RunPath, ScoredSplit
from fastgaum.cli.output import check_outputs, say, show_table, write_json
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import Log, checked_users, log_of_run

if TYPE_CHECKING:
    from fastgaum.metrics.evaluation import Evaluation


def evaluate_command(
    run: RunPath,
    source: Log,
    /,
    *,
    split: ScoredSplit = "test",
    hide_items: float = 0.0,
    seed: int = 0,
    allow_seen_users: AllowSeenUsers = False,
    json: JsonFile = None,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Score a trained model on a split of a log.

    Args:
        hide_items: share of the items to score as if the model had never seen them
        seed: seed of the choice of these items
    """
    check_outputs(json)
    from fastgaum.baselines.floors import floor_table
    from fastgaum.baselines.registry import load_model, name_of
    from fastgaum.logs.log import effective_events, worth_text
    from fastgaum.machine import machine_facts
    from fastgaum.reports.reproduce_table import WEIGHTED

    model = load_model(run, device=device)
    log = log_of_run(run, source, data_dir, split)
    seen = checked_users(model, log, split, allow_seen_users)
    with Bar("scoring") as progress:
        evaluation = model.evaluate(
            log, split, progress, hide_items=hide_items, seed=seed, allow_seen_users=True
        )
    # counts of the log know the items that are hidden from the model
    floors = {} if hide_items else floor_table(log, split, space=model.space)
    protocol = model.settings.protocol
    if json is not None:
        facts = {
            "machine": machine_facts(model.settings.seed),
            "run": str(run),
            "log": {"name": log.name, "fingerprint": log.fingerprint},
            "split": split,
            "seen_users": seen.to_dict(),
            "protocol": protocol,
            "preset": name_of(model),
        }
        figures = evaluation.to_dict()
        figures["floors"] |= floor_facts(floors)
        write_json(json, facts | figures)
    columns, rows = figure_rows(evaluation)
    show_table(columns, rows, title=f"{log.name}, {split} split, protocol {protocol}")
    gap = "" if evaluation.gap is None else f"; optimality gap {evaluation.gap:.4f}"
    say(
        f"  {evaluation.n_events} events of {evaluation.n_users} users; intervals: 95 %, bootstrap "
        f"over users{gap}"
    )
    if evaluation.weights is not None:
        say(f"  {WEIGHTED}")
    effective = effective_events(evaluation.weights)
    if effective is not None:
        say(f"  {worth_text(evaluation.n_events, effective)}")
    say(f"  {seen}")
    n = int(evaluation.unseen.sum())
    hidden = f" ({evaluation.hidden} items were hidden)" if evaluation.hidden else ""
    unseen = f"{n} of {evaluation.n_events} events display an item unseen in training{hidden}"
    if not n:
        unseen = f"no unseen item in this split{hidden}: what the model does with one is not "
        unseen += "measured (--hide-items .1 hides some)"
    say(f"  {unseen}")
    if texts := floor_texts(floors):
        say(f"  prec@1 of rankings that need no model: {', '.join(texts)}")


def floor_texts(floors: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Name and prec@1 of each floor that a split has, best first."""
    best_first = sorted(floors.items(), key=lambda floor: -floor[1][1])
    return [f"{name} {by_k[1]:.1f}" for name, by_k in best_first if by_k[1] == by_k[1]]


def floor_facts(floors: Mapping[str, Mapping[int, float]]) -> dict[str, dict[str, float]]:
    """The floors for JSON."""
    return {
        name.replace(" ", "_"): {str(k): value for k, value in by_k.items()}
        for name, by_k in floors.items()
    }


def figure_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a row per figure, a column per head, the random floor last."""
    from fastgaum.metrics.evaluation import figures_of

    heads = evaluation.to_dict()["heads"]
    rows = []
    for figure in figures_of():
        texts = [figure.text(head) for head in heads.values()]
        cells = [f"{value} [{interval}]" if interval else value for value, interval in texts]
        random = f"{evaluation.random[int(figure.path[1])]:.1f}" if figure.path[0] == "prec" else ""
        if any(cells):
            rows.append([figure.title, *cells, random])
    return ["figure", *heads, "random"], rows
