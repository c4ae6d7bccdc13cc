"""What every baseline must do: its test gives a toy whose right answer is seen by eye, the contract
does the rest."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.baselines.base import Baseline
from fastgaum.baselines.neighbours import CascadeSessionKnn
from fastgaum.baselines.registry import load_model
from fastgaum.baselines.s_rnn import SessionRnn
from fastgaum.features.encoder import Encoder
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.metrics.intervals import paired_difference
from fastgaum.metrics.precision import precision_at_k
from tests.builders import log_of, random_log
from tests.contracts import check_choice_model


def toy_log(repeats: int = 12) -> SessionLog:
    """Item 0 is always chosen against 1 and 2, and after it 3 is always chosen against 4 and 5."""
    session = [([1, 0, 2], 1), ([4, 5, 3], 2)]
    return log_of([session] * (4 * repeats), [0, 0, 1, 2] * repeats)


def co_choice_log(repeats: int = 8) -> SessionLog:
    """Between 3 and 4, as often chosen as each other, 3 follows 0 and 4 follows 1; 2 is never
    chosen."""
    after_0 = [([2, 0], 1), ([4, 3], 1)]
    after_1 = [([1, 2], 0), ([4, 3], 0)]
    return log_of([after_0, after_1] * (4 * repeats), [0, 0, 0, 0, 1, 1, 2, 2] * repeats)


def check_learns(model: Baseline, log: SessionLog) -> None:
    """Its prec@1 on a toy's test split reaches what the eye sees."""
    model.fit(log)
    assert model.evaluate(log, "test").heads["reward"].precision[1].mean == pytest.approx(100)


def check_baseline(model: Baseline, log: SessionLog | None = None) -> None:
    """Fit on a small log, then hold the model to the contract of user models."""
    log = log or random_log(7, n_sessions=80)
    table = model.fit(log).history_
    assert isinstance(table, pl.DataFrame)
    assert table.height >= 1
    _check_repeats(model, log)
    check_choice_model(model, log)
    _check_past_only(model, log)
    _check_disk(model, log)
    _check_no_click_and_sampling(model)


def check_beats_random(model: Baseline, n_events: int = 1500) -> None:
    """On the synthetic world the paired interval over users excludes a random order."""
    log, _ = synthesise(n_events, preset="sample", seed=3)
    model.fit(log)
    encoded = model._encoder(log, "test").encode(log.sessions_in("test"))
    ours = precision_at_k(
        model._score(encoded).heads["reward"].scores, encoded.display_offsets, encoded.choices, 1
    )
    ties = precision_at_k(np.zeros(len(encoded.ids)), encoded.display_offsets, encoded.choices, 1)
    assert paired_difference(ours, ties, encoded.user_of_event).low > 0


def short_networks(monkeypatch: pytest.MonkeyPatch, dims: tuple[int, ...]) -> None:
    """The cascade compares networks of these widths, which train for some epochs."""
    fresh = CascadeSessionKnn._fresh_rnn

    def short(self: CascadeSessionKnn) -> SessionRnn:
        rnn = fresh(self)
        rnn.epochs = 3
        return rnn

    monkeypatch.setattr(CascadeSessionKnn, "_fresh_rnn", short)
    monkeypatch.setattr(SessionRnn, "grids", {"dim": dims, "dropout": (0.5,)})


def scores_of(model: Baseline, log: SessionLog, rows: np.ndarray) -> np.ndarray:
    assert model.space is not None
    return model._all_scores(Encoder(model.space, log).encode(rows))


def _check_repeats(model: Baseline, log: SessionLog) -> None:
    """The same seed gives the same model."""
    rows = log.sessions_in("test")
    again = type(model)(**model.to_mapping())
    again.fit(log)
    np.testing.assert_array_equal(scores_of(again, log, rows), scores_of(model, log, rows))


def _check_past_only(model: Baseline, log: SessionLog) -> None:
    """Other choices at t and after leave the scores up to t as they were."""
    assert model.space is not None
    row = np.array([np.argmax(np.diff(log.session_offsets))], np.int32)
    encoded = Encoder(model.space, log).encode(row)
    sizes = np.diff(encoded.display_offsets)
    before = model._all_scores(encoded)
    for t in range(encoded.n_events):
        choices = encoded.choices.copy()
        choices[t:] = (np.maximum(choices[t:], 0) + 1) % sizes[t:]
        after = model._all_scores(dataclasses.replace(encoded, choices=choices))
        end = encoded.display_offsets[t + 1]
        np.testing.assert_array_equal(after[:end], before[:end])


def _check_no_click_and_sampling(model: Baseline) -> None:
    log = random_log(4, n_sessions=80, no_click=0.4)
    model.fit(log)
    evaluation = model.evaluate(log, "test")
    assert evaluation.heads["reward"].no_click is not None
    drawn = model.sample(log, "all", seed=1)
    assert drawn.equals(model.sample(log, "all", seed=1))
    assert 0 < drawn["item"].is_null().mean() < 1  # type: ignore[operator]
    frame = model.predict(log, "test")
    assert {"session", "event", "item", "utility", "probability", "no_click_probability"} <= set(
        frame.columns
    )


def _check_disk(model: Baseline, log: SessionLog) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        loaded = load_model(path)
    assert isinstance(loaded, type(model))
    rows = log.sessions_in("test")
    np.testing.assert_array_equal(scores_of(loaded, log, rows), scores_of(model, log, rows))
    assert loaded.link == model.link
    assert loaded.to_mapping() == model.to_mapping()
