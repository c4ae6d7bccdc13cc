"""The synthetic world: what it states is what it draws, and it draws the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import DatasetError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.datasets import data_root, dataset
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.logs.store import load_log, save_log
from fastgaum.logs.synthetic import SyntheticWorld, Truth, synthesise, world
from fastgaum.worlds.oracle import (
    oracle_scores,
    read_truth,
    sample_frames,
    truth_beside,
    truth_frame,
    truth_path,
    write_truth,
)
from tests import naive_segments as naive

WORLDS: list[dict[str, Any]] = [
    {"no_click": 0.3},
    {"rule": "l2", "no_click": 0.3},
    {"repeat": 2.0, "dim": 3, "decay": 0.0},
    {"mean_length": 20.0, "max_length": 200, "eta": 0.5},
    {"order": "random", "examination": 0.8, "no_click": 0.3},
    {"order": "popularity", "examination": 0.5, "eta": 2.0, "rule": "l2"},
]


def _naive_truth(
    w: SyntheticWorld, log: SessionLog
) -> tuple[list[float], list[float], list[float]]:
    """Utilities, probabilities and no-click probabilities once more from the log alone, slowly."""
    _, base, latents = w.items
    utility, probability, no_click = [], [], []
    for session in range(log.n_sessions):
        state, before = np.zeros(w.dim), set()
        for event in range(log.session_offsets[session], log.session_offsets[session + 1]):
            shown = log.items[log.display_offsets[event] : log.display_offsets[event + 1]]
            u = base[shown] + w.intercept + w.affinity * (latents[shown] @ state)
            u += w.repeat * np.array([a in before for a in shown])
            values = w.eta * u - w.examination * np.log(1.0 + np.arange(len(u)))
            values = np.append(values, 0.0) if w.no_click else values
            p = (naive.softmax if w.rule == "shannon" else naive.entmax(2.0))(values.tolist())
            utility += u.tolist()
            probability += p[: len(shown)]
            no_click.append(p[-1] if w.no_click else 0.0)
            state = w.decay * state
            if log.choices[event] >= 0:
                a = shown[log.choices[event]]
                state = state + (1 - w.decay) * latents[a]
                before.add(a)
    return utility, probability, no_click


@pytest.mark.parametrize("changes", WORLDS)
def test_truth_follows_from_the_log(changes: dict[str, Any]) -> None:
    w = world(seed=3, **changes)
    log, truth = w.draw(400)
    utility, probability, no_click = _naive_truth(w, log)
    np.testing.assert_allclose(truth.utility, utility, atol=1e-5)
    np.testing.assert_allclose(truth.probability, probability, atol=1e-6)
    np.testing.assert_allclose(truth.no_click_probability, no_click, atol=1e-6)


# each rule with and without no click
@pytest.mark.parametrize("changes", [WORLDS[at] for at in (1, 2, 4, 5)])
def test_choices_come_as_often_as_stated(changes: dict[str, Any]) -> None:
    log, truth = synthesise(60_000, seed=1, **changes)
    sums = np.add.reduceat(truth.probability.astype(np.float64), log.display_offsets[:-1])
    np.testing.assert_allclose(sums + truth.no_click_probability, 1.0, atol=1e-5)
    chosen = np.isin(np.arange(log.n_candidates), log.chosen_candidates)
    # Every cell: a decile of stated probability. Choices of one display set are mutually exclusive,
    # so a cell's variance is at most the sum of p (1 − p), and 4.5 standard errors are rare enough
    # for all cells of all worlds.
    for cell in np.array_split(np.argsort(truth.probability, kind="stable"), 10):
        p = truth.probability[cell].astype(np.float64)
        spread = np.sqrt((p * (1 - p)).sum()) + 1e-9
        assert abs(chosen[cell].sum() - p.sum()) <= 4.5 * spread + 1e-6
    none, stated = log.choices < 0, truth.no_click_probability.astype(np.float64)
    assert abs(none.sum() - stated.sum()) <= 4.5 * np.sqrt((stated * (1 - stated)).sum()) + 1e-6


@pytest.mark.parametrize(("rule", "share"), [("shannon", 0.05), ("l2", 0.72)])
def test_no_click_share_is_the_one_asked_for(rule: str, share: float) -> None:
    log, truth = synthesise(40_000, seed=2, no_click=share, rule=rule)
    assert abs((log.choices < 0).mean() - share) < 0.01
    assert abs(truth.no_click_probability.mean() - share) < 0.01


def test_same_seed_same_log() -> None:
    first, again = (synthesise(300, seed=5, no_click=0.2) for _ in range(2))
    other, _ = synthesise(300, seed=6, no_click=0.2)
    assert first[0].fingerprint == again[0].fingerprint != other.fingerprint
    assert (first[1].utility == again[1].utility).all()
    assert (first[1].probability == again[1].probability).all()


def test_the_log_is_well_formed() -> None:
    log, _ = synthesise(20_000, seed=4)
    sizes = np.diff(log.display_offsets)
    assert log.n_events == 20_000
    assert (sizes.min(), sizes.max()) == (2, 10)
    assert sizes.mean() == pytest.approx(4.5, abs=0.1)
    lengths = np.diff(log.session_offsets)
    assert lengths.min() == 1
    assert lengths.max() <= 12
    assert lengths.mean() == pytest.approx(3.5, abs=0.1)
    inside = np.ones(log.n_candidates, dtype=bool)
    inside[log.display_offsets[:-1]] = False
    assert (np.diff(log.items)[inside[1:]] > 0).all(), (
        "items of a display set are distinct and ascending"
    )
    parts = np.bincount(log.split) / log.n_sessions
    np.testing.assert_allclose(parts, [0.5, 0.25, 0.25], atol=1e-3)


def test_lengths() -> None:
    tail, _ = synthesise(100_000, preset="tail")
    lengths = np.diff(tail.session_offsets)
    assert lengths.mean() == pytest.approx(20, rel=0.05)
    assert 100 < lengths.max() <= 200
    short, _ = synthesise(50_000, mean_length=1.5, mean_display=3.2)
    assert np.diff(short.session_offsets).mean() == pytest.approx(1.5, abs=0.03)
    assert np.diff(short.display_offsets).mean() == pytest.approx(3.2, abs=0.05)
    single, _ = synthesise(100, mean_length=1.0, max_length=1)
    assert single.n_sessions == 100


def test_an_order_is_of_the_displays_and_examination_of_the_places() -> None:
    popular, _ = synthesise(40_000, n_items=30, order="popularity", examination=1.0)
    mixed, _ = synthesise(40_000, n_items=30, order="random", examination=1.0)
    assert (popular.ordered, mixed.ordered) == (True, True)
    rank = np.argsort(world(n_items=30).items[0])
    inside = np.ones(popular.n_candidates, dtype=bool)
    inside[popular.display_offsets[:-1]] = False
    assert (np.diff(rank[popular.items])[inside[1:]] > 0).all(), "most popular first"
    later = (np.diff(rank[mixed.items])[inside[1:]] > 0).mean()
    assert later == pytest.approx(0.5, abs=0.01), "no order of popularity"
    at = np.arange(popular.n_candidates) - np.repeat(
        popular.display_offsets[:-1], np.diff(popular.display_offsets)
    )
    clicks = np.bincount(at[popular.chosen_candidates])
    assert (np.diff(clicks) < 0).all(), "fewer choices the later the place"


@pytest.fixture(scope="module")
def drawn() -> tuple[SessionLog, Truth]:
    return synthesise(2_000, rule="l2", no_click=0.3)


def test_oracle_scores_are_the_best_and_match_by_hand(drawn: tuple[SessionLog, Truth]) -> None:
    log, truth = drawn
    scores = oracle_scores(log, truth, "test")
    events = np.flatnonzero(np.isin(log.session_of_event, log.sessions_in("test")))
    hits, nll = [], []
    for event in events.tolist():
        choice, (start, end) = int(log.choices[event]), log.display_offsets[event : event + 2]
        p = truth.no_click_probability[event] if choice < 0 else truth.probability[start + choice]
        nll.append(-np.log(np.float64(p)))
        if choice >= 0:
            hits.append(int(np.argmax(truth.utility[start:end])) == choice)
    assert scores.precision[1] == pytest.approx(np.mean(hits))
    assert scores.nll == pytest.approx(np.mean(nll))
    assert (scores.n_choices, scores.n_events) == (len(hits), len(nll))
    assert scores.precision[2] > scores.precision[1]


def test_truth_is_written_and_read_beside_a_log(
    drawn: tuple[SessionLog, Truth], tmp_path: Path
) -> None:
    log, truth = drawn
    save_log(log, tmp_path / "log")
    write_truth(log, truth, truth_path(tmp_path / "log"))
    found = truth_beside(tmp_path / "log")
    assert found is not None
    back = read_truth(found, load_log(tmp_path / "log"))
    assert (back.utility == truth.utility).all()
    assert (back.probability == truth.probability).all()
    np.testing.assert_allclose(back.no_click_probability, truth.no_click_probability, atol=2e-6)
    # sessions in another order have theirs
    part = slice_sessions(log, log.sessions_in("test")[::-1])
    scores = oracle_scores(log, truth, "test")
    again = oracle_scores(part, read_truth(found, part), "test")
    assert again.nll == pytest.approx(scores.nll)
    assert again.precision == pytest.approx(scores.precision)


def test_truth_of_another_log_is_refused(tmp_path: Path) -> None:
    log, truth = synthesise(300, seed=1)
    other, _ = synthesise(300, seed=2)
    write_truth(log, truth, tmp_path / "truth.parquet")
    with pytest.raises(DatasetError, match="all are required"):
        read_truth(tmp_path / "truth.parquet", other)
    pl.DataFrame({"session": ["s"]}).write_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(DatasetError, match="is no truth"):
        read_truth(tmp_path / "wrong.parquet", log)
    doubled = truth_frame(log, truth)
    pl.concat([doubled, doubled]).write_parquet(tmp_path / "doubled.parquet")
    with pytest.raises(DatasetError, match="does not fit"):
        read_truth(tmp_path / "doubled.parquet", log)
    assert truth_beside(tmp_path / "nothing.parquet") is None


def test_bundled_sample_is_the_one_that_is_drawn() -> None:
    folder = data_root() / "sample"
    sample, truth = sample_frames()
    assert pl.read_parquet(folder / "sample.parquet").equals(sample)
    stored = pl.read_parquet(folder / "truth.parquet")
    assert stored.select("session", "event", "item").equals(
        truth.select("session", "event", "item")
    )
    # The last bit of exp depends on the machine's mathematical library.
    for column in ("utility", "probability"):
        np.testing.assert_allclose(stored[column].to_numpy(), truth[column].to_numpy(), atol=1e-5)


def test_bundled_sample_is_small_and_worth_learning() -> None:
    folder = data_root() / "sample"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 200_000
    log = load("sample")
    sizes = {what: getattr(log, f"n_{what}") for what in dataset("sample").counts}
    assert sizes == dataset("sample").counts
    scores = oracle_scores(log, read_truth(folder / "truth.parquet", log))
    random = (1 / np.diff(log.display_offsets)).mean()
    assert scores.precision[1] > random + 0.3
