from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.baselines.floors import (
    FLOORS,
    FewestTrainDisplays,
    RandomFloor,
    TrainClickCount,
    TrainClickRate,
    candidates_of,
    floor_table,
)
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_frame, read_log
from fastgaum.metrics.precision import random_floor


def small_log() -> SessionLog:
    """Train: a is shown 3 times, chosen 2; b shown 2, chosen 1; c shown 1, chosen 0. Test shows a,
    b, c and new."""
    return read_frame(
        pl.DataFrame(
            {
                "session": ["t"] * 7 + ["u"] * 6,
                "event": [0, 0, 1, 1, 2, 2, 3, 0, 0, 0, 0, 1, 1],
                "item": ["a", "b", "a", "c", "a", "b", "z", "a", "b", "c", "new", "b", "c"],
                "chosen": [1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0],
                "split": [0] * 7 + [2] * 6,
            }
        )
    )


@pytest.mark.parametrize(
    ("floor", "expected"),
    [
        (RandomFloor(), [0, 0, 0, 0, 0, 0]),
        (TrainClickRate(), [2.3 / 4, 1.3 / 3, 0.3 / 2, 0.3 / 1, 1.3 / 3, 0.3 / 2]),
        (TrainClickCount(), [2, 1, 0, 0, 1, 0]),
        (FewestTrainDisplays(), [-3, -2, -1, 0, -2, -1]),
    ],
)
def test_scores_count_the_train_split_only(floor: TrainClickRate, expected: list[float]) -> None:
    log = small_log()
    scores = floor.fit(log).scores(log, log.sessions_in("test"))
    np.testing.assert_allclose(scores, expected)


def test_equal_rates_tie_exactly() -> None:
    rate = TrainClickRate()
    # 0.3 / 1, 3.3 / 11 and 30.3 / 101 are equal, and must be in floats too.
    displays, choices = np.array([0, 10, 100]), np.array([0, 3, 30])
    assert len(set(rate._score(displays, choices).tolist())) == 1


def test_scores_follow_the_sessions_that_are_asked_for() -> None:
    log = small_log()
    floor = TrainClickCount().fit(log)
    rows = np.array([1, 0], dtype=np.int32)
    apart = [floor.scores(log, np.array([row], dtype=np.int32)) for row in rows]
    np.testing.assert_array_equal(floor.scores(log, rows), np.concatenate(apart))
    assert len(candidates_of(log, rows)[0]) == log.n_candidates


def test_another_log_is_matched_by_item_id() -> None:
    other = read_frame(
        pl.DataFrame(
            {
                "session": [1, 1, 1],
                "event": [0, 0, 0],
                "item": ["0new", "b", "a"],
                "chosen": [0, 0, 1],
            }
        )
    )
    scores = TrainClickCount().fit(small_log()).scores(other, other.sessions_in("all"))
    assert dict(zip(other.item_ids.gather(other.items), scores, strict=True)) == {
        "0new": 0,
        "b": 1,
        "a": 2,
    }


def test_the_table_has_every_floor_and_random_is_exact() -> None:
    log = small_log()
    table = floor_table(log, ks=(1, 2, 3))
    assert list(table) == [make().name for make in FLOORS]
    offsets, choices = np.array([0, 4, 6]), np.array([3, 0])
    for k in (1, 2, 3):
        assert table["random"][k] == pytest.approx(100 * random_floor(offsets, choices, k).value)
    # Event 0 chose `new`, which counts put last with c (b = 2, t = 1); event 1 chose b over c.
    assert table["train click count"] == pytest.approx({1: 50.0, 2: 50.0, 3: 75.0})


def test_an_empty_split_has_no_floor() -> None:
    assert np.isnan(floor_table(small_log(), "validation")["random"][1])


# The floors of protocol.md, test split, prec@1/@2 in percent: random, click rate, click count,
# fewest displays.
PUBLISHED = {
    "yelp.txt": [(39.7, 63.6), (62.8, 83.4), (52.9, 70.3), (67.2, 89.0)],
    "rsc.txt": [(49.0, 72.1), (49.9, 73.7), (51.3, 75.2), (48.4, 71.4)],
    "tb.txt": [(29.4, 48.5), (27.7, 46.1), (29.1, 48.3), (29.0, 48.2)],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_released_files_have_the_published_floors(
    name: str, shared_data: Callable[[str], Path]
) -> None:
    table = floor_table(read_log(shared_data(name)))
    for row, expected in zip(table.values(), PUBLISHED[name], strict=True):
        assert (row[1], row[2]) == pytest.approx(expected, abs=0.06)
