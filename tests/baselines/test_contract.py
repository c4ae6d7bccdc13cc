"""Every baseline of the registry: the contract, and what it learns; a new one is tested by its name
alone."""

from __future__ import annotations

import dataclasses

import pytest

from fastgaum.baselines.base import Baseline
from fastgaum.baselines.registry import BASELINES, baseline_class
from fastgaum.errors import ConfigError
from tests.baselines.contract import (
    check_baseline,
    check_beats_random,
    check_learns,
    co_choice_log,
    toy_log,
)

SHORT = {"epochs": 8, "rounds": 15}
"""settings that make the contract quick, for models that have them"""
CO_CHOICE = ("iknn", "scknnc", "scknnv")
"""models that know what was chosen together"""


def made(name: str, protocol: str, **settings: object) -> Baseline:
    try:
        cls = baseline_class(name)
        fields = {field.name for field in dataclasses.fields(cls)}
        return cls.from_mapping(
            {"protocol": protocol} | {key: settings[key] for key in fields & settings.keys()}
        )
    except ConfigError as error:
        pytest.skip(str(error))


CASES = [
    (name, protocol)
    for name in BASELINES
    for protocol in ("identity", "bags")
    if protocol in baseline_class(name).reads
]


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_contract(name: str, protocol: str) -> None:
    check_baseline(made(name, protocol, **SHORT))


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_learns(name: str, protocol: str) -> None:
    if name == "random":
        pytest.skip("it knows nothing")
    check_learns(made(name, protocol), co_choice_log() if name in CO_CHOICE else toy_log())
    check_beats_random(made(name, protocol, search=False, epochs=20))


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("wd-lr", {"dim": 0}),
        ("wd-lr", {"hidden": [0]}),
        ("wd-ccf", {"crosses": 0}),
        ("dfm", {"loss": "hinge"}),
        ("s-rnn", {"negatives": 0}),
        ("iknn", {"neighbours": 0}),
        ("iknn", {"shrinkage": "many"}),
        ("iknn", {"decay": 1.5}),
        ("iknn", {"repeat": float("nan")}),
        ("iknn", {"popularity": "fame"}),
        ("linucb", {"ridge": 0.0}),
        ("xgboost", {"depth": 0}),
        ("xgboost-rank", {"l2": -1.0}),
        ("xgboost-rank", {"subsample": 2.0}),
        ("logit", {"lr": 0.0}),
        ("logit", {"rate": 0.1}),
    ],
)
def test_an_impossible_setting_is_named(name: str, setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        baseline_class(name).from_mapping(setting)
