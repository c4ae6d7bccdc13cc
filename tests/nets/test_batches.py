"""Batches hold whole sessions, unpadded, and tokens that never see the event they are read at."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgaum.features import sessions
from fastgaum.features.sessions import ActionBags, EncodedSessions
from fastgaum.features.standardise import Moments, standardised
from fastgaum.nets import batches as module
from fastgaum.nets.batches import Batch, assemble, batches, split


@st.composite
def encoded_sessions(draw: st.DrawFn) -> EncodedSessions:
    """Any ragged shape: sessions without events, one candidate, no click, no numbers, several id
    columns."""
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    sizes = draw(st.lists(st.integers(1, 5), min_size=sum(lengths), max_size=sum(lengths)))
    choices = [draw(st.integers(-1, size - 1)) for size in sizes]
    n, width, n_numbers = sum(sizes), draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 3, 9]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    varying = rng.permutation(n_numbers)[: draw(st.integers(0, n_numbers))]
    raw = Moments()
    raw.add(rng.standard_normal((9, n_numbers + len(varying))).astype(np.float32))
    code = standardised(raw, n_numbers + len(varying))
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
        base=rng.standard_normal((n, n_numbers)).astype(np.float32),
        varying=varying,
        code=code,
        context_ids=rng.integers(1, 99, (len(sizes), width - 1)).astype(np.int32),
        context_numbers=rng.standard_normal((len(sizes), n_numbers // 3)).astype(np.float32),
        actions=actions,
    )


def arrays_of(batch: Batch) -> dict[str, np.ndarray]:
    """The batch's tensors as arrays, by name."""
    found = {"ids": batch.ids, "context_ids": batch.context_ids}
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            found[name] = value.numpy()
    found |= {"numbers": batch.candidates.numbers.numpy()}
    found |= {"offsets": batch.candidates.offsets.numpy()}
    found |= {"context_offsets": batch.context.offsets.numpy()}
    found |= {"token_ids": batch.tokens.ids.numpy(), "token_numbers": batch.tokens.numbers.numpy()}
    return found | {"token_id_offsets": batch.tokens.offsets.numpy()}


def naive_batch(encoded: EncodedSessions, sessions: list[int]) -> dict[str, list]:
    """The batch as lists, one session, event and candidate at a time."""
    names = (
        *("rows", "choices", "ids", "numbers", "context_ids", "context_numbers", "clicked"),
        *(
            "chosen",
            "token_candidates",
            "token_ids",
            "token_numbers",
            "later_events",
            "read_tokens",
        ),
    )
    out: dict[str, list] = {name: [] for name in names}
    starts = ("session_offsets", "display_offsets", "token_offsets", "token_id_offsets")
    offsets: dict[str, list] = {name: [0] for name in starts}
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
                    out["token_numbers"].append([0.0] * len(encoded.code.start))
                    end = offsets["token_id_offsets"][-1]
                    offsets["token_id_offsets"].append(end + len(bag))
            start, stop = encoded.display_offsets[event : event + 2]
            choice = encoded.choices[event]
            chosen = len(out["ids"]) + choice if choice >= 0 else -1
            out["ids"] += encoded.ids[start:stop].tolist()
            base = encoded.base[start:stop]
            less_means = base[:, encoded.varying] - base[:, encoded.varying].mean(0)
            numbers = (np.hstack([base, less_means]) - encoded.code.start) / encoded.code.scale
            out["numbers"] += numbers.tolist()
            out["choices"].append(choice)
            out["context_ids"].append(encoded.context_ids[event].tolist())
            out["context_numbers"].append(encoded.context_numbers[event].tolist())
            if len(out["token_candidates"]) > first_token:
                out["later_events"].append(here)
                out["read_tokens"].append(len(out["token_candidates"]) - 1)
            if choice >= 0:
                out["clicked"].append(here)
                out["chosen"].append(chosen)
            if event < last - 1:
                out["token_candidates"].append(chosen)
                bag = out["ids"][chosen] if choice >= 0 else [0]
                out["token_ids"] += bag
                out["token_numbers"].append(
                    out["numbers"][chosen] if choice >= 0 else [0.0] * len(encoded.code.start)
                )
                offsets["token_id_offsets"].append(offsets["token_id_offsets"][-1] + len(bag))
            offsets["display_offsets"].append(len(out["ids"]))
        offsets["session_offsets"].append(len(out["choices"]))
        offsets["token_offsets"].append(len(out["token_candidates"]))
    return out | offsets


@settings(deadline=None, max_examples=60)
@given(encoded_sessions(), st.data())
def test_a_batch_is_what_a_plain_reading_gives(
    encoded: EncodedSessions, data: st.DataObject
) -> None:
    sessions = data.draw(st.lists(st.integers(0, encoded.n_sessions - 1), max_size=8))
    batch = assemble(encoded, np.array(sessions, np.int32))
    expected = naive_batch(encoded, sessions)
    read = expected.pop("read_tokens")
    if encoded.actions is None:
        # each token is read by one event, in order
        assert batch.read_tokens is None
        assert read == list(range(len(read)))
    else:
        assert batch.read_tokens is not None
        assert batch.read_tokens.tolist() == read
    found = arrays_of(batch)
    for name, values in expected.items():
        ours = found[name]
        wanted = np.array(values, ours.dtype).reshape(ours.shape)
        close = 1e-5 if "numbers" in name else 0
        np.testing.assert_allclose(ours, wanted, rtol=close, atol=close, err_msg=name)
        assert len(ours) == len(values), name
        wide = name in ("later_events", "clicked", "chosen")
        assert ours.dtype == (
            np.float32 if "numbers" in name else np.int64 if wide else np.int32
        ), name
        assert ours.flags.c_contiguous, name
    width = encoded.ids.shape[1]
    assert batch.candidates.offsets.tolist() == [i * width for i in range(len(expected["ids"]) + 1)]
    assert batch.tokens.n_bags == len(expected["token_candidates"])


@settings(deadline=None, max_examples=25)
@given(encoded_sessions(), st.integers(1, 4), st.integers(0, 99))
def test_every_session_comes_once_in_an_order_of_the_seed(
    encoded: EncodedSessions, size: int, seed: int
) -> None:
    rows = [
        [batch.rows.tolist() for batch in batches(encoded, size, np.random.default_rng(seed))]
        for _ in range(2)
    ]
    assert rows[0] == rows[1]
    assert all(len(one) == size for one in rows[0][:-1])
    assert sorted(itertools.chain(*rows[0])) == sorted(encoded.rows)
    for wrong in (-1, encoded.n_sessions):
        with pytest.raises(IndexError, match="outside 0"):
            assemble(encoded, np.array([0, wrong], np.int32))


@settings(max_examples=25, deadline=None)
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


@settings(max_examples=40)
@given(encoded_sessions(), st.integers(1, 7), st.booleans())
def test_each_part_of_a_batch_is_the_batch_of_its_sessions(
    encoded: EncodedSessions, size: int, further: bool
) -> None:
    if further:
        rng = np.random.default_rng(0)
        encoded = dataclasses.replace(
            encoded,
            weights=rng.random(encoded.n_events, np.float32),
            held_out=rng.integers(-1, 5, encoded.n_sessions),
        )
    parts = split(assemble(encoded), size)
    for first, part in zip(range(0, encoded.n_sessions, size), parts, strict=True):
        last = min(first + size, encoded.n_sessions)
        found, alone = arrays_of(part), arrays_of(assemble(encoded, np.arange(first, last)))
        assert found.keys() == alone.keys()
        assert part.candidates.width == encoded.ids.shape[1]
        for name, expected in alone.items():
            np.testing.assert_array_equal(found[name], expected, name)
            assert found[name].dtype == expected.dtype, name


@settings(max_examples=20)
@given(encoded_sessions(), st.integers(1, 4))
def test_batches_are_the_same_however_many_are_assembled_at_once(
    encoded: EncodedSessions, batch_sessions: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", 1)
        alone = list(batches(encoded, batch_sessions, np.random.default_rng(3)))
    at_once = list(batches(encoded, batch_sessions, np.random.default_rng(3)))
    assert len(alone) == len(at_once)
    for one, other in zip(alone, at_once, strict=True):
        np.testing.assert_array_equal(one.candidates.numbers, other.candidates.numbers)
        np.testing.assert_array_equal(one.tokens.ids, other.tokens.ids)
        np.testing.assert_array_equal(one.rows, other.rows)
