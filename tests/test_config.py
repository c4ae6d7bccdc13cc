"""Configurations are read strictly and say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastgaum.config import Config, parse_setting
from fastgaum.errors import ConfigError
from fastgaum.presets import COMPARE_BELOW, GROW_AT, GROWTH_DECIDES, PRESETS, SIZES, TOWERS_AT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"etaa": 1}, "did you mean 'eta'"),
        ({"eta": float("nan")}, "eta must be a number greater than 0 and finite"),
        ({"eta": "1"}, "eta must be a number greater than 0 and finite, got '1'"),
        ({"epochs": True}, "epochs must be a whole number at least 1"),
        ({"history": "lstmm"}, "history must be one of lstm, bilstm, pw"),
        (
            {"hidden": [64, 0]},
            "hidden must be a list of 1 to 100 values, each a whole number at least 1",
        ),
        ({"hidden": "64"}, "hidden must be a list"),
        ({"hidden": []}, "hidden must be a list of 1 to 100 values, .* got \\[\\]"),
        ({"dropout": 1.0}, "dropout must be a number at least 0 and below 1"),
        ({"tower_dim": 1}, "tower_dim must be 0, or at least 2"),
        ({"search": ["grow"]}, "'grow' is none"),
        ({"clip": 1e16}, "clip must be a number greater than 0 and at most 1e"),
        ({"lr": 20.0, "weight_decay": 0.1}, "lr · weight_decay must be below 1"),
        ({"search": ["relation"]}, "did you mean 'relations'"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_preset("fastgaum", **changes)


def test_a_large_log_compares_sizes() -> None:
    config = Config.from_preset("fastgaum", seed=3)
    small = config.settings(1000, GROW_AT - 1, 10**6)
    assert list(small) == [
        "relations = true, counts = true",
        "relations = false, counts = true",
        "relations = false, counts = false",
    ]
    assert [one.relations for one in small.values()] == [True, False, False]
    assert [one.counts for one in small.values()] == [True, True, False]
    assert all(one.tower_dim == 0 for one in small.values())
    compared = config.settings(10_000, GROW_AT, COMPARE_BELOW - 1)
    assert list(compared) == list(SIZES)
    # without counts of items there are no counts to try without
    identity = config.replace(protocol="identity")
    assert list(identity.settings(1000, GROW_AT - 1, 10**6)) == list(small)[:2]
    by_size = identity.settings(10_000, GROW_AT, COMPARE_BELOW - 1)
    assert list(by_size) == [name for name in SIZES if "no counts" not in name]
    # of more candidates a part would be read, which misleads
    assert list(config.settings(10_000, TOWERS_AT, COMPARE_BELOW)) == ["towers"]
    assert config.settings(10_000, TOWERS_AT - 1, COMPARE_BELOW) == small
    for name, sized in compared.items():
        assert {key: getattr(sized, key) for key in SIZES[name]} == SIZES[name]
        assert (sized.grow, sized.search, sized.seed) == (False, (), 3)
        # 1,000 events a batch, or 256, of 2 a session
        assert sized.batch_sessions == (500 if sized.tower_dim else 128)
        assert sized.size == (name if sized.tower_dim else None)
        assert sized.settings(10_000, GROW_AT, 10**5) == {}
    for name in PRESETS:
        own = Config.from_preset(name)
        assert own.preset == name
        assert name.startswith("fastgaum") or own.settings(10_000, GROW_AT, 10**5) == {}


SET: dict[str, Any] = {
    **{"tower_dim": 8, "history_dim": 9, "set_context": False, "relations": False},
    **{
        "counts": False,
        "search": [],
        "folds": 0,
        "dropout": 0.1,
        "id_dropout": 0.1,
        "weight_decay": 0.01,
    },
    **{
        "lr_drops": 2,
        "patience": 3,
        "batch_sessions": 512,
        "hidden": [8],
        "activation": "elu",
    },
    **{"wide": False, "grow": False},
}


@pytest.mark.parametrize("key", [*GROWTH_DECIDES, "grow"])
def test_what_is_set_stays(key: str) -> None:
    changes = {key: SET[key]}
    for config in (Config.from_preset("fastgaum", **changes), Config().replace(**changes)):
        assert config.settings(10_000, GROW_AT, 10**5) == config.settings(9, 9, 9)
    usual = {key: Config().to_mapping()[key] for key in changes}
    if key != "grow":
        assert not Config.from_preset("fastgaum", **usual).grow


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'fastgam'; did you mean 'fastgaum'"):
        Config.from_preset("fastgam")


def test_toml_round_trip(tmp_path: Path) -> None:
    import tomli_w

    config = Config.from_preset("fastgaum", eta=2, hidden=[3, 4])
    (tmp_path / "c.toml").write_text(tomli_w.dumps(config.to_mapping()))
    assert Config.from_toml(tmp_path / "c.toml") == config
    assert Config.from_toml(tmp_path / "c.toml", seed=9).seed == 9
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    for name in ("bad.toml", "missing.toml"):
        with pytest.raises(ConfigError, match="cannot read configuration"):
            Config.from_toml(tmp_path / name)


def test_settings() -> None:
    assert parse_setting("eta=2") == ("eta", 2)
    assert parse_setting("hidden=[3, 4]") == ("hidden", [3, 4])
    assert parse_setting("history=pw") == ("history", "pw")
    assert parse_setting("select=calibrated loss") == ("select", "calibrated loss")
    with pytest.raises(ConfigError, match="key=value"):
        parse_setting("eta")


def test_a_short_fit_has_few_epochs_on_many_candidates() -> None:
    epochs = [Config().short(n_candidates).epochs for n_candidates in (10**5, 10**6, 10**7)]
    assert epochs == [15, 6, 6]
