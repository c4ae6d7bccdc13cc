"""Rankings of displays with several clicks, against every order of ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.baselines.floors import ClickCountFloor
from fastgaum.errors import NumericsError
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.metrics.displays import clicks_of_displays, rank_displays
from fastgaum.metrics.precision import precision_at_k
from fastgaum.reports.comparison import compare_logs
from fastgaum.reports.grid import GridPlan
from tests.logs.test_clicks import Display, nested_frame

SCORES = st.lists(st.sampled_from([0.0, 1.0, 2.0, 1e4]), min_size=1, max_size=5)


def by_every_order(scores: list[float], clicked: list[int], k: int) -> tuple[float, ...]:
    """Recall@k, reciprocal rank of the best click, NDCG and AUC, means over the orders that sort by
    score."""
    found = []
    for order in itertools.permutations(range(len(scores))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        ranks = sorted(order.index(click) + 1 for click in clicked)
        gains = [1 / math.log2(1 + rank) for rank in ranks]
        best = [1 / math.log2(1 + rank) for rank in range(1, len(ranks) + 1)]
        recall = sum(rank <= k for rank in ranks) / len(ranks)
        others = [rank for rank in range(1, len(order) + 1) if rank not in ranks]
        pairs = [rank < other for rank in ranks for other in others]
        auc = sum(pairs) / len(pairs) if pairs else np.nan
        found.append((recall, 1 / ranks[0], sum(gains) / sum(best), auc))
    return tuple(np.mean(found, axis=0).tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=3), st.integers(1, 6), st.data())
def test_every_order_of_ties(displays: list[list[float]], k: int, data: st.DataObject) -> None:
    """Displays of any number of clicks, as the events that they become."""
    scores: list[float] = []
    offsets, choices, first, expected = [0], [], [], []
    for display in displays:
        n = len(display)
        clicked = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
        left = list(range(n))
        expected.append(by_every_order(display, clicked, k) if clicked else (np.nan,) * 4)
        for number, click in enumerate([*clicked, None][: len(left)]):
            first.append(number == 0)
            choices.append(-1 if click is None else left.index(click))
            # later events may score as they like: the first one ranks the display
            scores += display if number == 0 else [9.0] * len(left)
            offsets.append(len(scores))
            expected += [(np.nan,) * 4] * (number > 0)
            left = [item for item in left if item != click]
    clicks = clicks_of_displays(np.array(choices), np.array(first))
    ranked = rank_displays(np.array(scores), np.array(offsets, np.int32), *clicks, [k])
    values = np.stack(list(ranked.values()), 1)
    np.testing.assert_allclose(values, np.array(expected), rtol=1e-9)


def test_one_click_a_display_has_the_recall_of_prec_at_k() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 50)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    choices = np.array([rng.integers(-1, size) for size in sizes], np.int32)
    scores = rng.integers(0, 3, offsets[-1]).astype(np.float32)
    clicks = clicks_of_displays(choices, np.ones(50, np.bool_))
    for k in (1, 2, 3):
        recall = rank_displays(scores, offsets, *clicks, [k])[f"recall{k}"]
        np.testing.assert_allclose(recall, precision_at_k(scores, offsets, choices, k))


def test_a_log_without_clicks_and_a_score_that_is_not_finite() -> None:
    clicks = clicks_of_displays(np.array([-1]), np.array([True]))
    ranked = rank_displays(np.zeros(2), np.array([0, 2]), *clicks, [1])
    assert np.isnan(list(ranked.values())).all()
    with pytest.raises(NumericsError, match="event 0 has the score nan"):
        rank_displays(np.array([np.nan, 0.0]), np.array([0, 2]), *clicks, [1])


def browsing(seed: int = 0, n_sessions: int = 60) -> list[list[Display]]:
    """Sessions of displays with up to three clicks."""
    rng = np.random.default_rng(seed)
    return [
        [
            (shown, [shown[i] for i in rng.permutation(4)[: rng.integers(0, 4)]])
            for shown in (rng.permutation(8)[:4].tolist() for _ in range(3))
        ]
        for _ in range(n_sessions)
    ]


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return read_log(nested_frame(browsing()), clicks="each", name="browsing")


def test_an_evaluation_has_the_figures_of_displays(log: SessionLog) -> None:
    model = ClickCountFloor()
    model.fit(log)
    evaluation = model.evaluate(log, "test")
    displays = evaluation.heads["reward"].displays
    counts, expected = log.training_counts().choices, []
    sessions = {f"s{i}": session for i, session in enumerate(browsing())}
    rows = {item: int(count) for item, count in zip(log.item_ids.cast(int), counts, strict=True)}
    for row in log.sessions_in("test"):
        for items, clicks in sessions[log.session_ids[int(row)]]:
            if clicks:
                scores = [float(rows[item]) for item in items]
                expected.append(by_every_order(scores, [items.index(i) for i in clicks], 2))
    means = np.nanmean(expected, axis=0)
    figures = (displays.recall[2], displays.mrr, displays.ndcg, displays.auc)
    np.testing.assert_allclose([one.mean for one in figures], means * [100, 1, 1, 1])
    assert {one.n_events for one in figures} == {len(expected)}
    assert all(one.low < one.mean < one.high for one in figures)
    head = evaluation.to_dict()["heads"]["reward"]
    assert head["recall"]["2"] == {
        "mean": displays.recall[2].mean,
        "ci": [displays.recall[2].low, displays.recall[2].high],
    }
    assert head["ndcg"]["mean"] == displays.ndcg.mean
    first = read_log(nested_frame(browsing()), clicks="first", name="browsing")
    model.fit(first)
    evaluation = model.evaluate(first, "test")
    head = evaluation.heads["reward"]
    assert head.displays.recall == {}, "of one choice a display it is prec@k"
    assert head.displays.mrr.n_events == head.precision[1].n_events
    assert evaluation.to_dict()["heads"]["reward"]["recall"] is None


def test_a_table_has_them_too(log: SessionLog) -> None:
    cells = compare_logs({"browsing": log}, GridPlan(["click-count"], 1)).cells
    model = ClickCountFloor()
    model.fit(log)
    displays = model.evaluate(log, "test").heads["reward"].displays
    for cell in cells:
        recall = displays.recall[cell["k"]]
        assert (cell["recall"], cell["recall_ci"]) == (recall.mean, [recall.low, recall.high])
        assert (cell["mrr"], cell["ndcg"]) == (displays.mrr.mean, displays.ndcg.mean)
        assert cell["auc_ci"] == [displays.auc.low, displays.auc.high]


def test_predictions_tell_the_events_of_a_display_apart(log: SessionLog) -> None:
    model = ClickCountFloor()
    model.fit(log)
    frame = model.predict(log, "test")
    events = frame.group_by("session", "event", CLICKS_SO_FAR, maintain_order=True)
    sums = events.agg(pl.col("probability").sum() + pl.col("no_click_probability").first())
    assert sums.height == log.count("events", "test")
    np.testing.assert_allclose(sums["probability"], 1, rtol=1e-5)
    assert CLICKS_SO_FAR in model.sample(log, "test", head="reward").columns
