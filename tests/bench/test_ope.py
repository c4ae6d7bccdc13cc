"""Off-policy values in the known world: `bench/ope.py` at a small size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from fastgaum.bench import ope
from fastgaum.bench.ope import (
    BAR,
    SETTINGS,
    USERS,
    Judged,
    draw_log,
    main,
    misses_of,
    should_not_be_printed,
    study_to_markdown,
)
from fastgaum.worlds.true_world import TrueWorld


def test_the_study_at_a_small_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = dataclasses.replace(SETTINGS[0], users=200, target="random", epsilon=1.0)
    monkeypatch.setattr(ope, "SETTINGS", (small,))
    file = tmp_path / "ope.json"
    main(["--logs", "5", "--fit-users", "60", "--true-users", "2000", "--json", str(file)])
    result = json.loads(file.read_text())
    rows = {one["estimator"]: one for one in result["rows"]}
    assert rows["ips"]["supported"] == rows["dr-pi"]["supported"] == 5
    for name in ("ips", "snips", "pi", "dr", "dr-pi"):
        assert rows[name]["held"] >= 3
        assert rows[name]["rmse"] < 0.06
    assert "lowest" in capsys.readouterr().out
    best = min(result["rows"], key=lambda one: one["rmse"])
    table = study_to_markdown(result)
    assert f"**{best['rmse']:.4f}**, {best['held']} |" in table
    assert "| random, random (1) | 1,000 |" in table
    # an estimator that some logs do not support is not the lowest, however small its error
    best["supported"] = 3
    assert f" {best['rmse']:.4f}, {best['held']} of 3 |" in study_to_markdown(result)
    best |= {"supported": 0, "held": 0, "rmse": None}
    assert " | - |" in study_to_markdown(result)


def test_the_bar_at_a_small_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A greedy log hardly shows what another policy does; random displays have values."""
    popular, random = BAR[10], BAR[18]
    small = [dataclasses.replace(one, users=400) for one in (popular, random)]
    monkeypatch.setattr(ope, "BAR", tuple(small))
    file = tmp_path / "bar.json"
    argv = ["--logs", "3", "--fit-users", "60", "--true-users", "500", "--json", str(file)]
    main(["--bar", *argv])
    rows = json.loads(file.read_text())["rows"]
    found = {(one["setting"], one["estimator"]): one["supported"] for one in rows}
    for name in ("dr-pi", "pi", "dr", "snips", "ips"):
        assert found[popular.name, name] == 0
    assert found[popular.name, "dm"] == 3
    assert found[random.name, "ips"] >= 2
    assert len(BAR) == len({one.name for one in BAR}) == 20


def test_what_misses_the_bar_is_named() -> None:
    right = Judged("popular", "dr-pi", 100, 90, 0.0, 0.1, 0.5, 100, 0)
    assert misses_of([right]) == []
    low, wrong = dataclasses.replace(right, held=89), dataclasses.replace(right, wrong=2)
    assert misses_of([low, wrong]) == [
        "popular: 89 of 100 intervals of dr-pi hold",
        "popular: 2 of dr-pi should not be printed",
    ]
    one = {"estimator": "ips", "value": 0.5, "ci": [0.4, 0.6]}
    result = {"mean_weight": {"ci": [0.9, 1.1]}, "unseen": 0.0}
    assert not should_not_be_printed(result, one)
    assert should_not_be_printed(result, one | {"ci": [0.4, 1.1]})
    assert should_not_be_printed({"mean_weight": {"ci": [4.9, 5.2]}, "unseen": 0.0}, one)


def test_a_log_is_what_its_users_chose() -> None:
    world = TrueWorld(USERS)
    drawn = draw_log(world, np.ones(50), 30, seed=1)
    users = world.population(30)
    users.reset(np.zeros(30, np.uint64))
    for t in range(5):
        np.testing.assert_array_equal(drawn.log.items.reshape(30, 5, 3)[:, t], drawn.slates[t])
        places = users.step(drawn.slates[t], drawn.keys[t]).places
        np.testing.assert_array_equal(drawn.log.choices.reshape(30, 5)[:, t], places)
