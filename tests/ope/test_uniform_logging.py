"""Which displays are no random sets, and what the test of it may miss."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.logs.log import SessionLog
from fastgaum.ope.replay import Target
from fastgaum.ope.uniform_logging import judge_evenness
from fastgaum.ope.values import off_policy_block, off_policy_values
from fastgaum.policies.heuristics import RandomPolicy
from tests.builders import log_of
from tests.ope.test_importance_weights import ITEMS, POOL


def drawn(weights: np.ndarray, n: int, seed: int = 0) -> SessionLog:
    """Displays of two or three items, one by one with such weights."""
    rng = np.random.default_rng(seed)
    sets = [
        (rng.choice(len(weights), size, replace=False, p=weights / weights.sum()).tolist(), -1)
        for size in rng.choice([2, 3], n)
    ]
    return log_of([[one] for one in sets])


def test_displays_that_show_some_items_too_often_are_no_random_sets() -> None:
    """Random displays of two sizes pass in all but one of a thousand logs; those of popular items
    do not, and have no value but with their propensities."""
    even = [judge_evenness(drawn(np.ones(ITEMS), 500, seed), POOL) for seed in range(50)]
    assert [why for why, _ in even] == [""] * 50
    popular = drawn(np.array([2.0, 1.5, 1.0, 1.0, 1.0, 1.0]), 500)
    result = off_policy_values(popular, Target(RandomPolicy()))
    for one in result["estimates"]:
        assert one["value"] is None
    assert "displays are no random sets of the pool" in result["estimates"][1]["why"]
    assert judge_evenness(log_of([[(list(range(ITEMS)), -1)]] * 9), POOL) == ("", 0.0)


@pytest.mark.parametrize("n", [100, 400, 4000])
def test_the_test_of_even_displays_says_what_it_may_miss(n: int) -> None:
    """An item that is off by more than it says is found in 95 of 100 logs."""
    rng, size, m = np.random.default_rng(n), 2, 12
    rate, pool = size / m, np.arange(m, dtype=np.int32)

    def displays(first: float) -> SessionLog:
        """Random sets, which hold item 0 with this probability."""
        others = 1 + rng.permuted(np.tile(np.arange(m - 1), (n, 1)), axis=1)[:, :size]
        others[rng.random(n) < first, 0] = 0
        return log_of([[(sorted(one), -1)] for one in others.tolist()])

    hidden = judge_evenness(displays(rate), pool)[1]
    for off in (hidden, -hidden):
        if off > -1.0:
            found = [judge_evenness(displays(rate * (1.0 + off)), pool)[0] for _ in range(40)]
            assert sum("no random sets" in why for why in found) >= 34


def test_too_few_events_tell_nothing_of_random_displays() -> None:
    """An item that is shown twice as often may pass; propensities need no test."""
    log, asked = drawn(np.ones(ITEMS), 25), Target(RandomPolicy())
    why, hidden = judge_evenness(log, POOL)
    assert hidden >= 1.0
    assert "25 events are too few to tell whether displays are random sets" in why
    assert f"an item shown {100 * hidden:.0f} % more or less often may pass" in why
    result = off_policy_values(log, asked)
    assert result["hidden_unevenness"] == hidden
    assert why in result["estimates"][1]["why"]
    given = off_policy_values(log, asked, propensities=np.full(log.n_events, 0.06))
    assert given["hidden_unevenness"] is None
    block = off_policy_block(off_policy_values(drawn(np.ones(ITEMS), 900), asked))
    assert any("more or less often may have passed" in note for note in block.notes)
