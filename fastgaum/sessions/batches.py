"""Batches of whole sessions: packed arrays and the history tokens that the encoder reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastgaum.kernels.batching import history_tokens
from fastgaum.sessions.features import NO_CLICK_ID, EncodedSessions
from fastgaum.sessions.packed import FloatArray, IntArray
from fastgaum.sessions.ragged import pick_rows


@dataclass(frozen=True)
class Batch:
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
    """candidate chosen at each token, -1 for no click, shape (n_tokens,)"""

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.choices)

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.session_offsets) - 1


def token_bags(batch: Batch) -> tuple[IntArray, IntArray, FloatArray]:
    """Bags of the tokens: ids (nnz,), their offsets (n_tokens + 1,), numbers (n_tokens, n_numbers).

    A token of a choice has the chosen candidate's bag; a token of no click has the one id 0 and zeros.
    """
    return bags_of_candidates(batch, batch.token_candidates)


def bags_of_candidates(batch: Batch, candidates: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Bags of any candidates of the batch (-1 stands for no click); shapes as in `token_bags`."""
    clicked = candidates >= 0
    width = batch.ids.shape[1]
    counts = np.where(clicked, width, 1).astype(np.int32)
    offsets = np.zeros(len(candidates) + 1, dtype=np.int32)
    np.cumsum(counts, out=offsets[1:])
    ids = np.full(offsets[-1], NO_CLICK_ID, dtype=np.int32)
    numbers = np.zeros((len(candidates), batch.numbers.shape[1]), dtype=np.float32)
    if clicked.any():
        chosen = candidates[clicked]
        ids[np.repeat(clicked, counts)] = batch.ids[chosen].reshape(-1)
        numbers[clicked] = batch.numbers[chosen]
    return ids, offsets, numbers


def assemble(encoded: EncodedSessions, sessions: IntArray, keep_last: bool = False) -> Batch:
    """Make a batch of the given sessions (positions in `encoded`), in the given order.

    `keep_last` keeps each session's last choice as a token, which only a state after the session reads.
    """
    session_offsets, events = pick_rows(encoded.session_offsets, sessions)
    display_offsets, candidates = pick_rows(encoded.display_offsets, events)
    choices = encoded.choices[events]
    token_offsets = np.empty(len(sessions) + 1, dtype=np.int32)
    tokens = np.empty(len(events), dtype=np.int32)
    n_tokens = history_tokens(session_offsets, display_offsets, choices, keep_last, token_offsets, tokens)
    return Batch(
        rows=encoded.rows[sessions],
        session_offsets=session_offsets,
        display_offsets=display_offsets,
        choices=choices,
        ids=encoded.ids[candidates],
        numbers=encoded.numbers[candidates],
        token_offsets=token_offsets,
        token_candidates=tokens[:n_tokens],
    )


def batches(
    encoded: EncodedSessions, batch_sessions: int, generator: np.random.Generator | None = None
) -> Iterator[Batch]:
    """Yield batches of whole sessions: shuffled when a random generator is given, else in order."""
    order = np.arange(encoded.n_sessions, dtype=np.int32)
    if generator is not None:
        generator.shuffle(order)
    for start in range(0, len(order), batch_sessions):
        yield assemble(encoded, order[start : start + batch_sessions])
