"""Models on disk: one safetensors file of weights, configuration and feature space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from fastgaum.config import Config
from fastgaum.errors import CheckpointError, did_you_mean, require_path
from fastgaum.features.space import FeatureSpace
from fastgaum.game.checkpoint import TriedSetting
from fastgaum.models.space_state import SavedSpace
from fastgaum.nets.histories import Encoders
from fastgaum.nets.networks import Networks, context_sizes, log_rates
from fastgaum.nets.tensors import float32_on
from fastgaum.state_file import State, check_weights, load_state

MODEL_FORMAT = "fastgaum-model-16"
OwnCode = Literal["regulariser", "history"]
CodeName = Annotated[str, Meta(pattern=r"^[\w<>(). ]{1,200}$")]


@dataclass(frozen=True)
class SavedModel:
    """The file of a `UserModel`."""

    config: dict[str, Any]
    own: dict[OwnCode, CodeName]
    """names of the user's own code"""
    weights: dict[str, Tensor]
    compared: list[TriedSetting]
    """without their seconds: two fits of one seed write the same bytes"""
    space: SavedSpace
    no_click: bool
    members: list[dict[str, Tensor]]
    """weights of the fits of the folds after the first"""
    heads: dict[str, Tensor]
    """weights of the heads of outcomes; empty without any"""


def load_model_state(path: Path) -> tuple[Path, State]:
    """Read a model file, or that of a run folder; return its path and its state.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    require_path("a model", path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = "" if path.exists() else did_you_mean(path.name, beside)
        raise CheckpointError(
            f"no model at '{path}'{close}: give a run folder written by `fastgaum train`, or its "
            "model.safetensors"
        )
    cure = "train again, or use the version that wrote it"
    return file, load_state(file, MODEL_FORMAT, cure, State, "model")


def code_name(code: object) -> str:
    """A regulariser or an encoder as a user writes it: Custom(square), MyEncoder."""
    if hasattr(code, "__name__"):
        return str(code.__name__)
    inner = code_name(code.function) if hasattr(code, "function") else ""
    return f"{type(code).__name__}({inner})"


def check_own(path: Path, named: Mapping[OwnCode, str], given: Mapping[OwnCode, str]) -> None:
    """Raise CheckpointError unless the code given is the code that a file names."""
    words: dict[OwnCode, str] = {"regulariser": "a regulariser", "history": "a history encoder"}
    for what, word in words.items():
        name, got = named.get(what), given.get(what)
        if name is not None and got is None:
            raise CheckpointError(
                f"the model in '{path}' has {word} of its own ('{name}'), and a file holds no "
                f"code: load it in Python with UserModel.load('{path}', {what}={name})"
            )
        if name is None and got is not None:
            raise CheckpointError(
                f"the model in '{path}' has no {word[2:]} of its own: load it without {what}={got}"
            )
        if name != got:
            raise CheckpointError(
                f"the model in '{path}' was trained with {what}={name}, not {got}: pass that one"
            )


def networks_of(
    config: Config, space: FeatureSpace, weights: dict[str, torch.Tensor], encoder: Encoders
) -> Networks:
    """Networks of a file's weights. Raises ValueError unless the weights are those that the
    configuration asks for."""
    # each layer has a weight: what is asked for beyond the file's is not even counted out
    if config.history_layers + len(config.hidden) > len(weights):
        raise ValueError(
            f"the configuration asks for more layers than the {len(weights)} weights of the file"
        )
    places = log_rates(space)
    sizes = (config, space.n_ids, space.n_numbers, encoder, context_sizes(space), places)
    with float32_on("meta"):
        check_weights(Networks(*sizes), weights)
    with float32_on():
        networks = Networks(*sizes)
    networks.load_state_dict(weights)
    return networks
