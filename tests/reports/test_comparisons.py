"""Who is compared with whom, and when a figure may be bold."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.metrics.intervals import paired_difference
from fastgaum.reports.reproduce import compare_rows
from tests.reports.made_up import events_of, row

USERS = list(range(40))
EVENTS = events_of([USERS])
GOOD, BAD = np.full(40, 100.0), np.zeros(40)
HALF = np.where(np.arange(40) % 2, 100.0, 0.0)


def test_the_best_is_compared_with_the_runner_up_and_others_with_the_best() -> None:
    parts, column = compare_rows(
        [*row("logit", HALF), *row("dfm", GOOD), *row("iknn", BAD)], EVENTS, 1
    )
    assert [part["vs_best_other"]["model"] for part in parts] == ["dfm", "logit", "dfm"]
    assert [part["vs_best_other"]["diff"] for part in parts] == [-50, 50, -100]
    assert [part["bold"] for part in parts] == [False, True, False]
    assert (column["best"]["model"], column["best"]["bold"], column["ours"]) == ("dfm", True, None)
    expected = paired_difference(GOOD, HALF, np.array(USERS))
    assert parts[1]["vs_best_other"]["ci"] == [expected.low, expected.high]


def test_the_interval_must_exclude_zero() -> None:
    """One event in forty better is no more than chance."""
    better = HALF.copy()
    better[0] = 100.0
    parts, _ = compare_rows([*row("logit", HALF), *row("dfm", better)], EVENTS, 1)
    assert parts[1]["vs_best_other"]["diff"] == pytest.approx(2.5)
    assert parts[1]["vs_best_other"]["ci"][0] <= 0
    assert not any(part["bold"] for part in parts)


def test_equal_rows_are_not_bold() -> None:
    assert not any(
        part["bold"] for part in compare_rows([*row("a", GOOD), *row("b", GOOD)], EVENTS, 1)[0]
    )


def test_the_best_must_be_ahead_of_the_third_too() -> None:
    """The runner-up errs where the best does, the third elsewhere: its interval is wide."""
    best = np.where(np.arange(40) < 24, 100.0, 0.0)
    second = np.where((np.arange(40) < 24) & (np.arange(40) % 4 > 0), 100.0, 0.0)
    third = np.where(np.arange(40) >= 23, 100.0, 0.0)
    parts, _ = compare_rows([*row("a", best), *row("b", second), *row("c", third)], EVENTS, 1)
    assert parts[0]["vs_best_other"]["model"] == "b"
    assert parts[0]["vs_best_other"]["ci"][0] > 0
    assert not parts[0]["bold"]


def test_floors_are_never_bold() -> None:
    parts, column = compare_rows([*row("click-rate", GOOD), *row("logit", BAD)], EVENTS, 1)
    assert parts[0]["vs_best_other"]["ci"] == [100, 100]
    assert not any(part["bold"] for part in parts)
    assert column["best"]["model"] == "click-rate"


def test_the_other_head_of_a_model_is_no_rival_and_other_presets_are() -> None:
    heads = ("reward", "generator")
    parts, column = compare_rows(
        [*row("fastgaum", GOOD, heads), *row("large", HALF), *row("logit", BAD)], EVENTS, 1
    )
    assert [part["vs_best_other"]["model"] for part in parts] == [
        "large",
        "large",
        "fastgaum",
        "fastgaum",
    ]
    assert parts[2]["vs_best_other"]["head"] == "reward"
    assert column["ours"]["vs_best_other"] == parts[0]["vs_best_other"]
    assert (column["ours"]["model"], column["ours"]["head"], column["ours"]["mean"]) == (
        "fastgaum",
        "reward",
        100,
    )
    assert [part["bold"] for part in parts] == [True, False, False, False]


def test_a_model_alone() -> None:
    parts, column = compare_rows(row("fastgaum", GOOD, ("reward", "generator")), EVENTS, 1)
    assert all(part == {"vs_best_other": None, "bold": False} for part in parts)
    assert column["ours"]["vs_best_other"] is None


def test_a_log_without_choices_has_no_best() -> None:
    nothing = np.full(40, np.nan)
    parts, _ = compare_rows([*row("a", nothing), *row("b", nothing)], EVENTS, 1)
    assert not any(part["bold"] for part in parts)
