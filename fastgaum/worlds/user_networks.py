"""Histories of simulated users that must be read again, because their encoder allows no other
way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fastgaum.features.encoder import NO_CLICK_ID
from fastgaum.nets.histories import Carry, HistoryEncoder
from fastgaum.nets.tensors import Bags
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import FloatArray, IntArray


class ChoiceHistory:
    """The choices and actions of n users, as bags; the oldest are forgotten beyond `most`."""

    def __init__(self, catalogue: Catalogue, n: int, most: int | None = None) -> None:
        self.catalogue, self.most = catalogue, most
        space = catalogue.space
        # an action's bag: its item, the item's categories, and what was done
        of_action = 2 + sum(part.source == "item_field" for part in space.categorical)
        width = max(catalogue.ids.shape[1], of_action if space.actions else 0)
        self.ids: IntArray = np.zeros((n, 8, width), np.int32)
        self.numbers: FloatArray = np.zeros((n, 8, space.n_numbers), np.float32)
        self.sizes = np.zeros((n, 8), np.int32)
        """ids of each bag"""
        self.lengths: npt.NDArray[np.int64] = np.zeros(n, np.int64)

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' choices."""
        self.lengths[rows] = 0

    def append(self, active: npt.NDArray[np.bool_], chosen: IntArray, numbers: FloatArray) -> None:
        """Add a choice, or an action, of each active user: table rows (n, 1, ·), -1 for no click,
        and numbers (n, 1, d)."""
        if self.most is not None:
            full = np.flatnonzero(active & (self.lengths == self.most))
            for values in (self.ids, self.numbers, self.sizes) if len(full) else ():
                values[full, : self.most - 1] = values[full, 1 : self.most]
            self.lengths[full] -= 1
        if self.lengths.max(initial=0) == self.ids.shape[1]:
            self.ids, self.numbers, self.sizes = (
                np.concatenate([values, np.zeros_like(values)], axis=1)
                for values in (self.ids, self.numbers, self.sizes)
            )
        users = np.flatnonzero(active)
        at = self.lengths[users]
        rows = chosen[users, 0]
        ids = self.catalogue.bags(rows)
        # no click has one id instead of all the others
        ids[rows[:, 0] < 0, 0] = NO_CLICK_ID
        self.ids[users, at, : ids.shape[1]] = ids
        self.numbers[users, at] = numbers[users, 0]
        self.sizes[users, at] = np.where(rows[:, 0] < 0, 1, ids.shape[1])
        self.lengths[users] += 1

    def bags(self, users: IntArray | slice, at: int) -> Bags:
        """The choice number `at`, of those remembered, of users who all have so many."""
        sizes, ids = self.sizes[users, at], self.ids[users, at]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        flat = ids[np.arange(ids.shape[1]) < sizes[:, None]]
        parts = (flat, offsets, self.numbers[users, at])
        bag_ids, starts, numbers = (torch.from_numpy(part) for part in parts)
        return Bags(bag_ids, starts, numbers)


class ReplayedHistories:
    """Histories whose encoder must read past choices again: bilstm, position weights, and a user's
    own encoder.

    While all users move together, one `advance` of the encoder makes a step. When some were started
    anew or did not move, the encoder reads their choices again from the first one remembered: the
    last m for position weights, all for bilstm. bilstm reads all choices in any case: O(t) at step
    t."""

    in_parts = False

    def __init__(self, encoder: HistoryEncoder, catalogue: Catalogue, n: int) -> None:
        self.encoder, self.n = encoder, n
        self.choices = ChoiceHistory(catalogue, n, encoder.window)
        self.states: FloatArray = np.zeros((n, encoder.state_dim), np.float32)
        self.together: Carry | None = encoder.initial(n)

    def reset(self, rows: IntArray | slice) -> None:
        """Forget those users' choices."""
        self.choices.reset(rows)
        self.states[rows] = 0
        self.together = None if self.choices.lengths.any() else self.encoder.initial(self.n)

    @torch.no_grad()
    def advance(
        self,
        first: int,
        last: int,
        active: npt.NDArray[np.bool_],
        chosen: IntArray,
        numbers: FloatArray,
    ) -> None:
        """Append the active users' choices and read their states; `first` and `last` are those of
        all users."""
        self.choices.append(active, chosen, numbers)
        if self.together is not None and active.all():
            latest = self.choices.bags(slice(None), int(self.choices.lengths[0]) - 1)
            self.together = self.encoder.advance(self.together, latest)
            self.states[:] = self.encoder.state_of(self.together).numpy()
            return
        self.together = None
        for length in np.unique(self.choices.lengths[active]).tolist():
            users = np.flatnonzero(active & (self.choices.lengths == length)).astype(np.int32)
            carry = self.encoder.initial(len(users))
            for at in range(length):
                carry = self.encoder.advance(carry, self.choices.bags(users, at))
            self.states[users] = self.encoder.state_of(carry).numpy()
