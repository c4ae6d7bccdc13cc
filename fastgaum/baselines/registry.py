"""Every user model by its name: published ones, and presets of our own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fastgaum.baselines.base import Baseline, Link
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, did_you_mean, require_path
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.model_file import load_model_state
from fastgaum.models.space_state import SavedSpace, space_of
from fastgaum.models.user_model import UserModel
from fastgaum.presets import PRESETS
from fastgaum.state_file import damage_named, state_of

BASELINES: dict[str, str] = {
    "random": "floors:RandomFloor",
    "click-rate": "floors:ClickRateFloor",
    "click-count": "floors:ClickCountFloor",
    "iknn": "neighbours:ItemKnn",
    "s-rnn": "s_rnn:SessionRnn",
    "scknnc": "neighbours:CascadeSessionKnn",
    "scknnv": "neighbours:VectorSessionKnn",
    "logit": "logit:ConditionalLogit",
    "wd-lr": "wide_deep:WideDeepLr",
    "wd-ccf": "wide_deep:WideDeepCcf",
    "dfm": "deep_fm:DeepFm",
    "xgboost": "xgboost_trees:XgboostSoftmax",
    "xgboost-rank": "xgboost_trees:XgboostRank",
}
"""file and class of each baseline, imported when it is used: some need an extra"""
FLOORS = ("random", "click-rate", "click-count")
"""models that need no fit worth the name: folds would only take events from them"""
GRID_PRESETS = ("paper-pw", "paper-lstm", "fastgaum")
"""presets that are rows of the table"""
MODELS = (*BASELINES, *GRID_PRESETS)
"""rows of `--models all`, in order"""


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"fastgaum.baselines.{module}"), name)


def baseline_class(name: str) -> type[Baseline]:
    """The class of a baseline. Raises ConfigError for an unknown name or a missing extra."""
    if name not in BASELINES:
        raise ConfigError(f"no baseline is called '{name}'{did_you_mean(name, BASELINES)}")
    found: type[Baseline] = _found(BASELINES[name])
    return found


def check_model(name: str, settings: Mapping[str, object]) -> None:
    """Raise ConfigError unless `make_model` would take these; nothing is trained."""
    check_name(name)
    if name in PRESETS:
        Config.from_preset(name, **settings)
    else:
        _settings_class(name).from_mapping(settings)


def check_name(name: str) -> None:
    """Raise ConfigError unless a model has this name; its library may be missing."""
    known = (*BASELINES, *PRESETS)
    if name not in known:
        raise ConfigError(
            f"no model is called '{name}'{did_you_mean(str(name), known)}; models are "
            f"{', '.join(known)}"
        )


def setting_names(name: str) -> set[str]:
    """The settings that a model has."""
    return {field.name for field in dataclasses.fields(_settings_class(name))}


def _settings_class(name: str) -> Any:
    if name in PRESETS:
        return Config
    return baseline_class(name)


def name_of(model: Any) -> str:
    """The name of a model: its preset's, or its own."""
    return model.config.preset if isinstance(model, UserModel) else str(model.name)


def make_model(
    name: str, settings: Mapping[str, Any] | None = None, device: str = "auto"
) -> ChoiceModel:
    """An untrained model by its name; `settings` holds protocol, seed and the model's own. Raises
    ConfigError: an unknown name or setting, or an impossible value."""
    settings = settings or {}
    check_model(name, settings)
    if name in PRESETS:
        return UserModel.from_preset(name, device=device, **settings)
    model: ChoiceModel = _settings_class(name).from_mapping(settings)
    return model


def load_model(path: str | Path, *, device: str = "auto") -> ChoiceModel:
    """Read the model that a file or run folder holds. Raises CheckpointError: the file is missing,
    damaged, or made by another version."""
    require_path("path", path)
    file, state = load_model_state(Path(path))
    if "model" not in state:
        return UserModel.of_state(file, state, device)
    with damage_named(file):
        name = state["model"]
        if name not in BASELINES:
            raise CheckpointError(
                f"'{file}' holds the model {name!r}, which this version does not know"
            )
        model = baseline_class(name).from_mapping(state["settings"])
        model.space = space_of(state_of(state["space"], SavedSpace))
        model.no_click = bool(state["no_click"])
        model.link = Link(*map(float, state["link"]))
        model.chosen = dict(state["chosen"])
        if model.chosen not in model.combinations():
            raise ValueError("the settings that were chosen are none of the model's")
        model._restore(state["arrays"])
    return model
