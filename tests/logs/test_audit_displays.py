"""Whether displays depend on clicks: found where they do, and not where they are drawn at random."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastgaum.logs.audit import audit
from fastgaum.logs.audit_displays import DependenceSums
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


def test_of_200_logs_drawn_at_random_at_most_five_are_flagged() -> None:
    tests = [DependenceSums.of(drawn(seed)).test() for seed in range(200)]
    assert sum(one is not None and one.found for one in tests) <= 5
    assert abs(np.mean([one.z for one in tests if one is not None])) < 0.3


def test_a_recommender_that_repeats_clicks_is_found() -> None:
    for seed in range(10):
        found = DependenceSums.of(drawn(seed, n_users=200, again=0.3)).test()
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
    """Two users; the item clicked last is 0, then nothing new is clicked."""
    log = log_of([[([0, 1], 0), ([0, 2], -1), ([1, 2], -1)], [([0, 3], -1), ([2, 3], 0)]])
    found = DependenceSums.of(log)
    # of user 1's four places one is item 0's: 2 places × 1/4, twice; one hit of two
    assert (found.n_events, found.n_users, found.shown, found.expected) == (2, 1, 1.0, 1.0)
    assert found.variance == pytest.approx(2 * 0.25)
    assert found.test() is None, "one user"


def test_where_nothing_can_be_said_there_is_no_test() -> None:
    assert DependenceSums().test() is None
    assert DependenceSums.of(log_of([[([0, 1], -1)], [([0, 1], 0)]])).test() is None
    log = drawn(0)
    fields = {CLICKS_SO_FAR: np.zeros(log.n_events, np.float32)}
    assert DependenceSums.of(put(log, event=fields)).test() is None
