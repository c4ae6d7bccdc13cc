"""Every model by its name: the members of a pool, and the pool itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgaum.baselines.members import (
    BASELINES,
    baseline_class,
    check_member,
    make_member,
    member_of,
)
from fastgaum.baselines.opinion_pool import OpinionPool
from fastgaum.baselines.pool_settings import POOL, PoolSettings, check_members
from fastgaum.checkpoint import State
from fastgaum.config import Config
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.model_file import load_model_state
from fastgaum.presets import PRESETS

GRID_PRESETS = ("paper-pw", "paper-lstm", "report", "fastgaum")
"""presets that are rows of the table; the others are for logs of another size"""
MODELS = (*BASELINES, *GRID_PRESETS, POOL)
"""rows of `--models all`, in order"""


def check_model(name: str, settings: Mapping[str, object]) -> None:
    """Raise ConfigError unless `make_model` would take these; nothing is trained and no card is
    touched."""
    check_name(name)
    if name in PRESETS:
        Config.from_preset(name, **settings)
    elif name == POOL:
        check_members(PoolSettings.from_mapping(settings).members, check_member)
    else:
        baseline_class(name).from_mapping(settings)


def check_name(name: str) -> None:
    """Raise ConfigError unless a model has this name; whether its library is installed is not
    asked."""
    known = (*BASELINES, *PRESETS, POOL)
    if name not in known:
        raise ConfigError(
            f"no model is called '{name}'{did_you_mean(name, known)}; models are {', '.join(known)}"
        )


def setting_names(name: str) -> set[str]:
    """The settings that a model has."""
    if name in PRESETS:
        return {field.name for field in dataclasses.fields(Config)}
    of_model = PoolSettings if name == POOL else baseline_class(name)
    return {field.name for field in dataclasses.fields(of_model)}


def make_model(
    name: str, settings: Mapping[str, Any] | None = None, device: str = "auto"
) -> ChoiceModel:
    """An untrained model by its name; `settings` holds protocol, seed and the model's own, and each
    that it lacks is at its default.

    Raises:
        ConfigError: an unknown name or setting, or an impossible value.
    """
    settings = settings or {}
    check_model(name, settings)
    if name == POOL:
        return OpinionPool.from_mapping(settings, device)
    return make_member(name, settings, device)


def load_model(path: str | Path, *, device: str = "auto") -> ChoiceModel:
    """Read whatever model a file or run folder holds.

    Raises:
        CheckpointError: the file is missing, damaged, or made by another version.
    """
    return model_of(*load_model_state(Path(path)), device)


def model_of(file: Path, state: State, device: str = "auto") -> ChoiceModel:
    """The model of a state that was read from `file`.

    Raises:
        CheckpointError: the state is damaged, or made by another version.
    """
    if state.get("model") == POOL:
        return OpinionPool.of_state(file, state, device)
    return member_of(file, state, device)
