"""A trained policy on disk: one safetensors file, its name, slates, pool and configuration in the
metadata. No pickle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastgaum.errors import CheckpointError
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.learner import Learner
from fastgaum.policies.linucb import LinUcb
from fastgaum.policies.pool import Pool
from fastgaum.policies.registry import untrained
from fastgaum.tensor_file import check_finite, damage_named, read_tensors, require_format
from fastgaum.tensor_writer import write_tensors
from fastgaum.untrusted import parse_json
from fastgaum.worlds.world import World

FORMAT = "fastgaum-policy-2"
POLICY_FILE = "policy.safetensors"


def save_policy(policy: Learner | LinUcb, path: Path, *, k: int, pool: Pool) -> None:
    """Write a trained policy, atomically; optimiser and replay are not kept.

    Raises:
        OutputError: the file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "policy": policy.name,
        "k": k,
        "pool": dataclasses.asdict(pool),
        "config": policy.config.to_mapping(),
    }
    write_tensors(path, _tensors(policy), {"fastgaum": json.dumps(metadata)})


def load_policy(path: str | Path, world: World) -> tuple[Learner | LinUcb, int, Pool]:
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
    with damage_named(file, "policy"):
        texts, tensors = read_tensors(file)
        metadata = parse_json(texts.get("fastgaum", "{}"))
        if not isinstance(metadata, dict):
            raise ValueError(
                f"its metadata are {type(metadata).__name__}, facts by name are required"
            )
        require_format(file, metadata.get("format"), FORMAT, "train again")
        config = PolicyConfig.from_mapping(metadata["config"])
        # before the pool, which another world may not be able to show
        _check_world(metadata, tensors, world, file)
        k, pool = _slates(metadata, world)
        weights = {
            name.removeprefix("net."): value
            for name, value in tensors.items()
            if name.startswith("net.")
        }
        policy = untrained(metadata["policy"], world, k, pool, config, weights)
        _restore(policy, tensors, weights)
    return policy, k, pool


def _slates(metadata: dict[str, Any], world: World) -> tuple[int, Pool]:
    """Size and pool of the slates. Raises KeyError, TypeError, ValueError or ConfigError unless the
    world can show them."""
    values, k = metadata["pool"], metadata["k"]
    if not all(type(number) is int for number in (k, values["size"], *values["items"])):
        raise ValueError("sizes and items of the slates must be whole numbers")
    pool = Pool(**{**values, "items": tuple(values["items"])})
    pool.check(world.n_items, k)
    return k, pool


def _tensors(policy: Learner | LinUcb) -> dict[str, torch.Tensor]:
    features = {"features": torch.from_numpy(np.ascontiguousarray(policy.features))}
    if isinstance(policy, LinUcb):
        arrays = {"gram": policy.gram, "response": policy.response}
        return features | {
            name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()
        }
    # the average is what acts
    weights = policy.target.state_dict()
    return features | {f"net.{name}": value.contiguous() for name, value in weights.items()}


def _check_world(
    metadata: dict[str, Any], tensors: dict[str, torch.Tensor], world: World, file: Path
) -> None:
    """Raise CheckpointError unless the items' features are those of the world."""
    own = (
        LinUcb.columns(world)
        if metadata["policy"] == LinUcb.name
        else np.asarray(world.item_features, np.float32)
    )
    found = tensors["features"].numpy()
    if (
        found.dtype != own.dtype
        or found.shape != own.shape
        or not np.allclose(own, found, atol=1e-5)
    ):
        raise CheckpointError(
            f"'{file}' was trained in another world, whose items or states are not those of this "
            "run: load the run it was"
            " trained in"
        )


def _restore(
    policy: Learner | LinUcb, tensors: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]
) -> None:
    """Raises ValueError if what a regression learned cannot be solved."""
    if isinstance(policy, LinUcb):
        for name in ("gram", "response"):
            own: Any = getattr(policy, name)
            found = tensors[name].numpy()
            if found.dtype != own.dtype or found.shape != own.shape:
                raise ValueError(
                    f"'{name}' is {found.dtype} of shape {found.shape}, {own.dtype} of {own.shape} "
                    "is required"
                )
            check_finite(f"'{name}'", tensors[name])
        policy.restore(tensors["gram"].numpy(), tensors["response"].numpy())
    else:
        policy.networks.load_state_dict(weights)
        policy.target.load_state_dict(weights)
        policy.progress = 1.0
        policy.loaded()
