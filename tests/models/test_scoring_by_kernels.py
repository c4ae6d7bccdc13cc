"""Many candidates are scored by kernels, with the networks as they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.logs.log import SessionLog
from fastgaum.logs.splits import resplit
from fastgaum.models import networks_model
from fastgaum.models.user_model import UserModel
from fastgaum.ops import scorer
from tests.builders import random_log

SETTINGS: dict[str, dict[str, object]] = {
    "preset": {"search": (), "folds": 0},
    "relative numbers, relations": {
        "relative_numbers": True,
        "relations": True,
        "search": (),
        "folds": 0,
    },
    "towers": {
        "tower_dim": 6,
        "hidden": (8,),
        "history_dim": 5,
        "relations": False,
        "search": (),
        "folds": 0,
    },
    "exact, two layers": {"players": "exact", "history_layers": 2, "search": (), "folds": 0},
    "position weights": {"history": "pw", "search": (), "folds": 0},
}


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return dataclasses.replace(resplit(random_log(7, n_sessions=90), 0), ordered=True)


@pytest.fixture
def by_kernels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The scorers whose kernels are asked."""
    asked: list[Any] = []
    found = scorer.score

    def score(of: Any, *rest: Any) -> Any:
        asked.append(of)
        return found(of, *rest)

    monkeypatch.setattr(scorer, "score", score)
    return asked


def fitted(log: SessionLog, **settings: object) -> UserModel:
    model = UserModel.from_preset("fastgaum", warm_start=1, epochs=1, **settings)
    model.fit(log)
    return model


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_those_of_the_networks(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch, by_kernels: list[Any], name: str
) -> None:
    model = fitted(log, **SETTINGS[name])
    by_kernels.clear()
    assert model.examination() is not None
    expected = [model.predict(log, at_place=place) for place in ("own", None)]
    assert not by_kernels
    monkeypatch.setattr(networks_model, "MANY", 0)
    for place, those in zip(("own", None), expected, strict=True):
        found = model.predict(log, at_place=place)
        assert found.columns == those.columns
        for ours, theirs in zip(found, those, strict=True):
            if theirs.dtype.is_float():
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
            else:
                assert ours.equals(theirs)
    assert by_kernels


@pytest.mark.parametrize("name", ["preset", "towers"])
def test_weights_that_change_after_scoring_are_read(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In place, or one of them replaced by another array."""
    model = fitted(log, **SETTINGS[name])
    monkeypatch.setattr(networks_model, "MANY", 0)
    assert model.networks is not None
    before = model.predict(log)
    for weight in [one for one in model.networks.parameters() if one.numel() > 1]:
        for new in (weight.data.clone().mul_(1.5).add_(0.1), None):
            old = weight.data
            if new is None:
                weight.data.mul_(0.5).sub_(0.1)
            else:
                weight.data = new
            found = model.predict(log)
            with monkeypatch.context() as few:
                few.setattr(networks_model, "MANY", 1 << 20)
                plain = model.predict(log)
            np.testing.assert_allclose(found["utility"], plain["utility"], atol=2e-5, rtol=2e-5)
            if new is None:
                weight.data.add_(0.1).mul_(2)
            else:
                weight.data = old
    assert len(before) == len(model.predict(log))


def test_parts_on_several_threads_have_the_same_bits(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes share no memory: one that two threads wrote would mix their batches."""
    model = fitted(log, search=(), folds=0)
    monkeypatch.setattr(networks_model, "MANY", 0)
    monkeypatch.setattr("fastgaum.models.choice_model.SCORING_SESSIONS", 4)
    monkeypatch.setattr("fastgaum.features.sessions.CHUNK_EVENTS", 1)
    before = torch.get_num_threads()
    try:
        found = []
        for n in (1, 4):
            torch.set_num_threads(n)
            found.append(model.predict(log))
    finally:
        torch.set_num_threads(before)
    assert found[0].equals(found[1])
