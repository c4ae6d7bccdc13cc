"""From measured times to the JSON object and its tables: every figure checked by hand on made-up
times."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fastgaum.bench.races import SOONER, Bar, Race, times_as_soon
from fastgaum.bench.report import COLUMNS, figure_rows, missed, races_object, rows_of, to_markdown
from fastgaum.reports.table import finite

INF = float("inf")
BARS = [Bar(4.0, "slow", 4), Bar(0.5, "sgemm", 5), Bar(100.0, "rate", 1)]


def timed(contender: str, seconds: float, amount: float = 100, **changes: Any) -> dict[str, Any]:
    bars = [vars(bar) for bar in changes.pop("bars", BARS)]
    return {
        "group": "g",
        "contender": contender,
        "unit": "tokens",
        "amount": amount,
        "flops": 2e9,
        "threads": 2,
        "bars": bars,
        "seconds": seconds,
        "spread": 0.02,
        "rounds": 5,
        **changes,
    }


def facts(*times: dict[str, Any], **changes: Any) -> dict[str, Any]:
    machine = {"processor": "P", "cores": 2, "threads": 2, "versions": {"torch": "2", "numba": "0"}}
    ceilings = {"sgemm_gflops": 10.0}
    rest = {"figures": [], "failed": [], "skipped": [], "smoke": False}
    return {"machine": machine, "ceilings": ceilings, "times": list(times), **rest, **changes}


def test_ratio_share_and_rate_of_a_race() -> None:
    # ours: 100 tokens in 0.5 s; the rival half the work in 1.5 s: 6 times as long for the same
    result = races_object(facts(timed("ours", 0.5), timed("slow", 1.5, amount=50)))
    by_bar = {race["bar"]: race for race in result["races"]}
    assert list(by_bar) == [1, 4, 5]
    for race in by_bar.values():
        assert race["ours"] == {
            "seconds": 0.5,
            "spread": 0.02,
            "rounds": 5,
            "rate": 200.0,
            "unit": "tokens/s",
        }
        assert race["rivals"][0]["ratio"] == pytest.approx(6.0)
        # 2e9 operations in 0.5 s are 4 of the 10 GFLOP/s
        assert race["ceiling_share"] == pytest.approx(0.4)
        assert race["ceiling"] == "sgemm"
    assert {bar: (race["target"], race["holds"]) for bar, race in by_bar.items()} == {
        1: (100.0, True),
        4: (4.0, True),
        5: (0.5, False),
    }
    assert missed(result) == ["bar 5, g: 40% of sgemm where 50% of sgemm is asked for"]


@pytest.mark.parametrize(
    ("peak", "asked"), [(100.0, 0.7), (200.0, 0.7), (300.0, 0.6), (400.0, 0.5), (900.0, 0.5)]
)
def test_a_share_is_asked_for_by_the_peak_of_the_machine(peak: float, asked: float) -> None:
    ours = timed("ours", 0.5, bars=[Bar(0.5, "sgemm", 4, at_200=0.7)])
    (race,) = races_object(facts(ours, ceilings={"sgemm_gflops": peak}))["races"]
    assert race["target"] == pytest.approx(asked)
    assert race["holds"] == (4.0 / peak >= asked)


def figures_of(*figures: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What a race records, of values, units and bounds."""
    race = Race("g", "ours", True, {"figures": []})
    for value, unit, bounds in figures:
        race.record(value, unit, **bounds)
    return race.facts["figures"]


def test_rows_stand_by_rival_and_bar() -> None:
    result = races_object(facts(timed("ours", 0.5), timed("slow", 1.5), timed("other", 0.6)))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in rows_of(result)]
    assert [row["bar"] for row in rows] == ["4", "", "1", "5"]
    assert [row["rival"] for row in rows] == ["slow: 66.7", "other: 167", "", "sgemm ceiling"]
    assert [row["ratio"] for row in rows] == ["3 ×", "1.2 ×", "", ""]
    assert [row["target"] for row in rows] == ["≥ 4", "", "≥ 100 tokens/s", "≥ 50%"]
    assert [row["holds"] for row in rows] == ["no", "", "yes", "no"]
    assert {row["share of ceiling"] for row in rows} == {"40% of sgemm"}
    assert [row["spread"] for row in rows][:3] == ["2%, 2%", "2%, 2%", "2%"]
    assert to_markdown(result).count("\n| ") == 2 + len(rows)


def test_figures_have_bounds() -> None:
    figures = figures_of(
        (np.float64(65.0), "bytes/event", {"bar": 8, "at_most": 64.0}),
        (12e6, "events/s", {"bar": 7, "at_least": 10e6}),
        (1234.0, "×", {}),
    )
    assert [figure["holds"] for figure in figures] == [False, True, None]
    assert json.loads(json.dumps(figures)) == figures
    result = races_object(facts(figures=figures))
    assert figure_rows(result) == [
        ("8", "g", "65 bytes/event", "≤ 64", "no"),
        ("7", "g", "12,000,000 events/s", "≥ 10,000,000", "yes"),
        ("", "g", "1,230 ×", "", ""),
    ]
    assert missed(result) == ["bar 8, g: 65 bytes/event where ≤ 64 is asked for"]


TOLD = "x as soon as it at NLL 1.9"


@pytest.mark.parametrize(
    ("ours", "theirs", "of_ours", "ratio", "holds"),
    [
        (2.0, 20.0, "2 s until NLL 1.9", f"10 {TOLD}", "yes"),
        (INF, 20.0, "never reached (s until NLL 1.9)", f"ours never reached it ({TOLD})", "no"),
        (2.0, INF, "2 s until NLL 1.9", f"the rival never reached it ({TOLD})", "yes"),
        (INF, INF, "never reached (s until NLL 1.9)", f"ours never reached it ({TOLD})", "no"),
    ],
)
def test_a_loss_that_is_never_reached_is_said(
    ours: float, theirs: float, of_ours: str, ratio: str, holds: str
) -> None:
    figures = figures_of(
        (ours, "s until NLL 1.9", {}),
        (times_as_soon(ours, theirs), f"{SOONER} it at NLL 1.9", {"bar": 1, "at_least": 8.0}),
    )
    measured = races_object(facts(figures=figures))
    for result in (measured, finite(measured)):
        rows = figure_rows(result)
        assert [row[2] for row in rows] == [of_ours, ratio]
        assert [row[4] for row in rows] == ["", holds]
        said = [] if holds == "yes" else [f"bar 1, g: {ratio} where ≥ 8 is asked for"]
        assert missed(result) == said
