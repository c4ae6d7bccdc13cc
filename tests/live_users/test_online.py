"""Online users: a session told display by display has the probabilities that `predict` gives it in a
log."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.arrays import FloatArray
from fastgaum.errors import ConfigError
from fastgaum.game.observers import EpochRow, Observer
from fastgaum.live_users.online import OnlineModel, OnlineUser
from fastgaum.logs.read import read_log
from fastgaum.models.user_model import UserModel
from tests.builders import log_of
from tests.live_users.online_users import (
    IDENTITY,
    MODELS,
    SMALL,
    fitted,
    item_table,
    log_of_kind,
    model_of,
    plain_log,
    replayed,
)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=2, deadline=None)
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
    # another user of the same shared model is new
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


def test_a_kept_context_is_the_context_given_again() -> None:
    """Also where its page is new, and displayed later."""
    model = model_of("context, network")
    context = {"page": "new", "target": "i1", "kind": "i2", "hour": 0.5}
    found = []
    for again in (None, context):
        user = model.user()
        user.probabilities(["i1", "i2"], context)
        user.chose("i1")
        found.append(user.probabilities(["i3", "new", "i4"], again))
    np.testing.assert_array_equal(*found)
    page = model.user()
    page.probabilities(["i1", "i2"], context | {"page": "newer"})
    page.chose("i1")
    assert not np.array_equal(page.probabilities(["i3", "new", "i4"]), found[0])


def test_a_missing_category_is_not_the_empty_text() -> None:
    rng, texts = np.random.default_rng(0), ["red", "", None]
    frame = pl.DataFrame(
        [
            (s, f"i{item}", int(place == s % 2), texts[rng.integers(3)], texts[s % 3])
            for s in range(90)
            for place, item in enumerate(rng.permutation(6)[:2])
        ],
        schema=["session", "item", "chosen", "colour", "mood"],
        orient="row",
    ).with_columns(event=pl.lit(0))
    log = read_log(frame, candidate_fields=["colour"], context_fields=["mood"])
    model = fitted(log, **IDENTITY)
    np.testing.assert_allclose(
        replayed(model, log, "reward")[0], model.predict(log, "all")["probability"], atol=1e-5
    )


def test_booleans_are_those_of_the_log() -> None:
    """Numbers of candidates, categories of the context, as in a file: what is neither is refused."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        [
            (s, f"i{item}", int(place == s % 2), bool(rng.integers(2)), s % 3 == 0, s % 7 / 4)
            for s in range(90)
            for place, item in enumerate(rng.permutation(6)[:2])
        ],
        schema=["session", "item", "chosen", "new", "member", "hours"],
        orient="row",
    ).with_columns(event=pl.lit(0))
    fields: dict[str, Any] = {"candidate_fields": ["new"], "context_fields": ["member", "hours"]}
    model = fitted(read_log(frame, **fields), **IDENTITY)

    def asked(new: list[object], member: object, hours: object = 0.5) -> FloatArray:
        context = {"member": member, "hours": hours}
        return model.user().probabilities(["i1", "i2"], context, {"new": new})

    expected = asked([1, 0], "true")
    for new, member in (([True, False], True), ([1.0, 0.0], "TRUE"), ([True, 0], "True")):
        np.testing.assert_array_equal(asked(new, member), expected)
    assert not np.array_equal(asked([1, 0], False), expected)
    with pytest.raises(ConfigError, match="'hours' takes a number, got True: a log's booleans"):
        asked([1, 0], True, True)


@pytest.mark.parametrize("regulariser", ["shannon", "l2"])
def test_a_model_and_its_user_can_be_pickled(regulariser: str) -> None:
    model = fitted(plain_log(4, 60), **IDENTITY, regulariser=regulariser, epochs=1)
    user = model.user()
    user.probabilities(["i1", "i2"])
    user.chose("i2")
    expected = user.probabilities(["i3", "i1"])
    again = pickle.loads(pickle.dumps(user))
    np.testing.assert_array_equal(again.probabilities(["i3", "i1"]), expected)
    new = pickle.loads(pickle.dumps(model)).user()
    np.testing.assert_array_equal(
        new.probabilities(["i3", "i1"]), model.user().probabilities(["i3", "i1"])
    )


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
    best = int(model.history_["best"].arg_true()[-1])
    after = model.user()
    np.testing.assert_allclose(after.probabilities(["i1", "i2"]), probe.seen[best], atol=1e-6)
    assert best > 0
    assert model.user().model is after.model


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
    # a log's mean is that of its own items, which no table tells
    more = pl.DataFrame({"item": ["i1", "i2", "i3"], "size": [0.1, None, 0.3], "brand": "a"})
    for gap in (more, more.cast(pl.String), more.with_columns(size=None)):
        with pytest.raises(
            ConfigError, match=r"column 'size' of the item table lacks .* has no mean for it"
        ):
            online.with_item_table(gap)
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


@pytest.mark.parametrize("name", ["vectors, towers", "vectors, components"])
def test_vectors_of_items_come_from_a_table(name: str) -> None:
    model, log = model_of(name), log_of_kind("vectors", 4, 60)
    display: Any = (log.item_ids[:3].to_list(), {"page": "i0", "target": "i1", "kind": "i2"})
    display[1]["hour"] = 0.5
    with pytest.raises(
        ConfigError, match=r"reads the item vectors image, text: give an item table"
    ):
        model.user().probabilities(*display)
    shared, table = model.user().model, item_table(log)
    for wrong, match in (
        (table.drop("text"), r"no such column \(it has item, image\)"),
        (table.with_columns(text="image"), r"'text' of the item table have 2 numbers.*have 4"),
        (table.with_columns(text=pl.lit("x")), "column 'text' holds String, vectors are lists"),
    ):
        with pytest.raises(ConfigError, match=match):
            shared.with_item_table(wrong)
    user = OnlineUser(shared.with_item_table(table.filter(pl.col("item") != "i1")))
    with pytest.raises(ConfigError, match=r"the item table has no item 'i1'"):
        user.probabilities(*display)
