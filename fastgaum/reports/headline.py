"""What the first screen says: the one table, best first, and the one sentence."""

from __future__ import annotations

from typing import Any

Facts = dict[str, Any]

MOST_FLOORS = 7
"""floors that the first table shows"""


def standings(facts: Facts, log: int) -> list[Facts]:
    """Rows of the first table of one log: heads of its runs, floors, what others published or
    reached; by prec@1.

    Each has label, note, kind (reward, generator, floor or published), prec by k with or without an
    interval, and nll, ece, gap where a model has them."""
    about = facts["logs"][log]
    rows = [row for run in facts["runs"] if run["log"] == log for row in _heads(run)]
    floors = sorted(about["floors"].items(), key=lambda floor: -(floor[1]["1"] or 0.0))
    # of many declared numbers, those that say most; the JSON has them all
    shown = [floor for floor in floors if floor[0] != "random"][: MOST_FLOORS - 1]
    rows += [
        _row(f"floor: {name}", "floor", precs)
        for name, precs in floors
        if name == "random" or (name, precs) in shown
    ]
    best = about["published_best"]
    if best:
        names = " / ".join(dict.fromkeys(one["model"] for one in best.values()))
        note = "" if facts["split"] == "test" else "on the test split"
        rows.append(
            _row(
                f"published: {names}",
                "published",
                {k: one["mean"] for k, one in best.items()},
                note,
            )
        )
        rows += [
            _row(f"authors’ code: {model}", "published", precs, note)
            for model, precs in about["authors_code"].items()
        ]
    return sorted(
        (row for row in rows if row["prec"]["1"]["mean"] is not None),
        key=lambda row: -row["prec"]["1"]["mean"],
    )


def _heads(run: Facts) -> list[Facts]:
    evaluation = run["evaluation"]
    heads = evaluation["heads"]
    return [
        {
            "label": f"{run['name']}, {head}" if len(heads) > 1 else run["name"],
            "note": "",
            "kind": head,
            "prec": figures["prec"],
            "nll": figures["nll"],
            "ece": figures["ece"],
            "gap": evaluation["gap"] if head == "generator" else None,
        }
        for head, figures in heads.items()
    ]


def _row(label: str, kind: str, precs: Facts, note: str = "") -> Facts:
    prec = {k: {"mean": precs.get(k), "ci": None} for k in ("1", "2")}
    return {
        "label": label,
        "note": note,
        "kind": kind,
        "prec": prec,
        "nll": None,
        "ece": None,
        "gap": None,
    }


def lead(facts: Facts) -> str:
    """The page in a sentence or two: the best run, against the best ranking that needs no model."""
    runs = [
        run
        for run in facts["runs"]
        if run["evaluation"]["heads"]["reward"]["prec"]["1"]["mean"] is not None
    ]
    if not runs:
        return f"No event of the {facts['split']} split has a choice: there is nothing to rank."
    if facts["comparison"] is not None:
        return _lead_of_two(facts)
    # runs of different logs are not ranked against each other
    parts = [[run for run in runs if run["log"] == place] for place in range(len(facts["logs"]))]
    return " ".join(
        _lead_of_best(part, on=log["name"] if len(parts) > 1 else None)
        for part, log in zip(parts, facts["logs"], strict=True)
        if part
    )


def _lead_of_best(runs: list[Facts], on: str | None) -> str:
    run = max(
        runs, key=lambda one: float(one["evaluation"]["heads"]["reward"]["prec"]["1"]["mean"])
    )
    one = run["evaluation"]["heads"]["reward"]["prec"]["1"]
    who = f"The best of {len(runs)} runs, {run['name']}," if len(runs) > 1 else "The reward"
    if on is not None:
        best = f"the best of {len(runs)} runs, {run['name']}," if len(runs) > 1 else run["name"]
        who = f"On {on}, {best}"
    text = (
        f"{who} ranks the chosen item first in {one['mean']:.1f}\u00a0% of choices "
        f"({_span(one['ci'])})"
    )
    return f"{text}. {_against_floor(run['versus_floor'])}"


def _against_floor(versus: Facts) -> str:
    low, high = versus["ci"]
    floor = (
        f"the best ranking that needs no model, “{versus['floor']}” "
        f"({versus['percent']:.1f}\u00a0%)"
    )
    if low > 0:
        return f"That is {versus['diff']:.1f} points ({low:.1f} to {high:.1f}) above {floor}."
    if high < 0:
        return (
            f"That is {-versus['diff']:.1f} points ({-high:.1f} to {-low:.1f}) below {floor}: "
            "it has learned less than counting."
        )
    return (
        f"That is not told apart from {floor}: the difference is "
        f"{_signed(versus['diff'])} points ({_signed(low)} to {_signed(high)})."
    )


def _lead_of_two(facts: Facts) -> str:
    first, second = (run["name"] for run in facts["runs"])
    one = next(
        d
        for d in facts["comparison"]["differences"]
        if d["head"] == "reward" and d["figure"] == "prec@1"
    )
    low, high = one["ci"]
    if low > 0 or high < 0:
        better, worse = (first, second) if low > 0 else (second, first)
        ends = sorted((abs(low), abs(high)))
        return (
            f"{better} ranks the chosen item first more often than {worse}: by "
            f"{abs(one['diff']):.1f} points of prec@1"
            f" ({ends[0]:.1f} to {ends[1]:.1f}), on the same events."
        )
    return (
        f"{first} and {second} are not told apart by prec@1: the difference on the same events is "
        f"{_signed(one['diff'])}"
        f" points ({_signed(low)} to {_signed(high)})."
    )


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _span(ci: list[float]) -> str:
    return f"95\u00a0% interval {ci[0]:.1f} to {ci[1]:.1f}"
