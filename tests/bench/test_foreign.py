"""Users that others wrote: they choose as the adapter says that they do, by their own keys alone;
and the whole of a seed at toy size. Without the packages a made-up one stands in."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from fastgaum.arrays import FloatArray
from fastgaum.bench.experiments import foreign as script
from fastgaum.bench.experiments import promises
from fastgaum.bench.experiments.foreign import Case, ForeignWorld, RecSim, Sardine
from fastgaum.policies.rollout import Setting, first_keys
from fastgaum.policies.trajectories import trajectories
from fastgaum.untrusted import parse_json
from fastgaum.worlds.pools import CHOICE, START


class MadeUp(ForeignWorld):
    """Users with a taste between two topics, which a click moves; their time runs out."""

    package = "numpy"

    def __init__(self) -> None:
        self.item_ids = pl.Series("item", [f"m{number}" for number in range(30)])
        angles = np.linspace(0, np.pi / 2, 30)
        self.item_features = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
        self.topics, self.state_dim = np.repeat(np.arange(3), 10), 3
        self.table = pl.DataFrame({"item": self.item_ids, "angle": angles})

    def user(self, key: int) -> Any:
        taste = np.random.default_rng(key).uniform(-2, 2, 2)
        return np.append(taste, 1.0)

    def choose(self, user: Any, slate: list[int], key: int) -> int:
        odds = np.exp(self.log_odds(user[None].astype(np.float32))[0, slate])
        share = np.append(odds, 1) / (1 + odds.sum())
        place = int(np.random.default_rng(key).choice(len(share), p=share / share.sum()))
        user[2] -= 0.125
        if place == len(slate):
            return -1
        user[:2] += 0.2 * self.item_features[slate[place]]
        return place

    def state(self, user: Any) -> npt.NDArray[np.floating]:
        return np.asarray(user)

    def log_odds(self, states: FloatArray) -> npt.NDArray[np.floating]:
        return states[:, :2] @ self.item_features.T


@pytest.fixture(params=[MadeUp, RecSim, Sardine])
def world(request: pytest.FixtureRequest) -> ForeignWorld:
    if request.param is not MadeUp:
        module = {RecSim: "recsim", Sardine: "sardine"}[request.param]
        pytest.importorskip(module, reason=f"pip install {request.param.package}")
    made: ForeignWorld = cache(request.param)()
    return made


def test_users_choose_as_their_probabilities_say(world: ForeignWorld) -> None:
    """Of the rows of each tenth by probability, as many are chosen as should be."""
    k = 1 if isinstance(world, Sardine) else 3
    frame = pl.concat(trajectories(world, "random", Setting(k, 20), 300, 1))
    probability, chosen = frame["probability"].to_numpy().astype(float), frame["chosen"].to_numpy()
    assert 0.05 < chosen.sum() * k / len(chosen) < 0.95
    for part in np.array_split(np.argsort(probability), 10):
        spread = np.sqrt((probability[part] * (1 - probability[part])).sum())
        assert abs(chosen[part].sum() - probability[part].sum()) < 4.5 * spread + 1e-9


def test_a_user_depends_on_its_own_keys_alone(world: ForeignWorld) -> None:
    k, keys = (1 if isinstance(world, Sardine) else 3), first_keys(8, seed=2)
    slates = np.arange(8 * k, dtype=np.int32).reshape(8, k)
    every, some = world.population(8), world.population(8)
    for users in (every, some):
        users.reset(keys.of(START))
    some.reset(keys.of(START)[[5, 2]], np.array([5, 2], np.int32))
    there = np.isin(np.arange(8), [2, 5])
    responses = [every.step(slates, keys.of(CHOICE)), some.step(slates, keys.of(CHOICE), there)]
    np.testing.assert_array_equal(responses[0].items[there], responses[1].items[there])
    assert (responses[1].items[~there] == -1).all()
    np.testing.assert_array_equal(every.states[there], some.states[there])


def test_a_seed_s_figures_follow_from_what_was_paid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {"epochs": 1, "warm_start": 1, "search": ()}
    monkeypatch.setattr(script, "MODEL", {**promises.MODEL, **quick})
    tiny = script.TRAINING.replace(users=16, warm_up=16, batch=16)
    monkeypatch.setattr(script, "TRAINING", tiny)
    monkeypatch.setattr(script, "SLATES", 1000)
    setting = Setting(2, 12, reward="click", leaving=script.WHOLE.leaving)
    monkeypatch.setattr(script, "CASES", [Case("made up", "recsim", setting, 60)])
    monkeypatch.setitem(script.PACKAGES, "recsim", cache(MadeUp))
    out = tmp_path / "f.json"
    script.main(["recsim", "--seeds", "2", "--users", "50", "--json", str(out)])
    result = parse_json(out.read_text(encoding="utf-8"))
    (case,) = result["cases"]
    rows = {row["made"]: row for row in case["rows"]}
    assert list(rows) == [
        *(f"{name}, learned world" for name in ("random", "popular", "greedy", "slateq")),
        *("counted topics, by hand", "greedy, truth", "slateq, truth"),
    ]
    assert rows["slateq, truth"]["gap_closed_by_seed"] == pytest.approx([1, 1])
    assert rows["random, learned world"]["gap_closed_by_seed"] == [0, 0]
    chance, best = (
        np.array(rows[name]["paid_by_seed"]) for name in ("random, learned world", "slateq, truth")
    )
    for row in rows.values():
        paid = np.array(row["paid_by_seed"])
        # eight events, for then the time is spent
        assert (paid > 0).all()
        assert (paid < 8).all()
        np.testing.assert_allclose(row["gap_closed_by_seed"], (paid - chance) / (best - chance))
    printed = capsys.readouterr().out
    assert "made up (numpy" in printed
    assert "60 sessions of random slates" in printed


def test_a_missing_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "recsim.environments.interest_evolution", None)
    monkeypatch.setitem(script.PACKAGES, "recsim", RecSim)
    with pytest.raises(SystemExit, match="2"):
        script.main(["recsim", "--seeds", "1"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert "recsim" in error
    assert error.endswith("pip install recsim-no-tf sardine-rec")
    with pytest.raises(SystemExit, match="2"):
        script.main(["bookcross"])
    assert "no package 'bookcross'; there are recsim, sardine" in capsys.readouterr().err
