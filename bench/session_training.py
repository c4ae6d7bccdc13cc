"""Next-item training on sessions, ours: whole sessions, packed, and every pass written by hand.

One GRU, one table for input and output items whose last column is the item's bias, Adagrad, and
own-batch cross-entropy: each target against the other targets of its block
(`kernels/own_batch.py`); with `loss="bpr"` against one item drawn uniformly, as RecBole's GRU4Rec
does. The gradient runs through all steps of a session.

One update is made per `batch_sessions` sessions, whatever the block: 64 sessions of Zipf length 2
to 100 hold some 1,430 targets, and 4,000 sessions make 63 updates an epoch. GRU4Rec updates after
every block, some 1,790 times an epoch at 50 and 175 times at 512. 64 sessions is the least that
costs no speed: 32 lose up to a tenth on one thread, more on two. Fewer updates learn less in an
epoch: on 1,500 sessions, block 50 and rate 0.05 the training loss is down to 0.8 after ten epochs
here and after six in the lanes of `rivals/sessions_gru4rec.py`; at 512 the two learn alike.

A batch reads and writes only the table rows that it names. Every cut into parts follows from the
data, so that one thread and many give the same bits."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fastgaum import threads
from fastgaum.bench.rivals.session_data import Sessions
from fastgaum.engine.buffers import Array, Buffer
from fastgaum.engine.optimiser import Named, NamedRoom
from fastgaum.engine.recurrence import GruLayer
from fastgaum.kernels import own_batch as loss_kernels
from fastgaum.kernels import rows as row_kernels
from fastgaum.logs.split import pick_rows

IntArray = NDArray[np.int32]

EPS = np.float32(1e-6)
PART, MOST_PARTS = 256, 8
"""rows, or targets, that one call of a kernel works through at least, and into how many calls a
pass is cut at most"""
SPLIT = 128
"""targets of a block from which two calls share it"""


class Packed:
    """A GRU over sessions in training. Raises IndexError for an item that is not one of the
    sessions' `n_items`."""

    def __init__(
        self,
        sessions: Sessions,
        hidden: int = 64,
        block: int = 50,
        batch_sessions: int = 64,
        loss: Literal["cross-entropy", "bpr"] = "cross-entropy",
        lr: float = 0.05,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.hidden, self.block, self.batch_sessions = hidden, block, batch_sessions
        self.loss, self.lr = loss, np.float32(lr)
        self.split = 2 if loss == "cross-entropy" and block >= SPLIT else 1
        self.gru = GruLayer(hidden)
        self.order, self.ones = np.random.default_rng(seed), np.empty(0, np.int32)
        self.room = NamedRoom()
        self._grad_states, self._grad_rows, self._gates, self._x = (Buffer() for _ in range(4))
        self._grad_w_ih, self._grad_b_ih, self._total = (Buffer() for _ in range(3))
        self._take(sessions)
        # the last column is the item's bias
        self.table = torch.empty(sessions.n_items, hidden + 1).uniform_(-0.1, 0.1).numpy()
        self.table[:, hidden] = 0.0
        self.squares = np.zeros_like(self.table)
        self.slot_of = np.full(sessions.n_items, -1, np.int32)
        self._make_weights()

    def _take(self, sessions: Sessions) -> None:
        """Keep inputs and targets apart: session i has inputs[offsets[i]:offsets[i + 1]], and as
        many targets."""
        self.n_items, self.n_targets = sessions.n_items, sessions.n_targets
        first, last = np.zeros((2, len(sessions.items)), dtype=bool)
        first[sessions.offsets[:-1]] = last[sessions.offsets[1:] - 1] = True
        self.inputs, self.targets = sessions.items[~last], sessions.items[~first]
        self.offsets = (sessions.offsets - np.arange(len(sessions.offsets))).astype(np.int32)

    def _make_weights(self) -> None:
        """W_ih, b_ih, W_hh and b_hh as views of one flat block, with gradients and sums of squares
        alike."""
        size, bound = self.hidden, self.hidden**-0.5
        shapes = ((3 * size, size), (3 * size,), (3 * size, size), (3 * size,))
        flat = torch.cat([torch.empty(shape).uniform_(-bound, bound).flatten() for shape in shapes])
        self.dense = flat.numpy()
        self.dense_grad, self.dense_squares = np.zeros_like(self.dense), np.zeros_like(self.dense)
        cuts = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
        self.weights, self.grads = (
            [part.reshape(shape) for part, shape in zip(np.split(block, cuts), shapes, strict=True)]
            for block in (self.dense, self.dense_grad)
        )

    def epoch(self) -> float:
        """Train on every session once, shuffled; returns the mean loss over targets."""
        total, order = 0.0, self.order.permutation(len(self.offsets) - 1).astype(np.int32)
        for start in range(0, len(order), self.batch_sessions):
            loss, n = self.step(order[start : start + self.batch_sessions])
            total += loss * n
        return total / self.n_targets

    def step(self, picked: IntArray) -> tuple[float, int]:
        """One update from whole sessions; returns the mean loss and the number of targets."""
        inputs, targets, offsets = self._tokens(picked)
        n = len(inputs)
        negatives = (
            self.order.integers(self.n_items, size=n).astype(np.int32)
            if self.loss == "bpr"
            else targets[:0]
        )
        # after the inputs the targets, once for each piece of a block, and the negatives
        ids = np.concatenate([inputs, *[targets] * self.split, negatives])
        named = Named(ids, self._starts(len(ids)), self.slot_of, self.room)
        states = self._forward(inputs, offsets)
        grad_states = self._grad_states(n, self.hidden)
        grad_rows = self._grad_rows(len(ids), self.hidden + 1)
        if self.loss == "bpr":
            loss = self._bpr(targets, negatives, states, grad_states, grad_rows[n:])
        else:
            loss = self._own_batch(targets, states, grad_states, grad_rows[n:])
        self._backward(grad_states, grad_rows[:n])
        self._update(named, grad_rows)
        return loss / n, n

    def _starts(self, n: int) -> Any:
        """Offsets of n bags of one id each."""
        if n >= len(self.ones):
            self.ones = np.arange(n + n // 4 + 1, dtype=np.int32)
        return self.ones[: n + 1]

    def _tokens(self, picked: IntArray) -> tuple[Any, Any, Any]:
        offsets, events = pick_rows(self.offsets, picked)
        return self.inputs[events], self.targets[events], offsets

    def _forward(self, inputs: Any, offsets: Any) -> Array:
        """State after each input, (n, H)."""
        w_ih, b_ih, w_hh, b_hh = self.weights
        n = len(inputs)
        gates = self._gates(n, len(b_ih))
        self.x = self._x(n, self.hidden)
        fixed = (inputs, self.table, np.ascontiguousarray(w_ih.T), b_ih, self.x, gates)
        threads.run(loss_kernels.item_gates, [(*part, *fixed) for part in _parts(n)])
        return self.gru.forward(offsets, w_hh, b_hh, gates)

    def _own_batch(
        self, targets: Any, states: Array, grad_states: Array, grad_targets: Array
    ) -> float:
        """Summed cross-entropy within blocks drawn from all targets of the batch."""
        n = len(targets)
        drawn = self.order.permutation(n).astype(np.int32)
        n_pieces = -(-n // self.block) * self.split
        losses = np.empty(n_pieces)
        fixed = (
            self.block,
            self.split,
            drawn,
            targets,
            states,
            self.table,
            grad_states,
            grad_targets,
            losses,
        )
        parts = _parts(n_pieces, max(PART // self.block, 1))
        threads.run(loss_kernels.own_batch, [(*part, *fixed) for part in parts])
        return float(losses.sum())

    def _bpr(
        self, targets: Any, negatives: Any, states: Array, grad_states: Array, grad_outputs: Array
    ) -> float:
        n = len(targets)
        parts = _parts(n)
        losses = np.empty(len(parts))
        fixed = (
            targets,
            negatives,
            states,
            self.table,
            grad_states,
            grad_outputs[:n],
            grad_outputs[n:],
        )
        threads.run(
            loss_kernels.bpr, [(*part, *fixed, losses[k : k + 1]) for k, part in enumerate(parts)]
        )
        return float(losses.sum())

    def _backward(self, grad_states: Array, grad_inputs: Array) -> None:
        """From the gradients of the states to those of the input rows and, summed over parts in
        order, the weights."""
        grad_w_ih, grad_b_ih, grad_w_hh, grad_b_hh = self.grads
        of_gates, _ = self.gru.backward(grad_states, grad_w_hh, grad_b_hh)
        parts = _parts(len(grad_inputs))
        weights = self._grad_w_ih(len(parts), *grad_w_ih.shape)
        biases = self._grad_b_ih(len(parts), len(grad_b_ih))
        fixed = (self.x, self.weights[0], of_gates, grad_inputs)
        threads.run(
            loss_kernels.item_gates_backward,
            [(*part, *fixed, weights[k], biases[k]) for k, part in enumerate(parts)],
        )
        weights.sum(0, out=grad_w_ih)
        biases.sum(0, out=grad_b_ih)

    def _update(self, named: Named, grad_rows: Array) -> None:
        """Sum the gradients of each row that was named, and move the rows and the weights."""
        width = self.hidden + 1
        total = self._total(named.count, width)
        parts = [(grad_rows, *named.bags, *part, total) for part in named.parts(width)]
        threads.run(row_kernels.add_rows, parts)
        held = (self.table, named.rows, total, self.squares)
        threads.run(
            row_kernels.adagrad_elements,
            [(*held, *part, self.lr, EPS) for part in _parts(named.count)],
        )
        row_kernels.adagrad_dense(self.dense, self.dense_grad, self.dense_squares, self.lr, EPS)


def _parts(n: int, least: int = PART) -> list[tuple[int, int]]:
    size = max(least, -(-n // MOST_PARTS))
    return [(first, min(first + size, n)) for first in range(0, n, size)]
