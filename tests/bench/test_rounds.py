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
    TRUTH,
    RoundsPlan,
    RoundsTask,
    draw_rounds,
    played,
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


def record(seed: int, number: int, events: int, plan: float) -> dict[str, Any]:
    return {
        "round": number,
        "events": events,
        "clicks": 8.0,
        "promised": {"plan": plan + 1, "greedy": 10.0},
        "bound": {"plan": plan - 1, "greedy": 9.0},
        "paid": {"random": 8.0, "greedy": 9.5, "plan": plan + seed},
        "recommended": "plan" if plan + seed > 10 else "greedy",
    }


def made_up(task: RoundsTask) -> list[dict[str, Any]]:
    """Gains of 1 a round, and of 1 per seed; the truth is paid 12, random slates 8."""
    seed = task.seed - 7
    if task.log == TRUTH:
        return [{"paid": {"plan": 12.0, "greedy": 11.0, "random": 8.0}}]
    if task.log == AT_RANDOM:
        return [record(seed, 1, 400, 9.0 + 0.5 * seed)]
    return [record(seed, number, 200 * number, 8.0 + number) for number in (1, 2)]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    plan = RoundsPlan("items-10", 2, 200, members=2, seeds=2, users=40, config=TOY)
    seen: list[tuple[int, int, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "played", made_up)
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
    for row, gaps in zip(rows, [(0.25, 0.5), (0.5, 0.75), (0.25, 0.625)], strict=True):
        assert row["gap_closed_by_seed"] == pytest.approx(gaps)
        assert row["greedy_gap_closed_by_seed"] == pytest.approx([0.375, 0.375])
        paid, promised = (np.array(row[f"{name}_by_seed"]) for name in ("paid", "promised"))
        assert row["optimism"] == pytest.approx((promised / paid - 1).mean())
        assert row["of_truth"] == pytest.approx((paid / 12).mean())
        for advice, one, plan in zip(
            row["recommended"], row["recommended_gap_closed_by_seed"], gaps, strict=True
        ):
            assert one == pytest.approx(plan if advice == "plan" else 0.375)
    assert {advice for row in rows for advice in row["recommended"]} == {"plan", "greedy"}
    # by seed .25 and .125
    assert result["lead"] == pytest.approx(0.1875)
    assert result["lead_ci"][0] < result["lead"] < result["lead_ci"][1]


def test_a_seed_is_played_as_it_is_said() -> None:
    """The rounds, of whole sessions, and as many events of slates of all items; the truth trains as
    they do."""
    plan = RoundsPlan("items-10", 2, 119, members=1, users=30, config=TOY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MODEL", {**module.MODEL, **QUICK})
        in_rounds, at_random, truth = (
            played(RoundsTask(plan, log, 7)) for log in (IN_ROUNDS, AT_RANDOM, TRUTH)
        )
    assert [one["events"] for one in in_rounds] == [100, 200]
    assert [one["events"] for one in at_random] == [200]
    # the same users judge: random slates are paid the same
    paid = {one["paid"]["random"] for one in (*in_rounds, *at_random, *truth)}
    assert len(paid) == 1
    assert {*truth[0]["paid"]} == {"plan", "greedy", "random"}


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


def test_one_round_is_random_slates_alone(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rounds.json"
    toy = "items-10 --rounds 1 --round-events 200 --seeds 1 --members 1 --users 30 --seed 3"
    sets = "--set episodes=1 --set updates=1 --set users=16 --set warm_up=16"
    monkeypatch.setattr(module, "MODEL", {**module.MODEL, **QUICK})
    assert main(["bench", "transfer", *toy.split(), *sets.split(), "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "random slates" in shown
    assert "paired over seeds" not in shown
    found = parse_json(file.read_text(encoding="utf-8"))
    (row,) = found["rows"]
    assert (row["log"], row["events"], found["config"]["seed"]) == (AT_RANDOM, 200, 3)
    assert "lead" not in found
    assert "bound" not in row


@pytest.mark.parametrize("asked", ["--set seed=7", "--set seed=5 --seed 7"])
def test_the_first_seed_is_that_of_the_option_or_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    file = tmp_path / "rounds.json"
    monkeypatch.setattr(module, "played", made_up)
    toy = f"items-10 --rounds 2 --round-events 200 --seeds 1 {asked} --json {file}"
    assert main(["bench", "transfer", *toy.split()]) == 0
    assert parse_json(file.read_text(encoding="utf-8"))["config"]["seed"] == 7


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="no known world 'items-20'; did you mean 'items-200'"):
        RoundsPlan("items-20")
    with pytest.raises(ConfigError, match="at least 1 seed, got 0"):
        RoundsPlan(seeds=0)
