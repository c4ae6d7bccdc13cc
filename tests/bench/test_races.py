"""The fixture's rules: a wrong result is never timed, a right one at least five times."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastgaum.bench.ceilings import gather, sgemm
from fastgaum.bench.races import ROUNDS, Bar, Race


@pytest.fixture
def times() -> list[dict[str, Any]]:
    return []


class Watch:
    """pytest-benchmark's fixture, as far as a race uses it; it remembers how it was asked."""

    def __init__(self) -> None:
        self.group, self.extra_info, self.rounds, self.stats = "", {}, 0, None

    def pedantic(self, step: Any, rounds: int) -> None:
        self.rounds = rounds
        for _ in range(rounds):
            step()
        self.stats = type("Meta", (), {"stats": Stats(rounds)})()


class Stats:
    median, q1, q3 = 2.0, 1.5, 2.5

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds


def test_a_right_result_is_timed(times: list[dict[str, Any]]) -> None:
    watch = Watch()
    race = Race(watch, "g", "ours", False, times)
    bars = [Bar(2.0, "other", 3)]
    race(
        lambda: {"x": torch.ones(2)},
        {"x": torch.ones(2)},
        unit="tokens",
        amount=10,
        bars=bars,
        flops=1e9,
    )
    (time,) = times
    assert (time["group"], time["contender"], time["unit"], time["amount"]) == (
        "g",
        "ours",
        "tokens",
        10,
    )
    assert (time["seconds"], time["spread"], time["rounds"]) == (2.0, 0.5, ROUNDS)
    assert time["bars"] == [{"at_least": 2.0, "over": "other", "number": 3, "at_200": None}]
    assert watch.group == "g"


@pytest.mark.parametrize(
    "found",
    [{"x": torch.ones(2) + 2e-5}, {"y": torch.ones(2)}, None],
    ids=["another value", "another name", "nothing"],
)
def test_a_wrong_result_has_no_time(times: list[dict[str, Any]], found: Any) -> None:
    watch = Watch()
    with pytest.raises(AssertionError):
        Race(watch, "g", "ours", False, times)(
            lambda: found, {"x": torch.ones(2)}, unit="tokens", amount=10
        )
    assert times == []
    assert watch.rounds == 0


def test_a_step_may_be_checked_by_its_test(times: list[dict[str, Any]]) -> None:
    Race(Watch(), "g", "ours", False, times)(lambda: None, None, unit="events", amount=1, rounds=7)
    assert times[0]["rounds"] == 7


def test_ceilings_are_positive() -> None:
    assert sgemm(sides=(64,)) > 1e6
    assert gather(table_rows=1000, gathers=1000) > 1e6


def test_a_first_call_that_compiles_does_not_cost_rounds(
    times: list[dict[str, Any]], monkeypatch: Any
) -> None:
    clock = [0.0]
    seconds = iter([8.0])
    monkeypatch.setattr("fastgaum.bench.races.time.perf_counter", lambda: clock[0])

    def step() -> None:
        clock[0] += next(seconds, 0.01)

    Race(Watch(), "g", "ours", False, times)(step, None, unit="events", amount=1)
    assert times[0]["rounds"] == ROUNDS
