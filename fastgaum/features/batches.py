"""Batches of whole sessions: packed arrays and the history tokens that the encoder reads.

Which batch comes when is a function of the random generator alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fastgaum.features.actions import with_actions
from fastgaum.features.in_memory import Sessions, SharedSessions, blocks
from fastgaum.features.item_vectors import BatchVectors
from fastgaum.features.sessions import PickedSessions
from fastgaum.kernels.batching import (
    PickedEvents,
    count_sessions,
    fill_bags,
    fill_events,
    fill_ids,
    history_tokens,
)
from fastgaum.logs.log import FloatArray, IntArray, PackedArrays

RowArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch(PackedArrays):
    """Whole sessions, packed; nothing is padded."""

    rows: IntArray
    """row of each session in the log, shape (n_sessions,)"""
    session_offsets: IntArray
    """start of each session in events, shape (n_sessions + 1,)"""
    display_offsets: IntArray
    """start of each display set in candidates, shape (n_events + 1,)"""
    choices: IntArray
    """position of the choice, -1 for no click, shape (n_events,)"""
    ids: IntArray
    """candidates' ids, shape (n_candidates, n_categorical)"""
    numbers: FloatArray
    """candidates' numbers, shape (n_candidates, n_numbers)"""
    token_offsets: IntArray
    """start of each session in tokens, shape (n_sessions + 1,)"""
    token_candidates: IntArray
    """candidate chosen at each token, -1 for no click, -2 for an action, shape (n_tokens,)"""
    token_ids: IntArray
    """the tokens' bags: a choice's are its candidate's ids, no click has the one id 0; shape (nnz,)
    """
    token_id_offsets: IntArray
    """start of each token's bag in token_ids, shape (n_tokens + 1,)"""
    token_numbers: FloatArray
    """the tokens' numbers, zeros where none was chosen, shape (n_tokens, n_numbers)"""
    context_ids: IntArray
    """ids of the events' context fields, shape (n_events, n_context_fields)"""
    context_numbers: FloatArray
    """the events' numbers, shape (n_events, n_context_numbers)"""
    later_events: RowArray
    """events with a token before them in their session, in order, int64"""
    clicked: RowArray
    """events with a choice, int64, shape (n_clicked,)"""
    chosen: RowArray
    """chosen candidate of each of those events, int64, shape (n_clicked,)"""
    vectors: BatchVectors | None = None
    """of the items, where networks read vectors"""
    read_tokens: RowArray | None = None
    """last token before each of later_events, int64; None: token i before later_events[i]"""


def assemble(encoded: Sessions, sessions: IntArray, keep_last: bool = False) -> Batch:
    """Make a batch of the given sessions (positions in `encoded`), in the given order.

    `keep_last` keeps each session's last choice as a token, which only a state after the session
    reads.

    Raises:
        IndexError: a position is not a session of `encoded`.
    """
    n, packed, places = len(sessions), encoded.packed, encoded.places(sessions)
    offsets, token_offsets = np.empty(n + 1, np.int32), np.empty(n + 1, np.int32)
    first_events, first = np.empty(n, np.int32), np.empty(n, np.int32)
    n_candidates = count_sessions(
        packed.session_offsets, packed.display_offsets, places, offsets, first_events, first
    )
    n_events = int(offsets[n])
    displays, choices = np.empty(n_events + 1, np.int32), np.empty(n_events, np.int32)
    later, clicked, chosen = (np.empty(n_events, np.int64) for _ in range(3))
    picked = PickedEvents(displays, choices, later, clicked, chosen)
    n_later, n_clicked = fill_events(
        packed.display_offsets, packed.choices, offsets, first_events, picked
    )
    tokens = np.empty(n_events, np.int32)
    tokens = tokens[: history_tokens(offsets, displays, choices, keep_last, token_offsets, tokens)]
    of_sessions = PickedSessions(first, first_events, offsets, displays)
    if isinstance(encoded, SharedSessions):
        ids = np.empty((n_candidates, 1), np.int32)
        fill_ids(encoded.log.items, encoded.id_of_item, first, offsets, displays, ids.reshape(-1))
    else:
        ids = of_sessions.rows_of(encoded.ids)
    numbers = encoded.numbers_of(of_sessions)
    token_ids, token_id_offsets, token_numbers = bags_of_candidates(ids, numbers, tokens)
    shifts = np.repeat(first_events - offsets[:-1], np.diff(offsets))
    events: IntArray = (np.arange(n_events) + shifts).astype(np.int32)
    context_ids, context_numbers = encoded.context_rows(events)
    vectors = None
    if encoded.vectors is not None:
        reader, items, context_items = encoded.vectors
        codes = of_sessions.rows_of(items[:, None])[:, 0]
        vectors = reader.of_batch(codes, tokens, context_items(events))
    batch = Batch(
        encoded.rows[sessions],
        *(offsets, displays, choices, ids, numbers, token_offsets, tokens),
        *(token_ids, token_id_offsets, token_numbers, context_ids, context_numbers),
        *(later[:n_later], clicked[:n_clicked], chosen[:n_clicked]),
        vectors,
    )
    if encoded.actions is None:
        return batch
    return replace(batch, **with_actions(batch, encoded.actions.before(events))._asdict())


def bags_of_candidates(
    ids: IntArray, numbers: FloatArray, candidates: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Bags of any candidates of those with `ids` and `numbers`, -1 being no click, whose bag is the
    id 0 and zeros: ids (nnz,), their offsets (n + 1,), numbers (n, n_numbers)."""
    n, width = len(candidates), ids.shape[1]
    bag_ids, offsets = np.empty(n * width, np.int32), np.empty(n + 1, np.int32)
    bag_numbers = np.empty((n, numbers.shape[1]), np.float32)
    n_ids = fill_bags(ids, numbers, candidates, bag_ids, offsets, bag_numbers)
    return bag_ids[:n_ids], offsets, bag_numbers


def batches(
    encoded: Sessions,
    batch_sessions: int,
    generator: np.random.Generator | None = None,
    part: slice = slice(None),
) -> Iterator[Batch]:
    """Yield batches of whole sessions: shuffled when a random generator is given, else in order.

    With a `part`, one process's sessions of each batch: the batches do not depend on how many
    processes share them. Where no session is left for it, it takes the first again."""
    order = np.arange(encoded.n_sessions, dtype=np.int32)
    if generator is not None:
        generator.shuffle(order)
    for picked in blocks(encoded, order, batch_sessions):
        yield assemble(encoded, picked[part] if len(picked[part]) else picked[:1])
