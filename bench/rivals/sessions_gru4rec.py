"""Next-item training on sessions: their draw, and a stand-in for the official GRU4Rec in stock
torch.

It trains one GRU (hidden 64) with one table for input and output items, an item bias, Adagrad, and
the cross-entropy of each target against the other targets of its block (own-batch negatives, none
drawn besides; a repeated item is a negative like any other, as in the official code).
`bench/bench_sessions.py` trains the same; they differ in what the method makes of a batch.

GRU4Rec (Hidasi et al., ICLR 2016; Hidasi & Karatzoglou, CIKM 2018) walks `block` sessions in
parallel lanes, one step of each per update, and cuts the gradient after that one step. The stand-in
follows the published algorithm, written anew. The official code was measured at about 100 k
targets/s at a block of 512 on two cores; `bench/rivals/peers.py` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6


@dataclass(frozen=True)
class ClickSessions:
    """Clicked items, session after session."""

    items: NDArray[np.int32]
    """shape (n_events,)"""
    offsets: NDArray[np.int32]
    """start of each session, shape (n_sessions + 1,)"""
    n_items: int

    @property
    def n_targets(self) -> int:
        """Events that a session's earlier events predict."""
        return len(self.items) - len(self.offsets) + 1


def zipf_sessions(
    n_sessions: int, n_items: int = 10_000, shortest: int = 2, longest: int = 100, seed: int = 0
) -> ClickSessions:
    """Draw sessions: P(length) ∝ 1 / length from `shortest` to `longest` (2 to 100: mean 23.6),
    items ∝ 1 / (rank + 10).

    Half of the events follow their predecessor (item → a fixed other item), the rest are drawn by
    popularity."""
    rng = np.random.default_rng(seed)
    values = np.arange(shortest, longest + 1)
    lengths = rng.choice(values, size=n_sessions, p=(1 / values) / (1 / values).sum())
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    popularity = 1 / (np.arange(n_items) + 10)
    items = rng.choice(n_items, size=int(offsets[-1]), p=popularity / popularity.sum()).astype(
        np.int32
    )
    successor = rng.permutation(n_items).astype(np.int32)
    follows = rng.random(len(items)) < 0.5
    follows[offsets[:-1]] = False
    for event in np.flatnonzero(follows):
        items[event] = successor[items[event - 1]]
    return ClickSessions(items, offsets, n_items)


def adagrad_rows(table: Tensor, squares: Tensor, rows: Tensor, gradient: Tensor, lr: float) -> None:
    """Adagrad on distinct rows of a table, in place."""
    sums = squares[rows] + gradient.square()
    squares[rows] = sums
    table.index_add_(0, rows, gradient / (sums + EPS).sqrt(), alpha=-lr)


class Lanes:
    """The stand-in for the official GRU4Rec: session-parallel lanes, one step per update, gradient
    cut after it."""

    def __init__(
        self,
        sessions: ClickSessions,
        hidden: int = 64,
        block: int = 50,
        lr: float = 0.05,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.sessions, self.block, self.lr = sessions, block, lr
        self.items = nn.Embedding(sessions.n_items, hidden, sparse=True)
        self.bias = nn.Embedding(sessions.n_items, 1, sparse=True)
        self.cell = nn.GRUCell(hidden, hidden)
        nn.init.uniform_(self.items.weight, -0.1, 0.1)
        nn.init.zeros_(self.bias.weight)
        self.squares = {
            p: torch.zeros_like(p)
            for m in (self.items, self.bias, self.cell)
            for p in m.parameters()
        }

    def epoch(self) -> float:
        """Train on every session once; returns the mean loss over targets."""
        h = torch.zeros(self.block, self.cell.hidden_size)
        total = n_targets = 0.0
        for inputs, targets, alive, fresh in lanes(self.sessions, self.block):
            h = h[torch.from_numpy(alive)]
            h[torch.from_numpy(fresh)] = 0.0
            loss, h = self._update(
                torch.from_numpy(inputs).long(), torch.from_numpy(targets).long(), h
            )
            total, n_targets = total + loss * len(inputs), n_targets + len(inputs)
        return total / n_targets

    def _update(self, inputs: Tensor, targets: Tensor, h: Tensor) -> tuple[float, Tensor]:
        both = self.items(torch.cat([inputs, targets]))
        state = self.cell(both[: len(inputs)], h.detach())
        scores = state @ both[len(inputs) :].t() + self.bias(targets).t()
        loss = functional.cross_entropy(scores, torch.arange(len(targets)))
        for parameter in self.squares:
            parameter.grad = None
        torch.autograd.backward(loss)
        with torch.no_grad():
            for parameter, squares in self.squares.items():
                self._adagrad(parameter, squares)
        return float(loss.detach()), state.detach()

    def _adagrad(self, parameter: Tensor, squares: Tensor) -> None:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            gradient = parameter.grad.coalesce()
            adagrad_rows(parameter, squares, gradient.indices()[0], gradient.values(), self.lr)
        else:
            squares.add_(parameter.grad.square())
            parameter.addcdiv_(parameter.grad, (squares + EPS).sqrt(), value=-self.lr)


def lanes(
    sessions: ClickSessions, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Walk sessions in lanes: a lane takes the next session when its own is over, and closes when
    none is left.

    Yields inputs, targets, `alive` (lanes of the step before that go on), `fresh` (of those, which
    start a session). Stops when one lane is left: a block of one has no negatives."""
    at, ends = sessions.offsets[:-1][:width].copy(), sessions.offsets[1:][:width].copy()
    waiting, fresh, alive = len(at), np.ones(len(at), dtype=bool), np.arange(len(at))
    while len(at) > 1:
        yield sessions.items[at], sessions.items[at + 1], alive, fresh
        at = at + 1
        over = at + 1 >= ends
        taking = np.flatnonzero(over)[: len(sessions.offsets) - 1 - waiting]
        at[taking] = sessions.offsets[waiting : waiting + len(taking)]
        ends[taking] = sessions.offsets[waiting + 1 : waiting + 1 + len(taking)]
        waiting += len(taking)
        fresh = np.zeros(len(at), dtype=bool)
        fresh[taking] = True
        alive = np.flatnonzero(~over | fresh)
        at, ends, fresh = at[alive], ends[alive], fresh[alive]
