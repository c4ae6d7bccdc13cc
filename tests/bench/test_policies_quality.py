"""The quality of the cascade: exact returns between what is possible and what is not, the bar's two
conditions."""

from __future__ import annotations

from fastgaum.bench.policies_quality import Quality, quality


def test_a_short_training_is_scored_exactly() -> None:
    found = quality(2, 10, 2, n_items=6, episodes=2, users=32, warm_up=32, batch=32, evaluations=1)
    assert found.greedy < found.best <= 10
    assert len(found.returns) == 2
    assert all(0 < value <= found.best + 1e-9 for value in found.returns)


def test_the_bar_asks_for_both() -> None:
    assert Quality(10, 8, [9.6, 9.7, 9.8]).holds
    assert not Quality(10, 8, [9.3, 9.4, 9.4]).holds
    assert not Quality(10, 9.6, [9.5, 9.7, 9.8]).holds
    share = Quality(10, 8, [9.6, 9.7, 9.8]).share
    assert share.low < share.mean < share.high
    assert abs(share.mean - 0.97) < 1e-9
