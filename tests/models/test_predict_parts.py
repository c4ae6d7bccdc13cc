"""Scoring a chunk of sessions at a time gives the rows, figures and draws of scoring them at
once."""

from __future__ import annotations

import polars as pl
import pytest

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features import sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from tests.builders import random_log


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """More sessions than two batches hold."""
    return synthesise(4_000, preset="scale", n_items=50, no_click=0.1)[0]


@pytest.fixture(scope="module")
def model(log: SessionLog) -> UserModel:
    model = UserModel.from_preset(
        "fastgaum", epochs=1, warm_start=1, catch_up=1, search=(), folds=0, relations=True
    )
    model.fit(log)
    return model


def test_parts_are_the_whole(
    log: SessionLog, model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.predict(log)
    figures = model.evaluate(log, "all").to_dict()
    drawn = model.sample(log, "all", seed=3)
    monkeypatch.setattr(sessions, "CHUNK_EVENTS", 1)
    parts = list(model.predict_parts(log))
    assert len(parts) > 1
    assert pl.concat(parts).equals(whole)
    assert model.evaluate(log, "all").to_dict() == figures
    assert model.sample(log, "all", seed=3).equals(drawn)


def test_what_is_wrong_is_said_before_the_first_part(log: SessionLog, model: UserModel) -> None:
    with pytest.raises(ConfigError, match="not been trained"):
        UserModel().predict_parts(random_log(1))
    untested = log.with_split(log.split * 0)
    with pytest.raises(LogFormatError, match="no session in split 'test'"):
        model.predict_parts(untested, "test")
