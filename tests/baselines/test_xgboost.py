"""Boosted trees."""

from __future__ import annotations

import pytest

pytest.importorskip("xgboost", reason="needs the extra 'baselines'")

from fastgaum.baselines.xgboost_trees import BoostedTrees, XgboostRank, XgboostSoftmax
from tests.baselines.contract import check_baseline, check_beats_random, check_learns

BOTH = [XgboostSoftmax, XgboostRank]


@pytest.mark.parametrize("protocol", ["identity", "bags"])
@pytest.mark.parametrize("model", BOTH)
def test_contract(model: type[BoostedTrees], protocol: str) -> None:
    check_baseline(model(protocol=protocol, rounds=20))


@pytest.mark.parametrize("protocol", ["identity", "bags"])
@pytest.mark.parametrize("model", BOTH)
def test_learns(model: type[BoostedTrees], protocol: str) -> None:
    check_learns(model(protocol=protocol))
    check_beats_random(model(protocol=protocol))
