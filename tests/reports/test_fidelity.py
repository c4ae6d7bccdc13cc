"""The report finds nothing where the log is a draw of the world, and finds worlds that are wrong on
purpose."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.arrays import IntArray
from fastgaum.baselines.registry import make_model
from fastgaum.bench.excerpts import fidelity_summary
from fastgaum.features.training_order import folds_of, with_fold
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import TEST, SessionLog
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.metrics.evaluation import HeadScores
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel, members_of
from fastgaum.reports import fidelity as module
from fastgaum.reports.charts import draw_fidelity
from fastgaum.reports.fidelity import _scored, fidelity
from fastgaum.reports.table import finite
from fastgaum.reports.world_tables import (
    differs,
    fidelity_block,
    fidelity_markdown,
)
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.replay import replay
from fastgaum.worlds.true_world import TrueWorld
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet

WORLD = SyntheticWorld(n_items=60, affinity=2.0, repeat=1.5, no_click=0.2, seed=3)
FAST = {"episodes": 12_000, "draws": 499}


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return WORLD.draw(12_000)[0]


@pytest.fixture(scope="module")
def reader(log: SessionLog) -> ChoiceModel:
    """Whoever measures surprise and rank; the test holds whatever it knows."""
    model = make_model("click-rate", {})
    model.fit(log)
    return model


@pytest.fixture(scope="module")
def true(log: SessionLog, reader: ChoiceModel) -> dict[str, Any]:
    return fidelity(reader, log, world=TrueWorld(WORLD), split="test", **FAST)  # type: ignore[arg-type]


def found(report: dict[str, Any]) -> list[str]:
    return [one["name"] for one in report["statistics"] if differs(one)]


def test_true_users_are_not_told_from_their_log(true: dict[str, Any]) -> None:
    assert [one["name"] for one in true["statistics"]] == [
        "click rate",
        "repeat rate",
        "new to the session",
        "popularity, mean log",
        "surprise",
    ]
    # each interval leaves out 0 in one of twenty logs
    assert len(found(true)) <= 1
    for one in true["statistics"]:
        low, high = one["difference_ci"]
        assert low - 0.02 <= 0 <= high + 0.02


def test_a_wrong_world_is_found(log: SessionLog, reader: ChoiceModel) -> None:
    """True users whose items have each other's popularity."""
    wrong = TrueWorld(WORLD)
    wrong.base = np.random.default_rng(0).permutation(wrong.base)
    report = fidelity(reader, log, world=wrong, split="test", **FAST)  # type: ignore[arg-type]
    assert {"popularity, mean log", "surprise"} <= set(found(report))


@pytest.mark.slow
def test_a_model_of_much_data_passes_most(log: SessionLog) -> None:
    model = UserModel.from_preset("fastgaum", search=(), folds=0, epochs=20, warm_start=10, seed=0)
    model.fit(log)
    report = fidelity(model, log, split="test", **FAST)  # type: ignore[arg-type]
    assert len(found(report)) <= 2, found(report)
    assert report["head"] == "generator"
    by_reward = fidelity(model, log, split="validation", head="reward", episodes=100, draws=9)
    assert (by_reward["head"], by_reward["split"]) == ("reward", "validation")


def test_the_report_says_what_it_is_of(
    true: dict[str, Any], log: SessionLog, reader: ChoiceModel
) -> None:
    test = log.sessions_in("test")
    assert (true["sessions"], true["users"]) == (len(test), len(test))
    assert true["replicas"] == 12_000 // len(test)
    assert true["left_out_sessions"] == 0
    assert true["new_items"] == 0.0
    low, middle, high = true["calibration"]["ece_simulated"]
    assert low <= middle <= high
    once, again = (
        fidelity(reader, log, world=TrueWorld(WORLD), split="test", episodes=200, draws=9)
        for _ in range(2)
    )
    assert again == once


def test_of_a_large_split_whole_users_are_drawn(reader: ChoiceModel, log: SessionLog) -> None:
    by_two = np.arange(log.n_sessions, dtype=np.int32) // 2
    shared = SessionLog(
        **{**{k: getattr(log, k) for k in log.__dataclass_fields__}, "users": by_two}
    )
    n = len(shared.sessions_in("train"))
    report = fidelity(reader, shared, world=TrueWorld(WORLD), split="train", episodes=101, draws=9)
    assert 98 <= report["sessions"] <= 101
    assert report["left_out_sessions"] == n - report["sessions"]
    assert report["replicas"] == 1
    assert any("users who were not drawn" in note for note in fidelity_block(report).notes)


def test_tables_and_figure(true: dict[str, Any], tmp_path: Path) -> None:
    report = json.loads(json.dumps(finite(true), allow_nan=False))
    table = fidelity_block(report)
    assert len(table.rows) == len(report["statistics"])
    assert all(len(row) == len(table.columns) for row in table.rows)
    rate = report["statistics"][0]
    assert table.rows[0][2] == f"{100 * rate['logged']:.1f}"
    text = fidelity_markdown(report)
    assert f"| {rate['name']} | % | {100 * rate['logged']:.1f} |" in text
    assert f"{100 * rate['logged']:.1f} → " in fidelity_summary([report, report])
    told = {**report, "statistics": [{**rate, "difference_ci": [0.1, 0.2]}]}
    assert "(+10.0 to +20.0)**" in fidelity_summary([told])
    assert fidelity_block(told).bold == {(0, 6)}
    pytest.importorskip("matplotlib", reason="figures: install fastgaum[plots]")
    path = tmp_path / "f.svg"
    draw_fidelity(report, path)
    first = path.read_text()
    for label in ("world − log, % of the log, 95 % over users", "predicted probability, %"):
        assert f">{label}</text>" in first
    draw_fidelity(report, path)
    assert path.read_text() == first


FOLDS = 3


@pytest.fixture(scope="module")
def folded(log: SessionLog) -> tuple[SessionLog, UserModel]:
    """A log of users who have two sessions each, and its model by folds."""
    few = slice_sessions(log, np.arange(900))
    users = np.arange(900, dtype=np.int32) // 2
    few = dataclasses.replace(few, users=users).with_split(log.split[users])
    model = UserModel.from_preset(
        "fastgaum", search=(), folds=FOLDS, epochs=2, warm_start=3, hidden=[8], seed=0
    )
    model.fit(few)
    return few, model


class Watched:
    """What `fidelity` replays and scores: the choices of each world, and all scores."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.worlds: list[tuple[World, list[str]]] = []
        self.scored: HeadScores | None = None
        patch.setattr(module, "replay", self.replay)
        patch.setattr(module, "_scored", self.score)

    def replay(self, world: World, log: SessionLog, replicas: int, seed: Any) -> IntArray:
        self.worlds.append((world, log.session_ids.to_list()))
        return replay(world, log, replicas, seed)

    def score(self, *given: Any) -> HeadScores:
        self.scored = _scored(*given)
        return self.scored


def test_all_folds_worlds_are_played(
    folded: tuple[SessionLog, UserModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """New users live in one of them each, the log is measured by the mean of all fits, and nothing
    stands out."""
    log, model = folded
    watched = Watched(monkeypatch)
    report = fidelity(model, log, split="test", **FAST)  # type: ignore[arg-type]
    ((world, _),) = watched.worlds
    assert isinstance(world, WorldSet)
    assert len(world.worlds) == report["folds"] == FOLDS
    assert report["out_of_fold_sessions"] == 0
    nll = model.evaluate(log, "test").heads["generator"].nll.mean
    (surprise,) = [one for one in report["statistics"] if one["name"] == "surprise"]
    assert surprise["logged"] == pytest.approx(nll, abs=1e-5)
    # each fold's world has its share of the choices: they are the mean's
    test = slice_sessions(log, log.sessions_in("test"))
    first = test.session_offsets[:-1]
    chosen = replay(world, slice_sessions(test, [0]), 40_000, seed=1)[:, 0]
    shares = np.bincount(chosen + 1, minlength=test.display_offsets[1] + 1) / len(chosen)
    frame = model.predict(test)[: test.display_offsets[1]]
    probs = np.append(
        1 - frame["generator_probability"].sum(), frame["generator_probability"].to_numpy()
    )
    assert len(first) > 20
    assert np.abs(shares - probs).max() < 4 * 0.5 / np.sqrt(len(chosen))
    assert any("of one of the model's 3 fits" in note for note in fidelity_block(report).notes)


def test_who_trained_lives_in_the_world_that_left_it_out(
    folded: tuple[SessionLog, UserModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is measured by that fit, with the counts of the other folds: as `predict` does."""
    log, model = folded
    watched, n = Watched(monkeypatch), log.n_sessions
    report = fidelity(model, log, split="all", episodes=n, draws=9)  # type: ignore[arg-type]
    fold_of = dict(
        zip(log.session_ids.to_list(), folds_of(log.user_hashes, FOLDS).tolist(), strict=True)
    )
    trained = set(log.session_ids.filter(pl.Series(log.split != TEST)))
    assert report["out_of_fold_sessions"] == len(trained)
    seen = 0
    for world, sessions in watched.worlds:
        seen += len(sessions)
        if isinstance(world, WorldSet):
            assert not trained & set(sessions)
            continue
        assert isinstance(world, LearnedWorld)
        (fold,) = {fold_of[one] for one in sessions}
        networks, own = members_of(model)[fold].networks, world.model.networks  # type: ignore[attr-defined]
        assert own is networks
        # of 900 sessions the fold's are not counted
        assert world.model.space is not None
        counted = with_fold(log, fold, FOLDS).training_counts().choices
        theirs = world.model.space.counts_of(log.item_ids).choices
        assert np.corrcoef(counted, theirs)[0, 1] > 0.999
    assert seen == n
    assert len(watched.worlds) == FOLDS + 1
    # the log stands first in the scores
    frame, scored = model.predict(log, "all"), watched.scored
    assert scored is not None
    wanted = frame["generator_probability"].to_numpy()
    np.testing.assert_allclose(np.exp(scored.log_probs[: len(wanted)]), wanted, atol=2e-5)
    notes = " ".join(fidelity_block(report).notes)
    assert "out of fold" in notes
    assert "of one of the model's 3 fits" in notes
