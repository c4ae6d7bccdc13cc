"""The quality of learners: exact returns between what is possible and what is not, the bar's two
conditions, and a world in which planning pays."""

from __future__ import annotations

import pytest

from fastgaum.bench.policies_quality import SHARE, Quality, beyond_greed, exact_return, quality
from fastgaum.policies.heuristics import Greedy
from fastgaum.worlds.planning import Planner, short_sighted

TINY = {"episodes": 2, "users": 32, "warm_up": 32, "batch": 32, "evaluations": 1}


@pytest.mark.parametrize("policy", SHARE)
def test_a_short_training_is_scored_exactly(policy: str) -> None:
    found = quality(2, 10, 2, n_items=6, policy=policy, **TINY)
    assert found.greedy < found.best <= 10
    assert len(found.returns) == 2
    assert all(0 < value <= found.best + 1e-9 for value in found.returns)


def test_greed_s_exact_return_is_the_planner_s() -> None:
    """A policy that reads utilities reads those of users in the planner's states."""
    planner = Planner(short_sighted(6), 8, 2)
    assert exact_return(Greedy(), planner) == pytest.approx(planner.greedy(), abs=1e-6)


def test_planning_pays_in_the_world_of_200_items() -> None:
    """A rule made by hand earns a twentieth more than greed, and a short training is measured
    beside it."""
    lead, by_hand = beyond_greed("items-200", 1, **TINY)
    assert by_hand > 0.05
    assert -0.5 < lead.mean < 2 * by_hand


def test_the_bar_asks_for_both() -> None:
    assert Quality(10, 8, [9.6, 9.7, 9.8]).holds
    assert not Quality(10, 8, [9.6, 9.7, 9.8], bar=0.98).holds
    assert not Quality(10, 8, [9.3, 9.4, 9.4]).holds
    assert not Quality(10, 9.6, [9.5, 9.7, 9.8]).holds
    share = Quality(10, 8, [9.6, 9.7, 9.8]).share
    assert share.low < share.mean < share.high
    assert abs(share.mean - 0.97) < 1e-9
