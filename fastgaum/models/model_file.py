"""Models on disk: one safetensors file that holds weights, configuration and feature space. No
pickle anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from fastgaum.checkpoint import (
    State,
    check_weights,
    damage_named,
    load_state,
    save_state,
    state_of,
)
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, did_you_mean, require_path
from fastgaum.features.space import FeatureSpace
from fastgaum.game.checkpoint import TriedSetting
from fastgaum.models.space_state import SavedSpace, saved_space, space_of
from fastgaum.nets.networks import Networks, context_sizes, log_rates
from fastgaum.nets.tables import plain_state

if TYPE_CHECKING:
    from fastgaum.models.user_model import UserModel
    from fastgaum.nets.histories import Encoders
    from fastgaum.nets.regularisers import Regulariser

MODEL_FORMAT = "fastgaum-model-8"
OwnCode = Literal["regulariser", "history"]
CodeName = Annotated[str, Meta(pattern=r"^[\w<>(). ]{1,200}$")]


@dataclass(frozen=True)
class SavedModel:
    """What the file of a `UserModel` holds."""

    config: dict[str, Any]
    own: dict[OwnCode, CodeName]
    """names of the user's own code"""
    weights: dict[str, Tensor]
    compared: list[TriedSetting]
    """without their seconds: two fits of one seed write the same bytes"""
    space: SavedSpace
    outside: bool
    bootstraps: list[State]


def user_model_state(model: UserModel) -> State:
    """A fitted model as a state that a file can hold.

    A file holds no code: of a regulariser or a history encoder of the user's own it holds the name,
    and `UserModel.load` asks for the code.
    """
    if model.networks is None or model.space is None:
        raise ConfigError("the model has not been trained: call fit before save")
    trials = [{"name": one.name, "val_loss": one.val_loss} for one in model.trials]
    state = {
        "config": model.config.to_mapping(),
        "own": own_code(model),
        "weights": plain_state(model.networks),
        "compared": trials,
        "bootstraps": [user_model_state(one) for one in model.bootstraps],
    }
    return model_state(model.space, model.outside, state)


def model_state(space: FeatureSpace, outside: bool, state: State) -> State:
    """A model's state beside what every model has: its feature space, and whether no click is
    offered as a choice."""
    return {"space": saved_space(space), "outside": outside, **state}


def save_model_state(path: Path, state: State) -> None:
    """Write the state of a model.

    Raises:
        OutputError: the file cannot be written.
    """
    save_state(path, MODEL_FORMAT, state)


def load_model_state(path: Path) -> tuple[Path, State]:
    """Read a model file, or `model.safetensors` of a run folder: where it stands, and its state.

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


def space_in(state: State) -> FeatureSpace:
    """The feature space of a model's state. Raises ValueError for a damaged one."""
    return space_of(state_of(state["space"], SavedSpace))


def own_code(model: UserModel) -> dict[OwnCode, str]:
    """Names of what a model has of the user's own code: its regulariser, its history encoder."""
    from fastgaum.nets.histories import history_encoder
    from fastgaum.nets.regularisers import regulariser_of

    own: dict[OwnCode, str] = {}
    if model.regulariser != regulariser_of(model.config):
        own["regulariser"] = _code_name(model.regulariser)
    if model.history is not history_encoder:
        own["history"] = _code_name(model.history)
    return own


def _code_name(code: object) -> str:
    """What a user writes for a regulariser or an encoder: Custom(square), MyRegulariser(),
    MyEncoder."""
    if hasattr(code, "__name__"):
        return str(code.__name__)
    inner = _code_name(code.function) if hasattr(code, "function") else ""
    return f"{type(code).__name__}({inner})"


def load_user_model(
    kind: type[UserModel],
    path: Path,
    device: str,
    regulariser: Regulariser | None = None,
    history: Encoders | None = None,
) -> UserModel:
    """Read a user model, with the code that its file names.

    Args:
        kind: the class of the model.
        path: its file, or a run folder.
        device: where the networks are put.
        regulariser: the model's own one, if its file names one.
        history: the model's own history encoder, likewise.

    Raises:
        CheckpointError: missing, damaged, of another format, or trained with code that is not
            given.
    """
    file, state = load_model_state(path)
    if "model" in state:
        raise CheckpointError(
            f"'{path}' holds the model {state['model']!r}, which has no states of its own to play "
            "on: train a preset (fastgaum) for a world or a policy; evaluate, predict and report "
            "take this one, and fastgaum.baselines.registry.load_model reads it"
        )
    return user_model_of(kind, file, state, device, regulariser, history)


def user_model_of(
    kind: type[UserModel],
    path: Path,
    state: State,
    device: str,
    regulariser: Regulariser | None = None,
    history: Encoders | None = None,
) -> UserModel:
    """The user model of a state that was read from the file `path`; the rest as in
    `load_user_model`.

    Raises:
        CheckpointError: damaged, or trained with code that is not given.
    """
    with damage_named(path):
        saved = state_of(state, SavedModel)
        config = Config.from_mapping(saved.config)
        model = kind(config, regulariser=regulariser, history=history, device=device)
        model.trials = tuple(saved.compared)
    _check_own(path, saved.own, own_code(model))
    with damage_named(path):
        model.space, model.outside = space_of(saved.space), saved.outside
        model.networks = _networks(config, model.space, saved.weights, model.history)
        model.networks.to(model.device)
        if len(saved.bootstraps) != config.worlds - 1:
            raise ValueError(
                f"it holds {len(saved.bootstraps)} fits on bootstraps, and its configuration says "
                f"worlds = {config.worlds}"
            )
    model.bootstraps = bootstraps_of(model, path, saved.bootstraps)
    return model


def bootstraps_of(
    model: UserModel, path: Path | None, states: Sequence[State]
) -> tuple[UserModel, ...]:
    """The fits on bootstraps of a file, with the code and the device of the model beside them.

    Raises:
        CheckpointError: damaged.
    """
    own, kind, device = own_code(model), type(model), model.device.type
    regulariser = model.regulariser if "regulariser" in own else None
    history = model.history if "history" in own else None
    file = path or Path("the first process's checkpoint")
    return tuple(user_model_of(kind, file, one, device, regulariser, history) for one in states)


def _check_own(path: Path, named: Mapping[OwnCode, str], given: Mapping[OwnCode, str]) -> None:
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


def _networks(
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
    sizes = (config, space.n_ids, space.n_numbers, encoder, None, context_sizes(space), places)
    with torch.device("meta"):
        check_weights(Networks(*sizes), weights)
    networks = Networks(*sizes)
    networks.load_state_dict(weights)
    return networks
