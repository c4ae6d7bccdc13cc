"""The Fréchet distance of states: its formula, and that it finds a world whose sessions lead
elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.reports.session_states import (
    MOST_REPLICAS,
    frechet_distance,
    moments_of,
    states_report,
)
from fastgaum.worlds.replay import replay, versions, world_of

REPLICAS = 20


@pytest.mark.parametrize(("n", "dim"), [(200, 5), (4, 7)])
def test_the_distance_is_that_of_two_gaussians(n: int, dim: int) -> None:
    """Against a root of the product, which is not symmetric; fewer states than numbers too."""
    rng = np.random.default_rng(n)
    one, other = rng.normal(size=(n, dim)), 0.5 + rng.normal(size=(n, dim)) @ rng.random((dim, dim))
    means = one.mean(axis=0), other.mean(axis=0)
    covariances = [np.cov(part.T, bias=True) for part in (one, other)]
    root = np.asarray(sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(dim))).real
    squared = ((means[0] - means[1]) ** 2).sum() + np.trace(sum(covariances) - 2 * root)
    tolerance = 1e-6 if n > dim else 1e-2
    assert frechet_distance(moments_of(one), moments_of(other)) == pytest.approx(
        np.sqrt(squared), rel=tolerance
    )
    assert frechet_distance(moments_of(one), moments_of(one)) == pytest.approx(0, abs=1e-6)
    both = moments_of(np.concatenate([one, other]))
    np.testing.assert_allclose(moments_of(one) + moments_of(other), both, atol=1e-9)


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return synthesise(600, n_items=12, no_click=0.2, max_display=6, mean_display=4.0)[0]


@pytest.fixture(scope="module")
def model(log: SessionLog) -> UserModel:
    model = UserModel.from_preset("fastgaum", epochs=2, warm_start=2, catch_up=1, search=[])
    model.fit(log)
    return model


def test_a_log_of_the_world_is_as_near_as_a_replica(log: SessionLog, model: UserModel) -> None:
    """The world's own sessions in the log's place; then users who never click."""
    drawn = replay(world_of(model, log), log, REPLICAS + 1, seed=3)
    own = versions_of(log, drawn)
    report = states_report(model, own, REPLICAS + 1, seed=0)
    assert report is not None
    low, high = report["expected_ci"]
    assert low <= report["expected"] <= high
    assert report["distance"] < 2 * high
    assert report["p"] > 1 / (REPLICAS + 1) - 1e-9
    assert report["halves"] > 0
    states = np.flatnonzero(log.event_number > 0)
    assert report["states"] == len(states)
    assert model.networks is not None
    assert report["dim"] == model.networks.player.state_dim
    drawn[0] = -1
    other = states_report(model, versions_of(log, drawn), REPLICAS + 1, seed=0)
    assert other is not None
    assert other["p"] == pytest.approx(1 / (REPLICAS + 1))
    assert other["distance"] > 3 * other["expected_ci"][1]


def versions_of(log: SessionLog, choices: np.ndarray) -> SessionLog:
    """Versions whose first one has other choices than the log."""
    every = versions(log, choices[1:])
    return SessionLog(
        **{name: getattr(every, name) for name in every.__dataclass_fields__}
        | {"choices": choices.reshape(-1)}
    )


def test_versions_are_told_apart_whatever_the_batches(log: SessionLog, model: UserModel) -> None:
    """Of more replicas than are read, the first ones; each version read alone has the same
    states."""
    few = log.sessions_in("test")[:7]
    part = slice_sessions(log, few)
    simulated = replay(world_of(model, part), part, MOST_REPLICAS + 3, seed=1)
    report = states_report(model, versions(part, simulated), MOST_REPLICAS + 4, seed=0)
    again = states_report(
        model, versions(part, simulated[:MOST_REPLICAS]), MOST_REPLICAS + 1, seed=0
    )
    assert report is not None
    assert again is not None
    for name, value in report.items():
        assert value == pytest.approx(again[name]), name
    assert report["p"] * (MOST_REPLICAS + 1) == pytest.approx(
        round(report["p"] * (MOST_REPLICAS + 1))
    )
