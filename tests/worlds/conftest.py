"""A small trained run, and worlds of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet
from tests.logs.test_context import navigation
from tests.worlds.small_world import SmallWorld, true_world


@pytest.fixture(scope="session")
def small_log() -> SessionLog:
    return synthesise(600, preset="sample", seed=3, n_items=20, no_click=0.3)[0]


@pytest.fixture(scope="session")
def small_run(small_log: SessionLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a short training."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    model = UserModel.from_preset(
        "fastgaum", epochs=2, warm_start=2, catch_up=1, search=[], folds=0
    )
    train_run(model, small_log, folder)
    return folder


@pytest.fixture(scope="session")
def small_model(small_run: Path) -> UserModel:
    return UserModel.load(small_run)


@pytest.fixture(scope="session")
def set_model(small_log: SessionLog) -> UserModel:
    """Three short fits, each without a fold of the users."""
    model = UserModel.from_preset(
        "fastgaum", epochs=2, warm_start=2, catch_up=1, search=[], folds=3
    )
    model.fit(small_log)
    return model


@pytest.fixture(scope="session")
def context_world() -> LearnedWorld:
    """Users whose events have a context of each kind, taken from the log."""
    log = navigation(60, n_items=20)
    model = UserModel.from_preset(
        "fastgaum", epochs=1, warm_start=2, catch_up=1, tower_dim=6, search=[], folds=0
    )
    model.fit(log)
    return LearnedWorld(model, log=log)


@pytest.fixture(
    scope="session", params=["small", "true", "learned", "set", "logged starts", "context"]
)
def any_world(request: pytest.FixtureRequest, small_run: Path, small_log: SessionLog) -> World:
    if request.param == "set":
        return WorldSet.of(request.getfixturevalue("set_model"))
    if request.param == "context":
        world: LearnedWorld = request.getfixturevalue("context_world")
        return world
    if request.param == "small":
        return SmallWorld()
    if request.param == "true":
        return true_world()
    starts = {"starts": "logged", "log": small_log} if request.param == "logged starts" else {}
    return LearnedWorld(UserModel.load(small_run), **starts)  # type: ignore[arg-type]
