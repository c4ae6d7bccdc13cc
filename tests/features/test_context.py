"""The context of events as networks read it: ids, standardised numbers, and whether a candidate is
the item that the context holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.checkpoint import save_state
from fastgaum.errors import CheckpointError, FeatureMismatchError, LogFormatError
from fastgaum.features.batches import assemble
from fastgaum.features.encoder import N_RESERVED
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.candidate_formulas import context_numbers
from fastgaum.logs.log import SessionLog
from fastgaum.models.model_file import MODEL_FORMAT, load_model_state, model_state, space_in
from tests.builders import change_state, permuted_within_sets, put, values_of
from tests.logs.test_context import navigation


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Half of the items are displayed in no training session: 2 of 3 sessions are not training."""
    return navigation(60, n_items=120)


def all_sessions(log: SessionLog) -> np.ndarray:
    return np.arange(log.n_sessions, dtype=np.int32)


@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_ids_of_the_context(log: SessionLog, protocol: str) -> None:
    """A field that holds items has the items' ids; another's follow the candidates'."""
    space = FeatureSpace.fit(log, protocol)
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
    encoded = space.encode(log, all_sessions(log))
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
    space = FeatureSpace.fit(log)
    assert space.context_number_names == ("hour",)
    train = log.columns["hour"].values[np.repeat(log.split == 0, np.diff(log.session_offsets))]
    np.testing.assert_allclose(space.context_mean, train.mean(), rtol=1e-6)
    np.testing.assert_allclose(space.context_scale, train.std(), rtol=1e-6)
    numbers = space.encode(log, all_sessions(log)).context_numbers
    np.testing.assert_allclose(
        numbers[:, 0], (log.columns["hour"].values - train.mean()) / train.std(), rtol=1e-5
    )
    same = np.full(log.n_events, 3, np.float32)
    constant = FeatureSpace.fit(put(log, event={"hour": same}))
    assert constant.context_scale.tolist() == [1.0]


def test_a_number_that_is_too_large_names_its_event(log: SessionLog) -> None:
    hour = log.columns["hour"].values.copy()
    event = int(log.session_offsets[7])
    hour[event] = 1e31
    broken = put(log, event={**values_of(log, "event"), "hour": hour})
    with pytest.raises(
        LogFormatError, match=f"event '{event}' of session 's7' has 1e.31 in 'hour'"
    ):
        FeatureSpace.fit(log).encode(broken, all_sessions(broken))


@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_a_candidate_is_the_item_of_the_context(log: SessionLog, protocol: str) -> None:
    """By the item itself: of two items that training never displayed none is the other."""
    space = FeatureSpace.fit(log, protocol)
    names = [name for name in space.number_names if name.startswith("same_as_")]
    if protocol == "identity":
        assert names == []
        return
    assert names == ["same_as_page", "same_as_target"]
    assert space.n_numbers == 2 * len(space.number_names) - len(names) - 2, "it has no copy"
    encoder = space.encoder(log)
    numbers = encoder.encode(all_sessions(log)).numbers * space.scale + space.mean
    event = log.event_of_candidate()
    for name in names:
        values = log.columns[name.removeprefix("same_as_")].values[event]
        found = numbers[:, space.number_names.index(name)]
        np.testing.assert_allclose(found, log.items == values, atol=1e-5)
        assert 0 < found.sum() < log.n_candidates


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_kernel_writes_one_for_the_same_item(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, rng.integers(1, 5))
    n_fields = int(rng.integers(1, 4))
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    items = rng.integers(0, 4, offsets[-1]).astype(np.int32)
    of_context = rng.integers(-1, 4, (len(sizes), n_fields)).astype(np.int32)
    columns = rng.permutation(n_fields + 1)[:n_fields]
    out = np.full((len(items), n_fields + 1), 7, np.float32)
    context_numbers(offsets, items, of_context, columns, out)
    expected = np.full_like(out, 7)
    for event, (first, last) in enumerate(itertools.pairwise(offsets)):
        for field, column in enumerate(columns):
            expected[first:last, column] = items[first:last] == of_context[event, field]
    np.testing.assert_array_equal(out, expected)


@settings(max_examples=20, deadline=None)
@given(protocol=st.sampled_from(["identity", "bags"]), keep_last=st.booleans(), data=st.data())
def test_batches_carry_the_context_of_their_events(
    protocol: str, keep_last: bool, data: st.DataObject
) -> None:
    log = navigation(30, n_items=60)
    encoder = FeatureSpace.fit(log, protocol, set_context=False).encoder(log)
    rows = np.random.default_rng(1).permutation(log.n_sessions)[:20].astype(np.int32)
    sessions = np.array(data.draw(st.lists(st.integers(0, 19), max_size=9)), np.int32)
    encoded, read = encoder.encode(rows), encoder.for_training(rows)
    ours, theirs = (assemble(part, sessions, keep_last) for part in (read, encoded))
    whole = encoder.encode(all_sessions(log))
    events = [
        event
        for row in rows[sessions]
        for event in range(log.session_offsets[row], log.session_offsets[row + 1])
    ]
    for name in ("context_ids", "context_numbers"):
        expected = getattr(whole, name)[events]
        for batch in (ours, theirs):
            value = getattr(batch, name)
            np.testing.assert_array_equal(value, expected)
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape)


def test_the_order_of_candidates_changes_no_context(log: SessionLog) -> None:
    permuted, order = permuted_within_sets(log)
    ours, theirs = (FeatureSpace.fit(one).encode(one, all_sessions(one)) for one in (log, permuted))
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
        FeatureSpace.fit(log).encoder(other)


@pytest.mark.parametrize("name", ["position", "event_number", "same_as_page"])
def test_names_of_the_space_are_taken(log: SessionLog, name: str) -> None:
    hour = log.columns["hour"].values
    for fields in (
        {"event": {**values_of(log, "event"), name: hour}},
        {"item": {name: np.zeros(log.n_items, np.float32)}},
    ):
        with pytest.raises(LogFormatError, match=f"field name '{name}' is one of the built-in"):
            FeatureSpace.fit(put(log, **fields))


def saved(space: FeatureSpace, folder: Path) -> Path:
    path = folder / "m.safetensors"
    save_state(path, MODEL_FORMAT, model_state(space, False, {}))
    return path


def test_a_saved_space_has_its_context(log: SessionLog, tmp_path: Path) -> None:
    space = FeatureSpace.fit(log)
    _, state = load_model_state(saved(space, tmp_path))
    loaded = space_in(state)
    assert loaded.context_holds == space.context_holds
    assert loaded.n_ids == space.n_ids
    ours, theirs = (one.encode(log, all_sessions(log)) for one in (space, loaded))
    for name in ("ids", "numbers", "context_ids", "context_numbers"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def field(number: int, **changes: Any) -> Callable[[Any, Any], Any]:
    return lambda about, _: about["state"]["space"]["base"]["context"][number].update(changes)


DAMAGES: dict[str, tuple[Callable[[Any, dict[str, np.ndarray]], Any], str]] = {
    "ids among the candidates'": (field(0, start=5), "ids of field 'kind' start at 5"),
    "items elsewhere": (field(1, start=2), "ids of field 'page' start at 2, 1 is required"),
    "a candidate's source": (field(0, source="item"), "a context field has an unknown source"),
    "items of its own": (field(0, source="context_item"), "ids of field 'kind' start at"),
    "twice": (field(2, name="page"), "a context field is given twice"),
    "nothing": (lambda about, _: about["state"]["space"]["base"].pop("context"), "context"),
    "no scale": (
        lambda _, arrays: arrays.update({"space/base/context_scale": np.zeros(1, np.float32)}),
        "space.context_scale holds a number that is not positive",
    ),
    "two means": (
        lambda _, arrays: arrays.update({"space/base/context_mean": np.zeros(2, np.float32)}),
        r"space.context_mean has the shape \(2,\), \(1,\) is required",
    ),
    "another same_as": (
        lambda about, _: rename(about["state"]["space"]["base"]["number_names"], "same_as_kind"),
        "'same_as_kind' is not a number that this version makes",
    ),
    "no counts of pairs": (
        lambda about, arrays: without_pairs(about["state"]["space"], arrays),
        "the numbers of the context are not those of its fields",
    ),
    "a row that is no item": (
        lambda _, arrays: arrays["space/crossed/0/items"].__setitem__(0, 10_000),
        "a table of context and items does not fit its fields",
    ),
    "a pair that was never displayed": (
        lambda _, arrays: [
            arrays[f"space/crossed/0/{name}"].__setitem__(0, 0) for name in ("displays", "choices")
        ],
        "a table of context and items does not fit its fields",
    ),
    "a pair twice": (
        lambda _, arrays: arrays["space/crossed/0/items"].__setitem__(
            1, arrays["space/crossed/0/items"][0]
        ),
        "a table of context and items does not fit its fields",
    ),
}


def without_pairs(space: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Leave the counts of pairs out."""
    space["crossed"] = []
    for name in [name for name in arrays if name.startswith("space/crossed")]:
        del arrays[name]


def rename(names: list[str], other: str) -> None:
    """Give the first `same_as_` number another name: as many numbers vary within a display set."""
    names[next(at for at, name in enumerate(names) if name.startswith("same_as_"))] = other


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_context_is_refused(log: SessionLog, tmp_path: Path, damage: str) -> None:
    change, says = DAMAGES[damage]
    path = saved(FeatureSpace.fit(log), tmp_path)
    change_state(path, change)
    with pytest.raises((CheckpointError, ValueError), match=says):
        space_in(load_model_state(path)[1])


def test_a_log_without_context_has_none() -> None:
    log = put(navigation(20), event={}, categories={})
    space = FeatureSpace.fit(log)
    assert (space.context, space.context_holds) == ((), {})
    assert space.n_ids == space.categorical[-1].stop
    encoded = space.encode(log, all_sessions(log))
    assert encoded.context_ids.shape == encoded.context_numbers.shape == (log.n_events, 0)
    assert pl.Series(space.number_names).str.starts_with("same_as_").sum() == 0
