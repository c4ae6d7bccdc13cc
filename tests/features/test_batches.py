"""Batches hold whole sessions, unpadded, and tokens that never see the event they are read at."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.features import sessions
from fastgaum.features.batches import assemble, bags_of_candidates, batches
from fastgaum.features.encoder import NO_CLICK_ID
from fastgaum.features.in_memory import CompactSessions
from fastgaum.features.ordered import training_order
from fastgaum.features.sessions import ActionBags, EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.cut import pick_rows
from fastgaum.nets.tensors import chosen_bags, to_tensors
from tests.builders import log_of, random_log
from tests.logs.test_context import navigation


@st.composite
def encoded_sessions(draw: st.DrawFn) -> EncodedSessions:
    """Any ragged shape: sessions without events, one candidate, no click, no numbers, several id
    columns."""
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    sizes = draw(st.lists(st.integers(1, 5), min_size=sum(lengths), max_size=sum(lengths)))
    choices = [draw(st.integers(-1, size - 1)) for size in sizes]
    n, width, n_numbers = sum(sizes), draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 3, 9]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    actions = None
    if draw(st.booleans()):
        before = np.cumsum([0, *rng.integers(0, 3, len(sizes))], dtype=np.int32)
        ids = rng.integers(100, 199, (before[-1], draw(st.integers(1, 3))))
        actions = ActionBags(before, ids.astype(np.int32))
    return EncodedSessions(
        rows=rng.permutation(50)[: len(lengths)].astype(np.int32),
        session_offsets=np.cumsum([0, *lengths], dtype=np.int32),
        display_offsets=np.cumsum([0, *sizes], dtype=np.int32),
        choices=np.array(choices, np.int32),
        users=np.arange(len(lengths), dtype=np.int32),
        ids=rng.integers(1, 99, (n, width)).astype(np.int32),
        numbers=rng.standard_normal((n, n_numbers)).astype(np.float32),
        context_ids=rng.integers(1, 99, (len(sizes), width - 1)).astype(np.int32),
        context_numbers=rng.standard_normal((len(sizes), n_numbers // 3)).astype(np.float32),
        actions=actions,
    )


def naive_batch(encoded: EncodedSessions, sessions: list[int], keep_last: bool) -> dict[str, list]:
    """The batch as lists, one session, event and candidate at a time."""
    out: dict[str, list] = {
        name: []
        for name in (
            "rows",
            "choices",
            "ids",
            "numbers",
            "context_ids",
            "context_numbers",
            "token_candidates",
            "token_ids",
            "token_numbers",
            "later_events",
            "read_tokens",
            "clicked",
            "chosen",
        )
    }
    offsets: dict[str, list] = {
        name: [0]
        for name in ("session_offsets", "display_offsets", "token_offsets", "token_id_offsets")
    }
    for session in sessions:
        out["rows"].append(encoded.rows[session])
        first, last = encoded.session_offsets[session : session + 2]
        for event in range(first, last):
            here = len(out["choices"])
            first_token = offsets["token_offsets"][-1]
            if encoded.actions is not None:
                before = slice(*encoded.actions.offsets[event : event + 2].tolist())
                for bag in encoded.actions.ids[before].tolist():
                    out["token_candidates"].append(-2)
                    out["token_ids"] += bag
                    out["token_numbers"].append([0.0] * encoded.numbers.shape[1])
                    end = offsets["token_id_offsets"][-1]
                    offsets["token_id_offsets"].append(end + len(bag))
            start, stop = encoded.display_offsets[event : event + 2]
            choice = encoded.choices[event]
            chosen = len(out["ids"]) + choice if choice >= 0 else -1
            out["ids"] += encoded.ids[start:stop].tolist()
            out["numbers"] += encoded.numbers[start:stop].tolist()
            out["choices"].append(choice)
            out["context_ids"].append(encoded.context_ids[event].tolist())
            out["context_numbers"].append(encoded.context_numbers[event].tolist())
            if len(out["token_candidates"]) > first_token:
                out["later_events"].append(here)
                out["read_tokens"].append(len(out["token_candidates"]) - 1)
            if choice >= 0:
                out["clicked"].append(here)
                out["chosen"].append(chosen)
            if event < last - 1 or keep_last:
                out["token_candidates"].append(chosen)
                bag = out["ids"][chosen] if choice >= 0 else [NO_CLICK_ID]
                out["token_ids"] += bag
                out["token_numbers"].append(
                    out["numbers"][chosen] if choice >= 0 else [0.0] * encoded.numbers.shape[1]
                )
                offsets["token_id_offsets"].append(offsets["token_id_offsets"][-1] + len(bag))
            offsets["display_offsets"].append(len(out["ids"]))
        offsets["session_offsets"].append(len(out["choices"]))
        offsets["token_offsets"].append(len(out["token_candidates"]))
    return out | offsets


@settings(deadline=None, max_examples=150)
@given(encoded_sessions(), st.data(), st.booleans())
def test_a_batch_is_what_a_plain_reading_gives(
    encoded: EncodedSessions, data: st.DataObject, keep_last: bool
) -> None:
    sessions = data.draw(st.lists(st.integers(0, encoded.n_sessions - 1), max_size=8))
    batch = assemble(encoded, np.array(sessions, np.int32), keep_last)
    expected = naive_batch(encoded, sessions, keep_last)
    read = expected.pop("read_tokens")
    if encoded.actions is None:
        # each token is read by one event, in order
        assert batch.read_tokens is None
        assert keep_last or read == list(range(len(read)))
    else:
        assert batch.read_tokens is not None
        assert batch.read_tokens.tolist() == read
    for name, values in expected.items():
        ours = getattr(batch, name)
        np.testing.assert_array_equal(
            ours, np.array(values, ours.dtype).reshape(ours.shape), err_msg=name
        )
        assert len(ours) == len(values), name
        wide = name in ("later_events", "clicked", "chosen")
        assert ours.dtype == (
            np.float32 if "numbers" in name else np.int64 if wide else np.int32
        ), name
        assert ours.flags.c_contiguous, name
    tensors = to_tensors(batch)
    width = encoded.ids.shape[1]
    assert tensors.candidates.ids.tolist() == [i for bag in expected["ids"] for i in bag]
    assert tensors.candidates.offsets.tolist() == [
        i * width for i in range(len(expected["ids"]) + 1)
    ]
    assert tensors.tokens.ids.tolist() == expected["token_ids"]
    assert tensors.tokens.n_bags == len(expected["token_candidates"])
    for name in ("display_offsets", "token_offsets", "later_events", "clicked", "chosen"):
        assert getattr(tensors, name).tolist() == expected[name]


@settings(max_examples=15, deadline=None)
@given(fixed=st.booleans(), set_context=st.booleans(), keep_last=st.booleans(), data=st.data())
def test_batches_of_compact_sessions_are_those_of_encoded_ones(
    fixed: bool, set_context: bool, keep_last: bool, data: st.DataObject
) -> None:
    # walks where a page fixes its display
    log = navigation(30, n_items=25, fixed=fixed)
    space, train = FeatureSpace.fit_training(log, set_context=set_context, relations=True)
    assert isinstance(train, CompactSessions)
    assert train.numbers.shape[1] == len(space.number_names)
    theirs, encoded = FeatureSpace.fit_encoded(
        log, training_order(log), set_context=set_context, relations=True
    )
    np.testing.assert_allclose(space.mean, theirs.mean, rtol=1e-6, atol=1e-9)
    last = encoded.n_sessions - 1
    sessions = np.array(data.draw(st.lists(st.integers(0, last), max_size=9)), np.int32)
    validation = space.encoder(log).for_training(log.sessions_in("validation"))
    everyone = np.arange(validation.n_sessions, dtype=np.int32)
    whole = space.encode(log, log.sessions_in("validation"))
    for compact, plain, picked in (
        (train, encoded, sessions),
        (validation, whole, everyone),
    ):
        ours, expected = (assemble(part, picked, keep_last) for part in (compact, plain))
        for field in dataclasses.fields(expected):
            mine, theirs_of_it = getattr(ours, field.name), getattr(expected, field.name)
            assert (mine is None) == (theirs_of_it is None)
            if mine is not None:
                np.testing.assert_allclose(
                    mine, theirs_of_it, rtol=1e-6, atol=1e-6, err_msg=field.name
                )


@settings(deadline=None, max_examples=50)
@given(encoded_sessions(), st.data())
def test_bags_of_any_candidates(encoded: EncodedSessions, data: st.DataObject) -> None:
    batch = assemble(encoded, np.arange(encoded.n_sessions, dtype=np.int32))
    rows = data.draw(st.lists(st.integers(-1, len(batch.ids) - 1), max_size=8))
    ids, offsets, numbers = bags_of_candidates(batch.ids, batch.numbers, np.array(rows, np.int64))
    bags = [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    assert bags == [batch.ids[row].tolist() if row >= 0 else [NO_CLICK_ID] for row in rows]
    for row, given_numbers in zip(rows, numbers, strict=True):
        np.testing.assert_array_equal(given_numbers, batch.numbers[row] if row >= 0 else 0)
    assert torch.equal(chosen_bags(batch, np.array(rows, np.int32)).ids, torch.from_numpy(ids))


def test_sessions_and_rows_that_do_not_exist_are_refused() -> None:
    log = random_log(5)
    encoded = FeatureSpace.fit(log).encode(log, log.sessions_in("train"))
    for wrong in (-1, encoded.n_sessions):
        with pytest.raises(IndexError, match="outside 0"):
            assemble(encoded, np.array([0, wrong], np.int32))
        with pytest.raises(IndexError, match="outside 0"):
            pick_rows(encoded.session_offsets, np.array([0, wrong], np.int32))


def test_every_session_comes_once_and_whole() -> None:
    log = random_log(5)
    encoded = FeatureSpace.fit(log).encode(log, log.sessions_in("train"))
    seen = []
    for batch in batches(encoded, 7, np.random.default_rng(0)):
        assert batch.session_offsets[-1] == batch.n_events
        for i, row in enumerate(batch.rows):
            seen.append(row)
            ours = batch.choices[batch.session_offsets[i] : batch.session_offsets[i + 1]]
            theirs = log.choices[log.session_offsets[row] : log.session_offsets[row + 1]]
            np.testing.assert_array_equal(ours, theirs)
    assert sorted(seen) == sorted(encoded.rows)


def test_the_same_seed_gives_the_same_order() -> None:
    log = random_log(5)
    encoded = FeatureSpace.fit(log).encode(log, log.sessions_in("train"))
    orders = [
        [b.rows.tolist() for b in batches(encoded, 7, np.random.default_rng(9))] for _ in range(2)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != [b.rows.tolist() for b in batches(encoded, 7)]


def test_tokens_are_the_choices_before_the_last_event() -> None:
    log = log_of([[([0, 1, 2], 2), ([3, 4], -1), ([0, 5], 1)], [([1, 2], 0)]])
    encoded = FeatureSpace.fit(log, "identity").encode(log, log.sessions_in("all"))
    batch = assemble(encoded, np.array([1, 0], np.int32))
    assert batch.token_offsets.tolist() == [0, 0, 2]
    ids, offsets, numbers = batch.token_ids, batch.token_id_offsets, batch.token_numbers
    first_item = 2
    assert ids.tolist() == [first_item + 2, NO_CLICK_ID]
    assert offsets.tolist() == [0, 1, 2]
    assert numbers.shape == (2, 0)
    kept = assemble(encoded, np.array([1, 0], np.int32), keep_last=True)
    assert kept.token_offsets.tolist() == [0, 1, 4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 60))
def test_runs_hold_no_more_than_a_batch_may(sizes: list[int], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "BATCH_CANDIDATES", most)
        runs = sessions.cut_by_candidates(np.array(sizes, np.int32))
    parts = [sizes[run] for run in runs]
    assert [size for part in parts for size in part] == sizes
    assert all(sum(part) <= most or len(part) == 1 for part in parts if any(part))
    # none could have taken the next one's first session
    assert all(sum(left) + right[0] > most for left, right in itertools.pairwise(parts))
