from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.logs.cut import slice_sessions, stable_order
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log

FIELDS, CONTEXT = ["number", "text"], ["query", "hour"]
IDS = st.one_of(st.integers(-(2**70), 2**70).map(str), st.text("aB é-,'\"", min_size=1, max_size=4))
CANDIDATE = st.tuples(
    IDS,
    st.integers(1, 4),
    st.floats(-(2.0**99), 2.0**99, width=32),
    st.one_of(st.none(), st.sampled_from(["p", "q", "ten €"])),
)
EVENT = st.tuples(
    st.lists(CANDIDATE, min_size=1, max_size=5, unique_by=lambda candidate: candidate[0]),
    st.one_of(st.none(), st.integers(0, 4)),
)
SESSIONS = st.lists(
    st.tuples(IDS, st.integers(0, 2), st.lists(EVENT, min_size=1, max_size=4)),
    min_size=1,
    max_size=6,
    unique_by=lambda session: session[0],
)


def context_of_event(session: str, event: int) -> tuple[str | None, float]:
    """A query, missing here and there, and an hour."""
    number = event + len(session)
    return None if number % 4 == 0 else f"{number % 3}", 0.5 * number - 0.25


def rows_of(sessions, rng: np.random.Generator | None = None) -> pl.DataFrame:
    """The long layout as plain Python rows, the views of a candidate as that many rows with chosen
    = 0."""
    rows = []
    for session, split, events in sessions:
        for event, (candidates, chosen) in enumerate(events):
            context = context_of_event(session, event)
            for position, (item, views, number, text) in enumerate(candidates):
                rows += [(session, event, item, 0, split, number, text, *context)] * views
                if chosen is not None and position == chosen % len(candidates):
                    rows.append((session, event, item, 1, split, number, text, *context))
    if rng is not None:
        rows = [rows[i] for i in rng.permutation(len(rows))]
    names = {
        "session": pl.String,
        "event": pl.Int64,
        "item": pl.String,
        "chosen": pl.Int64,
        "split": pl.Int64,
    }
    fields = {"number": pl.Float64, "text": pl.String, "query": pl.String, "hour": pl.Float64}
    return pl.DataFrame(rows, schema={**names, **fields}, orient="row")


def as_sets(log: SessionLog) -> dict:
    """A log as nested Python values in which order plays no part: session → event → item → what is
    known of it."""
    out: dict = {}
    for session in range(log.n_sessions):
        events = {}
        start, stop = log.session_offsets[session : session + 2]
        for event in range(start, stop):
            first, last = log.display_offsets[event : event + 2]
            candidates = {}
            for candidate in range(first, last):
                code = log.columns["text"].values[candidate]
                candidates[log.item_ids[int(log.items[candidate])]] = (
                    int(log.views[candidate]),
                    bool(candidate - first == log.choices[event]),
                    float(log.columns["number"].values[candidate]),
                    None if code < 0 else log.columns["text"].categories[int(code)],
                )
            events[log.event_ids[event]] = candidates
            if log.columns_of("event"):
                code = log.columns["query"].values[event]
                query = None if code < 0 else log.columns["query"].categories[int(code)]
                hour = float(log.columns["hour"].values[event])
                expected = context_of_event(log.session_ids[session], event - start)
                assert (query, hour) == expected
        out[log.session_ids[session]] = (int(log.split[session]), events)
    return out


@settings(max_examples=30, deadline=None)
@given(SESSIONS, st.booleans(), st.integers(0, 2**32))
def test_read_and_unpack_is_the_identity(sessions, ordered, seed) -> None:
    options = {"candidate_fields": FIELDS, "context_fields": CONTEXT}
    log = read_log(rows_of(sessions), ordered=ordered, **options)
    expected = {
        session: (
            split,
            {
                event: {
                    item: (
                        views,
                        chosen is not None and position == chosen % len(candidates),
                        number,
                        text,
                    )
                    for position, (item, views, number, text) in enumerate(candidates)
                }
                for event, (candidates, chosen) in enumerate(events)
            },
        )
        for session, split, events in sessions
    }
    assert as_sets(log) == expected
    assert log.session_ids.to_list() == [session for session, _, _ in sessions]

    # Shuffled rows give the same log up to the order of sessions (and of candidates, if ordered).
    shuffled = read_log(rows_of(sessions, np.random.default_rng(seed)), **options)
    assert as_sets(shuffled) == expected


@settings(max_examples=25, deadline=None)
@given(SESSIONS, st.data())
def test_slice_is_the_log_of_its_sessions(sessions, data) -> None:
    log = read_log(rows_of(sessions), candidate_fields=FIELDS, context_fields=CONTEXT)
    rows = data.draw(st.lists(st.integers(0, log.n_sessions - 1), unique=True))
    part = slice_sessions(log, np.array(rows, dtype=np.int64))
    whole = as_sets(log)
    assert as_sets(part) == {session: whole[session] for session in log.session_ids.gather(rows)}
    assert part.session_ids.to_list() == log.session_ids.gather(rows).to_list()
    assert part.item_ids is log.item_ids
    np.testing.assert_array_equal(part.users, log.users[rows])


@pytest.mark.parametrize("rows", [[2], [-1], [True, False], [0.0]])
def test_slice_refuses_what_is_no_row(rows) -> None:
    log = read_log(
        rows_of([("a", 0, [([("i", 1, 0.0, None)], 0)]), ("b", 0, [([("i", 1, 0.0, None)], 0)])])
    )
    with pytest.raises(IndexError, match=r"sessions 0 to 1|flatnonzero"):
        slice_sessions(log, np.array(rows))


def folded(rows, **options):
    columns = ["session", "event", "item", "chosen", "x"]
    frame = pl.DataFrame([("s", 0, *row) for row in rows], schema=columns, orient="row")
    return read_log(frame, candidate_fields=["x"], **options)


@pytest.mark.parametrize(
    ("rows", "views", "choice"),
    [
        ([("a", 0, 1.0), ("a", 0, 1.0), ("b", 0, 3.0)], [2, 1], -1),
        ([("a", 0, 1.0), ("b", 0, 3.0), ("a", 1, 1.0)], [1, 1], 0),
        # bought without a view row: the floor hides it
        ([("b", 0, 3.0), ("a", 1, 1.0)], [1, 1], 0),
        # one item chosen twice is one choice
        ([("a", 1, 1.0), ("a", 1, 1.0), ("b", 0, 3.0)], [1, 1], 0),
    ],
)
def test_rows_of_one_item_fold_into_one_candidate(rows, views, choice) -> None:
    log = folded(rows)
    assert log.item_ids.to_list() == ["a", "b"]
    assert log.views.tolist() == views
    assert log.choices.tolist() == [choice]
    assert log.columns["x"].values.tolist() == [1.0, 3.0]


def test_rows_of_one_item_with_two_values_are_refused() -> None:
    """What is alike folds, a missing value among it; nested rows are held to the same."""
    frame = pl.DataFrame(
        {
            "session": [1, 1, 1, 2, 2],
            "event": 1,
            "item": [3, 3, 4, 3, 4],
            "price": [1.0, 2.0, 3.0, 1.0, 2.0],
            "kind": ["x", "x", "y", None, None],
            "chosen": [0, 1, 0, 1, 0],
        }
    )
    last = pl.col("item").sort_by("chosen").last()
    nested = frame.group_by("session", "event", maintain_order=True).agg(
        pl.col("item").alias("items"), "price", chosen=last
    )
    for one in (frame, nested):
        with pytest.raises(LogFormatError, match=r"item '3' .* 'price' = 1.0 and 2.0, one value"):
            read_log(one, candidate_fields=["price"])
    assert read_log(frame, candidate_fields=["kind"]).views.tolist() == [1, 1, 1, 1]


def test_ordered_keeps_first_appearances_and_unordered_forgets_them() -> None:
    rows = [("c", 0, 2.0), ("a", 0, 1.0), ("c", 1, 2.0), ("b", 0, 3.0)]
    shown, forgotten = folded(rows, ordered=True), folded(rows)
    assert shown.items.tolist() == [2, 0, 1]
    assert shown.choices.tolist() == [0]
    assert forgotten.items.tolist() == [0, 1, 2]
    assert forgotten.choices.tolist() == [2]


def test_too_many_rows_for_int32(monkeypatch) -> None:
    monkeypatch.setattr("fastgaum.logs.cut.MAX_ROWS", 3)
    assert folded([("a", 1, 0.0)] * 3).n_candidates == 1
    with pytest.raises(LogFormatError, match="has 4 rows, at most 3 fit 32-bit offsets: split it"):
        folded([("a", 1, 0.0)] * 4)
    nested = pl.DataFrame({"session": [1, 1], "items": [[1, 2], [3, 4]], "chosen": [1, 3]})
    with pytest.raises(LogFormatError, match="has 4 rows, at most 3 fit"):
        read_log(nested)


def test_to_frame_leaves_out_labels_that_do_not_tell_events_apart() -> None:
    frame = pl.DataFrame(
        {"session": [1, 1], "time": [5, 5], "items": [["a"], ["a", "b"]], "chosen": ["a", None]}
    )
    log = read_log(frame)
    out = to_frame(log)
    assert "event_label" not in out.columns
    again = read_log(out)
    assert again.display_offsets.tolist() == [0, 1, 3]
    assert again.choices.tolist() == [0, -1]


@pytest.mark.parametrize("most", [3, 2**62])
def test_a_stable_order_of_small_and_of_large_keys(most: int) -> None:
    keys = np.random.default_rng(0).integers(0, 4, 50) * (most // 3)
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()
