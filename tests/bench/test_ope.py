"""Off-policy values in the known world: `bench/ope.py` at a small size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from fastgaum.bench import ope
from fastgaum.bench.ope import SETTINGS, USERS, draw_log, main, study_to_markdown
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


def test_a_log_is_what_its_users_chose() -> None:
    world = TrueWorld(USERS)
    drawn = draw_log(world, np.ones(50), 30, seed=1)
    users = world.population(30)
    users.reset(np.zeros(30, np.uint64))
    for t in range(5):
        np.testing.assert_array_equal(drawn.log.items.reshape(30, 5, 3)[:, t], drawn.slates[t])
        places = users.step(drawn.slates[t], drawn.keys[t]).places
        np.testing.assert_array_equal(drawn.log.choices.reshape(30, 5)[:, t], places)
