from __future__ import annotations

import numpy as np
import pytest

from fastgaum.errors import NumericsError
from fastgaum.metrics.calibration import brier_score, choice_nll

OFFSETS = np.array([0, 2, 5], dtype=np.int32)
PROBS = np.array([0.2, 0.3, 0.1, 0.6, 0.1])
NO_CLICK = np.array([0.5, 0.2])


@pytest.mark.parametrize("choices", [[0, 2], [-1, 1], [1, -1]])
def test_nll_reads_the_outcome_and_brier_its_squared_distance(choices: list[int]) -> None:
    likely, expected = [], []
    for event, choice in enumerate(choices):
        p = np.append(PROBS[OFFSETS[event] : OFFSETS[event + 1]], NO_CLICK[event])
        outcome = np.zeros(len(p))
        outcome[choice] = 1.0  # -1 is the last entry: no click
        likely.append(p[choice])
        expected.append(((p - outcome) ** 2).sum())
    nll = choice_nll(np.log(PROBS), np.log(NO_CLICK), OFFSETS, np.array(choices))
    np.testing.assert_allclose(nll, -np.log(likely))
    np.testing.assert_allclose(brier_score(PROBS, NO_CLICK, OFFSETS, np.array(choices)), expected)


@pytest.mark.parametrize(("log_prob", "nll"), [(1e-7, 0.0), (-np.inf, np.log(1e6))])
def test_nll_is_never_negative_from_rounding_and_has_a_largest_value(
    log_prob: float, nll: float
) -> None:
    found = choice_nll(np.array([log_prob], np.float32), None, np.array([0, 1]), np.array([0]))
    assert found[0] == pytest.approx(nll)
    assert not np.signbit(found[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.5])
def test_nll_refuses_what_is_no_log_probability(bad: float) -> None:
    with pytest.raises(NumericsError, match="event 1 has the log-probability"):
        choice_nll(np.array([-1.0, bad]), None, np.array([0, 1, 2]), np.array([0, 0]))


def test_no_click_needs_a_probability() -> None:
    with pytest.raises(NumericsError, match="event 1 ends without a click"):
        choice_nll(np.log(PROBS), None, OFFSETS, np.array([0, -1]))


@pytest.mark.parametrize("where", ["candidate", "no click"])
def test_probabilities_that_are_not_finite_are_errors(where: str) -> None:
    probs, none = PROBS.copy(), NO_CLICK.copy()
    (probs if where == "candidate" else none)[1] = np.nan
    event = 0 if where == "candidate" else 1
    with pytest.raises(NumericsError, match=f"event {event} "):
        brier_score(probs, none, OFFSETS, np.array([0, 0]))
