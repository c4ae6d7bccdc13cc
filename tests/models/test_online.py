"""Online users: a session told display by display has the probabilities that `predict` gives it in a
log."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.baselines.floors import ClickRateFloor
from fastgaum.config import Config
from fastgaum.errors import ConfigError, NumericsError
from fastgaum.game.epochs import EpochRow, Observer
from fastgaum.logs.columns import Vocabulary
from fastgaum.logs.log import SessionLog
from fastgaum.models.choice_model import Head
from fastgaum.models.online import MOST_SIZES, OnlineUser
from fastgaum.models.online_model import OnlineModel
from fastgaum.models.user_model import UserModel
from fastgaum.nets.regularisers import Custom
from fastgaum.nets.segments import segment_sum
from tests.builders import log_of, random_log, with_drawn_actions, with_vectors
from tests.logs.test_context import navigation
from tests.worlds.test_learned_world import IDENTITY, SMALL, fitted

FIELDS = ("price", "shelf", "size", "brand")


def with_fields(log: SessionLog, seed: int = 0, ordered: bool = True) -> SessionLog:
    """The log with a number and a category of each item and of each candidate, view counts, and an
    order of displays that is real."""
    rng = np.random.default_rng(seed)
    shelves = ["top", "middle", "floor", "cellar"][: 3 + seed % 2]
    return dataclasses.replace(
        log,
        ordered=ordered,
        views=rng.integers(1, 9, log.n_candidates).astype(np.uint16),
        item_fields={
            "size": rng.random(log.n_items).astype(np.float32),
            "brand": rng.integers(-1, 3, log.n_items).astype(np.int32),
        },
        candidate_fields={
            "price": rng.normal(size=log.n_candidates).astype(np.float32),
            "shelf": rng.integers(-1, len(shelves), log.n_candidates).astype(np.int32),
        },
        categories={"shelf": pl.Series(shelves), "brand": pl.Series(["a", "b", "1"])},
    )


def half_square(probs: torch.Tensor, outside: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return 0.5 * (segment_sum(probs.square(), offsets) + outside.square())


def plain_log(seed: int, n_sessions: int) -> SessionLog:
    """Other seeds than 4 have more items than a model of seed 4 knows."""
    items = 12 if seed == 4 else 15
    return random_log(seed, n_sessions, n_items=items, max_length=6, no_click=0.3)


def log_of_kind(kind: str, seed: int, n_sessions: int) -> SessionLog:
    if kind == "context":
        log = navigation(n_sessions, n_items=40 if seed == 4 else 44, seed=seed, fixed=True)
        nothing = np.random.default_rng(seed).random(log.n_events) < 0.2
        return dataclasses.replace(log, choices=np.where(nothing, -1, log.choices).astype(np.int32))
    if kind == "vectors":
        return with_vectors(log_of_kind("context", seed, n_sessions), seed)
    log = plain_log(seed, n_sessions)
    if kind == "grid":
        return dataclasses.replace(log, ordered=True, grid=2)
    log = with_drawn_actions(log, seed) if "actions" in kind else log
    log = with_vectors(log, seed) if "vectors" in kind else log
    return with_fields(log, seed) if "fields" in kind else log


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "relations, two layers": ("plain", {"relations": True, "history_layers": 2, "eta": 2.0}),
    "identity, sparse": ("plain", {**IDENTITY, "regulariser": "tsallis", "history": "gru"}),
    "position weights": ("plain", {**IDENTITY, "history": "pw", "history_window": 3}),
    "bilstm": ("plain", {"history": "bilstm", "regulariser": "l2", "relations": False}),
    "fields, views, positions": ("fields", {"protocol": "views", "examination": False}),
    "a grid": ("grid", {"examination": False, "relations": False}),
    "a grid, position weights": ("grid", {**IDENTITY, "examination": False, "history": "pw"}),
    "fields, towers, places": ("fields", {"tower_dim": 5, "set_context": False}),
    "context, towers": ("context", {"tower_dim": 6, "relations": True}),
    "context, network": ("context", {"item_dim": 3, "relations": False}),
    "vectors, towers": ("vectors", {"tower_dim": 6, "relations": False}),
    "vectors, towers, position weights": ("vectors", {**IDENTITY, "tower_dim": 4, "history": "pw"}),
    "vectors, actions": ("vectors, actions", {**IDENTITY, "tower_dim": 4}),
    "vectors, components": ("vectors", {"relations": False}),
    "actions": ("actions", {**IDENTITY, "history": "gru", "tower_dim": 4}),
    "actions, position weights": ("actions", {**IDENTITY, "history": "pw", "history_window": 3}),
    "actions, fields": ("actions, fields", {"history_layers": 2, "examination": False}),
}


def item_table(log: SessionLog) -> pl.DataFrame:
    """The vectors of a log's items as a table, in another order."""
    lists = {name: rows.tolist() for name, rows in log.item_vectors.items()}
    return pl.DataFrame({"item": log.item_ids, **lists})[::-1]


@cache
def model_of(name: str) -> UserModel:
    kind, changes = MODELS[name]
    return fitted(log_of_kind(kind, 4, 60), **changes)


def told(user: OnlineUser, log: SessionLog, event: int) -> np.ndarray:
    """Show the user a logged event, as a caller has it, and tell the choice; its probabilities."""
    span = slice(*log.display_offsets[event : event + 2].tolist())
    items = log.item_ids.gather(log.items[span]).to_list()

    def values(name: str, codes: np.ndarray) -> list[Any]:
        if name not in log.categories:
            return codes.tolist()
        return Vocabulary(log.categories[name]).decode(codes).to_list()

    fields = {name: values(name, of[span]) for name, of in log.candidate_fields.items()}
    fields |= {name: values(name, of[log.items[span]]) for name, of in log.item_fields.items()}
    if log.views is not None and "views" in user.model.fields:
        fields["views"] = log.views[span].tolist()
    tell_actions(user, log, event)
    context = {
        name: values(name, of[event : event + 1])[0] for name, of in log.event_fields.items()
    }
    probabilities = user.probabilities(items, context or None, fields or None)
    choice = int(log.choices[event])
    user.chose(None if choice < 0 else items[choice])
    return probabilities


def tell_actions(user: OnlineUser, log: SessionLog, event: int) -> None:
    """Tell the user what it did before a logged event, with the brand of each item."""
    if log.actions is None:
        return
    for action in range(*log.actions.offsets[event : event + 2].tolist()):
        item = int(log.actions.items[action])
        kind = str(log.actions.kind_names[int(log.actions.kinds[action])])
        fields = {}
        if "brand" in log.item_fields:
            code = log.item_fields["brand"][item : item + 1]
            fields["brand"] = Vocabulary(log.categories["brand"]).decode(code)[0]
        user.acted(str(log.item_ids[item]), kind, fields)


def replayed(model: UserModel, log: SessionLog, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of all candidates, and of no click beside each of them."""
    items, none = [], []
    folded = model.user(head).model
    if log.item_vectors:
        folded = folded.with_item_table(item_table(log))
    for session in range(log.n_sessions):
        user = OnlineUser(folded)
        for event in range(*log.session_offsets[session : session + 2].tolist()):
            probabilities = told(user, log, event)
            n = int(np.diff(log.display_offsets)[event])
            items.append(probabilities[:n])
            none.append(np.full(n, probabilities[n] if model.outside else 0.0))
    return np.concatenate(items), np.concatenate(none)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(5, 1000), n_sessions=st.integers(1, 8))
def test_a_session_told_display_by_display_is_as_predicted(
    name: str, seed: int, n_sessions: int
) -> None:
    model, log = model_of(name), log_of_kind(MODELS[name][0], seed, n_sessions)
    predicted = model.predict(log)
    items, none = replayed(model, log, "reward")
    np.testing.assert_allclose(items, predicted["probability"], atol=1e-5)
    np.testing.assert_allclose(none, predicted["no_click_probability"], atol=1e-5)
    np.testing.assert_allclose(
        replayed(model, log, "generator")[0], predicted["generator_probability"], atol=1e-5
    )


def test_a_regulariser_of_the_user_s_own() -> None:
    log = plain_log(4, 12)
    model = UserModel(
        Config.from_preset("fastgaum", **{**SMALL, "warm_start": 1, **IDENTITY}),
        regulariser=Custom(half_square, steps=20),
        device="cpu",
    )
    model.fit(log)
    other = plain_log(5, 2)
    items, _ = replayed(model, other, "reward")
    np.testing.assert_allclose(items, model.predict(other)["probability"], atol=1e-4)


def test_utilities_are_the_reward_s_before_the_choice() -> None:
    model, log = model_of("context, towers"), log_of_kind("context", 6, 2)
    user = model.user("generator")
    span = slice(*log.display_offsets[:2].tolist())
    items = log.item_ids.gather(log.items[span]).to_list()
    context = {name: of[0] for name, of in log.event_fields.items()}
    context |= {name: log.categories[name][int(context[name])] for name in log.categories}
    predicted = model.predict(log)["utility"].to_numpy()[span]
    np.testing.assert_allclose(user.utilities(items, context), predicted, atol=2e-5)


def test_nothing_moves_until_a_choice_is_told() -> None:
    model = model_of("relations, two layers")
    user, items = model.user(), ["i1", "i2", "i3"]
    before, first = user.state, user.probabilities(items)
    user.probabilities(["i9", "new"])
    assert np.array_equal(user.probabilities(items), first)
    assert np.array_equal(user.state, before)
    user.chose("i2")
    assert user.n_events == 1
    assert not np.array_equal(user.state, before)
    assert not np.array_equal(user.probabilities(items), first)
    # another user of the same folded model is new
    assert np.array_equal(model.user().probabilities(items), first)
    assert np.array_equal(
        model.user().probabilities(np.array(["i1", "i2", "i3"])), model.user().probabilities(items)
    )


def test_a_long_session_keeps_its_counts() -> None:
    """More items than the tables have room for at first, most of them unknown to training."""
    sessions = [
        (np.random.default_rng(t).permutation(200)[:7].tolist(), t % 8 - 1) for t in range(60)
    ]
    log = log_of([sessions])
    model = model_of("relations, two layers")
    items, _ = replayed(model, log, "reward")
    np.testing.assert_allclose(items, model.predict(log)["probability"], atol=1e-5)


def test_a_model_fitted_again_has_other_users() -> None:
    log = plain_log(4, 60)
    model = fitted(log, **IDENTITY)
    was = model.user().probabilities(["i1", "i2"])
    model.asked = model.asked.replace(seed=7)
    model.fit(log)
    assert not np.array_equal(model.user().probabilities(["i1", "i2"]), was)
    np.testing.assert_allclose(model.user().probabilities(["i1", "i2"]).sum(), 1, atol=1e-6)


def test_users_made_by_an_observer_are_of_their_epoch() -> None:
    class Probe(Observer):
        may_fail = False

        def __init__(self) -> None:
            self.seen: list[np.ndarray] = []

        def on_epoch_end(self, row: EpochRow) -> None:
            self.seen.append(model.user().probabilities(["i1", "i2"]))

    model = UserModel.from_preset(
        **{**SMALL, **IDENTITY, "epochs": 3, "players": "exact"}, device="cpu"
    )
    probe = Probe()
    model.fit(plain_log(4, 60), [probe])
    first, second, *_ = probe.seen
    assert not np.array_equal(first, second)
    best = int(model.table["best"].arg_true()[-1])
    after = model.user()
    np.testing.assert_allclose(after.probabilities(["i1", "i2"]), probe.seen[best], atol=1e-6)
    assert best > 0
    assert model.user().model is after.model


def test_room_is_for_few_sizes_of_display_at_a_time() -> None:
    """A service's client may ask for every size; what room was given up changes no figure."""
    user, items = model_of("relations, two layers").user(), [f"i{i}" for i in range(40)]
    before = user.probabilities(items[:3])
    for n in range(1, 40):
        user.probabilities(items[:n])
        assert len(user._displays) <= MOST_SIZES
    np.testing.assert_array_equal(user.probabilities(items[:3]), before)
    assert (user.n_items, user.n_new(["i1", "new", "i50"])) == (39, 2)


def test_fields_come_from_an_item_table() -> None:
    model, items = model_of("fields, views, positions"), ["i1", "i2"]
    values = {"price": [0.5, -1.0], "shelf": ["top", None], "views": [1, 3]}
    of_items: dict[str, list[Any]] = {"size": [0.1, 0.2], "brand": ["a", 1]}
    given_all = model.user().probabilities(items, fields=values | of_items)
    table = pl.DataFrame({"item": items, "size": [0.1, 0.2], "brand": ["a", "1"]})
    online = OnlineModel(model).with_item_table(table)
    assert np.array_equal(OnlineUser(online).probabilities(items, fields=values), given_all)
    untyped = online.with_item_table(table.cast(pl.String))
    assert np.array_equal(OnlineUser(untyped).probabilities(items, fields=values), given_all)
    with pytest.raises(ConfigError, match="'size' takes a number"):
        online.with_item_table(table.with_columns(size=pl.lit("large")))
    other = values | {"size": [9.0, 9.0]}
    assert not np.array_equal(OnlineUser(online).probabilities(items, fields=other), given_all)
    with pytest.raises(
        ConfigError, match=r"the item table has no item 'i3'.*give the field 'brand'"
    ):
        OnlineUser(online).probabilities(
            ["i3"], fields={"price": [1], "shelf": ["top"], "views": [1]}
        )
    with pytest.raises(ConfigError, match="an item table has a column 'item', got id"):
        online.with_item_table(pl.DataFrame({"id": items}))
    with pytest.raises(ConfigError, match="one row for each item"):
        online.with_item_table(pl.DataFrame({"item": ["i1", "i1"]}))


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
    user._states[:] = np.inf
    with pytest.raises(NumericsError, match=r"item 'i1' has the score .* a finite one is required"):
        user.probabilities(["i1"], GOOD)
    with pytest.raises(ConfigError, match="call probabilities with its items first"):
        user.chose("i1")


@pytest.mark.parametrize("name", ["vectors, towers", "vectors, components"])
def test_vectors_of_items_come_from_a_table(name: str) -> None:
    model, log = model_of(name), log_of_kind("vectors", 4, 60)
    display: Any = (log.item_ids[:3].to_list(), {"page": "i0", "target": "i1", "kind": "i2"})
    display[1]["hour"] = 0.5
    with pytest.raises(
        ConfigError, match=r"reads the item vectors image, text: give an item table"
    ):
        model.user().probabilities(*display)
    folded, table = model.user().model, item_table(log)
    for wrong, match in (
        (table.drop("text"), r"no such column \(it has item, image\)"),
        (table.with_columns(text="image"), r"'text' of the item table have 2 numbers.*have 4"),
        (table.with_columns(text=pl.lit("x")), "column 'text' holds String, vectors are lists"),
    ):
        with pytest.raises(ConfigError, match=match):
            folded.with_item_table(wrong)
    user = OnlineUser(folded.with_item_table(table.filter(pl.col("item") != "i1")))
    with pytest.raises(ConfigError, match=r"the item table has no item 'i1'"):
        user.probabilities(*display)
