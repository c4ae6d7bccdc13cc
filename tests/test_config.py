"""Configurations are read strictly and say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastgaum.config import RENAMED, Config, parse_setting
from fastgaum.errors import ConfigError
from fastgaum.presets import CHOSEN_KEYS, FOLDS, FOLDS_BELOW, PRESETS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eta": float("nan")}, "eta must be a number greater than 0 and finite"),
        ({"eta": "1"}, "eta must be a number greater than 0 and finite, got '1'"),
        ({"hidden": []}, "hidden must be a list of 1 to 100 values, .* got \\[\\]"),
        ({"dropout": 1.0}, "dropout must be a number at least 0 and below 1"),
        ({"tower_dim": 1}, "tower_dim must be 0, or at least 2"),
        ({"search": ["eta"]}, "'eta' is none"),
        ({"folds": "none"}, "folds must be one of auto or a whole number .*, got 'none'"),
        ({"clip": 1e16}, "clip must be a number greater than 0 and at most 1e"),
        ({"lr": 20.0, "weight_decay": 0.1}, "lr · weight_decay must be below 1"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_preset("fastgaum", **changes)


@pytest.mark.parametrize("key", CHOSEN_KEYS)
def test_a_key_that_is_set_is_not_chosen(key: str) -> None:
    """Also one that is set to what it was; the other keys stay open."""
    usual = {key: Config().to_mapping()[key]}
    others = tuple(one for one in CHOSEN_KEYS if one != key)
    for config in (Config.from_preset("fastgaum", **usual), Config().with_keys(**usual)):
        assert config.search == others
    assert Config.from_preset("fastgaum", **usual, search=[key]).search == (key,)
    assert Config.from_preset("fastgaum").search == CHOSEN_KEYS


def test_folds_are_of_small_logs_alone() -> None:
    config = Config.from_preset("fastgaum")
    found = [config.folds_of(n_events) for n_events in (1, FOLDS_BELOW - 1, FOLDS_BELOW)]
    assert found == [FOLDS, FOLDS, 0]
    for folds in (0, 2, 100):
        assert config.with_keys(folds=folds).folds_of(1) == folds
        assert config.with_keys(folds=folds).folds_of(10**6) == folds
    for name in PRESETS:
        own = Config.from_preset(name)
        assert own.preset == name
        if name != "planning":
            assert name.startswith("fastgaum") or (own.search, own.folds) == ((), 0)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_an_older_version_names_its_new_name(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown .* '{old}': it is called '{new}' now"):
        Config.from_preset("fastgaum", **{old: False})
    assert Config.from_preset("fastgaum", **{new: False}).to_mapping()[new] is False


def test_toml_round_trip(tmp_path: Path) -> None:
    import tomli_w

    config = Config.from_preset("fastgaum", eta=2, hidden=[3, 4])
    (tmp_path / "c.toml").write_text(tomli_w.dumps(config.to_mapping()))
    assert Config.from_toml(tmp_path / "c.toml") == config
    assert Config.from_toml(tmp_path / "c.toml", seed=9).seed == 9


def test_settings() -> None:
    assert parse_setting("eta=2") == ("eta", 2)
    assert parse_setting("hidden=[3, 4]") == ("hidden", [3, 4])
    assert parse_setting("history=pw") == ("history", "pw")
    assert parse_setting("select=calibrated loss") == ("select", "calibrated loss")
