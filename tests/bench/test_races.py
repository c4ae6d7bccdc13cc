"""The rules of a race: a wrong result is never timed, a right one at least five times."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastgaum.bench import races
from fastgaum.bench.races import ROUNDS, Bar, Group, Race, SkippedError, choose, run


@pytest.fixture
def race() -> Race:
    return Race("g", "ours", False, {"times": [], "figures": []})


def test_a_right_result_is_timed(race: Race) -> None:
    bars, ones = [Bar(2.0, "other", 3)], torch.ones(2)
    race.time(lambda: {"x": ones}, {"x": ones}, unit="tokens", amount=10, bars=bars, flops=1e9)
    (time,) = race.facts["times"]
    assert (time["group"], time["contender"], time["unit"], time["amount"]) == (
        "g",
        "ours",
        "tokens",
        10,
    )
    assert time["seconds"] > 0
    assert time["rounds"] == ROUNDS
    assert time["bars"] == [{"at_least": 2.0, "over": "other", "number": 3, "at_200": None}]


@pytest.mark.parametrize(
    "found",
    [{"x": torch.ones(2) + 2e-5}, {"y": torch.ones(2)}, None],
    ids=["another value", "another name", "nothing"],
)
def test_a_wrong_result_has_no_time(race: Race, found: Any) -> None:
    with pytest.raises(AssertionError):
        race.time(lambda: found, {"x": torch.ones(2)}, unit="tokens", amount=10)
    assert race.facts["times"] == []


def test_what_fails_or_is_skipped_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def some(race: Race) -> None:
        if race.contender == "absent":
            raise SkippedError("it is not here")
        assert race.contender == "ours", "a wrong result"
        race.record(3.0, "s", bar=1, at_most=2.0)

    known = {"g": Group(some, ("ours", "wrong", "absent"))}
    monkeypatch.setattr(races, "groups", lambda: known)
    said: list[str] = []
    facts = run(choose([]), smoke=True, say=said.append)
    assert facts["failed"] == ["g, wrong"]
    assert facts["skipped"] == [{"race": "g, absent", "reason": "it is not here"}]
    assert [(one["value"], one["holds"]) for one in facts["figures"]] == [(3.0, False)]
    assert "a wrong result" in "".join(said)
