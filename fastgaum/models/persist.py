"""Models on disk: one safetensors file, the configuration and feature space in its metadata. No pickle anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, did_you_mean
from fastgaum.models.networks import Networks
from fastgaum.models.space_file import space_facts, space_of, space_tensors
from fastgaum.models.tensor_file import check_weights, damage_named, read_tensors, require_format
from fastgaum.models.tensor_writer import write_tensors
from fastgaum.sessions.features import FeatureSpace
from fastgaum.untrusted import parse_json

if TYPE_CHECKING:
    from fastgaum.models.user_model import UserModel

FORMAT = "fastgaum-model-2"


def save_model(model: UserModel, path: Path) -> None:
    """Write a fitted model.

    Raises:
        CheckpointError: the model has a user's own regulariser, which a file cannot hold.
        OutputError: the file cannot be written.
    """
    if model.networks is None or model.space is None:
        raise ConfigError("the model has not been trained: call fit before save")
    from fastgaum.models.regularisers import Custom

    if isinstance(model.regulariser, Custom):
        raise CheckpointError("a model with a regulariser of your own cannot be saved: a file holds no code")
    tensors = {f"net.{name}": value.detach().cpu().contiguous() for name, value in model.networks.state_dict().items()}
    metadata = {"config": json.dumps(model.config.to_mapping()), "outside": json.dumps(model.outside)}
    write_model(path, tensors, model.space, metadata)


def write_model(path: Path, tensors: dict[str, torch.Tensor], space: FeatureSpace, metadata: dict[str, str]) -> None:
    """Write a model's tensors and metadata, its feature space among them, as one safetensors file; atomic.

    Raises:
        OutputError: the file cannot be written.
    """
    facts = {"format": FORMAT, "space": json.dumps(space_facts(space)), **metadata}
    write_tensors(path, {**tensors, **space_tensors(space)}, facts)


def read_model(path: Path) -> tuple[Path, dict[str, str], dict[str, torch.Tensor]]:
    """Read a model file, or `model.safetensors` of a run folder: where it stands, its metadata, its tensors.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = "" if path.exists() else did_you_mean(path.name, beside)
        raise CheckpointError(
            f"no model at '{path}'{close}: give a run folder written by `fastgaum train`, or its model.safetensors"
        )
    with damage_named(file):
        metadata, tensors = read_tensors(file)
        require_format(file, metadata.get("format"), FORMAT, "train again, or use the version that wrote it")
        return file, metadata, tensors


def load_model(path: Path, device: str) -> UserModel:
    """Read a model file, or `model.safetensors` of a run folder.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    from fastgaum.models.user_model import UserModel

    file, metadata, tensors = read_model(path)
    with damage_named(file):
        config = Config.from_mapping(parse_json(metadata["config"]))
        model = UserModel(config, device=device)
        model.space = read_space(metadata, tensors)
        model.outside = read_flag(metadata, "outside")
        model.networks = _networks(config, model.space, tensors)
        model.networks.to(model.device)
    return model


def read_space(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> FeatureSpace:
    """The feature space that `write_model` wrote. Raises KeyError, TypeError or ValueError for a damaged one."""
    return space_of(parse_json(metadata["space"]), tensors)


def read_flag(metadata: dict[str, str], name: str) -> bool:
    """A value of the metadata that is true or false. Raises KeyError or ValueError for a damaged one."""
    if metadata[name] not in ("true", "false"):
        raise ValueError(f"{name} is {metadata[name][:20]!r}, true or false is required")
    return metadata[name] == "true"


def _networks(config: Config, space: FeatureSpace, tensors: dict[str, torch.Tensor]) -> Networks:
    """Networks of a file's weights. Raises ValueError unless the weights are those that the configuration asks for."""
    weights = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
    # Each layer of each player has a weight: what a configuration asks for beyond those in the file is not even counted out.
    if config.members * (config.history_layers + len(config.hidden)) > len(weights):
        raise ValueError(f"the configuration asks for more layers than the {len(weights)} weights of the file")
    with torch.device("meta"):
        check_weights(Networks(config, space.n_ids, space.n_numbers), weights)
    networks = Networks(config, space.n_ids, space.n_numbers)
    networks.load_state_dict(weights)
    return networks
