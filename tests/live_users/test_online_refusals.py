"""What an online user is told wrongly, and models that have none: an error that says what is wrong,
and the user is as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastgaum.baselines.floors import ClickRateFloor
from fastgaum.errors import ConfigError, NumericsError
from fastgaum.models.user_model import UserModel
from tests.live_users.online_users import IDENTITY, fitted, model_of, plain_log

GOOD = {"hour": 0.5, "kind": "i1", "page": "i2", "target": "i3"}
CANDIDATES = {"price": [1], "shelf": ["top"], "size": [1], "brand": ["a"], "views": [1]}


WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("relations, two layers", ([],), "shows at least one item, got none"),
    ("relations, two layers", (["i1", "i2", "i1"],), "each item once, got 'i1' twice"),
    ("relations, two layers", ("i1",), "a display is a row of item ids, got 'i1'"),
    ("relations, two layers", (None,), "a display is a row of item ids"),
    ("relations, two layers", ([1.5],), "takes text or a whole number, got 1.5"),
    ("relations, two layers", ([True],), "an item id is text or a whole number, got True"),
    ("relations, two layers", ([None],), "an item id is text or a whole number, got None"),
    ("relations, two layers", (["i1"], {"hour": 1}), "has the field 'hour'.*are: none"),
    ("relations, two layers", (["i1"], None, {"cost": [1]}), "the field 'cost'.*are: none"),
    ("context, network", (["i1"],), "hour, kind, page, target, and the user has none yet"),
    ("context, network", (["i1"], {**GOOD, "pagd": 1}), "did you mean 'page'"),
    ("context, network", (["i1"], {"hour": 1}), "the context has no field 'kind'"),
    ("context, network", (["i1"], {**GOOD, "hour": float("nan")}), "'hour' takes a number"),
    ("context, network", (["i1"], {**GOOD, "hour": "noon"}), "'hour' takes a number.*got 'noon'"),
    ("relations, two layers", ([10**5000],), "takes text or a whole number, got one of thousands"),
    ("context, network", (["i1"], {**GOOD, "hour": 10**400}), "'hour' takes a number"),
    ("context, network", (["i1"], {**GOOD, "page": 10**5000}), "'page' takes text or a whole"),
    ("context, network", (["i1"], {**GOOD, "page": 0.5}), "'page' takes text or a whole number"),
    ("fields, views, positions", (["i1"],), "the model reads the field 'brand'"),
    ("fields, views, positions", (["i1"], None, {**CANDIDATES, "prise": [1]}), "mean 'price'"),
    ("fields, views, positions", (["i1", "i2"], None, CANDIDATES), "one value for each of 2 items"),
    ("fields, views, positions", (["i1"], None, {**CANDIDATES, "views": [0]}), "at least 1, got 0"),
    ("fields, views, positions", (["i1"], None, {**CANDIDATES, "price": ["x"]}), "takes a number"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), WRONG)
def test_what_is_wrong_is_said_and_changes_nothing(
    name: str, arguments: tuple[Any, ...], says: str
) -> None:
    user = model_of(name).user()
    with pytest.raises(ConfigError, match=says):
        user.probabilities(*arguments)
    with pytest.raises(ConfigError, match="call probabilities with its items first"):
        user.chose(None)
    assert user.n_events == 0
    assert not user.state.any()


def test_a_choice_is_among_what_was_shown() -> None:
    user = model_of("relations, two layers").user()
    user.probabilities(["i1", "i2"])
    with pytest.raises(ConfigError, match="the choice 'i3' is not among the displayed items 'i1'"):
        user.chose("i3")
    user.chose("i1")
    with pytest.raises(ConfigError, match="call probabilities with its items first"):
        user.chose("i1")


def test_who_has_no_online_users() -> None:
    with pytest.raises(ConfigError, match="the model has not been trained"):
        UserModel().user()
    with pytest.raises(ConfigError, match="a ClickRateFloor scores whole logs"):
        ClickRateFloor().user()
    with pytest.raises(ConfigError, match="head must be reward or generator, got 'none'"):
        model_of("context, network").user("none")  # type: ignore[arg-type]
    exact = fitted(plain_log(4, 60), **IDENTITY, players="exact")
    with pytest.raises(ConfigError, match="no generator"):
        exact.user("generator")


def test_a_score_that_is_not_finite_is_said() -> None:
    model = model_of("context, network")
    user = model.user()
    user._users.states[:] = np.inf
    with pytest.raises(NumericsError, match=r"item 'i1' has the score .* a finite one is required"):
        user.probabilities(["i1"], GOOD)
    with pytest.raises(ConfigError, match="call probabilities with its items first"):
        user.chose("i1")
