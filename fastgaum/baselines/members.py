"""The user models that have a name, without the pool of several: the published ones, one file each,
and the presets of our own. They are what a pool may hold."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fastgaum.baselines.base import Baseline, Link
from fastgaum.checkpoint import State, damage_named
from fastgaum.errors import CheckpointError, ConfigError, did_you_mean
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.model_file import user_model_of
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


def baseline_class(name: str) -> type[Baseline]:
    """The class of a baseline. Raises ConfigError for an unknown name, or where an extra is not
    installed."""
    if name not in BASELINES:
        raise ConfigError(f"no baseline is called '{name}'{did_you_mean(name, BASELINES)}")
    module, _, cls = BASELINES[name].partition(":")
    found: type[Baseline] = getattr(import_module(f"fastgaum.baselines.{module}"), cls)
    return found


def check_member(name: str) -> None:
    """Raise ConfigError unless a model of this name may be a member; whether its library is
    installed is not asked."""
    known = (*BASELINES, *PRESETS)
    if name not in known:
        raise ConfigError(
            f"no model is called '{name}'{did_you_mean(name, known)}; models are {', '.join(known)}"
        )


def name_of(model: Any) -> str:
    """What a model is called: a preset's name, or its own."""
    return model.config.preset if isinstance(model, UserModel) else str(model.name)


def make_member(name: str, settings: Mapping[str, Any], device: str) -> ChoiceModel:
    """An untrained model by its name. Raises ConfigError for an unknown name or setting, or an
    impossible value."""
    check_member(name)
    if name in PRESETS:
        return UserModel.from_preset(name, device=device, **settings)
    return baseline_class(name).from_mapping(settings)


def member_of(file: Path, state: State, device: str) -> ChoiceModel:
    """The model of a state that was read from `file`. Raises CheckpointError for one that is
    damaged, or of another version."""
    if "model" not in state:
        return user_model_of(UserModel, file, state, device)
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
