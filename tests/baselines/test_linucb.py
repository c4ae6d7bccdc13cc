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
from tests.builders import random_log

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
