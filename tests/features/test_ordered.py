"""Training is read in an order: no choice of a user, nor of a later one, reaches what training is
told of the user's own candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgaum
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.features.batches import assemble
from fastgaum.features.encoder import Encoder
from fastgaum.features.ordered import (
    FEW,
    FEWEST_NEW,
    LEAST_HIDDEN,
    MANY,
    MOST_HIDDEN,
    ONCE,
    Hiding,
    TrainingOrder,
    ordered_blocks,
    share_to_hide,
    spaces_before,
    training_order,
)
from fastgaum.features.sessions import EncodedSessions, Selection, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.candidate_formulas import SESSION_NUMBERS
from fastgaum.logs.log import SessionLog
from tests.builders import log_of, numbers_of, put
from tests.features.test_crossed import log_with_context
from tests.logs.test_context import navigation

ORDERS = (FEW, MANY, ONCE)
MOST_TOLD = 0.02
"""the bar: by so much the AUC of a number for the own choice may differ"""
Auc = dict[str, float]


def within_auc(
    groups: npt.NDArray[np.int64], x: FloatArray, chosen: npt.NDArray[np.bool_]
) -> float:
    """AUC of x for being chosen among the candidates of each group, weighted by their number."""
    groups = np.unique(groups, return_inverse=True)[1]
    n, n_chosen = np.bincount(groups), np.bincount(groups, chosen)
    order = np.lexsort((x, groups))
    begins = np.append(True, (np.diff(groups[order]) != 0) | (np.diff(x[order]) != 0))
    ties = np.cumsum(begins) - 1
    middle = np.flatnonzero(begins) + (np.bincount(ties) - 1) / 2
    ranks = np.empty(len(x))
    ranks[order] = middle[ties]
    ranks -= (np.cumsum(n) - n)[groups]
    above = np.bincount(groups, ranks * chosen) - n_chosen * (n_chosen - 1) / 2
    pairs = n_chosen * (n - n_chosen)
    both = pairs > 0
    return float(np.average(above[both] / pairs[both], weights=n[both]))


def knowledge_of(
    log: SessionLog, read: EncodedSessions, order: TrainingOrder
) -> npt.NDArray[np.int64]:
    """A number of the order and block that each read candidate was encoded in."""
    blocks = [
        np.sort(of_order[of_order >= 0]) + number * order.n_blocks
        for number in range(order.n_orders)
        for of_order in [order.blocks(log.users[log.sessions_in("train")], number)]
    ]
    return np.repeat(np.concatenate(blocks), np.diff(read.display_offsets[read.session_offsets]))


def told_of_choices(log: SessionLog) -> tuple[Auc, Auc, Auc]:
    """What each number that training makes tells of the own choice among displays of one item: of
    training in one block, of training in any block, and of test."""
    order = training_order(log)
    space, train = FeatureSpace.fit_encoded(log, order, "bags", False, True)
    test = space.encode(log, log.sessions_in("test"))
    names = [name for name in space.number_names if name not in SESSION_NUMBERS]

    def told(encoded: EncodedSessions, known: npt.NDArray[np.int64]) -> Auc:
        chosen = np.zeros(len(encoded.ids), bool)
        chosen[encoded.chosen_candidates] = True
        items = log.items[select_sessions(log, encoded.rows).candidates].astype(np.int64)
        # nothing is known of an item that is hidden or new
        groups = (known * log.n_items + items) * 2 + encoded.unseen
        columns = {name: encoded.numbers[:, space.number_names.index(name)] for name in names}
        return {name: within_auc(groups, x, chosen) for name, x in columns.items()}

    nothing = [np.zeros(len(encoded.ids), np.int64) for encoded in (train, test)]
    known = knowledge_of(log, train, order)
    return told(train, known), told(train, nothing[0]), told(test, nothing[1])


def log_of_chance(n_sessions: int = 1000) -> SessionLog:
    """Three displays of 4 of 30 items a session, under a query and a page; choices are chance."""
    rng = np.random.default_rng(1)
    sessions = [
        [(rng.choice(30, 4, replace=False).tolist(), int(rng.integers(4))) for _ in range(3)]
        for _ in range(n_sessions)
    ]
    split = (np.arange(n_sessions) % 2 * 2).tolist()
    log = log_of(sessions, split, users=(np.arange(n_sessions) // 4).tolist())
    page = log.items[log.display_offsets[:-1]]
    return put(
        log,
        event={"query": rng.integers(0, 5, log.n_events).astype(np.int32), "page": page},
        categories={"query": pl.Series(list("abcde")), "page": log.item_ids},
    )


def test_no_number_tells_the_own_choice() -> None:
    log = log_of_chance()
    in_block, _, test = told_of_choices(log)
    some = {"log_choices", "choice_lift", "rivals_won", "follows_chosen", "odds_given_query"}
    assert some <= {*in_block}
    for told in (in_block, test):
        for name, auc in told.items():
            assert auc == pytest.approx(0.5, abs=MOST_TOLD), name


def assert_tells_no_more(train: Auc, test: Auc) -> None:
    """Between nothing and what the test split tells, whose counts know more."""
    told = {name: (round(train[name], 3), round(test[name], 3)) for name in train}
    assert {
        name: aucs
        for name, aucs in told.items()
        if not min(0.5, aucs[1]) - MOST_TOLD <= aucs[0] <= max(0.5, aucs[1]) + MOST_TOLD
    } == {}


def test_numbers_of_trips_tell_no_more_in_training(shared_data: Callable[[str], Path]) -> None:
    """Each trip alone, of a household: four items, displayed thousands of times."""
    log = fastgaum.read_log(
        shared_data("lpmc/trips.parquet"),
        columns={"session": "trip", "event": "trip", "user": "household"},
        context_fields=["purpose", "driving_license"],
    )
    in_block, in_any, test = told_of_choices(log)
    assert_tells_no_more(in_block, test)
    # of an item that is displayed seldom, later blocks know the choice of an earlier one
    assert_tells_no_more(in_any, test)


def test_numbers_of_a_search_tell_no_more_in_training(shared_data: Callable[[str], Path]) -> None:
    log = fastgaum.read_log(
        shared_data("clara2/displays.parquet"), ordered=True, context_fields=["query"]
    )
    in_block, _, test = told_of_choices(log)
    assert_tells_no_more(in_block, test)


def raw_numbers(
    log: SessionLog, order: TrainingOrder
) -> Iterator[tuple[Encoder, Selection, FloatArray]]:
    """The blocks of an order: what encodes each, its sessions, their numbers as they are."""
    space = FeatureSpace.fit(log, "bags", True, True)
    _, blocks = ordered_blocks(space.encoder(log), log.sessions_in("train"), order)
    for encoder, rows in blocks:
        part = select_sessions(log, rows)
        yield encoder, part, numbers_of(encoder, part)


def with_choices(log: SessionLog, events: npt.NDArray[np.integer], seed: int) -> SessionLog:
    """The log with other choices in some events; one without a choice stays so."""
    choices, sizes = log.choices.copy(), np.diff(log.display_offsets)
    moved = np.random.default_rng(seed).integers(0, 10, len(events))
    choices[events] = np.where(choices[events] < 0, -1, moved % sizes[events])
    return dataclasses.replace(log, choices=choices)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.sampled_from(ORDERS))
def test_own_choices_change_no_number_of_their_user(seed: int, order: TrainingOrder) -> None:
    """The last choice of each session: the ones before it are told to the session itself."""
    log = log_with_context(seed)
    train = log.sessions_in("train")
    user = np.random.default_rng(seed).choice(log.users[train])
    own = train[log.users[train] == user]
    other = with_choices(log, log.session_offsets[own + 1] - 1, seed)
    for (_, part, ours), (_, _, theirs) in zip(
        raw_numbers(log, order), raw_numbers(other, order), strict=True
    ):
        of_own = np.repeat(
            np.isin(part.rows, own), np.diff(part.display_offsets[part.session_offsets])
        )
        np.testing.assert_array_equal(ours[of_own], theirs[of_own])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.sampled_from(ORDERS), block=st.integers(0, 7))
def test_later_users_change_no_number_of_an_earlier_one(
    seed: int, order: TrainingOrder, block: int
) -> None:
    log = log_with_context(seed)
    later = (order.blocks(log.users, 0) > block)[log.session_of_event]
    train = (log.split == 0)[log.session_of_event]
    other = with_choices(log, np.flatnonzero(later & train), seed)
    for (_, part, ours), (_, _, theirs) in zip(
        raw_numbers(log, order), raw_numbers(other, order), strict=True
    ):
        if order.blocks(log.users[part.rows[:1]], 0)[0] > block:
            break
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("order", ORDERS)
def test_blocks_are_of_equal_size(order: TrainingOrder) -> None:
    users = np.arange(40_000, dtype=np.int32)
    drawn = [order.blocks(users, number) for number in range(order.n_orders)]
    for number, blocks in enumerate(drawn):
        assert blocks.shape == users.shape
        shares = np.bincount(blocks + 1, minlength=order.n_blocks + 1) / len(users)
        assert shares[0] == pytest.approx(order.alone, abs=0.01)
        np.testing.assert_allclose(shares[1:], (1 - order.alone) / order.n_blocks, atol=0.006)
        np.testing.assert_array_equal(order.blocks(users[::7], number), blocks[::7])
    times = np.sum([blocks >= 0 for blocks in drawn], axis=0)
    assert times.mean() == pytest.approx(order.n_orders * (1 - order.alone), abs=0.02)


@settings(max_examples=20)
@given(displays=st.lists(st.integers(0, 90_000), max_size=30), alone=st.sampled_from([0.0, 0.5]))
def test_as_many_items_are_hidden_as_few_are_new(displays: list[int], alone: float) -> None:
    share = share_to_hide(np.array(displays, np.int64), alone)
    assert 0 <= share <= MOST_HIDDEN
    total = max(sum(displays), 1)
    new = sum((1 - alone) ** (n - 1) for n in displays if n) / total
    wanted = float(np.clip(FEWEST_NEW / total, LEAST_HIDDEN, MOST_HIDDEN))
    assert share == pytest.approx(max(wanted - new, 0), abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_an_item_is_hidden_from_whole_sessions(share: float) -> None:
    log = log_of_chance()
    part = select_sessions(log, log.sessions_in("all"))
    items = log.items[part.candidates]
    hidden = Hiding(share, 0).hides(part, items)
    assert hidden.mean() == pytest.approx(share, abs=0.02)
    pairs = log.session_of_event[log.event_of_candidate()].astype(np.int64) * 30 + items
    of_pair = np.unique(pairs, return_inverse=True)[1]
    share_of_pair = np.bincount(of_pair, hidden) / np.bincount(of_pair)
    assert set(share_of_pair.tolist()) <= {0.0, 1.0}
    other = Hiding(share, 1).hides(part, items)
    assert (hidden & other).mean() == pytest.approx(share**2, abs=0.02)
    some = part.rows[::3].copy()
    of_some = select_sessions(log, some)
    np.testing.assert_array_equal(
        Hiding(share, 0).hides(of_some, log.items[of_some.candidates]),
        hidden[np.isin(part.rows, some)[log.session_of_event][log.event_of_candidate()]],
    )


def test_a_hidden_item_is_to_training_one_that_was_never_displayed() -> None:
    """To itself, and in the relations of its neighbours: as under a name that is new."""
    log = log_of_chance(200)
    space = FeatureSpace.fit(log, "bags", False, True)
    part = select_sessions(log, log.sessions_in("train"))
    encoder = space.encoder(log).under(space, Hiding(0.3, 0))
    items = log.items[part.candidates]
    hidden = Hiding(0.3, 0).hides(part, items)
    assert 0.2 < hidden.mean() < 0.4
    np.testing.assert_array_equal(encoder.known_rows(part) < 0, hidden)
    ids = encoder.encode(part.rows)
    np.testing.assert_array_equal(ids.unseen, hidden)
    renamed = log.items.copy()
    renamed[part.candidates] += np.where(hidden, np.int32(30), np.int32(0))
    other = dataclasses.replace(
        log, items=renamed, item_ids=pl.concat([log.item_ids, log.item_ids + " new"])
    )
    found = numbers_of(encoder, part)
    wanted = numbers_of(space.encoder(other).under(space, None), part)
    columns = [at for at, name in enumerate(space.number_names) if name != "same_as_page"]
    np.testing.assert_array_equal(found[:, columns], wanted[:, columns])
    without = numbers_of(space.encoder(log).under(space, None), part)
    at = {name: column for column, name in enumerate(space.number_names)}
    for name in ("rivals_met", "follows_shown"):
        assert (found[~hidden, at[name]] <= without[~hidden, at[name]]).all()
        assert (found[~hidden, at[name]] < without[~hidden, at[name]]).mean() > 0.1
    for name in ("log_displays", "log_choices", "displays_given_query", "rivals_met"):
        assert not found[hidden, at[name]].any()


def test_training_is_scored_as_it_came_and_others_by_all_that_was_said() -> None:
    log = log_with_context(4)
    space = FeatureSpace.fit(log, "bags", True, True)
    encoder, users = space.encoder(log), log.users
    found = numbers_of(encoder, select_sessions(log, log.sessions_in("all")))
    of_candidate = log.session_of_event[log.event_of_candidate()]
    blocks = ONCE.blocks(users, 0)
    for block, before in enumerate(spaces_before(encoder, ONCE, 0)):
        rows = np.flatnonzero((log.split == 0) & (blocks == block)).astype(np.int32)
        wanted = numbers_of(encoder.under(before, None), select_sessions(log, rows))
        np.testing.assert_array_equal(found[np.isin(of_candidate, rows)], wanted)
    others = np.flatnonzero(log.split != 0).astype(np.int32)
    wanted = numbers_of(encoder.under(space, None), select_sessions(log, others))
    np.testing.assert_array_equal(found[np.isin(of_candidate, others)], wanted)


@pytest.mark.parametrize("fixed", [False, True])
def test_both_ways_to_encode_training_give_the_same_numbers(fixed: bool) -> None:
    log = navigation(60, n_items=25, fixed=fixed)
    space, compact = FeatureSpace.fit_training(log, "bags", True, True)
    other, whole = FeatureSpace.fit_encoded(log, training_order(log), "bags", True, True)
    np.testing.assert_allclose(space.mean, other.mean, rtol=1e-6)
    np.testing.assert_allclose(space.scale, other.scale, rtol=1e-6)
    assert compact.n_sessions == whole.n_sessions
    sessions = np.arange(whole.n_sessions, dtype=np.int32)[::3].copy()
    ours, theirs = (assemble(part, sessions) for part in (compact, whole))
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_allclose(ours.numbers, theirs.numbers, rtol=1e-5, atol=1e-5)


def read_sessions(order: TrainingOrder, users: IntArray) -> int:
    """How often an order reads one of so many sessions of a user each."""
    return sum(int((order.blocks(users, n) >= 0).sum()) for n in range(order.n_orders))


@pytest.mark.parametrize("order", ORDERS)
def test_each_order_reads_its_share_of_users(order: TrainingOrder) -> None:
    log = log_with_context(2)
    _, train = FeatureSpace.fit_encoded(log, order, "bags", True, True)
    users = log.users[log.sessions_in("train")]
    assert train.n_sessions == read_sessions(order, users)
    if not order.alone:
        every = np.repeat(log.sessions_in("train"), order.n_orders)
        assert sorted(train.rows.tolist()) == every.tolist()
