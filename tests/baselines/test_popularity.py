"""The floors as models, and the linear conditional logit."""

from __future__ import annotations

import pytest

from fastgaum.baselines.base import Baseline
from fastgaum.baselines.floors import ClickCountFloor, ClickRateFloor, RandomFloor
from fastgaum.baselines.logit import ConditionalLogit
from tests.baselines.contract import check_baseline, check_beats_random, check_learns

MODELS = [
    RandomFloor(),
    ClickRateFloor(),
    ClickCountFloor(),
    ConditionalLogit(epochs=20),
    ConditionalLogit(protocol="bags", epochs=20),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{model.protocol}")
def test_contract(model: Baseline) -> None:
    check_baseline(model)


@pytest.mark.parametrize("model", MODELS[1:], ids=lambda model: f"{model.name}-{model.protocol}")
def test_learns(model: Baseline) -> None:
    check_learns(model)
    check_beats_random(model)
