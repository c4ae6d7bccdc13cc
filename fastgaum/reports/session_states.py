"""How far the states of simulated sessions are from those of logged ones: the Fréchet distance.

    d² = |μ − μ'|² + tr(C + C' − 2 (C C')^½)

of the means and covariances of the two sets of states, as if each were a Gaussian (Heusel et al.,
"GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NIPS 2017). A
state is what the choices before an event have made of a user; the first events of sessions have no
choice before them and are left out. Both sides are read by the same model, each with its own
choices as history."""

from __future__ import annotations

import numpy as np
import torch

from fastgaum.arrays import Float64Array
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.intervals import AnyArray
from fastgaum.models.user_model import UserModel
from fastgaum.reports.permutation import percentile_interval
from fastgaum.reports.table import Json

MOST_REPLICAS = 99
"""replicas that are read; their p-values are whole hundredths"""
HALVINGS = 20


def moments_of(states: AnyArray) -> Float64Array:
    """Sums over states (n, dim), which add up: Σ [1 x]ᵀ [1 x], shape (1 + dim, 1 + dim)."""
    x = np.insert(np.asarray(states, np.float64), 0, 1.0, axis=1)
    return x.T @ x


def frechet_distance(one: Float64Array, other: Float64Array) -> float:
    """d, not its square, of two sets by their moments.

    >>> one, other = (moments_of(np.array([[-1.0], [1.0]]) * scale) for scale in (1, 3))
    >>> frechet_distance(one, other)
    2.0
    """
    (mean, covariance), (other_mean, other_covariance) = (
        (scaled[0, 1:], scaled[1:, 1:] - np.outer(scaled[0, 1:], scaled[0, 1:]))
        for scaled in (one / one[0, 0], other / other[0, 0])
    )
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # (C C')^½ and (C^½ C' C^½)^½ have the same trace, and the second is symmetric
    shared = np.linalg.eigvalsh(root @ other_covariance @ root)
    squared = ((mean - other_mean) ** 2).sum() + np.trace(covariance) + np.trace(other_covariance)
    return float(np.sqrt(max(squared - 2 * np.sqrt(np.maximum(shared, 0.0)).sum(), 0.0)))


def states_report(
    model: UserModel, versions: SessionLog, n_versions: int, seed: int
) -> Json | None:
    """The distance of a log's states from those of its replicas, beside what it is where log and
    world are alike.

    Args:
        model: whose states.
        versions: a log and its replicas, one below the other (`replay.versions`).
        n_versions: how many; of more than `MOST_REPLICAS` replicas the first ones are read.
        seed: seeds the halves.

    Returns: `distance`, of the log from all replicas; `expected` and `expected_ci`, the same of a
        replica from all other versions, mean and 95 % range; `p`, the share of versions that are as
        far from the others as the log; `halves`, the distance of two halves of the log's users,
        mean over random halves, which have half as many states; `states` and `dim`, how many the
        log has and their size. None where the log has fewer than 2 users with a state.
    """
    read = min(n_versions, 1 + MOST_REPLICAS)
    n_events = versions.n_events // n_versions
    users = versions.users[versions.session_of_event[:n_events]]
    later = versions.event_number[:n_events] > 0
    if len(np.unique(users[later])) < 2:
        return None
    logged, moments = _moments(model, versions, np.tile(later, read), read)
    every = sum(moments)
    distances = np.array([frechet_distance(one, every - one) for one in moments])
    return {
        "distance": float(distances[0]),
        "expected": float(distances[1:].mean()),
        "expected_ci": percentile_interval(distances[1:, None])[:, 0].tolist(),
        # equal sums may differ by rounding
        "p": float((distances >= distances[0] * (1 - 1e-9)).mean()),
        "halves": _halves(logged, users[later], seed),
        "states": len(logged),
        "dim": logged.shape[1],
    }


@torch.no_grad()
def _moments(
    model: UserModel, log: SessionLog, kept: AnyArray, n_versions: int
) -> tuple[AnyArray, Float64Array]:
    """The first version's states (n, dim), and the moments of each version's, of the events
    `kept`."""
    assert model.networks is not None
    networks = model.networks.eval()
    size = 1 + networks.player.state_dim
    logged, moments = [], np.zeros((n_versions, size, size))
    version = np.arange(len(kept)) // (len(kept) // n_versions)
    at = 0
    for batch in model.tensors(log):
        if at >= len(kept):
            break
        states = networks.utility(batch)[1].cpu().numpy()[: len(kept) - at]
        here = slice(at, at + len(states))
        at += len(states)
        for one in np.unique(version[here]):
            own = states[kept[here] & (version[here] == one)]
            if one == 0:
                logged.append(own)
            moments[one] += moments_of(own)
    return np.concatenate(logged), moments


def _halves(states: AnyArray, users: AnyArray, seed: int) -> float:
    """Mean distance of two random halves of the users, of states (n, dim)."""
    rng = np.random.default_rng([seed, 3])
    distinct, rows = np.unique(users, return_inverse=True)
    distances = []
    for _ in range(HALVINGS):
        first = (rng.permutation(len(distinct)) < len(distinct) // 2)[rows]
        distances.append(frechet_distance(moments_of(states[first]), moments_of(states[~first])))
    return float(np.mean(distances))
