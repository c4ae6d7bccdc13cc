"""Neighbourhood models: what they share, item kNN and session kNN against the same by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.baselines.neighbours import CascadeSessionKnn, ItemKnn, VectorSessionKnn, _SessionKnn
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space, fit_training
from fastgaum.features.training_order import ONCE
from fastgaum.logs.log import SessionLog
from fastgaum.nets.batches import Batch, assemble
from tests.baselines.contract import co_choice_log, scores_of, short_networks
from tests.builders import random_log

modest = settings(max_examples=8, deadline=None)


def all_sessions(log: SessionLog) -> Batch:
    space = fit_space(log)
    encoded = Encoder(space, log).encode(log.sessions_in("all"))
    return assemble(encoded)


def events_of(log: SessionLog) -> Iterator[tuple[list[int], list[int]]]:
    """The choices before each event, oldest first, and its candidates; items of training, or -1."""
    displayed = Encoder(fit_space(log), log).encode(log.sessions_in("all")).ids[:, 0] - 2
    for start, stop in zip(log.session_offsets[:-1], log.session_offsets[1:], strict=True):
        before: list[int] = []
        for event in range(start, stop):
            first, last = log.display_offsets[event], log.display_offsets[event + 1]
            items = np.where(displayed[first:last] < 0, -1, displayed[first:last]).tolist()
            yield list(before), items
            before += [items[log.choices[event]]] if log.choices[event] >= 0 else []


def chosen_in_training(log: SessionLog, of: np.ndarray) -> list[set[int]]:
    """The items that each user or session of `of` chose, a set each."""
    ids = Encoder(fit_space(log), log).encode(log.sessions_in("all")).ids[:, 0] - 2
    sets: dict[int, set[int]] = {}
    for session in log.sessions_in("train"):
        mine = sets.setdefault(int(of[session]), set())
        for event in range(log.session_offsets[session], log.session_offsets[session + 1]):
            if log.choices[event] >= 0:
                mine.add(int(ids[log.display_offsets[event] + log.choices[event]]))
    return list(sets.values())


@modest
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.8, 1.0]),
    st.sampled_from([0.0, -1.0, 1.0]),
    st.sampled_from([0.0, 20.0]),
    st.integers(1, 6),
)
def test_items_equal_their_twin(
    seed: int, decay: float, repeat: float, shrinkage: float, most: int
) -> None:
    log = random_log(seed, n_sessions=30, n_items=40, no_click=0.3, shared_users=True)
    model = ItemKnn(
        neighbours=most,
        decay=decay,
        repeat=repeat,
        shrinkage=shrinkage,
        popularity="rate",
        popularity_weight=1.0,
        unknown=0.5,
    )
    model.fit(log)
    together = [[0] * 100 for _ in range(100)]
    for chosen in chosen_in_training(log, log.users):
        for i in chosen:
            for j in chosen:
                together[i][j] += 1
    sims: list[dict[int, float]] = []
    for i, row in enumerate(together):
        near = {
            j: n / math.sqrt((row[i] + shrinkage) * (together[j][j] + shrinkage))
            for j, n in enumerate(row)
            if n and j != i
        }
        sims.append({j: near[j] for j in sorted(near, key=lambda j: (-near[j], j))[:most]})
        sims[i][i] = repeat
    expected = [
        sum(
            decay**age * sims[old].get(item, 0.0)
            for age, old in enumerate(reversed(before))
            if old >= 0
        )
        if item >= 0
        else 0.0
        for before, items in events_of(log)
        for item in items
    ]
    np.testing.assert_allclose(model._similar(all_sessions(log), model.chosen), expected, atol=1e-9)


@modest
@given(
    st.integers(0, 10_000),
    st.sampled_from([VectorSessionKnn, CascadeSessionKnn]),
    st.integers(1, 9),
    st.sampled_from([0.5, 2.0]),
    st.sampled_from([0.0, -1.0]),
)
def test_sessions_equal_their_twin(
    seed: int, kind: type[_SessionKnn], most: int, shrinkage: float, repeat: float
) -> None:
    log = random_log(seed, n_sessions=30, n_items=40, no_click=0.3)
    model = kind(neighbours=most, shrinkage=shrinkage, repeat=repeat)
    model.space, train = fit_training(log, order=ONCE)
    model._learn(train)
    training = chosen_in_training(log, np.arange(log.n_sessions))
    expected = []
    for before, items in events_of(log):
        place = {item: (i + 1) / len(before) for i, item in enumerate(before) if item >= 0}
        sims = [
            sum(place[item] if model.by_position else 1 for item in place if item in session)
            / (1 if model.by_position else math.sqrt(len(place) * len(session) or 1))
            for session in training
        ]
        # equal similarities may differ in their last bits by the order of the sum
        limit = sorted(sims, reverse=True)[min(most, len(sims)) - 1] - 1e-9
        sims = [sim if sim >= limit else 0.0 for sim in sims]
        for item in items:
            shared = sum(sim for sim, one in zip(sims, training, strict=True) if item in one)
            again = repeat if item in place else 0.0
            expected.append(shared / (shrinkage + sum(sims)) + again)
    values = {"shrinkage": shrinkage, "repeat": repeat}
    similar = _SessionKnn._similar(model, all_sessions(log), values)
    np.testing.assert_allclose(similar, expected, atol=1e-9)


def test_given_settings_are_kept_and_a_damaged_file_is_never_read() -> None:
    model = ItemKnn(
        shrinkage=5.0, repeat=0.0, popularity="rate", popularity_weight=1.0, unknown=0.5
    )
    table = model.fit(co_choice_log(2)).history_
    assert table["shrinkage"].to_list() == [5.0, 5.0]
    assert sorted(table["decay"]) == [0.0, 1.0]
    assert model.chosen["decay"] == table["decay"][0]
    for name in ("near.indices", "near.indptr"):
        damaged = {key: array.copy() for key, array in model._arrays().items()}
        damaged[name][-1] = 10**6
        with pytest.raises((ValueError, KeyError)):
            model._restore(damaged)


def test_the_neighbours_come_first_and_the_network_ranks_among_equals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short_networks(monkeypatch, (16,))
    log = co_choice_log()
    fixed = {"shrinkage": 1.0, "unknown": 0.5, "repeat": -1.0, "popularity_weight": 0.0}
    model = CascadeSessionKnn(cascade=1000.0, **fixed)
    model.fit(log)
    rows = log.sessions_in("test")[:1]
    ours, network = scores_of(model, log, rows), scores_of(model.rnn, log, rows)
    # [2, 0] without history, then [4, 3] after 0: the neighbours know 3 alone
    np.testing.assert_allclose(ours - network, [0, 0, 0, 1000], atol=1e-9)
