"""Wide & deep under both losses."""

from __future__ import annotations

import pytest

from fastgaum.baselines.wide_deep import WideDeep, WideDeepCcf, WideDeepLr
from tests.baselines.contract import check_baseline, check_beats_random, check_learns

BOTH = [WideDeepLr, WideDeepCcf]


@pytest.mark.parametrize("protocol", ["identity", "bags"])
@pytest.mark.parametrize("model", BOTH)
def test_contract(model: type[WideDeep], protocol: str) -> None:
    check_baseline(model(protocol=protocol, epochs=10))


@pytest.mark.parametrize("protocol", ["identity", "bags"])
@pytest.mark.parametrize("model", BOTH)
def test_learns(model: type[WideDeep], protocol: str) -> None:
    check_learns(model(protocol=protocol))
    check_beats_random(model(protocol=protocol))
