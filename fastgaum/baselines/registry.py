"""Which user models have a name: the published ones, one file each, and the presets of our own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fastgaum.baselines.base import Baseline, Link
from fastgaum.checkpoint import damage_named
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, did_you_mean
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.model_file import load_model_state
from fastgaum.models.user_model import UserModel
from fastgaum.presets import PRESETS

BASELINES: dict[str, str] = {
    "random": "floors:RandomFloor",
    "click-rate": "floors:ClickRateFloor",
    "click-count": "floors:ClickCountFloor",
    "iknn": "iknn:ItemKnn",
    "s-rnn": "s_rnn:SessionRnn",
    "scknnc": "sknn:CascadeSessionKnn",
    "scknnv": "sknn:VectorSessionKnn",
    "linucb": "linucb:LinUcb",
    "logit": "logit:ConditionalLogit",
    "wd-lr": "wide_deep:WideDeepLr",
    "wd-ccf": "wide_deep:WideDeepCcf",
    "dfm": "deep_fm:DeepFm",
    "xgboost": "xgboost_trees:XgboostSoftmax",
    "xgboost-rank": "xgboost_trees:XgboostRank",
}
"""file and class of each baseline, imported when it is used: one that needs an extra does not stand
in others' way"""
WITHOUT_FIELDS: dict[str, str] = {
    "random": "a floor: every candidate ties",
    "click-rate": "a floor: counts of the item alone",
    "click-count": "a floor: counts of the item alone",
    "iknn": "it knows which items one user chose, and has no input for what an item is",
    "s-rnn": "it predicts the next item of the catalogue, whose only input is the items before",
    "scknnc": "it knows which sessions chose an item, and has no input for what an item is",
    "scknnv": "it knows which sessions chose an item, and has no input for what an item is",
}
"""baselines that cannot read declared fields, the place and the context of an event, and why; every
other one reads them"""
GRID_PRESETS = ("paper-pw", "paper-lstm", "report", "fastgaum")
"""presets that are rows of the table; the others are for logs of another size"""
MODELS = (*BASELINES, *GRID_PRESETS)
"""rows of `--models all`, in order"""


def baseline_class(name: str) -> type[Baseline]:
    """The class of a baseline. Raises ConfigError for an unknown name, or where an extra is not
    installed."""
    if name not in BASELINES:
        raise ConfigError(f"no baseline is called '{name}'{did_you_mean(name, BASELINES)}")
    module, _, cls = BASELINES[name].partition(":")
    found: type[Baseline] = getattr(import_module(f"fastgaum.baselines.{module}"), cls)
    return found


def check_model(name: str, settings: Mapping[str, object]) -> None:
    """Raise ConfigError unless `make_model` would take these; nothing is trained and no card is
    touched."""
    if name in PRESETS:
        Config.from_preset(name, **settings)
        return
    if name not in BASELINES:
        known = (*BASELINES, *PRESETS)
        raise ConfigError(
            f"no model is called '{name}'{did_you_mean(name, known)}; models are {', '.join(known)}"
        )
    baseline_class(name).from_mapping(settings)


def setting_names(name: str) -> set[str]:
    """The settings that a model has."""
    cls: Any = Config if name in PRESETS else baseline_class(name)
    return {field.name for field in dataclasses.fields(cls)}


def make_model(name: str, settings: Mapping[str, Any], device: str = "auto") -> ChoiceModel:
    """An untrained model by its name; `settings` holds protocol, seed and the model's own.

    Raises:
        ConfigError: an unknown name or setting, or an impossible value.
    """
    check_model(name, settings)
    if name in PRESETS:
        return UserModel.from_preset(name, device=device, **settings)
    return baseline_class(name).from_mapping(settings)


def load_model(path: str | Path, *, device: str = "auto") -> ChoiceModel:
    """Read whatever model a file or run folder holds.

    Raises:
        CheckpointError: the file is missing, damaged, or made by another version.
    """
    file, state = load_model_state(Path(path))
    if "model" not in state:
        return UserModel.load(path, device=device)
    with damage_named(file):
        if state["model"] not in BASELINES:
            raise CheckpointError(
                f"'{file}' holds the model {state['model']!r}, which this version does not know"
            )
        model = baseline_class(state["model"]).from_mapping(state["settings"])
        model.space, model.outside = state["space"], state["outside"]
        model.link = Link(*map(float, state["link"]))
        model._restore(state["arrays"])
    return model
