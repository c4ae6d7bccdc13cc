"""Logged starts: users who come with the first events of a logged session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgaum.errors import LogFormatError
from fastgaum.kernels.keyed import uniforms
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import NO_ITEM, IntArray, KeyArray, Past

if TYPE_CHECKING:
    from fastgaum.worlds.learned_world import LearnedPopulation

_SESSION, _LENGTH = np.uint64(1), np.uint64(2)
"""streams of a reset's key"""


class LoggedStarts:
    """Prefixes of the sessions of one split of a log, encoded once, as the model has them there.

    Numbers and ids of a prefix are exactly the log's, with two exceptions: a categorical candidate
    field is that of the catalogue, and items that training never displayed are counted as one."""

    def __init__(self, catalogue: Catalogue, log: SessionLog, split: SplitName) -> None:
        rows = log.sessions_in(split)
        if len(rows) == 0:
            raise LogFormatError(
                f"log '{log.name}' has no session in split '{split}' to start users from"
            )
        encoded = catalogue.space.encode(log, rows)
        self.session_offsets, self.display_offsets = (
            encoded.session_offsets,
            encoded.display_offsets,
        )
        self.choices, self.numbers = encoded.choices, encoded.numbers
        self.rows, self.n_known = catalogue.rows(encoded.ids), catalogue.n_items

    def drawn(self, keys: KeyArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """A session for each key, and how many of its events went before: 0 … all but one."""
        keys, draws = np.ascontiguousarray(keys, np.uint64), np.empty((2, len(keys)))
        uniforms(keys, _SESSION, draws[0])
        uniforms(keys, _LENGTH, draws[1])
        sessions = (draws[0] * (len(self.session_offsets) - 1)).astype(np.int64)
        lengths = np.diff(self.session_offsets)[sessions]
        return sessions, (draws[1] * lengths).astype(np.int64)

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """The prefixes that these keys draw, event by event, as items of the catalogue."""
        sessions, lengths = self.drawn(keys)
        for t in range(int(lengths.max(initial=0))):
            now = np.flatnonzero(lengths > t)
            events = self.session_offsets[sessions[now]] + t
            starts = self.display_offsets[events]
            sizes = self.display_offsets[events + 1] - starts
            places = np.arange(int(sizes.max()))
            items = self.rows[np.minimum(starts[:, None] + places, len(self.rows) - 1), 0]
            slates, choices = (
                np.full((len(keys), len(places)), NO_ITEM, np.int32),
                np.full(len(keys), -1, np.int32),
            )
            slates[now] = np.where(
                (places < sizes[:, None]) & (items < self.n_known), items, NO_ITEM
            )
            choices[now] = self.choices[events]
            yield Past(slates, choices, lengths > t)

    def tell(self, users: LearnedPopulation, who: IntArray, keys: KeyArray) -> None:
        """Let the users `who`, who have no history, see and choose what their prefixes say."""
        sessions, lengths = self.drawn(keys)
        first_events = self.session_offsets[sessions]
        shape = self.rows.shape[1]
        for t in range(int(lengths.max(initial=0))):
            now = np.flatnonzero(lengths > t)
            events = first_events[now] + t
            starts = self.display_offsets[events]
            sizes = self.display_offsets[events + 1] - starts
            k = int(sizes.max())
            rows = np.full((users.n, k, shape), -1, np.int32)
            candidates = np.minimum(starts[:, None] + np.arange(k), len(self.rows) - 1)
            rows[who[now]] = np.where(
                (np.arange(k) < sizes[:, None])[:, :, None], self.rows[candidates], -1
            )
            chosen = np.full((users.n, 1, shape), -1, np.int32)
            numbers = np.zeros((users.n, 1, self.numbers.shape[1]), np.float32)
            clicked = self.choices[events] >= 0
            at = (starts + self.choices[events])[clicked]
            chosen[who[now[clicked]], 0] = self.rows[at]
            numbers[who[now[clicked]], 0] = self.numbers[at]
            active = np.zeros(users.n, bool)
            active[who[now]] = True
            users.session_counts.make_room(k)
            users.session_counts.count(
                0, users.n, active, rows, np.ascontiguousarray(chosen[:, 0, 0])
            )
            users.advance(active, chosen, numbers)
