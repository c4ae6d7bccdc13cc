"""LinUCB: the contract under every protocol, and its block elimination against the dense ridge
regression."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.baselines.linucb import LinUcb
from fastgaum.config import Protocol
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_training
from fastgaum.features.ordered_counts import ONCE
from tests.baselines.contract import scores_of
from tests.builders import log_of, random_log

PROTOCOLS: tuple[Protocol, ...] = ("identity", "bags")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_dense_regression_gives_the_same_scores(protocol: Protocol) -> None:
    log = random_log(3, n_sessions=40, no_click=0.2)
    model = LinUcb(protocol=protocol, alpha=0.7, ridge=2.5)
    model.fit(log)
    assert model.space is not None
    _, train = fit_training(log, protocol, relations=bool(model.relations), order=ONCE)
    test = Encoder(model.space, log).encode(log.sessions_in("test"))
    n_rows = len(model.space.item_counts.choices) + 1

    def features(encoded: object) -> np.ndarray:
        ids, numbers = encoded.ids[:, 0], encoded.numbers  # type: ignore[attr-defined]
        return np.column_stack([np.eye(n_rows)[ids - 2], np.ones(len(ids)), numbers]).astype(
            np.float64
        )

    x, rewards = features(train), np.zeros(len(train.ids))
    for event, choice in enumerate(train.choices):
        if choice >= 0:
            rewards[train.display_offsets[event] + choice] = 1
    inverse = np.linalg.inv(2.5 * np.eye(x.shape[1]) + x.T @ x)
    theta, y = inverse @ x.T @ rewards, features(test)
    expected = y @ theta + 0.7 * np.sqrt(np.einsum("ni,ij,nj->n", y, inverse, y))
    np.testing.assert_allclose(scores_of(model, log, log.sessions_in("test")), expected, rtol=1e-6)


def test_what_was_seldom_displayed_has_the_larger_bonus() -> None:
    """1 and 2 are chosen at the same rate, 2 is displayed less, 3 not at all."""
    train = [[([0, 1], 1), ([0, 1], 0)]] * 4 + [[([0, 2], 1), ([0, 2], 0)]]
    last = [([1, 2, 3], 1)]
    log = log_of([*train, last, last], [0] * 5 + [1, 2])
    model = LinUcb(protocol="identity", alpha=2.0, ridge=1.0)
    model.fit(log)
    known, rare, unknown = scores_of(model, log, log.sessions_in("test"))
    assert known < rare < unknown
