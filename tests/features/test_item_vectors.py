"""Vectors of items under a feature space: standardised over the training items, once for each item
of a batch; or their principal components, as numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import FeatureMismatchError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import SessionLog
from fastgaum.logs.splits import resplit
from fastgaum.models.space_state import saved_space, space_of
from fastgaum.nets.batches import assemble
from tests.builders import put, random_log, with_vectors
from tests.logs.test_context import navigation


def standardised(log: SessionLog, space: FeatureSpace) -> np.ndarray:
    """By the training items, which the space knows, each counted once."""
    trained = log.item_ids.is_in(space.categorical[0].values.implode()).to_numpy()
    raw = np.concatenate([log.columns["image"].values, log.columns["text"].values], 1)
    raw = raw.astype(np.float64)
    return np.asarray((raw - raw[trained].mean(0)) / raw[trained].std(0))


def log_of_kind(seed: int, context: bool, more: int) -> SessionLog:
    """With items that nobody was shown, or none."""
    log = navigation(12, n_items=20, seed=seed) if context else random_log(seed, 20, no_click=0.3)
    new = pl.Series([f"new {i}" for i in range(more)], dtype=pl.String)
    return with_vectors(dataclasses.replace(log, item_ids=pl.concat([log.item_ids, new])), seed)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 30),
    context=st.booleans(),
    foreign=st.booleans(),
    data=st.data(),
)
def test_each_bag_has_its_item_s_vector(
    seed: int, context: bool, foreign: bool, data: st.DataObject
) -> None:
    log = log_of_kind(seed, context, more=3)
    space = fit_space(log, "identity", relative_numbers=False, towers=True)
    read = resplit(log, seed + 1) if foreign else log
    rows = np.random.default_rng(seed).permutation(read.n_sessions)[:8].astype(np.int32)
    encoder = Encoder(space, read)
    encoded = encoder.encode(rows)
    sessions = np.array(data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=9)), np.int32)
    batch = assemble(encoded, sessions)
    found = [bags.vectors for bags in (batch.candidates, batch.tokens, batch.context)]
    candidates, tokens, of_context = (one.rows.numpy() for one in found if one is not None)
    assert found[0] is not None
    values = found[0].values.numpy()
    expected = standardised(log, space)

    def check(found: np.ndarray, items: list[int]) -> None:
        wanted = [np.full(6, np.nan) if item < 0 else expected[item] for item in items]
        with_none = np.concatenate([values, np.full((1, 6), np.nan)])
        np.testing.assert_allclose(with_none[found], np.array(wanted).reshape(-1, 6), atol=1e-4)

    shown, chosen, pages = [], [], []
    for session in rows[sessions]:
        for event in range(*read.session_offsets[session : session + 2].tolist()):
            items = read.items[slice(*read.display_offsets[event : event + 2].tolist())].tolist()
            shown += items
            chosen.append(items[read.choices[event]] if read.choices[event] >= 0 else -1)
            for part in space.context:
                held = part.source == "context_item"
                pages.append(read.columns[part.name].values[event] if held else -1)
        # the last choice of a session is behind none of its events
        chosen = chosen[:-1]
    check(candidates, shown)
    check(tokens, chosen)
    check(of_context.reshape(-1), pages)
    assert len(np.unique(values.round(5), axis=0)) == len(values), "each item's once"


def test_components_are_those_of_the_training_items() -> None:
    """Of the correlation matrix: numpy's own decomposition, up to the sign of an axis."""
    log = log_of_kind(3, False, more=2)
    space = fit_space(log, "identity", relative_numbers=False)
    names = [f"vector_component_{i}" for i in range(1, 7)]
    assert list(space.number_names) == names
    trained = log.item_ids.is_in(space.categorical[0].values.implode()).to_numpy()
    x = standardised(log, space)
    _, _, axes = np.linalg.svd(x[trained], full_matrices=False)
    components = (x @ axes.T)[log.items]
    train = np.isin(log.session_of_event[log.event_of_candidate()], log.sessions_in("train"))
    expected = (components - components[train].mean(0)) / components[train].std(0)
    found = Encoder(space, log).encode(log.sessions_in("all"))
    assert found.vectors is None
    np.testing.assert_allclose(np.abs(found.numbers), np.abs(expected), atol=2e-3)
    largest = np.abs(space.vectors.axes).argmax(0)
    assert (space.vectors.axes[largest, np.arange(6)] > 0).all()


def test_components_that_are_rounding_stay_so() -> None:
    """Vectors of rank 2, in a small unit that changes nothing."""
    log, rng = random_log(3), np.random.default_rng(0)
    flat = rng.normal(size=(log.n_items, 2)) @ rng.normal(size=(2, 5))
    for unit in (1.0, 1e-9):
        space = fit_space(put(log, vector={"text": (unit * flat).astype(np.float32)}), "identity")
        of_set = space.n_raw - 5
        assert (space.code.scale[[0, 1, of_set, of_set + 1]] > 0.1).all()
        assert (space.code.scale[[2, 3, 4, of_set + 2, of_set + 3, of_set + 4]] == 1).all()


@pytest.mark.parametrize("towers", [True, False])
def test_a_space_is_kept_in_files_and_asks_for_the_same_vectors(towers: bool) -> None:
    log = log_of_kind(1, False, more=0)
    space = fit_space(log, towers=towers)
    again = space_of(saved_space(space))
    for name in ("mean", "scale", "axes"):
        np.testing.assert_array_equal(getattr(again.vectors, name), getattr(space.vectors, name))
    assert again.vectors.widths == (("image", 2), ("text", 4))
    assert again.number_names == space.number_names
    damages: list[dict[str, Any]] = [{"scale": -space.vectors.scale}]
    damages += [{"widths": (("text", 5),)}, {"widths": (("a", 7), ("b", -1))}]
    for damage in damages:
        vectors = dataclasses.replace(space.vectors, **damage)
        with pytest.raises(ValueError, match="vectors"):
            space_of(saved_space(dataclasses.replace(space, vectors=vectors)))
    for vectors, said in (
        ({}, "has none"),
        ({"text": log.columns["image"].values}, "text of 2 num"),
    ):
        other = put(log, vector=vectors)
        with pytest.raises(FeatureMismatchError, match=f"image of 2 numbers, text of 4.*{said}"):
            Encoder(space, other)


def test_a_field_may_not_be_called_as_a_component() -> None:
    price = np.zeros(12, np.float32)
    log = log_of_kind(1, False, more=0)
    log = put(log, item={"vector_component_2": price[: log.n_items]})
    with pytest.raises(LogFormatError, match="'vector_component_2' is one of the built-in fields"):
        fit_space(log)
