"""Training is read in an order: no choice of a user, nor of a later one, reaches what training is
told of the user's own candidates."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgaum
from fastgaum.arrays import FloatArray
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space, fit_training, ordered_blocks
from fastgaum.features.sessions import EncodedSessions, Selection, select_sessions
from fastgaum.features.training_order import (
    FEW,
    MANY,
    ONCE,
    Hiding,
    TrainingOrder,
    spaces_before,
    training_order,
)
from fastgaum.kernels.candidate_formulas import SESSION_NUMBERS
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from tests.builders import log_of, numbers_of, put
from tests.features.test_crossed import log_with_context

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
    space, train = fit_training(log, "bags", False, True, order=order)
    test = Encoder(space, log).encode(log.sessions_in("test"))
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
    for name, told in train.items():
        least, most = min(0.5, test[name]), max(0.5, test[name])
        assert least - MOST_TOLD <= told <= most + MOST_TOLD, (name, told, test[name])


def test_numbers_of_trips_tell_no_more_in_training(shared_data: Callable[[str], Path]) -> None:
    """An eighth of the trips, each alone, of a household: four items, displayed thousands of times."""
    log = fastgaum.read_log(
        shared_data("lpmc/trips.parquet"),
        columns={"session": "trip", "event": "trip", "user": "household"},
        context_fields=["purpose", "driving_license"],
    )
    log = slice_sessions(log, np.arange(0, log.n_sessions, 8))
    in_block, in_any, test = told_of_choices(log)
    assert_tells_no_more(in_block, test)
    # of an item that is displayed seldom, later blocks know the choice of an earlier one
    assert_tells_no_more(in_any, test)


def raw_numbers(
    log: SessionLog, order: TrainingOrder
) -> Iterator[tuple[Encoder, Selection, FloatArray]]:
    """The blocks of an order: what encodes each, its sessions, their numbers as they are."""
    space = fit_space(log, "bags", True, True)
    _, blocks = ordered_blocks(Encoder(space, log), order)
    for encoder, rows in blocks:
        part = select_sessions(log, rows)
        yield encoder, part, numbers_of(encoder, part)


def with_choices(log: SessionLog, events: npt.NDArray[np.integer], seed: int) -> SessionLog:
    """The log with other choices in some events; one without a choice stays so."""
    choices, sizes = log.choices.copy(), np.diff(log.display_offsets)
    moved = np.random.default_rng(seed).integers(0, 10, len(events))
    choices[events] = np.where(choices[events] < 0, -1, moved % sizes[events])
    return dataclasses.replace(log, choices=choices)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    order=st.sampled_from(ORDERS),
    block=st.sampled_from([None, 0, 3, 6]),
)
def test_choices_change_no_number_of_their_user_nor_of_an_earlier_one(
    seed: int, order: TrainingOrder, block: int | None
) -> None:
    """Of one user the last choice of each session changes: the ones before it are told to the
    session itself. Or all choices do of the users after a block of the first order."""
    log = log_with_context(seed)
    train = log.sessions_in("train")
    if block is None:
        user = np.random.default_rng(seed).choice(log.users[train])
        same = train[log.users[train] == user]
        moved = log.session_offsets[same + 1] - 1
    else:
        blocks = order.blocks(log.users, 0)
        same = train[blocks[train] <= block]
        moved = np.flatnonzero(((blocks > block) & (log.split == 0))[log.session_of_event])
    other = with_choices(log, moved, seed)
    n_blocks = len({*order.blocks(log.users[train], 0).tolist()} - {-1})
    pairs = zip(raw_numbers(log, order), raw_numbers(other, order), strict=True)
    for (_, part, ours), (_, _, theirs) in itertools.islice(
        pairs, None if block is None else n_blocks
    ):
        sizes = np.diff(part.display_offsets[part.session_offsets])
        checked = np.repeat(np.isin(part.rows, same), sizes)
        np.testing.assert_array_equal(ours[checked], theirs[checked])


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


def test_a_hidden_item_is_to_training_one_that_was_never_displayed() -> None:
    """To itself, and in the relations of its neighbours: as under a name that is new."""
    log = log_of_chance(200)
    space = fit_space(log, "bags", False, True)
    part = select_sessions(log, log.sessions_in("train"))
    encoder = Encoder(space, log).with_space(space, Hiding(0.3, 0))
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
    wanted = numbers_of(Encoder(space, other).with_space(space, None), part)
    columns = [at for at, name in enumerate(space.number_names) if name != "same_as_page"]
    np.testing.assert_array_equal(found[:, columns], wanted[:, columns])
    without = numbers_of(Encoder(space, log).with_space(space, None), part)
    at = {name: column for column, name in enumerate(space.number_names)}
    for name in ("rivals_met", "follows_shown"):
        assert (found[~hidden, at[name]] <= without[~hidden, at[name]]).all()
        assert (found[~hidden, at[name]] < without[~hidden, at[name]]).mean() > 0.1
    for name in ("log_displays", "log_choices", "displays_given_query", "rivals_met"):
        assert not found[hidden, at[name]].any()


def test_training_is_scored_as_it_came_and_others_by_all_that_was_said() -> None:
    log = log_with_context(4)
    space = fit_space(log, "bags", True, True)
    encoder, users = Encoder(space, log), log.users
    found = numbers_of(encoder, select_sessions(log, log.sessions_in("all")))
    of_candidate = log.session_of_event[log.event_of_candidate()]
    blocks = ONCE.blocks(users, 0)
    for block, before in enumerate(spaces_before(encoder.coded, space, ONCE, 0)):
        rows = np.flatnonzero((log.split == 0) & (blocks == block)).astype(np.int32)
        wanted = numbers_of(encoder.with_space(before, None), select_sessions(log, rows))
        np.testing.assert_array_equal(found[np.isin(of_candidate, rows)], wanted)
    others = np.flatnonzero(log.split != 0).astype(np.int32)
    wanted = numbers_of(encoder.with_space(space, None), select_sessions(log, others))
    np.testing.assert_array_equal(found[np.isin(of_candidate, others)], wanted)


def test_the_training_log_in_another_order_is_scored_without_its_own_choices() -> None:
    log = log_with_context(4)
    space = fit_space(log, "bags", True, True)
    order = np.random.default_rng(0).permutation(log.n_sessions)
    other = slice_sessions(log, order)
    assert other.fingerprint != log.fingerprint
    encoder = Encoder(space, other)
    assert encoder.reads_training_log
    # users keep their codes here, and with them their blocks
    rows = other.sessions_in("train")
    found = numbers_of(encoder, select_sessions(other, rows))
    wanted = numbers_of(Encoder(space, log), select_sessions(log, order[rows].astype(np.int32)))
    np.testing.assert_array_equal(found, wanted)
    # a part of it, and another log of as many sessions, did not train alone
    without_one = order[order != log.sessions_in("train")[0]]
    for less in (slice_sessions(log, without_one), log_with_context(5)):
        assert not Encoder(space, less).reads_training_log
