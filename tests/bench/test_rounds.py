"""Rounds against random slates at toy size: what is compared, and what the table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.bench.experiments import rounds as module
from fastgaum.bench.experiments.rounds import (
    AT_RANDOM,
    IN_ROUNDS,
    RoundsPlan,
    draw_rounds,
    rounds_against_random,
    rounds_block,
)
from fastgaum.cli.app import main
from fastgaum.errors import ConfigError
from fastgaum.policies.config import PolicyConfig
from fastgaum.reports.table import finite
from fastgaum.untrusted import parse_json

TOY = PolicyConfig(episodes=1, users=16, warm_up=16, batch=16, updates=1, evaluations=1, seed=7)
QUICK = {"epochs": 1, "warm_start": 1, "search": ()}


@pytest.fixture(autouse=True, scope="module")
def quick_fits() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MODEL", {**module.MODEL, **QUICK})
        yield


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    plan = RoundsPlan("items-10", 2, 200, members=2, seeds=2, users=40, config=TOY)
    seen: list[tuple[int, int, str]] = []
    found: dict[str, Any] = finite(
        rounds_against_random(plan, progress=lambda *call: seen.append(call))
    )
    assert [call[:2] for call in seen] == [(i, 6) for i in range(1, 7)]
    assert seen[0][2] == "items-10, rounds, seed 7"
    assert seen[-1][2] == "items-10, the truth, seed 8"
    return found


def test_figures_follow_from_those_of_the_seeds(result: dict[str, Any]) -> None:
    rows = result["rows"]
    found = [(row["log"], row["round"], row["events"]) for row in rows]
    assert found == [(IN_ROUNDS, 1, 200), (IN_ROUNDS, 2, 400), (AT_RANDOM, 1, 400)]
    for row in rows:
        paid, promised = (np.array(row[f"{name}_by_seed"]) for name in ("paid", "promised"))
        assert row["optimism"] == pytest.approx((promised / paid - 1).mean())
        assert row["bound"] < row["promised"]
        for advice, one, plan, greedy in zip(
            row["recommended"],
            *(row[f"{name}gap_closed_by_seed"] for name in ("recommended_", "", "greedy_")),
            strict=True,
        ):
            assert one == (plan if advice == "plan" else greedy)
    # 0 is what random slates are paid, 1 what training on the truth is
    truth = result["truth"]
    share = (np.array(rows[0]["paid_by_seed"]) / rows[0]["of_truth_by_seed"]).mean()
    assert share == pytest.approx(truth["plan"])
    last, control = (np.array(row["gap_closed_by_seed"]) for row in rows[-2:])
    assert result["lead"] == pytest.approx((last - control).mean())
    assert result["lead_ci"][0] < result["lead"] < result["lead_ci"][1]


def test_the_table_and_the_figure_say_it(result: dict[str, Any], tmp_path: Path) -> None:
    block = rounds_block(result)
    assert [row[:2] for row in block.rows] == [
        ("rounds", "200"),
        ("rounds", "400"),
        ("random slates", "400"),
    ]
    assert "lower bound" in block.columns
    assert any("paired over seeds: " in note for note in block.notes)
    draw_rounds(result, tmp_path / "rounds.svg")
    drawn = (tmp_path / "rounds.svg").read_text(encoding="utf-8")
    assert "greedy slates, random slates" in drawn


def test_one_round_is_random_slates_alone(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "rounds.json"
    toy = "items-10 --rounds 1 --round-events 200 --seeds 1 --members 1 --users 30 --seed 3"
    sets = "--set episodes=1 --set updates=1 --set users=16 --set warm_up=16"
    assert main(["bench", "transfer", *toy.split(), *sets.split(), "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "random slates" in shown
    assert "paired over seeds" not in shown
    found = parse_json(file.read_text(encoding="utf-8"))
    (row,) = found["rows"]
    assert (row["log"], row["events"], found["config"]["seed"]) == (AT_RANDOM, 200, 3)
    assert "lead" not in found
    assert "bound" not in row


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="no known world 'items-20'; did you mean 'items-200'"):
        RoundsPlan("items-20")
    with pytest.raises(ConfigError, match="at least 1 seed, got 0"):
        RoundsPlan(seeds=0)
