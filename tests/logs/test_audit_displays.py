"""Whether displays depend on clicks: found where they do, and not where they are drawn at random."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastgaum.logs.audit import audit
from fastgaum.logs.audit_displays import display_dependence
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.log import SessionLog
from tests.builders import log_of, put

ITEMS = 12


def drawn(seed: int, n_users: int = 60, again: float = 0.0) -> SessionLog:
    """Sessions of displays of 2 to 4 items, popular ones more often; with probability `again` the
    first one is the item clicked last."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, ITEMS + 1) / np.arange(1, ITEMS + 1).sum()
    sessions = []
    for _ in range(n_users):
        events: list[tuple[list[int], int]] = []
        last = -1
        for _ in range(int(rng.integers(1, 7))):
            items = rng.choice(ITEMS, int(rng.integers(2, 5)), replace=False, p=shares).tolist()
            if last >= 0 and last not in items and rng.random() < again:
                items[0] = last
            choice = int(rng.integers(-1, len(items)))
            last = items[choice] if choice >= 0 else last
            events.append((items, choice))
        sessions.append(events)
    return log_of(sessions)


def test_of_100_logs_drawn_at_random_at_most_three_are_flagged() -> None:
    tests = [display_dependence(drawn(seed)) for seed in range(100)]
    assert sum(one is not None and one.found for one in tests) <= 3
    assert abs(np.mean([one.z for one in tests if one is not None])) < 0.3


def test_a_recommender_that_repeats_clicks_is_found() -> None:
    for seed in range(10):
        found = display_dependence(drawn(seed, n_users=200, again=0.3))
        assert found is not None
        assert found.found
        assert found.shown > found.expected
    report = audit(drawn(0, n_users=200, again=0.3))
    assert "FLAG: displays depend on clicks: the item clicked last is displayed again in" in (
        report.to_text()
    )
    assert "off-policy values need logged propensities" in report.to_text()
    assert json.loads(json.dumps(report.to_dict()))["dependence"]["p"] < 0.01
    assert "FLAG: displays" not in audit(drawn(0, n_users=200)).to_text()


def test_the_figures_are_counted() -> None:
    """Users 0 and 1 have clicked 0, and are shown two displays of two; user 2 clicks nothing."""
    after = [([0, 2], -1), ([1, 2], -1)]
    log = log_of([[([0, 1], 0), *after], [([0, 1], 0), *after], [([0, 3], -1), ([2, 3], 0)]])
    found = display_dependence(log)
    # of the ten places of all others three are item 0's: 2 places × .3, in each of the events
    assert found is not None
    assert (found.n_events, found.shown, found.expected) == (4, 0.5, pytest.approx(0.6))
    by_users = 2 * (1 - 1.2) ** 2
    assert found.z == pytest.approx((2 - 2.4) / max(by_users, 4 * 0.6 * 0.4) ** 0.5)
    one = log_of([[([0, 1], 0), *after], [([0, 3], -1), ([2, 3], 0)]])
    assert display_dependence(one) is None, "one user"


def test_where_nothing_can_be_said_there_is_no_test() -> None:
    assert display_dependence(log_of([[([0, 1], -1)], [([0, 1], 0)]])) is None
    log = drawn(0)
    fields = {CLICKS_SO_FAR: np.zeros(log.n_events, np.float32)}
    assert display_dependence(put(log, event=fields)) is None
