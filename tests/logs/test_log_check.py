"""A log is checked where it is made: kernels index memory by its arrays. No array of it can be
changed afterwards, so its fingerprint stays true."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs.log import Column, SessionLog
from tests.builders import put, random_log, with_drawn_actions, with_fields, with_vectors


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """A log with all that a log may have: fields of each kind, vectors, actions, view counts."""
    made = with_fields(with_vectors(with_drawn_actions(random_log(1, n_sessions=6))))
    return put(
        made,
        event={"hour": np.arange(made.n_events, dtype=np.float32)},
        user={"land": np.zeros(made.n_sessions, np.int32)},
        categories={"land": pl.Series(["be"])},
    )


def changed(name: str, value: float, at: int = 0) -> Callable[[SessionLog], dict[str, Any]]:
    """The array of that name with one number changed."""

    def change(log: SessionLog) -> dict[str, Any]:
        values = getattr(log, name).copy()
        values[at] = value
        return {name: values}

    return change


def changed_column(name: str, value: float) -> Callable[[SessionLog], dict[str, Any]]:
    def change(log: SessionLog) -> dict[str, Any]:
        values = log.columns[name].values.copy()
        values[1] = value
        return {"columns": {**log.columns, name: log.columns[name].with_values(values)}}

    return change


def put_action(name: str, value: int) -> Callable[[SessionLog], dict[str, Any]]:
    def change(log: SessionLog) -> dict[str, Any]:
        assert log.actions is not None
        values = getattr(log.actions, name).copy()
        values[-1] = value
        return {"actions": replace(log.actions, **{name: values})}

    return change


def shorter(name: str) -> Callable[[SessionLog], dict[str, Any]]:
    return lambda log: {name: getattr(log, name)[:-1]}


ROWS: dict[str, tuple[Callable[[SessionLog], dict[str, Any]], str]] = {
    "item beyond": (changed("items", 10**6, 3), r"items holds 1000000 at 3, codes from 0 to 14"),
    "items of another type": (lambda log: {"items": log.items.astype(np.float64)}, "is float64"),
    "items a list": (lambda log: {"items": log.items.tolist()}, "items is a list"),
    "items too short": (shorter("items"), "display_offsets ends with"),
    "item below": (changed("items", -1), "items holds -1 at 0"),
    "user below": (changed("users", -1), "users holds -1"),
    "unknown split": (changed("split", 7), "split holds 7"),
    "choice below": (changed("choices", -2), "choices holds -2 at 0"),
    "choice beyond": (changed("choices", 10**4), "choices holds 10000"),
    "choices too short": (shorter("choices"), "choices has"),
    "offset not 0": (changed("display_offsets", 1), "display_offsets begins with"),
    "offset falls": (changed("session_offsets", -5, 1), "session_offsets holds -5 at 1"),
    "empty display": (lambda log: changed("display_offsets", 0, 1)(log), "display_offsets holds 0"),
    "sessions end late": (shorter("session_offsets"), "session_offsets ends with"),
    "users": (shorter("users"), "users has 5"),
    "session ids": (shorter("session_ids"), "session_ids has 5"),
    "event ids": (shorter("event_ids"), "event_ids has"),
    "no view": (changed("views", 0), "views holds 0 at 0"),
    "category beyond": (changed_column("shelf", 9), "candidate.shelf holds 9 at 1"),
    "category of a user": (changed_column("land", -2), "user.land holds -2 at 1"),
    "not a number": (changed_column("hour", np.nan), "event.hour holds nan at 1"),
    "infinite": (changed_column("size", np.inf), "item.size holds inf at 1"),
    "codes without texts": (
        lambda log: {"columns": {"shelf": replace(log.columns["shelf"], texts=None)}},
        "holds codes, and has no texts",
    ),
    "field too short": (
        lambda log: {"columns": {"hour": Column("event", np.zeros(2, np.float32))}},
        "event.hour has 2 entries",
    ),
    "vector": (changed_column("text", np.nan), "item.text holds nan at 4"),
    "acted item beyond": (put_action("items", 77), "actions.items holds 77"),
    "kind of action": (put_action("kinds", 3), "actions.kinds holds 3"),
    "actions' end": (put_action("offsets", 10**6), "actions.offsets ends with 1000000"),
}


@pytest.mark.parametrize("row", ROWS)
def test_arrays_that_disagree_are_refused(row: str, log: SessionLog) -> None:
    change, says = ROWS[row]
    with pytest.raises(LogFormatError, match=f"log 'log': .*{says}"):
        replace(log, **change(log))


def test_no_array_of_a_log_can_be_changed(log: SessionLog) -> None:
    """Nor of a copy, or of one that was pickled. What the log was made of is the caller's."""
    given = log.items.copy()
    made = replace(log, items=given)
    for one in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert one.fingerprint == log.fingerprint
        assert one.actions is not None
        fields = (one.columns["price"].values, one.columns["text"].values, one.actions.items)
        for array in (one.items, one.choices, one.session_offsets, one.split, *fields):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
    given[0] = given[0]
    with pytest.raises(AttributeError):
        made.items = given  # type: ignore[misc]


def test_a_log_without_a_session_is_one() -> None:
    empty = SessionLog.empty(pl.Series(["a"]))
    assert (empty.n_sessions, empty.n_events, empty.n_candidates) == (0, 0, 0)
