"""A small learned world, whose users start empty or within a session of its log."""

from __future__ import annotations

import pytest

from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedWorld


@pytest.fixture(scope="session")
def learned_log() -> SessionLog:
    return synthesise(400, n_items=12, no_click=0.2, max_display=6, mean_display=4.0)[0]


@pytest.fixture(scope="session")
def learned(learned_log: SessionLog) -> LearnedWorld:
    model = UserModel.from_preset(
        "fastgaum", epochs=1, warm_start=2, catch_up=1, search=[], folds=0
    )
    model.fit(learned_log)
    return LearnedWorld(model)


@pytest.fixture(scope="session")
def begun(learned: LearnedWorld, learned_log: SessionLog) -> LearnedWorld:
    """The same users, each within a session of the log that training did not count."""
    return LearnedWorld(learned.model, starts="logged", log=learned_log, split="test")
