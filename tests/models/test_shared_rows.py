"""A log of more items than tables have rows for: those displayed least share rows by hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.baselines.floors import ClickRateFloor
from fastgaum.features import fields
from fastgaum.features.encoder import Encoder
from fastgaum.features.fields import share_rows
from fastgaum.features.sessions import select_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.logged import LoggedStarts
from tests.live_users.online_users import SMALL, replayed
from tests.logs.test_context import navigation
from tests.models.test_start import after, nll
from tests.worlds.test_context import links

OWN, SHARED = 12, 5


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Items are candidates, and two fields of the context."""
    return links()


@pytest.fixture(scope="module")
def model(log: SessionLog) -> UserModel:
    model = UserModel.from_preset(**SMALL, tower_dim=6, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields, "OWN_ROWS", OWN)
        patch.setattr(fields, "SHARED_ROWS", SHARED)
        model.fit(log)
    return model


def test_items_displayed_most_have_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "OWN_ROWS", 3)
    monkeypatch.setattr(fields, "SHARED_ROWS", 2)
    items = pl.Series([f"i{i}" for i in range(20)])
    displays = np.arange(20)[::-1].copy()
    rows = share_rows(items, displays)
    assert rows is not None
    assert rows[:3].tolist() == [0, 1, 2]
    assert set(rows[3:].tolist()) == {3, 4}
    # an id says its row, whatever else is displayed
    other = share_rows(items[::-1], displays[::-1])
    assert other is not None
    assert other[::-1].tolist() == rows.tolist()
    assert share_rows(items[:5], displays[:5]) is None


def test_items_share_rows_and_keep_their_counts(log: SessionLog, model: UserModel) -> None:
    space = model.space
    assert space is not None
    items = space.categorical[0]
    assert items.rows is not None
    assert len(items.values) > OWN + SHARED
    assert items.stop == items.start + 1 + items.rows.max() + 1 <= items.start + 1 + OWN + SHARED
    assert len(space.item_counts.displays) == len(items.values)
    pages = [field for field in space.context if field.source == "context_item"]
    assert [page.rows is items.rows for page in pages] == [True, True]
    encoded = Encoder(space, log).encode(np.arange(log.n_sessions, dtype=np.int32))
    assert encoded.ids[:, 0].max() < items.stop
    assert space.n_ids == len(space.unknown_of_id)


def test_a_user_told_display_by_display_is_as_predicted(model: UserModel) -> None:
    log = navigation(20, n_items=44, seed=9, fixed=True)
    predicted = model.predict(log)
    items, none = replayed(model, log, "reward")
    np.testing.assert_allclose(items, predicted["probability"], atol=1e-5)
    np.testing.assert_allclose(none, predicted["no_click_probability"], atol=1e-5)


def test_a_world_begins_with_the_items_of_the_log(log: SessionLog, model: UserModel) -> None:
    """Items that share a row stay apart in slates."""
    world = LearnedWorld(model, log=log)
    starts = LoggedStarts(world.catalogue, log, "test", no_click=True)
    items = log.items[select_sessions(log, log.sessions_in("test")).candidates]
    row_of = {item: row for row, item in enumerate(world.catalogue.item_ids)}
    wanted = [row_of.get(log.item_ids[int(item)], world.catalogue.n_items) for item in items]
    assert starts.items.tolist() == wanted


def test_rivals_have_a_row_for_each_item(log: SessionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "OWN_ROWS", OWN)
    monkeypatch.setattr(fields, "SHARED_ROWS", SHARED)
    rival = ClickRateFloor()
    rival.fit(log)
    assert rival.space is not None
    assert rival.space.categorical[0].rows is None


def test_a_saved_model_predicts_the_same(log: SessionLog, model: UserModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = UserModel.load(tmp_path / "model")
    assert loaded.predict(log).equals(model.predict(log))


def test_a_fit_takes_over_shared_rows(
    log: SessionLog, model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "OWN_ROWS", OWN)
    monkeypatch.setattr(fields, "SHARED_ROWS", SHARED)
    next_one = after(model, epochs=1, lr=1e-9, weight_decay=0.0)
    next_one.fit(log, start=model)
    np.testing.assert_allclose(nll(next_one, log), nll(model, log), rtol=1e-4)
