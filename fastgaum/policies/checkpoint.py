"""A trained policy on disk: one safetensors file, its name, slates, pool and configuration in the metadata. No pickle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fastgaum.envs.world import World
from fastgaum.errors import CheckpointError, FastgaumError
from fastgaum.files import atomic
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.learner import Learner
from fastgaum.policies.linucb import LinUcb
from fastgaum.policies.pool import Pool
from fastgaum.policies.registry import untrained

FORMAT = "fastgaum-policy-2"
POLICY_FILE = "policy.safetensors"


def save_policy(policy: Learner | LinUcb, path: Path, *, k: int, pool: Pool) -> None:
    """Write a trained policy, atomically; optimiser and replay are not kept.

    Raises:
        OutputError: the file cannot be written.
    """
    metadata = {
        "format": FORMAT, "policy": policy.name, "k": k, "pool": dataclasses.asdict(pool),
        "config": policy.config.to_mapping(),
    }  # fmt: skip
    with atomic(path) as beside:
        # safetensors writes several entries in an order of chance: one makes equal policies equal files
        save_file(_tensors(policy), beside, metadata={"fastgaum": json.dumps(metadata)})


def load_policy(path: str | Path, world: World) -> tuple[Learner | LinUcb, int, Pool]:
    """Read a policy for the world that it was trained in: the policy, its slate's size, its pool.

    Raises:
        CheckpointError: missing, damaged, of another format, or trained in another world.
    """
    path = Path(path)
    file = path / POLICY_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"no policy at '{path}': give a folder written by `fastgaum rl train`, or its {POLICY_FILE}"
        )
    try:
        with safe_open(file, framework="pt") as reader:
            metadata = json.loads((reader.metadata() or {}).get("fastgaum", "{}"))
            tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"'{file}' has format {metadata.get('format', 'unknown')!r}, this version reads {FORMAT!r}: train again"
            )
        config = PolicyConfig.from_mapping(metadata["config"])
        pool_values = metadata["pool"]
        pool = Pool(**{**pool_values, "items": tuple(pool_values["items"])})
        k = int(metadata["k"])
        policy = untrained(metadata["policy"], world, k, pool, config)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, FastgaumError) as error:
        raise CheckpointError(f"'{file}' is damaged or of another version ({error}): train the policy again") from error
    _check_world(policy, tensors, file)
    _restore(policy, tensors)
    return policy, k, pool


def _tensors(policy: Learner | LinUcb) -> dict[str, torch.Tensor]:
    features = {"features": torch.from_numpy(np.ascontiguousarray(policy.features))}
    if isinstance(policy, LinUcb):
        arrays = {"gram": policy.gram, "response": policy.response}
        return features | {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    # the average is what acts
    weights = policy.target.state_dict()
    return features | {f"net.{name}": value.contiguous() for name, value in weights.items()}


def _check_world(policy: Learner | LinUcb, tensors: dict[str, torch.Tensor], file: Path) -> None:
    own: dict[str, Any] = _tensors(policy)
    same = own.keys() == tensors.keys() and all(own[name].shape == tensors[name].shape for name in own)
    if not same or not torch.allclose(own["features"], tensors["features"], atol=1e-5):
        raise CheckpointError(
            f"'{file}' was trained in another world, whose items or states are not those of this run: load the run it was"
            " trained in"
        )


def _restore(policy: Learner | LinUcb, tensors: dict[str, torch.Tensor]) -> None:
    if isinstance(policy, LinUcb):
        policy.restore(tensors["gram"].numpy(), tensors["response"].numpy())
    else:
        weights = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
        policy.networks.load_state_dict(weights)
        policy.target.load_state_dict(weights)
        policy.progress = 1.0
        policy.loaded()
