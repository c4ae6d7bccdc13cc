"""Every baseline of the registry: the contract, and what it learns; a new one is tested by its name
alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from fastgaum.baselines.base import Baseline
from fastgaum.baselines.registry import BASELINES, baseline_class
from fastgaum.errors import ConfigError
from tests.baselines import deciding_logs
from tests.baselines.contract import (
    check_baseline,
    check_beats_random,
    check_learns,
    co_choice_log,
    short_networks,
    toy_log,
)

SHORT = {"epochs": 3, "rounds": 8}
"""settings that make the contract quick, for models that have them"""
ONE: dict[str, object] = {
    "id_dropout": 0.8,
    "dim": 16,
    "dropout": 0.5,
    "loss": "logistic",
    "depth": 4,
    "eta": 0.2,
    "min_child_weight": 1.0,
    "colsample": 0.8,
    "repeat": 0.0,
    "unknown": 0.5,
    "shrinkage": 1.0,
    "penalty": 1.0,
    "number_penalty": 1.0,
    "cross_penalty": 1.0,
}
"""one setting each, instead of the best of a grid"""
CO_CHOICE = ("iknn", "scknnc", "scknnv")
"""models that know what was chosen together"""


def made(name: str, protocol: str, **settings: object) -> Baseline:
    try:
        cls = baseline_class(name)
        fields = {field.name for field in dataclasses.fields(cls)}
        # a setting that has no grid is at its default
        keys = fields & settings.keys() - (ONE.keys() - cls.grids.keys())
        return cls.from_mapping({"protocol": protocol} | {key: settings[key] for key in keys})
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the cascade, whose network compares the settings of s-rnn by itself; its file says which."""
    short_networks(monkeypatch, (16, 32))


CASES = [
    (name, protocol)
    for name in BASELINES
    for protocol in ("identity", "bags")
    if protocol in baseline_class(name).reads
]


WITHOUT_FIELDS = [name for name in BASELINES if baseline_class(name).reads == ("identity",)]
ALIKE = ("wd-lr", "xgboost-rank", "dfm")
"""models that read what another one reads: of another loss, or a network that test_gradient.py has by
hand"""
READERS = [case for case in CASES if case[0] not in (*WITHOUT_FIELDS, *ALIKE)]
IN_BAGS = [(name, "identity") for name in ALIKE]
"""what under identities is as in bags"""


@pytest.mark.parametrize(("name", "protocol"), [case for case in CASES if case not in IN_BAGS])
def test_contract(name: str, protocol: str) -> None:
    """Of a model that compares the values of one setting, the first of its grid."""
    given = {key: ONE[key] for key in [*baseline_class(name).grids][1:] if key in ONE}
    check_baseline(made(name, protocol, **SHORT, **given))


@pytest.mark.parametrize(("name", "protocol"), [case for case in CASES if case not in READERS])
def test_learns(name: str, protocol: str) -> None:
    """Readers of fields learn more below."""
    if name == "random":
        pytest.skip("it knows nothing")
    log = co_choice_log() if name in CO_CHOICE else toy_log()
    # a toy is learned by heart, which much id dropout is against
    check_learns(made(name, protocol, rounds=60, epochs=40, **ONE | {"id_dropout": 0.05}), log)
    # what reads fields is held to the truth below
    if name in WITHOUT_FIELDS:
        check_beats_random(made(name, protocol, epochs=10))


@pytest.mark.parametrize(
    ("name", "protocol", "decides"),
    [
        (name, protocol, decides)
        for name, protocol in READERS
        for decides in {
            "identity": (
                deciding_logs.category_of_item,
                deciding_logs.place,
                deciding_logs.context_and_item,
            ),
            "bags": (
                deciding_logs.category_of_many_values,
                deciding_logs.context_number_and_category,
            ),
        }[protocol]
        # what a network makes of many values it makes of items
        if (name, decides) != ("wd-ccf", deciding_logs.category_of_many_values)
    ],
)
def test_reads_every_field(
    name: str, protocol: str, decides: Callable[[], deciding_logs.DecidingLog]
) -> None:
    """Where a declared field, the place or the event's context decides, prec@1 is near the truth's.
    A random order is 24 points and more below it. Trees have 2 to 3 with xgboost 3.2, and 3.9 and
    4.2 with 3.4."""
    room = 5 if name == "xgboost" else 3
    # relations say nothing of these logs: six numbers of noise
    settings = {**ONE, "relations": False}
    model, log = made(name, protocol, epochs=8, rounds=100, **settings), decides()
    model.fit(log.log)
    assert log.gap(model) < room


@pytest.mark.parametrize("name", [name for name, protocol in READERS if protocol == "identity"])
def test_reads_the_vectors_of_items(name: str) -> None:
    """As principal components, under any protocol; trees of xgboost 3.4 have 6.6."""
    model, log = made(name, "identity", epochs=8, rounds=100, **ONE), deciding_logs.vector_of_item()
    model.fit(log.log)
    assert log.gap(model) < (8 if name == "xgboost" else 4)


def test_trees_read_place_and_category_together() -> None:
    """The bar: with a real order and a category that decides, within a point of the truth."""
    # as above, relations are noise here
    model = made("xgboost", "bags", relations=False, **ONE)
    log = deciding_logs.place_and_category(6000)
    model.fit(log.log)
    assert log.gap(model) < 1


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("dfm", {"loss": "hinge"}),
        ("iknn", {"decay": 1.5}),
        ("iknn", {"repeat": float("nan")}),
        ("logit", {"penalty": 0.0}),
        ("logit", {"rate": 0.1}),
    ],
)
def test_an_impossible_setting_is_named(name: str, setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        baseline_class(name).from_mapping(setting)
