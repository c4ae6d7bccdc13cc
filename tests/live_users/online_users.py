"""Models of every kind, logs for them, and their users who are told a log display by display."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from fastgaum.live_users.online import OnlineUser
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.models.user_model import UserModel
from fastgaum.nets.networks import Head
from tests.builders import random_log, values_of, with_drawn_actions, with_fields, with_vectors
from tests.logs.test_context import navigation

SMALL: dict[str, Any] = {
    "epochs": 1,
    "warm_start": 2,
    "catch_up": 1,
    "hidden": [8, 6],
    "history_dim": 5,
    "batch_sessions": 16,
    "lr": 0.03,
    "search": [],
    "folds": 0,
}
IDENTITY: dict[str, Any] = {"protocol": "identity", "relations": False, "relative_numbers": False}


_FITTED: dict[tuple[str, str], UserModel] = {}


def fitted(log: SessionLog, **changes: Any) -> UserModel:
    """A copy of the model of a log and a configuration, which is fitted once."""
    key = log.fingerprint, str((log.ordered, log.grid, sorted(changes.items())))
    if key not in _FITTED:
        _FITTED[key] = UserModel.from_preset(**{**SMALL, **changes}, device="cpu")
        _FITTED[key].fit(log)
    return deepcopy(_FITTED[key])


def plain_log(seed: int, n_sessions: int) -> SessionLog:
    """Other seeds than 4 have more items than a model of seed 4 knows."""
    items = 12 if seed == 4 else 15
    return random_log(seed, n_sessions, n_items=items, max_length=6, no_click=0.3)


def log_of_kind(kind: str, seed: int, n_sessions: int) -> SessionLog:
    if kind == "context":
        log = navigation(n_sessions, n_items=40 if seed == 4 else 44, seed=seed, fixed=True)
        nothing = np.random.default_rng(seed).random(log.n_events) < 0.2
        return dataclasses.replace(log, choices=np.where(nothing, -1, log.choices).astype(np.int32))
    if kind == "context, fields":
        return with_fields(log_of_kind("context", seed, n_sessions), seed, ordered=False)
    if kind == "vectors":
        return with_vectors(log_of_kind("context", seed, n_sessions), seed)
    log = plain_log(seed, n_sessions)
    if kind == "clicks":
        return random_log(seed, n_sessions, no_click=0.0)
    if kind == "grid":
        return dataclasses.replace(log, ordered=True, grid=2)
    log = with_drawn_actions(log, seed) if "actions" in kind else log
    log = with_vectors(log, seed) if "vectors" in kind else log
    return with_fields(log, seed) if "fields" in kind else log


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "relations, two layers": ("plain", {"relations": True, "history_layers": 2, "eta": 2.0}),
    "identity, sparse": ("plain", {**IDENTITY, "regulariser": "tsallis", "history_layers": 2}),
    "always a click": ("clicks", {"relations": True}),
    "position weights": ("plain", {**IDENTITY, "history": "pw", "history_window": 3}),
    "calibrated": ("plain", {**IDENTITY, "select": "calibrated loss"}),
    "l2": ("plain", {"regulariser": "l2", "relations": False}),
    "fields, views, positions": ("fields", {"protocol": "views", "examination": False}),
    "a grid": ("grid", {"examination": False, "relations": False}),
    "a grid, position weights": ("grid", {**IDENTITY, "examination": False, "history": "pw"}),
    "fields, towers, places": ("fields", {"tower_dim": 5, "relative_numbers": False}),
    "context, towers": ("context", {"tower_dim": 6, "relations": True}),
    "context, network": ("context", {"relations": False}),
    "vectors, towers": ("vectors", {"tower_dim": 6, "relations": False}),
    "vectors, towers, position weights": ("vectors", {**IDENTITY, "tower_dim": 4, "history": "pw"}),
    "vectors, actions": ("vectors, actions", {**IDENTITY, "tower_dim": 4}),
    "vectors, components": ("vectors", {"relations": False}),
    "actions": ("actions", {**IDENTITY, "history_layers": 2, "tower_dim": 4}),
    "actions, position weights": ("actions", {**IDENTITY, "history": "pw", "history_window": 3}),
    "actions, fields": ("actions, fields", {"history_layers": 2, "examination": False}),
    "signs, places": ("fields", {"signs": {"price": "-", "size": "+"}}),
    "signs, towers, sparse": (
        "fields",
        {"signs": {"price": "+"}, "tower_dim": 5, "regulariser": "tsallis", "pieces": 0},
    ),
    "signs of products": ("context, fields", {"signs": {"hour*price": "-", "size": "-"}}),
}


def item_table(log: SessionLog) -> pl.DataFrame:
    """The vectors of a log's items as a table, in another order."""
    lists = {name: rows.tolist() for name, rows in log.vectors.items()}
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
        texts = log.columns[name].texts
        if texts is None:
            return codes.tolist()
        return Vocabulary(texts).decode(codes).to_list()

    fields = {name: values(name, of[span]) for name, of in values_of(log, "candidate").items()}
    fields |= {
        name: values(name, of[log.items[span]]) for name, of in values_of(log, "item").items()
    }
    if log.views is not None and "views" in user.model.fields:
        fields["views"] = log.views[span].tolist()
    tell_actions(user, log, event)
    context = {
        name: values(name, of[event : event + 1])[0] for name, of in values_of(log, "event").items()
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
        if "brand" in log.columns_of("item"):
            code = log.columns["brand"].values[item : item + 1]
            fields["brand"] = Vocabulary(log.columns["brand"].categories).decode(code)[0]
        user.acted(str(log.item_ids[item]), kind, fields)


def replayed(model: UserModel, log: SessionLog, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of all candidates, and of no click beside each of them."""
    items, none = [], []
    shared = model.user(head).model
    if log.vectors:
        shared = shared.with_item_table(item_table(log))
    for session in range(log.n_sessions):
        user = OnlineUser(shared)
        for event in range(*log.session_offsets[session : session + 2].tolist()):
            probabilities = told(user, log, event)
            n = int(np.diff(log.display_offsets)[event])
            items.append(probabilities[:n])
            none.append(np.full(n, probabilities[n] if model.no_click else 0.0))
    return np.concatenate(items), np.concatenate(none)
