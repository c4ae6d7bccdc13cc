"""Histories of n users that advance display by display."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt
import torch

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.kernels.bag_linear import BagArrays
from fastgaum.nets.histories import Carry, HistoryEncoder
from fastgaum.nets.tensors import Bags
from fastgaum.ops.history import HistorySteps


class RecurrentHistories:
    """Histories of n users that advance by one recurrent step."""

    def __init__(self, encoder: HistorySteps, n: int) -> None:
        self.encoder, self.carries = encoder, encoder.initial(n)

    def reset(self, users: IntArray | slice) -> None:
        """Forget those users' tokens."""
        for carry in self.carries:
            for part in carry:
                part[users] = 0

    def advance(self, users: IntArray, tokens: BagArrays) -> FloatArray:
        """States of users after one more token each, (n_users, state_dim)."""
        everyone, rows = are_all(users, len(self.carries[0][0])), rows_of(users)
        before = self.carries if everyone else [(h[rows], c[rows]) for h, c in self.carries]
        after = self.encoder.advance(before, tokens)
        if everyone:
            self.carries = after
            return after[-1][0]
        for old, new in zip(self.carries, after, strict=True):
            for part, value in zip(old, new, strict=True):
                part[rows] = value
        return after[-1][0]


class ReplayedHistories:
    """Histories of any encoder. While all users move together, one `advance` makes a step; when
    some did not, the encoder reads their last `window` tokens again."""

    def __init__(self, encoder: HistoryEncoder, n: int) -> None:
        self.encoder, self.n = encoder, n
        self.past = [deque[tuple[IntArray, FloatArray]](maxlen=encoder.window) for _ in range(n)]
        self.together: Carry | None = encoder.initial(n)

    def reset(self, users: IntArray | slice) -> None:
        """Forget those users' tokens."""
        for user in np.arange(self.n)[users].tolist():
            self.past[user].clear()
        self.together = None if any(self.past) else self.encoder.initial(self.n)

    @torch.no_grad()
    def advance(self, users: IntArray, tokens: BagArrays) -> FloatArray:
        """States of users after one more token each, (n_users, state_dim)."""
        ids, offsets, numbers = tokens
        for at, user in enumerate(users.tolist()):
            self.past[user].append((ids[offsets[at] : offsets[at + 1]], numbers[at]))
        if self.together is not None and are_all(users, self.n):
            self.together = self.encoder.advance(self.together, _bags(ids, offsets, numbers))
            return np.asarray(self.encoder.state_of(self.together).numpy())
        self.together = None
        read = [self.past[user] for user in users.tolist()]
        every = [token for past in read for token in past]
        sizes = np.cumsum([0, *(len(ids) for ids, _ in every)]).astype(np.int32)
        bags = _bags(
            np.concatenate([ids for ids, _ in every]), sizes, np.stack([part for _, part in every])
        )
        ends = torch.from_numpy(np.cumsum([0, *map(len, read)]).astype(np.int32))
        return np.asarray(self.encoder.last_states(bags, ends).numpy())


def are_all(users: IntArray, n: int) -> bool:
    """Whether these are all of n users, in their order."""
    return len(users) == n and (n == 1 or bool((users[1:] > users[:-1]).all()))


def rows_of(users: IntArray) -> IntArray | slice:
    """These users as rows: a range of them without a copy."""
    n = len(users)
    if n == 1:
        return slice(int(users[0]), int(users[0]) + 1)
    if n and users[-1] - users[0] == n - 1 and bool((users[1:] > users[:-1]).all()):
        return slice(int(users[0]), int(users[0]) + n)
    return users


def _bags(ids: IntArray, offsets: IntArray, numbers: npt.NDArray[np.float32]) -> Bags:
    return Bags(torch.from_numpy(ids), torch.from_numpy(offsets), torch.from_numpy(numbers))
