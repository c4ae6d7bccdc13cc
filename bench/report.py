"""From what a run of the races measured to the JSON object of `fastgaum bench`, and from that to
tables.

- seconds: median over at least five repeats of one call - spread: (third quartile − first) / median
- ratio: rival's seconds / our seconds, for the same amount of work - ceiling_share: least seconds
that the probed ceiling allows / our seconds

An entry of `races` is one bar of one group, or the group alone. `over` says what its target is set
over: a rival's name (a ratio), a ceiling's (a share), or the rate."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgaum.bench.races import OURS, RATE, SGEMM, SOONER
from fastgaum.files import atomic
from fastgaum.reports.table import Json, rows_to_markdown

COLUMNS = ("bar", "race", "ours", "rival", "ratio", "target", "share of ceiling", "spread", "holds")
FIGURE_COLUMNS = ("bar", "figure", "value", "target", "holds")


def races_object(facts: Mapping[str, Any]) -> Json:
    """Turn what was measured into the JSON object."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in facts["times"]:
        groups.setdefault(one["group"], []).append(one)
    # small sizes say nothing about a bar
    unsaid = {"holds": None} if facts["smoke"] else {}
    ceilings = facts["ceilings"] or {}
    races = [entry | unsaid for times in groups.values() for entry in _entries(times, ceilings)]
    # by bar as far as there is one; sorting is stable
    races.sort(key=lambda race: (race["bar"] is None, race["bar"] or 0))
    return {
        **{name: facts[name] for name in ("machine", "ceilings", "smoke")},
        "races": races,
        "figures": [figure | unsaid for figure in facts["figures"]],
        **{name: facts[name] for name in ("failed", "skipped")},
    }


def _entries(times: Sequence[Mapping[str, Any]], ceilings: Mapping[str, float]) -> Iterator[Json]:
    """The entries of one group; none if ours gave no right result."""
    ours = next((one for one in times if one["contender"] == OURS), None)
    if ours is None:
        return
    share = None
    if ours["flops"] is not None and "sgemm_gflops" in ceilings:
        share = ours["flops"] / ours["seconds"] / (1e9 * ceilings["sgemm_gflops"])
    common = {
        "group": ours["group"],
        "ours": _timed(ours),
        "ceiling": None if share is None else SGEMM,
        "ceiling_share": share,
        "rivals": [
            {
                "name": one["contender"],
                **_timed(one),
                "ratio": one["seconds"] / one["amount"] * ours["amount"] / ours["seconds"],
            }
            for one in times
            if one is not ours
        ],
        "threads": ours["threads"],
    }
    bars = ours["bars"] or [{"number": None, "over": None, "at_least": None}]
    for bar in bars:
        reached, target = _reached(common, bar["over"]), _target(bar, ceilings)
        holds = None if reached is None else reached >= target
        yield {
            "bar": bar["number"],
            **common,
            "over": bar["over"],
            "target": target,
            "holds": holds,
        }


def _target(bar: Mapping[str, Any], ceilings: Mapping[str, float]) -> float:
    at_400: float = bar["at_least"]
    at_200 = bar.get("at_200")
    if at_200 is None or "sgemm_gflops" not in ceilings:
        return at_400
    slower = min(max((400 - ceilings["sgemm_gflops"]) / 200, 0.0), 1.0)
    return float(at_400 + slower * (at_200 - at_400))


def _timed(one: Mapping[str, Any]) -> Json:
    kept = {name: one[name] for name in ("seconds", "spread", "rounds")}
    return kept | {"rate": one["amount"] / one["seconds"], "unit": f"{one['unit']}/s"}


def _reached(common: Mapping[str, Any], over: str | None) -> float | None:
    """What is compared with a bar's target; None if it was not measured."""
    measured = {RATE: common["ours"]["rate"], SGEMM: common["ceiling_share"]}
    if over in measured:
        reached: float | None = measured[over]
        return reached
    return next((rival["ratio"] for rival in common["rivals"] if rival["name"] == over), None)


def missed(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for race in result["races"]:
        if race["holds"] is False:
            reached = _reached(race, race["over"]) or 0.0
            what = (
                f"{_amount(race['over'], reached)} where {_amount(race['over'], race['target'])} "
                "is asked for"
            )
            lines.append(f"{_bar(race)}{race['group']}: {what}")
    for figure in result["figures"]:
        if figure["holds"] is False:
            what = f"{with_unit(figure)} where {_bound(figure)} is asked for"
            lines.append(f"{_bar(figure)}{figure['group']}: {what}")
    return lines


def _bar(entry: Mapping[str, Any]) -> str:
    return "" if entry["bar"] is None else f"bar {entry['bar']}, "


def _amount(over: str, value: float) -> str:
    if over == RATE:
        return f"{short(value)}/s"
    return f"{value:.0%} of {over}" if over == SGEMM else f"{short(value)} × {over}"


def _bound(figure: Mapping[str, Any]) -> str:
    return f"{'≤' if figure['sense'] == 'at most' else '≥'} {short(figure['target'])}"


def rows_of(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Text cells of the races by COLUMNS: for each group a row per rival, then those of its other
    bars."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for race in result["races"]:
        groups.setdefault(race["group"], []).append(race)
    rows = []
    for races in groups.values():
        set_over = {race["over"]: race for race in races}
        rows += [_row(set_over.get(rival["name"]), races[0], rival) for rival in races[0]["rivals"]]
        rivals = {rival["name"] for rival in races[0]["rivals"]}
        rows += [
            _row(race, race, None)
            for race in races
            if race["over"] not in rivals and (race["over"] or not rivals)
        ]
    return rows


def _row(
    bar: Mapping[str, Any] | None, race: Mapping[str, Any], rival: Mapping[str, Any] | None
) -> tuple[str, ...]:
    ours, over = race["ours"], None if bar is None else bar["over"]
    target = ""
    if bar is not None and over is not None:
        target = f"≥ {bar['target']:.0%}" if over == SGEMM else f"≥ {short(bar['target'])}"
        target += f" {ours['unit']}" if over == RATE else ""
    share = (
        "" if race["ceiling_share"] is None else f"{race['ceiling_share']:.0%} of {race['ceiling']}"
    )
    return (
        "" if bar is None or bar["bar"] is None else str(bar["bar"]),
        race["group"],
        f"{short(ours['rate'])} {ours['unit']}",
        f"{rival['name']}: {short(rival['rate'])}"
        if rival
        else (f"{over} ceiling" if over == SGEMM else ""),
        f"{short(rival['ratio'])} ×" if rival else "",
        target,
        share,
        f"{ours['spread']:.0%}" + (f", {rival['spread']:.0%}" if rival else ""),
        _verdict(None if bar is None else bar["holds"]),
    )


def figure_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            "" if figure["bar"] is None else str(figure["bar"]),
            figure["group"],
            with_unit(figure),
            "" if figure["target"] is None else _bound(figure),
            _verdict(figure["holds"]),
        )
        for figure in result["figures"]
    ]


def with_unit(figure: Mapping[str, Any]) -> str:
    """A figure's value and unit, or who never reached the loss that the unit tells of."""
    never, unit = never_reached(figure), figure["unit"]
    return f"{never} ({unit})" if never else f"{short(figure['value'])} {unit}"


def never_reached(figure: Mapping[str, Any]) -> str:
    """Who never reached the loss that a figure tells of, in words; empty if it has a value."""
    value, is_ratio = figure["value"], figure["unit"].startswith(SOONER)
    # JSON has no infinity
    if value is None or math.isinf(value):
        return "the rival never reached it" if is_ratio else "never reached"
    return "ours never reached it" if is_ratio and value == 0 else ""


def _verdict(holds: bool | None) -> str:
    return "" if holds is None else ("yes" if holds else "no")


def short(value: float) -> str:
    """Three significant digits, without an exponent.

    >>> short(1234567.0), short(23.456), short(0.012345)
    ('1,230,000', '23.5', '0.0123')
    """
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def machine_lines(result: Mapping[str, Any]) -> list[str]:
    machine, ceilings = result["machine"], result.get("ceilings")
    versions = [f"{name} {machine['versions'][name]}" for name in ("torch", "numba")]
    versions += [machine["blas"]] if machine.get("blas") else []
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; "
        f"{', '.join(versions)}"
    ]
    if ceilings is not None:
        lines.append(f"ceiling: sgemm {short(ceilings['sgemm_gflops'])} GFLOP/s")
    if result.get("smoke"):
        lines.append("small sizes: these figures mean nothing")
    return lines


def write_object(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write a command's object, atomically, where a file is asked for. Raises OutputError."""
    if path is not None:
        with atomic(path) as beside:
            beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def to_markdown(result: Mapping[str, Any]) -> str:
    parts = ["  \n".join(machine_lines(result))]
    if races := rows_of(result):
        parts.append(rows_to_markdown([COLUMNS, *races], left=(1, 3)))
    if result["figures"]:
        parts.append(rows_to_markdown([FIGURE_COLUMNS, *figure_rows(result)], left=(1,)))
    parts += [f"Not run, {skip['race']}: {skip['reason']}" for skip in result["skipped"]]
    parts += [f"Failed: {name}" for name in result["failed"]]
    return "\n\n".join(parts) + "\n"
