"""The context of events as networks read it: ids, standardised numbers, and whether a candidate is
the item that the context holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastgaum.errors import FeatureMismatchError, LogFormatError
from fastgaum.features.encoder import N_RESERVED, Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import SessionLog
from fastgaum.models.space_state import saved_space, space_of
from tests.builders import permuted_within_sets, put, values_of
from tests.logs.test_context import navigation


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Half of the items are displayed in no training session: 2 of 3 sessions are not training."""
    return navigation(60, n_items=120)


def all_sessions(log: SessionLog) -> np.ndarray:
    return np.arange(log.n_sessions, dtype=np.int32)


def test_ids_of_the_context(log: SessionLog) -> None:
    """A field that holds items has the items' ids; another's follow the candidates'."""
    space = fit_space(log)
    assert [part.name for part in space.context] == ["kind", "page", "target"]
    assert space.context_holds == {
        "hour": "numbers",
        "kind": "categories",
        "page": "items",
        "target": "items",
    }
    items, kind = space.categorical[0], space.context[0]
    assert kind.start == space.categorical[-1].stop
    assert space.n_ids == kind.stop == len(space.unknown_of_id)
    assert set(space.unknown_of_id[kind.start :].tolist()) == {kind.start}
    encoded = Encoder(space, log).encode(all_sessions(log))
    row_of = {value: row for row, value in enumerate(items.values)}
    seen = {value: row for row, value in enumerate(kind.values)}
    train = np.repeat(log.split == 0, np.diff(log.session_offsets))
    assert set(seen) == {f"i{code}" for code in log.columns["kind"].values[train]}
    unknown = 0
    for event in range(log.n_events):
        kind_id, page, target = encoded.context_ids[event].tolist()
        values = {
            name: log.columns[name].categories[int(log.columns[name].values[event])]
            for name in ("kind", "page", "target")
        }
        assert kind_id == kind.start + 1 + seen.get(values["kind"], -1)
        assert page == row_of.get(values["page"], -1) + N_RESERVED
        assert target == row_of.get(values["target"], -1) + N_RESERVED
        unknown += target == items.start
    assert unknown > 0


def test_numbers_of_the_context_are_standardised(log: SessionLog) -> None:
    space = fit_space(log)
    assert space.context_number_names == ("hour",)
    train = log.columns["hour"].values[np.repeat(log.split == 0, np.diff(log.session_offsets))]
    np.testing.assert_allclose(space.context_code.start, train.mean(), rtol=1e-6)
    np.testing.assert_allclose(space.context_code.scale, train.std(), rtol=1e-6)
    numbers = Encoder(space, log).encode(all_sessions(log)).context_numbers
    np.testing.assert_allclose(
        numbers[:, 0], (log.columns["hour"].values - train.mean()) / train.std(), rtol=1e-5
    )
    same = np.full(log.n_events, 3, np.float32)
    constant = fit_space(put(log, event={"hour": same}))
    assert constant.context_code.scale.tolist() == [1.0]


def test_a_number_that_is_too_large_names_its_event(log: SessionLog) -> None:
    hour = log.columns["hour"].values.copy()
    event = int(log.session_offsets[7])
    hour[event] = 1e31
    broken = put(log, event={**values_of(log, "event"), "hour": hour})
    with pytest.raises(
        LogFormatError, match=f"event '{event}' of session 's7' has 1e.31 in 'hour'"
    ):
        Encoder(fit_space(log), broken).encode(all_sessions(broken))


def test_a_candidate_is_the_item_of_the_context(log: SessionLog) -> None:
    """By the item itself: of two items that training never displayed none is the other."""
    assert fit_space(log, "identity").number_names == ()
    space = fit_space(log)
    names = [name for name in space.number_names if name.startswith("same_as_")]
    assert names == ["same_as_page", "same_as_target"]
    assert space.n_numbers == 2 * len(space.number_names) - len(names) - 2, "it has no copy"
    encoder = Encoder(space, log)
    numbers = encoder.encode(all_sessions(log)).numbers * space.code.scale + space.code.start
    event = log.event_of_candidate()
    for name in names:
        values = log.columns[name.removeprefix("same_as_")].values[event]
        found = numbers[:, space.number_names.index(name)]
        np.testing.assert_allclose(found, log.items == values, atol=1e-5)
        assert 0 < found.sum() < log.n_candidates


def test_the_order_of_candidates_changes_no_context(log: SessionLog) -> None:
    permuted, order = permuted_within_sets(log)
    ours, theirs = (
        Encoder(fit_space(one), one).encode(all_sessions(one)) for one in (log, permuted)
    )
    np.testing.assert_array_equal(ours.context_ids, theirs.context_ids)
    np.testing.assert_allclose(ours.numbers[order], theirs.numbers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: {k: v for k, v in f.items() if k != "page"}, r"trained on context fields \['h"),
        (lambda f: {**f, "hours": f["hour"]}, "declare the same context fields"),
        (lambda f: {**f, "page": f["hour"]}, "'page' holds categories in the training log"),
        (lambda f: {**f, "hour": f["page"]}, "'hour' holds numbers in the training log"),
    ],
)
def test_another_log_has_the_same_context(
    log: SessionLog, change: Callable[[dict[str, Any]], dict[str, Any]], says: str
) -> None:
    fields = change(values_of(log, "event"))
    categories = {
        name: log.columns["page" if name == "hour" else name].categories
        for name, values in fields.items()
        if values.dtype == np.int32
    }
    other = put(log, event=fields, categories=categories)
    with pytest.raises(FeatureMismatchError, match=says):
        Encoder(fit_space(log), other)


@pytest.mark.parametrize("name", ["position", "event_number", "same_as_page"])
def test_names_of_the_space_are_taken(log: SessionLog, name: str) -> None:
    hour = log.columns["hour"].values
    for fields in (
        {"event": {**values_of(log, "event"), name: hour}},
        {"item": {name: np.zeros(log.n_items, np.float32)}},
    ):
        with pytest.raises(LogFormatError, match=f"field name '{name}' is one of the built-in"):
            fit_space(put(log, **fields))


def test_a_saved_space_has_its_context(log: SessionLog) -> None:
    space = fit_space(log)
    loaded = space_of(saved_space(space))
    assert loaded.context_holds == space.context_holds
    assert loaded.n_ids == space.n_ids
    ours, theirs = (Encoder(one, log).encode(all_sessions(log)) for one in (space, loaded))
    for name in ("ids", "numbers", "context_ids", "context_numbers"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def with_field(space: FeatureSpace, number: int, **changes: Any) -> FeatureSpace:
    context = list(space.context)
    context[number] = dataclasses.replace(context[number], **changes)
    return dataclasses.replace(space, context=tuple(context))


def with_pair(space: FeatureSpace, **values: int) -> FeatureSpace:
    """Other values of one pair of the first table."""
    table, *others = space.crossed
    changed = {name: getattr(table, name).copy() for name in values}
    for name, value in values.items():
        changed[name][1] = value
    return dataclasses.replace(space, crossed=(table._replace(**changed), *others))


def with_numbers(space: FeatureSpace, *changes: str) -> FeatureSpace:
    names = [name.replace(*changes) for name in space.number_names]
    return dataclasses.replace(space, number_names=tuple(names))


DAMAGES: dict[str, tuple[Callable[[FeatureSpace], FeatureSpace], str]] = {
    "ids among the candidates'": (
        lambda space: with_field(space, 0, start=5),
        "ids of field 'kind' start at 5",
    ),
    "items elsewhere": (
        lambda space: with_field(space, 1, start=2),
        "ids of field 'page' start at 2, 1 is required",
    ),
    "a candidate's source": (
        lambda space: with_field(space, 0, source="item"),
        "a context field has an unknown source",
    ),
    "twice": (lambda space: with_field(space, 2, name="page"), "a context field is given twice"),
    "two means": (
        lambda space: dataclasses.replace(
            space,
            context_code=dataclasses.replace(space.context_code, start=np.zeros(2, np.float32)),
        ),
        r"space.context_code.start has the shape \(2,\), \(1,\) is required",
    ),
    "another same_as": (
        lambda space: with_numbers(space, "same_as_page", "same_as_kind"),
        "'same_as_kind' is not a number that this version makes",
    ),
    "no counts of pairs": (
        lambda space: dataclasses.replace(space, crossed=()),
        "the numbers of the context are not those of its fields",
    ),
    "a row that is no item": (lambda space: with_pair(space, items=10_000), "a table of context"),
    "a pair that was never displayed": (
        lambda space: with_pair(space, displays=0, choices=0),
        "a table of context",
    ),
    "a pair twice": (
        lambda space: with_pair(space, items=int(space.crossed[0].items[0])),
        "a table of context",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_context_is_refused(log: SessionLog, damage: str) -> None:
    change, says = DAMAGES[damage]
    with pytest.raises(ValueError, match=says):
        space_of(saved_space(change(fit_space(log))))
