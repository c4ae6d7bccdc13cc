"""Batches of whole sessions: packed arrays and history tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import FloatArray, IntArray, LongArray
from fastgaum.features.item_vectors import BatchVectors
from fastgaum.features.sessions import (
    BATCH_CANDIDATES,
    ActionBags,
    EncodedSessions,
    blocks,
    select_sessions,
)
from fastgaum.logs.log import PackedArrays

AT_ONCE = 16_384
"""candidates that are assembled at once, where batches are smaller"""


@dataclass(frozen=True)
class Batch(PackedArrays):
    """Whole sessions, packed, none padded; arrays as in SessionLog."""

    rows: IntArray
    session_offsets: IntArray
    display_offsets: IntArray
    choices: IntArray
    ids: IntArray
    """shape (n_candidates, n_categorical)"""
    numbers: FloatArray
    """shape (n_candidates, n_numbers)"""
    token_offsets: IntArray
    """start of each session in tokens, shape (n_sessions + 1,)"""
    token_candidates: IntArray
    """candidate chosen at each token, -1 for no click, -2 for an action, shape (n_tokens,)"""
    token_ids: IntArray
    """the tokens' bags; no click has the one id 0; shape (nnz,)"""
    token_id_offsets: IntArray
    """start of each token's bag in token_ids, shape (n_tokens + 1,)"""
    token_numbers: FloatArray
    """the tokens' numbers, zeros where none was chosen, then what followed the choice, (n_tokens,
    n_numbers + n_outcomes)"""
    context_ids: IntArray
    """ids of the events' context fields, shape (n_events, n_context_fields)"""
    context_numbers: FloatArray
    """shape (n_events, n_context_numbers)"""
    later_events: LongArray
    """events with a token before them in their session, int64"""
    clicked: LongArray
    """events with a choice, int64, shape (n_clicked,)"""
    chosen: LongArray
    """chosen candidate of each of those events, int64"""
    vectors: BatchVectors | None = None
    weights: FloatArray | None = None
    """of each event, 1 on average over all batches"""
    read_tokens: LongArray | None = None
    """last token before each of later_events; None: token i before later_events[i]"""
    held_out: LongArray | None = None
    """fold of each event's user where the session trained, else -1, (n_events,); None: none did"""


def assemble(encoded: EncodedSessions, sessions: IntArray | None = None) -> Batch:
    """Make a batch of sessions (positions in `encoded`), in the given order; None: all of them.
    Raises IndexError: a position is not a session of `encoded`."""
    if sessions is None:
        sessions = np.arange(encoded.n_sessions, dtype=np.int32)
    part = select_sessions(encoded, np.asarray(sessions, np.int32))
    offsets, displays, choices = part.session_offsets, part.display_offsets, part.choices
    ids, numbers = encoded.ids[part.candidates], encoded.numbers_of(part)
    clicked, chosen = np.flatnonzero(choices >= 0), part.chosen_candidates
    of_events = np.full(part.n_events, -1, np.int32)
    of_events[clicked] = chosen
    is_token = np.ones(part.n_events, np.bool_)
    is_token[offsets[1:][np.diff(offsets) > 0] - 1] = False
    tokens = of_events[is_token]
    token_ids, token_id_offsets, token_numbers = bags_of_candidates(ids, numbers, tokens)
    if encoded.outcomes is not None:
        # of the events that have a token, which is read by later ones alone
        followed = encoded.outcomes[part.events][is_token]
        token_numbers = np.concatenate([token_numbers, followed], 1)
    batch = Batch(
        rows=encoded.rows[sessions],
        session_offsets=offsets,
        display_offsets=displays,
        choices=choices,
        ids=ids,
        numbers=numbers,
        token_offsets=np.append(0, np.cumsum(is_token))[offsets].astype(np.int32),
        token_candidates=tokens,
        token_ids=token_ids,
        token_id_offsets=token_id_offsets,
        token_numbers=token_numbers,
        context_ids=encoded.context_ids[part.events],
        context_numbers=encoded.context_numbers[part.events],
        weights=None if encoded.weights is None else encoded.weights[part.events],
        later_events=np.flatnonzero(part.event_number > 0),
        clicked=clicked,
        chosen=chosen,
        vectors=(
            None
            if encoded.vectors is None
            else encoded.vectors.of_batch(part.candidates, part.events, tokens)
        ),
    )
    if encoded.held_out is not None:
        folds = np.repeat(encoded.held_out[sessions], np.diff(offsets))
        batch = replace(batch, held_out=folds)
    if encoded.actions is None:
        return batch
    return _with_actions(batch, is_token, encoded.actions.before(part.events))


def _with_actions(batch: Batch, has_choice: npt.NDArray[np.bool_], before: ActionBags) -> Batch:
    """The batch with tokens of the actions `before` its events; has_choice: whether an event's
    choice is one.

    With actions a a before a session's first event and b between its two events:

        tokens     a  a  c0  b
        read by          e0  e1"""
    session_offsets, n_before = batch.session_offsets, np.diff(before.offsets)
    ends = np.cumsum(n_before + has_choice)
    # of each event: its actions, then its choice
    starts = ends - n_before - has_choice
    of_choices = (starts + n_before)[has_choice]
    n_all = int(ends[-1]) if len(ends) else 0
    is_choice = np.zeros(n_all, np.bool_)
    is_choice[of_choices] = True
    candidates = np.full(n_all, -2, np.int32)
    candidates[is_choice] = batch.token_candidates
    sizes = np.full(n_all, before.ids.shape[1], np.int64)
    sizes[is_choice] = np.diff(batch.token_id_offsets)
    id_offsets = np.concatenate(([0], np.cumsum(sizes)))
    ids = np.empty(int(id_offsets[-1]), np.int32)
    id_is_choice = np.repeat(is_choice, sizes)
    ids[id_is_choice] = batch.token_ids
    ids[~id_is_choice] = before.ids.reshape(-1)
    numbers = np.zeros((n_all, batch.token_numbers.shape[1]), np.float32)
    numbers[is_choice] = batch.token_numbers
    ends = np.concatenate(([0], ends))
    session_starts = ends[session_offsets]
    vectors = batch.vectors
    if vectors is not None:
        # an action is read without the vector of its item
        of_tokens = np.full(n_all, -1, np.int32)
        of_tokens[is_choice] = vectors.tokens
        vectors = vectors._replace(tokens=of_tokens)
    last = starts + n_before - 1
    later = np.flatnonzero(last >= np.repeat(session_starts[:-1], np.diff(session_offsets)))
    return replace(
        batch,
        token_offsets=session_starts.astype(np.int32),
        token_candidates=candidates,
        token_ids=ids,
        token_id_offsets=id_offsets.astype(np.int32),
        token_numbers=numbers,
        later_events=later,
        vectors=vectors,
        read_tokens=last[later],
    )


def bags_of_candidates(
    ids: IntArray, numbers: FloatArray, candidates: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Bags of candidates, -1 being no click (the id 0 and zeros): ids (nnz,), offsets (n + 1,),
    numbers (n, n_numbers)."""
    chosen = candidates >= 0
    if chosen.all():
        offsets = np.arange(len(candidates) + 1, dtype=np.int32) * np.int32(ids.shape[1])
        return ids[candidates].ravel(), offsets, numbers[candidates]
    sizes = np.where(chosen, ids.shape[1], 1)
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int32)
    bag_ids = np.zeros(offsets[-1], np.int32)
    bag_ids[np.repeat(chosen, sizes)] = ids[candidates[chosen]].reshape(-1)
    bag_numbers = np.zeros((len(candidates), numbers.shape[1]), np.float32)
    bag_numbers[chosen] = numbers[candidates[chosen]]
    return bag_ids, offsets, bag_numbers


def batches(
    encoded: EncodedSessions,
    batch_sessions: int,
    generator: np.random.Generator | None = None,
    part: slice = slice(None),
    drawn: IntArray | None = None,
) -> Iterator[Batch]:
    """Yield batches of whole sessions, all or `drawn` ones, shuffled by a generator or in order.

    With a `part`, one process's sessions of each batch; where none is left, the first again."""
    order = np.arange(encoded.n_sessions, dtype=np.int32) if drawn is None else drawn.copy()
    if generator is not None:
        generator.shuffle(order)
    at_once = 1
    whole = range(batch_sessions)
    if whole[part] == whole and encoded.vectors is None:
        mean_size = len(encoded.ids) / max(encoded.n_sessions, 1)
        at_once = int(AT_ONCE / max(mean_size * batch_sessions, 1))
        at_once = min(at_once, BATCH_CANDIDATES // max(encoded.largest * batch_sessions, 1))
    if at_once <= 1:
        for picked in blocks(encoded, order, batch_sessions):
            yield assemble(encoded, picked[part] if len(picked[part]) else picked[:1])
        return
    for several in blocks(encoded, order, at_once * batch_sessions):
        batch = assemble(encoded, several)
        for first in range(0, batch.n_sessions, batch_sessions):
            yield sessions_of(batch, first, min(first + batch_sessions, batch.n_sessions))


def sessions_of(batch: Batch, first: int, last: int) -> Batch:
    """The batch of some of a batch's sessions that follow one another; its large arrays are views.

    As `assemble` makes it of these sessions alone, without vectors, which it does not have: a
    small batch is cut out of a large one in a twentieth of the time."""
    assert batch.vectors is None
    of_sessions, of_displays = batch.session_offsets, batch.display_offsets
    start, stop = of_sessions[first], of_sessions[last]
    events, candidates = slice(start, stop), slice(of_displays[start], of_displays[stop])
    tokens = slice(batch.token_offsets[first], batch.token_offsets[last])
    of_ids = batch.token_id_offsets[tokens.start : tokens.stop + 1]
    later = slice(*np.searchsorted(batch.later_events, (start, stop)))
    clicked = slice(*np.searchsorted(batch.clicked, (start, stop)))
    token_candidates, read = batch.token_candidates[tokens], batch.read_tokens
    is_choice = token_candidates >= 0
    return Batch(
        rows=batch.rows[first:last],
        session_offsets=of_sessions[first : last + 1] - start,
        display_offsets=of_displays[start : stop + 1] - candidates.start,
        choices=batch.choices[events],
        ids=batch.ids[candidates],
        numbers=batch.numbers[candidates],
        token_offsets=batch.token_offsets[first : last + 1] - tokens.start,
        token_candidates=token_candidates - is_choice * candidates.start,
        token_ids=batch.token_ids[of_ids[0] : of_ids[-1]],
        token_id_offsets=of_ids - of_ids[0],
        token_numbers=batch.token_numbers[tokens],
        context_ids=batch.context_ids[events],
        context_numbers=batch.context_numbers[events],
        later_events=batch.later_events[later] - start,
        clicked=batch.clicked[clicked] - start,
        chosen=batch.chosen[clicked] - candidates.start,
        weights=None if batch.weights is None else batch.weights[events],
        read_tokens=None if read is None else read[later] - tokens.start,
        held_out=None if batch.held_out is None else batch.held_out[events],
    )
