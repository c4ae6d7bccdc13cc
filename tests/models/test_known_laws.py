"""Choices whose law is known: what a user viewed last decides, and clicks one after the other. Items
are of four kinds, which are a field of theirs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fastgaum.logs.log import Column, SessionLog
from fastgaum.logs.read import read_log
from fastgaum.models.user_model import UserModel

N_ITEMS, N_DISPLAYED, N_KINDS = 40, 6, 4
SMALL: dict[str, Any] = {
    "players": "exact",
    "search": (),
    "folds": 0,
    "relations": False,
    "device": "cpu",
}

Values = np.ndarray


def with_kinds(log: SessionLog) -> SessionLog:
    kinds = (log.item_ids.cast(pl.Int64).to_numpy() % N_KINDS).astype(np.int32)
    names = pl.Series([f"kind {number}" for number in range(N_KINDS)])
    return dataclasses.replace(log, columns={**log.columns, "kind": Column("item", kinds, names)})


def displays(n: int, rng: np.random.Generator) -> Values:
    return rng.random((n, N_ITEMS)).argsort(axis=1)[:, :N_DISPLAYED]


def drawn(probs: Values, rng: np.random.Generator) -> Values:
    """The column that is drawn in each row; the number of columns where none is."""
    return np.asarray((rng.random(len(probs))[:, None] > probs.cumsum(axis=1)).sum(axis=1))


def test_what_was_viewed_last_decides(tmp_path: Path) -> None:
    """Before each display users view two items and put one in a basket, in any order. Odds are e^3
    times as high for the kind of the item that was viewed last; a basket means nothing."""
    rng, n = np.random.default_rng(0), 3000
    displayed, items = displays(n, rng), rng.integers(0, N_ITEMS, (n, 3))
    basket = rng.integers(0, 3, n)
    viewed = items[np.arange(n), np.where(basket == 2, 1, 2)]
    odds = np.exp(3.0 * (displayed % N_KINDS == viewed[:, None] % N_KINDS))
    choice = np.minimum(drawn(odds / odds.sum(axis=1, keepdims=True), rng), N_DISPLAYED - 1)
    session, time_of = np.arange(n) // 5, 10 * (1 + np.arange(n) % 5)
    actions = {
        "session": np.repeat(session, 3),
        "time": (time_of[:, None] - np.array([3, 2, 1])).ravel(),
        "item": items.ravel(),
        "action": np.where(np.arange(3) == basket[:, None], "cart", "view").ravel(),
    }
    pl.DataFrame(actions).write_parquet(tmp_path / "actions.parquet")
    rows = {"session": session, "event": time_of, "items": displayed.tolist()}
    frame = pl.DataFrame({**rows, "chosen": displayed[np.arange(n), choice]})
    log = with_kinds(read_log(frame, actions=tmp_path / "actions.parquet"))
    assert log.n_actions == 3 * n
    plain: dict[str, Any] = {
        **{"protocol": "identity", "tower_dim": 0, "hidden": (16,)},
        **{"history_dim": 16, "dropout": 0.0, "lr": 0.01},
        **{"warm_start": 12, "epochs": 12, "patience": 12},
    }
    reached = []
    for of in (log, dataclasses.replace(log, actions=None)):
        model = UserModel.from_preset(**SMALL, **plain)
        model.fit(of)
        reached.append(model.evaluate(of, "test").heads["reward"].precision[1].mean)
    assert reached[0] > reached[1] + 15
    # six candidates: without actions there is little more than chance
    assert reached[1] < 100 / N_DISPLAYED + 8


UTILITY = np.linspace(-1.5, 1.5, N_ITEMS)[np.random.default_rng(0).permutation(N_ITEMS)]


def click_law(displayed: Values, left: Values, last: Values, n_clicks: Values) -> Values:
    """Probability of each candidate, and of no click in the last column, shape (n, k + 1): odds
    e^utility, e times that for the kind of the click just before; no click e^(1 + clicks / 2)."""
    same = (last[:, None] >= 0) & (displayed % N_KINDS == last[:, None] % N_KINDS)
    odds = np.exp(UTILITY[displayed] + same) * left
    every = np.concatenate([odds, np.exp(1 + 0.5 * n_clicks)[:, None]], axis=1)
    return np.asarray(every / every.sum(axis=1, keepdims=True))


def clicked_log(n: int) -> SessionLog:
    """Sessions of four displays, each clicked until its user has enough, or nothing is left."""
    rng, last, rows = np.random.default_rng(0), np.full(n, -1), []
    for display in range(4):
        displayed = displays(n, rng)
        left, clicks = np.ones(displayed.shape, np.bool_), np.full(displayed.shape, -1)
        clicking = np.ones(n, np.bool_)
        for number in range(N_DISPLAYED):
            choice = drawn(click_law(displayed, left, last, np.full(n, number)), rng)
            last[clicking] = -1
            clicking &= choice < N_DISPLAYED
            users = np.flatnonzero(clicking)
            left[users, choice[users]] = False
            clicks[users, number] = last[users] = displayed[users, choice[users]]
        lists = [[item for item in row if item >= 0] for row in clicks.tolist()]
        facts = {"session": np.arange(n), "event": np.full(n, display), "items": displayed}
        chosen = pl.Series("chosen", lists, dtype=pl.List(pl.Int64))
        rows.append(pl.DataFrame({**facts, "chosen": chosen}))
    return with_kinds(read_log(pl.concat(rows), clicks="each"))


def test_clicks_one_after_the_other_are_learned() -> None:
    """The mean total variation of the model's probabilities from the law's, no click included."""
    log = clicked_log(375)
    ids = log.item_ids.cast(pl.Int64).to_numpy()
    sizes, event = np.diff(log.display_offsets), log.event_of_candidate()
    place = np.arange(log.n_candidates) - log.display_offsets[event]
    displayed = np.zeros((log.n_events, int(sizes.max())), np.int64)
    left = np.zeros(displayed.shape, np.bool_)
    displayed[event, place], left[event, place] = ids[log.items], True
    clicked = np.full(log.n_events, -1)
    clicked[log.choices >= 0] = ids[log.items[log.chosen_candidates]]
    last = np.where(log.event_number > 0, np.concatenate([[-1], clicked[:-1]]), -1)
    known = click_law(displayed, left, last, log.columns["clicks_so_far"].values)
    model = UserModel.from_preset(**SMALL, warm_start=8, epochs=8)
    model.fit(log)
    frame = model.predict(log, "all")
    apart = np.abs(frame["probability"].to_numpy() - known[event, place])
    none = frame["no_click_probability"].to_numpy()[log.display_offsets[:-1]]
    distance = (np.bincount(event, apart) + np.abs(none - known[:, -1])) / 2
    assert distance[log.split[log.session_of_event] == 2].mean() < 0.12
