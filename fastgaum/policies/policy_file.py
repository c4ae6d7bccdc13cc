"""A trained policy on disk: one safetensors file with its weights, name, slates, pool and
configuration. No pickle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from fastgaum.checkpoint import State, damage_named, load_state, save_state
from fastgaum.errors import CheckpointError
from fastgaum.policies.base import LearningPolicy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.registry import untrained
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import World

FORMAT = "fastgaum-policy-4"
POLICY_FILE = "policy.safetensors"


def save_policy(policy: LearningPolicy, path: Path, *, k: int, pool: Pool) -> None:
    """Write a trained policy, atomically, without what only its training needs.

    Raises:
        OutputError: the file cannot be written.
    """
    state = {
        "policy": policy.name,
        "k": k,
        "pool": dataclasses.asdict(pool),
        "config": policy.config.to_mapping(),
        "item_features": policy.item_features,
        "weights": policy.weights(),
    }
    save_state(path, FORMAT, state)


def load_policy(path: str | Path, world: World) -> tuple[LearningPolicy, int, Pool]:
    """Read a policy for the world that it was trained in: the policy, its slate's size, its pool.

    Raises:
        CheckpointError: missing, damaged, of another format, or trained in another world.
    """
    path = Path(path)
    file = path / POLICY_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"no policy at '{path}': give a folder written by `fastgaum rl train`, or its "
            f"{POLICY_FILE}"
        )
    state = load_state(file, FORMAT, "train again", "policy")
    with damage_named(file, "policy"):
        for name in ("pool", "config", "weights"):
            if not isinstance(state[name], dict):
                raise ValueError(
                    f"its {name} is a {type(state[name]).__name__}, not values by name"
                )
        config = PolicyConfig.from_mapping(state["config"])
        # before the pool, which another world may not be able to show
        require_world(file, state["item_features"], world)
        k, pool = _slates(state, world)
        policy = untrained(state["policy"], world, k, pool, config, state["weights"])
        policy.load_weights(state["weights"])
    return policy, k, pool


def require_world(file: Path, item_features: Any, world: World) -> None:
    """Raise CheckpointError unless a file's item features are those of the world."""
    own = np.asarray(world.item_features, np.float32)
    if (
        not isinstance(item_features, np.ndarray)
        or item_features.dtype != own.dtype
        or item_features.shape != own.shape
        or not np.allclose(own, item_features, atol=1e-5)
    ):
        raise CheckpointError(
            f"'{file}' was trained in another world, whose items or states are not those of this "
            "run: load the run it was trained in"
        )


def _slates(state: State, world: World) -> tuple[int, Pool]:
    """Size and pool of the slates. Raises KeyError, TypeError, ValueError or ConfigError unless the
    world can show them."""
    values, k = state["pool"], state["k"]
    if not all(type(number) is int for number in (k, values["size"], *values["items"])):
        raise ValueError("sizes and items of the slates must be whole numbers")
    pool = Pool(**{**values, "items": tuple(values["items"])})
    pool.check(world.n_items, k)
    return k, pool
