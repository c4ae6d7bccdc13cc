"""DeepFM."""

from __future__ import annotations

import pytest

from fastgaum.baselines.deep_fm import DeepFm
from tests.baselines.contract import check_baseline, check_beats_random, check_learns


@pytest.mark.parametrize("loss", ["logistic", "choice"])
@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_contract(protocol: str, loss: str) -> None:
    check_baseline(DeepFm(protocol=protocol, loss=loss, epochs=10))


@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_learns(protocol: str) -> None:
    check_learns(DeepFm(protocol=protocol))
    check_beats_random(DeepFm(protocol=protocol))
