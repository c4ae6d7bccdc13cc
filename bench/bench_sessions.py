"""Race: next-item training on sessions of Zipf length 2 to 100, hidden size 64, targets per second.

Ours is one GRU of the engine, one table for input and output items whose last column is the item's
bias, row-wise Adagrad, and own-batch cross-entropy: each target against the other targets of its
block of 512. The gradient runs through all steps of a session. One update is made per 64 sessions,
which hold some 1,430 targets.

The rival in the run is a stand-in for the official GRU4Rec, written anew
(`rivals/sessions_gru4rec.py` says how). RecBole's GRU4Rec runs where $FASTGAUM_PEERS names an
environment that holds it (`rivals/peers.py`). It trains BPR, which is less arithmetic than ours."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fastgaum import threads
from fastgaum.bench.races import RATE, Bar, Race
from fastgaum.bench.rivals.peers import PEERS, rate
from fastgaum.bench.rivals.sessions_gru4rec import ClickSessions, Lanes, zipf_sessions
from fastgaum.engine.recurrence import GruLayer
from fastgaum.engine.tables import Named, NamedRoom, SparseTable
from fastgaum.logs.cut import pick_rows

GROUPS = dict.fromkeys(["sessions-block512", "sessions-recbole"])
HIDDEN, BLOCK, BATCH_SESSIONS, RATE_OF_LEARNING = 64, 512, 64, 0.05


class WholeSessions:
    """A GRU over whole sessions in training. Raises IndexError for an item that is not one of the
    sessions' `n_items`."""

    def __init__(
        self, sessions: ClickSessions, hidden: int = HIDDEN, block: int = BLOCK, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.hidden, self.block, self.order = hidden, block, np.random.default_rng(seed)
        self.n_targets = sessions.n_targets
        # session i has inputs[offsets[i]:offsets[i + 1]], and as many targets
        first, last = np.zeros((2, len(sessions.items)), dtype=bool)
        first[sessions.offsets[:-1]] = last[sessions.offsets[1:] - 1] = True
        self.inputs, self.targets = sessions.items[~last], sessions.items[~first]
        self.offsets = (sessions.offsets - np.arange(len(sessions.offsets))).astype(np.int32)
        table = nn.Parameter(torch.empty(sessions.n_items, hidden + 1).uniform_(-0.1, 0.1))
        table.data[:, hidden] = 0.0
        self.table = SparseTable(table, sessions.n_items, "adagrad")
        self.slot_of, self.room = np.full(sessions.n_items, -1, np.int32), NamedRoom()
        # W_ih, W_hh, b_ih and b_hh with torch's own start
        gru = nn.GRU(hidden, hidden)
        self.weights, self.gru = list(gru.parameters()), GruLayer(hidden)
        self.optimiser = torch.optim.Adagrad(self.weights, RATE_OF_LEARNING, foreach=True)

    def epoch(self) -> float:
        """Train on every session once, shuffled; returns the mean loss over targets."""
        total, order = 0.0, self.order.permutation(len(self.offsets) - 1).astype(np.int32)
        for start in range(0, len(order), BATCH_SESSIONS):
            total += self.step(order[start : start + BATCH_SESSIONS])
        return total / self.n_targets

    def step(self, picked: NDArray[np.int32]) -> float:
        """One update from whole sessions; returns the summed loss."""
        loss, named, grad_rows = self.gradients(picked)
        self.optimiser.step()
        self.table.add(named, grad_rows)
        moves = self.table.moves(1.0, RATE_OF_LEARNING, 0.0, (np.float32(1), np.float32(1)))
        threads.run_calls(moves)
        return loss

    def gradients(self, picked: NDArray[np.int32]) -> tuple[float, Named, NDArray[np.float32]]:
        """Give the weights the gradients of the mean loss; return the summed loss, and the
        gradients of the rows that are named, inputs before targets."""
        offsets, events = pick_rows(self.offsets, picked)
        ids = np.concatenate([self.inputs[events], self.targets[events]])
        named = Named(ids, np.arange(len(ids) + 1, dtype=np.int32), self.slot_of, self.room)
        rows, n = self.table.parameter.detach()[torch.from_numpy(ids)], len(events)
        w_ih, w_hh, b_ih, b_hh = (weight.detach() for weight in self.weights)
        x = rows[:n, :-1]
        gates = torch.addmm(b_ih, x, w_ih.t())
        states = self.gru.forward(offsets, w_hh.numpy(), b_hh.numpy(), gates.numpy())
        drawn = torch.from_numpy(self.order.permutation(n))
        grad_states, grad_rows = torch.empty(n, self.hidden), torch.zeros_like(rows)
        loss = self._own_batch(
            torch.from_numpy(states), rows[n:], drawn, grad_states, grad_rows[n:]
        )
        grads = torch.empty_like(w_hh), torch.empty_like(b_hh)
        of_gates = torch.from_numpy(
            self.gru.backward(grad_states.numpy(), *(grad.numpy() for grad in grads))
        )
        torch.mm(of_gates, w_ih, out=grad_rows[:n, :-1])
        for weight, grad in zip(
            self.weights, (of_gates.t() @ x, grads[0], of_gates.sum(0), grads[1]), strict=True
        ):
            weight.grad = grad
        return loss, named, grad_rows.numpy()

    def _own_batch(
        self,
        states: Tensor,
        targets: Tensor,
        drawn: Tensor,
        grad_states: Tensor,
        grad_targets: Tensor,
    ) -> float:
        """Summed cross-entropy within blocks of the targets in a drawn order; writes the gradients
        of their mean."""
        total = 0.0
        for block in torch.split(drawn, self.block):
            s, t = states[block], targets[block]
            probs = torch.addmm(t[:, -1], s, t[:, :-1].t()).softmax(1)
            total -= float(probs.diagonal().log().sum())
            probs.diagonal().sub_(1.0)
            grad_states[block] = probs @ (t[:, :-1] / len(states))
            with_bias = functional.pad(s, (0, 1), value=1.0) / len(states)
            grad_targets[block] = probs.t() @ with_bias
        return total


@pytest.mark.parametrize("contender", ["ours", "gru4rec-stand-in"])
@pytest.mark.parametrize("group", ["sessions-block512"])
def test_sessions(race: Race, full: bool, group: str, contender: str) -> None:
    sessions, block = zipf_sessions(4_000 if full else 60), BLOCK if full else 8
    maker = WholeSessions if contender == "ours" else Lanes
    model = maker(sessions, hidden=HIDDEN, block=block)
    # the stand-in, and the best figure measured of the official code on two cores
    bars = (Bar(3.0, "gru4rec-stand-in", 13), Bar(3 * 100_000, RATE, 13))

    def epoch() -> None:
        assert model.epoch() > 0

    n = sessions.n_targets
    # a target's products, forward and backward: projection and recurrence 18 H² each, the loss 6 H
    # for each of its block
    flops = n * (36.0 * HIDDEN**2 + 6 * HIDDEN * block)
    race(epoch, None, unit="targets", amount=n, bars=bars, flops=flops, rounds=5 if full else None)


@pytest.mark.parametrize("group", ["sessions-recbole"])
def test_recbole(record: Callable[..., None], full: bool, group: str) -> None:
    theirs = rate("recbole", threads.get_threads())
    if theirs is None:
        pytest.skip(f"${PEERS} names no environment with RecBole: bench/rivals/peers.py makes one")
    sessions = zipf_sessions(4_000 if full else 60)
    model = WholeSessions(sessions)
    model.epoch()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        model.epoch()
        seconds.append(time.perf_counter() - started)
    record(
        sessions.n_targets / sorted(seconds)[1] / theirs,
        "x RecBole's targets/s",
        bar=13,
        at_least=30.0,
    )
