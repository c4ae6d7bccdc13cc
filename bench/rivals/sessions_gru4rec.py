"""Next-item training on sessions: ours on packed sessions, and a stand-in for the official GRU4Rec in stock torch.

Both train one GRU (hidden 64) with one table for input and output items, an item bias, Adagrad, and the same loss:
cross-entropy of each target against the other targets of its block (own-batch negatives, none drawn besides; a repeated
item is a negative like any other, as in the official code). A block is 50 or 512 targets.

They differ in what the method makes of a batch. GRU4Rec (Hidasi et al., ICLR 2016; Hidasi & Karatzoglou, CIKM 2018) walks
`block` sessions in parallel lanes, one step of each per update, and cuts the gradient after that one step. Ours takes whole
sessions, packed, sends the gradient through all their steps, and updates once per batch of sessions; blocks are drawn at
random from the batch's targets. With `loss="bpr"` ours has the loss that RecBole's GRU4Rec uses: one uniform negative each.

The stand-in follows the published algorithm, written anew: session-parallel batches, nn.GRUCell, sparse embeddings, an
Adagrad that coalesces and updates rows. The official code was measured at 25–40 k targets/s at batch 50 and at
about 100 k at 512 on two cores; `official_gru4rec.py` runs it where it is to be had.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.bench.rivals.session_data import Sessions
from fastgaum.ops.recurrent import gru
from fastgaum.sessions.ragged import pick_rows

EPS = 1e-6


class Packed:
    """Ours: whole sessions, packed; only the rows that a batch holds are read and updated."""

    def __init__(
        self, sessions: Sessions, hidden: int = 64, block: int = 50, batch_sessions: int = 128,
        loss: str = "cross-entropy", lr: float = 0.05, seed: int = 0,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self.sessions, self.block, self.batch_sessions = sessions, block, batch_sessions
        self.loss, self.lr = loss, lr
        self.order = np.random.default_rng(seed)
        # the last column is the item's bias
        self.table = torch.empty(sessions.n_items, hidden + 1).uniform_(-0.1, 0.1)
        self.table[:, hidden] = 0.0
        self.squares = torch.zeros_like(self.table)
        bound = hidden**-0.5
        shapes = ((3 * hidden, hidden), (3 * hidden,), (3 * hidden, hidden), (3 * hidden,))
        self.weights = [torch.empty(shape).uniform_(-bound, bound).requires_grad_() for shape in shapes]
        self.optimiser = torch.optim.Adagrad(self.weights, lr=lr, eps=EPS)

    def epoch(self) -> float:
        """Train on every session once, shuffled; returns the mean loss over targets."""
        total, order = 0.0, self.order.permutation(len(self.sessions.offsets) - 1).astype(np.int32)
        for start in range(0, len(order), self.batch_sessions):
            loss, n = self.step(order[start : start + self.batch_sessions])
            total += loss * n
        return total / self.sessions.n_targets

    def step(self, picked: np.ndarray) -> tuple[float, int]:
        """One update from whole sessions; returns the mean loss and the number of targets."""
        inputs, targets, offsets = self._tokens(picked)
        negatives = self.order.integers(self.sessions.n_items, size=len(targets)) if self.loss == "bpr" else targets[:0]
        rows, places = np.unique(np.concatenate([inputs, targets, negatives]), return_inverse=True)
        held = torch.from_numpy(rows)
        local = self.table[held].requires_grad_()
        input_rows, target_rows, negative_rows = torch.from_numpy(places).split([len(inputs), len(targets), len(negatives)])  # fmt: skip
        states = self._states(local[:, :-1], input_rows, offsets)
        if self.loss == "bpr":
            loss = bpr(states, local[target_rows], local[negative_rows])
        else:
            drawn = torch.from_numpy(self.order.permutation(len(targets)))
            loss = self._own_batch(states[drawn], local[target_rows[drawn]])
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        assert local.grad is not None
        adagrad_rows(self.table, self.squares, held, local.grad, self.lr)
        return float(loss.detach()), len(targets)

    def _tokens(self, picked: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor]:
        offsets, events = pick_rows(self.sessions.offsets, picked)
        predicts = np.ones(len(events), dtype=bool)
        predicts[offsets[1:] - 1] = False
        events = events[predicts]
        starts = torch.from_numpy(offsets - np.arange(len(offsets), dtype=np.int32))
        return self.sessions.items[events], self.sessions.items[events + 1], starts

    def _states(self, items: Tensor, input_rows: Tensor, offsets: Tensor) -> Tensor:
        w_ih, b_ih, w_hh, b_hh = self.weights
        # one product per distinct item, not per event
        gates = functional.linear(items, w_ih, b_ih)[input_rows]
        return gru(gates, offsets, w_hh, b_hh, items.new_zeros(len(offsets) - 1, w_hh.shape[1]))

    def _own_batch(self, states: Tensor, targets: Tensor) -> Tensor:
        n = len(states) // self.block * self.block
        blocks = [part.view(-1, self.block, part.shape[1]) for part in (states[:n], targets[:n])] if n else None
        losses = [own_batch_loss(*blocks)] if blocks else []
        if n < len(states):
            losses.append(own_batch_loss(states[None, n:], targets[None, n:]))
        return torch.stack(losses).sum() / len(states)


def own_batch_loss(states: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy of each target against its block: states (N, B, H), targets (N, B, H + 1), bias last."""
    scores = torch.baddbmm(targets[:, None, :, -1], states, targets[..., :-1].transpose(1, 2))
    right = torch.arange(scores.shape[1]).repeat(len(scores))
    return functional.cross_entropy(scores.flatten(0, 1), right, reduction="sum")


def bpr(states: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Mean of −log σ(target's score − negative's score)."""
    difference = targets - negatives
    margin = (states * difference[:, :-1]).sum(1) + difference[:, -1]
    return -functional.logsigmoid(margin).mean()


def adagrad_rows(table: Tensor, squares: Tensor, rows: Tensor, gradient: Tensor, lr: float) -> None:
    """Adagrad on distinct rows of a table, in place."""
    sums = squares[rows] + gradient.square()
    squares[rows] = sums
    table.index_add_(0, rows, gradient / (sums + EPS).sqrt(), alpha=-lr)


class Lanes:
    """The stand-in for the official GRU4Rec: session-parallel lanes, one step per update, gradient cut after it."""

    def __init__(self, sessions: Sessions, hidden: int = 64, block: int = 50, lr: float = 0.05, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.sessions, self.block, self.lr = sessions, block, lr
        self.items = nn.Embedding(sessions.n_items, hidden, sparse=True)
        self.bias = nn.Embedding(sessions.n_items, 1, sparse=True)
        self.cell = nn.GRUCell(hidden, hidden)
        nn.init.uniform_(self.items.weight, -0.1, 0.1)
        nn.init.zeros_(self.bias.weight)
        self.squares = {p: torch.zeros_like(p) for m in (self.items, self.bias, self.cell) for p in m.parameters()}

    def epoch(self) -> float:
        """Train on every session once; returns the mean loss over targets."""
        h = torch.zeros(self.block, self.cell.hidden_size)
        total = n_targets = 0.0
        for inputs, targets, alive, fresh in lanes(self.sessions, self.block):
            h = h[torch.from_numpy(alive)]
            h[torch.from_numpy(fresh)] = 0.0
            loss, h = self._update(torch.from_numpy(inputs).long(), torch.from_numpy(targets).long(), h)
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


def lanes(sessions: Sessions, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Walk sessions in lanes: a lane takes the next session when its own is over, and closes when none is left.

    Yields inputs, targets, `alive` (lanes of the step before that go on), `fresh` (of those, which start a session). Stops
    when one lane is left: a block of one has no negatives.
    """
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
