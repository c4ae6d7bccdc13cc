"""Batches of whole sessions as torch tensors: packed arrays and history tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.features.sessions import (
    BATCH_CANDIDATES,
    ActionBags,
    EncodedSessions,
    blocks,
    select_sessions,
)
from fastgaum.nets.tensors import Bags, BagVectors

Edges = npt.NDArray[np.integer]
AT_ONCE = 16_384
"""candidates that are assembled at once, where batches are smaller"""


@dataclass(frozen=True)
class Batch:
    """Whole sessions, packed, none padded; tensors as the arrays of SessionLog. On the CPU kernels
    read the same memory (`Tensor.numpy`)."""

    rows: Tensor
    session_offsets: Tensor
    display_offsets: Tensor
    choices: Tensor
    candidates: Bags
    tokens: Bags
    """no click has the one id 0, and zeros for numbers; behind the numbers of the candidate stands
    what followed the choice, (n_tokens, n_numbers + n_outcomes)"""
    token_offsets: Tensor
    """start of each session in tokens, int32, (n_sessions + 1,)"""
    token_candidates: Tensor
    """candidate chosen at each token, -1 for no click, -2 for an action, int32, (n_tokens,)"""
    context: Bags
    """one bag of one id per event and context field"""
    context_numbers: Tensor
    """(n_events, n_context_numbers)"""
    later_events: Tensor
    """events with a token before them in their session, int64, (n_later,)"""
    clicked: Tensor
    """events with a choice, int64, (n_clicked,)"""
    chosen: Tensor
    """chosen candidate of each of those events, int64"""
    read_tokens: Tensor | None = None
    """last token before each of later_events, int64; None: token i before later_events[i]"""
    weights: Tensor | None = None
    """of each event, 1 on average over all batches, (n_events,); None: all alike"""
    held_out: Tensor | None = None
    """fold of each event's user where the session trained, else -1, (n_events,); None: none did"""

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return self.session_offsets.shape[0] - 1

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self.display_offsets.shape[0] - 1

    @property
    def ids(self) -> IntArray:
        """The candidates' ids, (n_candidates, n_categorical)."""
        ids: IntArray = self.candidates.ids.numpy()
        return ids.reshape(-1, self.candidates.width or 1)

    @property
    def context_ids(self) -> IntArray:
        """Ids of the events' context fields, (n_events, n_context_fields)."""
        ids: IntArray = self.context.ids.numpy()
        return ids.reshape(self.n_events, len(ids) // max(self.n_events, 1))

    @property
    def weight_of_event(self) -> Float64Array:
        """Weight of each event, 1 without any, (n_events,)."""
        if self.weights is None:
            return np.ones(self.n_events)
        return self.weights.double().cpu().numpy()

    def event_of_candidate(self) -> IntArray:
        """Event of each candidate, (n_candidates,)."""
        sizes = np.diff(self.display_offsets.numpy())
        return np.repeat(np.arange(self.n_events, dtype=np.int32), sizes)

    def weighted(self, per_event: Tensor) -> Tensor:
        """A number of each event times its weight, (n_events,)."""
        return per_event if self.weights is None else self.weights * per_event

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, Bags | BagVectors | Batch):
                names = [one.name for one in dataclasses.fields(value) if one.init]
                return type(value)(**{name: moved(getattr(value, name)) for name in names})
            return value.to(device) if isinstance(value, Tensor) else value

        moved_batch: Batch = self if torch.device(device).type == "cpu" else moved(self)
        return moved_batch


def assemble(encoded: EncodedSessions, sessions: IntArray | None = None) -> Batch:
    """Make a batch of sessions (positions in `encoded`), in the given order; None: all of them.
    Raises IndexError: a position is not a session of `encoded`."""
    if sessions is None:
        sessions = np.arange(encoded.n_sessions, dtype=np.int32)
    part = select_sessions(encoded, np.asarray(sessions, np.int32))
    offsets, choices = part.session_offsets, part.choices
    ids, numbers = encoded.ids[part.candidates], encoded.numbers_of(part)
    clicked, chosen = np.flatnonzero(choices >= 0), part.chosen_candidates
    of_events = np.full(part.n_events, -1, np.int32)
    of_events[clicked] = chosen
    is_token = np.ones(part.n_events, np.bool_)
    is_token[offsets[1:][np.diff(offsets) > 0] - 1] = False
    tokens = of_events[is_token]
    token_offsets = np.append(0, np.cumsum(is_token))[offsets].astype(np.int32)
    token_ids, token_id_offsets, token_numbers = bags_of_candidates(ids, numbers, tokens)
    if encoded.outcomes is not None:
        # of the events that have a token, which is read by later ones alone
        followed = encoded.outcomes[part.events][is_token]
        token_numbers = np.concatenate([token_numbers, followed], 1)
    of_candidates = of_tokens = of_context = None
    if encoded.vectors is not None:
        found = encoded.vectors.of_batch(part.candidates, part.events, tokens)
        values, *rows = map(torch.from_numpy, found)
        of_candidates, of_tokens, of_context = (BagVectors(values, one.reshape(-1)) for one in rows)
    context_ids = encoded.context_ids[part.events].reshape(-1, 1)
    no_numbers = np.empty((len(context_ids), 0), np.float32)
    batch = Batch(
        rows=torch.from_numpy(encoded.rows[sessions]),
        session_offsets=torch.from_numpy(offsets),
        display_offsets=torch.from_numpy(part.display_offsets),
        choices=torch.from_numpy(choices),
        candidates=_bags(ids, None, numbers, of_candidates),
        tokens=_bags(token_ids, token_id_offsets, token_numbers, of_tokens),
        token_offsets=torch.from_numpy(token_offsets),
        token_candidates=torch.from_numpy(tokens),
        context=_bags(context_ids, None, no_numbers, of_context),
        context_numbers=torch.from_numpy(encoded.context_numbers[part.events]),
        later_events=torch.from_numpy(np.flatnonzero(part.event_number > 0)),
        clicked=torch.from_numpy(clicked),
        chosen=torch.from_numpy(chosen),
    )
    if encoded.weights is not None:
        batch = replace(batch, weights=torch.from_numpy(encoded.weights[part.events]))
    if encoded.held_out is not None:
        folds = np.repeat(encoded.held_out[sessions], np.diff(offsets))
        batch = replace(batch, held_out=torch.from_numpy(folds))
    if encoded.actions is None:
        return batch
    return _with_actions(batch, is_token, encoded.actions.before(part.events))


def _bags(
    ids: IntArray, offsets: IntArray | None, numbers: FloatArray, vectors: BagVectors | None
) -> Bags:
    """Bags over arrays; without offsets, of as many ids each, (n_bags, width)."""
    width = None
    if offsets is None:
        width = ids.shape[1]
        offsets = np.arange(len(ids) + 1, dtype=np.int32) * np.int32(width)
    flat, starts, of_bags = map(torch.from_numpy, (ids.reshape(-1), offsets, numbers))
    return Bags(flat, starts, of_bags, vectors, width)


def _with_actions(batch: Batch, has_choice: npt.NDArray[np.bool_], before: ActionBags) -> Batch:
    """The batch with tokens of the actions `before` its events; has_choice: whether an event's
    choice is one.

    With actions a a before a session's first event and b between its two events:

        tokens     a  a  c0  b
        read by          e0  e1"""
    session_offsets, n_before = batch.session_offsets.numpy(), np.diff(before.offsets)
    ends = np.cumsum(n_before + has_choice)
    # of each event: its actions, then its choice
    starts = ends - n_before - has_choice
    is_choice = np.zeros(int(ends[-1]) if len(ends) else 0, np.bool_)
    is_choice[(starts + n_before)[has_choice]] = True
    candidates = np.full(len(is_choice), -2, np.int32)
    candidates[is_choice] = batch.token_candidates
    sizes = np.full(len(is_choice), before.ids.shape[1], np.int64)
    sizes[is_choice] = np.diff(batch.tokens.offsets.numpy())
    id_offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    ids = np.empty(int(id_offsets[-1]), np.int32)
    id_is_choice = np.repeat(is_choice, sizes)
    ids[id_is_choice] = batch.tokens.ids
    ids[~id_is_choice] = before.ids.reshape(-1)
    numbers = np.zeros((len(is_choice), batch.tokens.numbers.shape[1]), np.float32)
    numbers[is_choice] = batch.tokens.numbers
    vectors = batch.tokens.vectors
    if vectors is not None:
        # an action is read without the vector of its item
        rows = np.full(len(is_choice), -1, np.int32)
        rows[is_choice] = vectors.rows
        vectors = replace(vectors, rows=torch.from_numpy(rows))
    session_starts = np.concatenate(([0], ends))[session_offsets]
    last = starts + n_before - 1
    later = np.flatnonzero(last >= np.repeat(session_starts[:-1], np.diff(session_offsets)))
    return replace(
        batch,
        tokens=_bags(ids, id_offsets, numbers, vectors),
        token_offsets=torch.from_numpy(session_starts.astype(np.int32)),
        token_candidates=torch.from_numpy(candidates),
        later_events=torch.from_numpy(later),
        read_tokens=torch.from_numpy(last[later]),
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
    if not chosen.any():
        n = len(candidates)
        return (
            np.zeros(n, np.int32),
            np.arange(n + 1, dtype=np.int32),
            np.zeros((n, numbers.shape[1]), np.float32),
        )
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
        yield from split(assemble(encoded, several), batch_sessions)


def split(batch: Batch, n_sessions: int) -> list[Batch]:
    """The batches of each `n_sessions` of a batch's sessions that follow one another, each as
    `assemble` makes it of these sessions alone; its large tensors are views.

    Without vectors, which it does not have: a small batch is cut out of a large one in a twentieth
    of the time."""
    assert batch.candidates.vectors is None
    whole = batch.n_sessions
    sessions = np.append(np.arange(0, whole, n_sessions), whole)
    events, tokens = (one.numpy()[sessions] for one in (batch.session_offsets, batch.token_offsets))
    candidates = batch.display_offsets.numpy()[events]
    later, clicked = (
        np.searchsorted(one.numpy(), events) for one in (batch.later_events, batch.clicked)
    )
    read, held = batch.read_tokens, batch.token_candidates.numpy()
    firsts = np.repeat(candidates[:-1], np.diff(tokens))
    context = events * (len(batch.context.ids) // max(batch.n_events, 1))
    columns: dict[str, Sequence[Any]] = {
        "rows": _cut(batch.rows, sessions),
        "session_offsets": _cut_offsets(batch.session_offsets, sessions),
        "display_offsets": _cut_offsets(batch.display_offsets, events),
        "choices": _cut(batch.choices, events),
        "candidates": _cut_bags(batch.candidates, candidates),
        "tokens": _cut_bags(batch.tokens, tokens),
        "token_offsets": _cut_offsets(batch.token_offsets, sessions),
        "token_candidates": _cut(torch.from_numpy(np.where(held < 0, held, held - firsts)), tokens),
        "context": _cut_bags(batch.context, context),
        "context_numbers": _cut(batch.context_numbers, events),
        "later_events": _cut(batch.later_events, later, events),
        "read_tokens": _cut(read, later, tokens),
        "clicked": _cut(batch.clicked, clicked, events),
        "chosen": _cut(batch.chosen, clicked, candidates),
        "weights": _cut(batch.weights, events),
        "held_out": _cut(batch.held_out, events),
    }
    return [
        Batch(**dict(zip(columns, one, strict=True))) for one in zip(*columns.values(), strict=True)
    ]


def _cut(values: Tensor | None, edges: Edges, firsts: Edges | None = None) -> Sequence[Any]:
    """The parts of values between edges; of positions, each less the first of its part."""
    sizes = np.diff(edges)
    if values is None:
        return [None] * len(sizes)
    if firsts is not None:
        values = torch.from_numpy(values.numpy() - np.repeat(firsts[:-1], sizes))
    return torch.split(values, sizes.tolist())


def _cut_offsets(offsets: Tensor, edges: Edges) -> Sequence[Tensor]:
    """The offsets of each part between edges, which begin at 0."""
    sizes, values = np.diff(edges) + 1, offsets.numpy()
    part = np.repeat(np.arange(len(sizes)), sizes)
    own = values[np.arange(len(part)) - part] - values[edges[:-1]][part]
    return torch.split(torch.from_numpy(own), sizes.tolist())


def _cut_bags(bags: Bags, edges: Edges) -> list[Bags]:
    starts = bags.offsets.numpy()
    if bags.width is None:
        offsets = _cut_offsets(bags.offsets, edges)
    else:
        offsets = [torch.from_numpy(starts[: n + 1]) for n in np.diff(edges).tolist()]
    parts = zip(_cut(bags.ids, starts[edges]), offsets, _cut(bags.numbers, edges), strict=True)
    return [Bags(*one, width=bags.width) for one in parts]
