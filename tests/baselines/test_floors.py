from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.baselines.floors import click_rate, floor_table, floors_of
from fastgaum.baselines.registry import make_model
from fastgaum.features.sessions import select_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.logs.synthetic import synthesise
from tests.builders import put
from tests.logs.test_context import navigation


def small_log(**options: object) -> SessionLog:
    """Train: a is shown 3 times, chosen 2; b shown 2, chosen 1; c shown 1, chosen 0. Test shows a,
    b, c and new."""
    frame = pl.DataFrame(
        {
            "session": ["t"] * 7 + ["u"] * 6,
            "event": [0, 0, 1, 1, 2, 2, 3, 0, 0, 0, 0, 1, 1],
            "item": ["a", "b", "a", "c", "a", "b", "z", "a", "b", "c", "new", "b", "c"],
            "chosen": [1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0],
            "split": [0] * 7 + [2] * 6,
            # of the three training choices among several, the cheaper one was chosen twice
            "price": [1.0, 2.0, 3.0, 4.0, 6.0, 5.0, 1.0, 4.0, 3.0, 9.0, 1.0, 2.0, 2.0],
        }
    )
    return read_log(frame, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("random", [0, 0, 0, 0, 0, 0]),
        ("train click rate", [2.3 / 4, 1.3 / 3, 0.3 / 2, 0.3 / 1, 1.3 / 3, 0.3 / 2]),
        ("train click count", [2, 1, 0, 0, 1, 0]),
        ("fewest train displays", [-3, -2, -1, 0, -2, -1]),
        ("first place", [0, -1, -2, -3, 0, -1]),
    ],
)
def test_scores_count_the_train_split_only(name: str, expected: list[float]) -> None:
    log = small_log(ordered=True)
    scores = floors_of(log)[name](select_sessions(log, log.sessions_in("test")))
    np.testing.assert_allclose(scores, expected)


def test_equal_rates_tie_exactly() -> None:
    # 0.3 / 1, 3.3 / 11 and 30.3 / 101 are equal, and must be in floats too.
    displays, choices = np.array([0, 10, 100]), np.array([0, 3, 30])
    assert len(set(click_rate(displays, choices).tolist())) == 1


@pytest.mark.parametrize(("a", "b"), [((1, 1, 1), (3,)), ((1, 6), (3, 4))])
def test_equal_sums_of_weights_tie_exactly(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    n = len(a) + len(b)
    columns = {"item": ["a"] * len(a) + ["b"] * len(b) + ["a", "b"], "chosen": [1] * n + [1, 0]}
    frame = pl.DataFrame({"session": [*range(n), n, n], "times": [*a, *b, 1, 1], **columns})
    frame = frame.with_columns(event=0, split=pl.col("session") // n * 2)
    for name, by_k in floor_table(read_log(frame, weight="times")).items():
        assert by_k[1] == pytest.approx(50), name


def test_a_number_ranks_in_the_direction_of_the_training_choices() -> None:
    log = small_log(candidate_fields=["price"])
    table = floor_table(log)
    # the smallest first: the new item at 1 is chosen; then two of one price
    assert table["price alone"][1] == pytest.approx(100 * (1 + 0.5) / 2)
    train = select_sessions(log, log.sessions_in("train"))
    prices = np.asarray(log.columns["price"].values)[train.candidates]
    np.testing.assert_array_equal(floors_of(log)["price alone"](train), -prices)
    dearer = log.columns["price"].values * np.float32(-1)
    turned = put(log, candidate={"price": dearer})
    assert floor_table(turned)["price alone"] == table["price alone"]


def test_a_log_has_the_floors_that_it_can_have() -> None:
    log = small_log(ordered=True, candidate_fields=["price"])
    counted = ["train click rate", "train click count", "fewest train displays"]
    assert list(floor_table(log)) == ["random", *counted, "first place", "price alone"]
    assert list(floor_table(small_log())) == ["random", *counted]
    untrained = log.with_split(np.full(log.n_sessions, 2, np.int8))
    assert list(floor_table(untrained)) == ["random", "first place"]


def test_random_is_exact_and_ties_are_shared() -> None:
    table = floor_table(small_log())
    # displays of four and of two
    assert table["random"] == pytest.approx({1: 37.5, 2: 75.0})
    # Event 0 chose `new`, which counts put last with c (b = 2, t = 1); event 1 chose b over c.
    assert table["train click count"] == pytest.approx({1: 50.0, 2: 50.0})


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


def test_a_context_that_holds_items_is_a_floor(tmp_path: Path) -> None:
    """The candidate that is the context, where it is displayed; else the click rate."""
    log = navigation(400)
    names = ["page, else click rate", "target, else click rate"]
    floors = floors_of(log)
    assert list(floors)[-2:] == names
    test = select_sessions(log, log.sessions_in("test"))
    rate = floors["train click rate"](test)
    event = np.repeat(test.events, np.diff(test.display_offsets))
    for name in ("page", "target"):
        scores = floors[f"{name}, else click rate"](test)
        same = log.items[test.candidates] == log.columns[name].values[event]
        assert same.any()
        np.testing.assert_array_equal(scores[~same], rate[~same])
        assert scores[same].min() > rate.max()
    table = floor_table(log)
    assert table["target, else click rate"][1] > 2 * table["train click rate"][1]


def test_floors_beside_a_model_count_its_own_training() -> None:
    """On another log the click rate is that of the model that is it; where the split trained the
    model, counts would hold the choices that are asked for."""
    log = synthesise(300, preset="sample", seed=1)[0]
    model = make_model("click-rate")
    model.fit(log)
    shown = log.session_ids.gather(log.sessions_in("test"))
    other = read_log(to_frame(log).filter(pl.col("session").is_in(shown.implode())).drop("split"))
    for split in ("test", "all"):
        floors = floor_table(other, split, space=model.space)
        found = model.evaluate(other, split, allow_seen_users=True).heads["reward"].precision
        assert floors["train click rate"] == {k: pytest.approx(found[k].mean) for k in (1, 2)}
    assert floor_table(log, space=model.space) == floor_table(log)
    for split in ("train", "all"):
        assert list(floor_table(log, split, space=model.space)) == ["random"]
