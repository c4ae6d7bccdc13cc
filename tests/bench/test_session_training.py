"""Next-item training, ours: passes by hand against autograd, batches, threads, and that it
learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastgaum import threads
from fastgaum.bench.rivals.session_data import Sessions, zipf_sessions
from fastgaum.bench.rivals.sessions_gru4rec import adagrad_rows
from fastgaum.bench.session_training import EPS, Packed
from fastgaum.nets.recurrent import gru


class Twin:
    """The same training by autograd and torch.optim.Adagrad, from a trainer's own start and with
    its own draws."""

    def __init__(self, ours: Packed) -> None:
        self.ours = ours
        self.order = np.random.default_rng(0)
        self.table, self.squares = torch.tensor(ours.table), torch.zeros(ours.table.shape)
        self.weights = [torch.tensor(weight).requires_grad_() for weight in ours.weights]
        self.optimiser = torch.optim.Adagrad(self.weights, lr=float(ours.lr), eps=float(EPS))

    def step(self, picked: np.ndarray) -> float:
        inputs, targets, offsets = self.ours._tokens(picked)
        bpr = self.ours.loss == "bpr"
        negatives = (
            self.order.integers(self.ours.n_items, size=len(targets)) if bpr else targets[:0]
        )
        rows, places = np.unique(np.concatenate([inputs, targets, negatives]), return_inverse=True)
        held = torch.from_numpy(rows).long()
        local = self.table[held].requires_grad_()
        of_inputs, of_targets, of_negatives = torch.from_numpy(places).split(
            [len(inputs), len(targets), len(negatives)]
        )
        w_ih, b_ih, w_hh, b_hh = self.weights
        gates = functional.linear(local[:, :-1], w_ih, b_ih)[of_inputs]
        states = gru(
            gates, torch.from_numpy(offsets), w_hh, b_hh, torch.zeros(len(picked), self.ours.hidden)
        )
        if bpr:
            difference = local[of_targets] - local[of_negatives]
            loss = -functional.logsigmoid(
                (states * difference[:, :-1]).sum(1) + difference[:, -1]
            ).mean()
        else:
            drawn = torch.from_numpy(self.order.permutation(len(targets)))
            loss = own_batch_loss(states[drawn], local[of_targets[drawn]], self.ours.block)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        assert local.grad is not None
        adagrad_rows(self.table, self.squares, held, local.grad, float(self.ours.lr))
        return float(loss.detach())


def own_batch_loss(states: Tensor, targets: Tensor, block: int) -> Tensor:
    losses = []
    for s, t in zip(states.split(block), targets.split(block), strict=True):
        losses.append(
            functional.cross_entropy(
                s @ t[:, :-1].t() + t[:, -1], torch.arange(len(s)), reduction="sum"
            )
        )
    return torch.stack(losses).sum() / len(states)


@pytest.mark.parametrize(
    ("hidden", "block", "loss", "batch_sessions"),
    [
        (64, 50, "cross-entropy", 48),
        (64, 512, "cross-entropy", 64),
        (8, 130, "cross-entropy", 16),
        (64, 50, "bpr", 32),
    ],
)
def test_it_is_what_autograd_does(hidden: int, block: int, loss: Any, batch_sessions: int) -> None:
    sessions = zipf_sessions(batch_sessions, 500, longest=60)
    ours = Packed(sessions, hidden, block, batch_sessions, loss)
    twin = Twin(ours)
    for seed in range(4):
        picked = (
            np.random.default_rng(seed)
            .permutation(batch_sessions)[: batch_sessions - seed]
            .astype(np.int32)
        )
        mean, n = ours.step(picked)
        assert n == len(ours._tokens(picked)[0])
        assert mean == pytest.approx(twin.step(picked), rel=1e-5)
        torch.testing.assert_close(torch.from_numpy(ours.table), twin.table, rtol=0, atol=1e-4)
        for weight, expected in zip(ours.weights, twin.weights, strict=True):
            # Adagrad's first steps are signs of gradients: where a gradient is rounding alone, so
            # is its step. One weight in a thousand may differ so, and none by much.
            apart = (torch.from_numpy(weight) - expected.detach()).abs()
            assert float(apart.max()) <= 1e-3
            assert int((apart > 1e-4).sum()) <= max(1, apart.numel() // 1000)


@pytest.mark.parametrize(
    ("block", "loss"), [(20, "cross-entropy"), (200, "cross-entropy"), (20, "bpr")]
)
def test_two_threads_give_the_bits_of_one(block: int, loss: Any) -> None:
    before, found = threads.get_threads(), []
    try:
        for n in (1, 2):
            threads.set_threads(n)
            ours = Packed(zipf_sessions(150, 200, longest=30), 16, block, 64, loss)
            found.append((ours.epoch(), ours.epoch(), ours.table.copy(), ours.dense.copy()))
    finally:
        threads.set_threads(before)
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr"])
def test_ours_learns(loss: Any) -> None:
    sessions = zipf_sessions(150, 60, longest=20)
    ours = Packed(sessions, hidden=8, block=16, batch_sessions=16, loss=loss)
    losses = [ours.epoch() for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]


def test_ours_reads_whole_sessions() -> None:
    sessions = Sessions(np.array([3, 1, 2, 5, 4], np.int32), np.array([0, 3, 5], np.int32), 6)
    inputs, targets, offsets = Packed(sessions, hidden=4)._tokens(np.array([1, 0], np.int32))
    assert inputs.tolist() == [5, 3, 1]
    assert targets.tolist() == [4, 1, 2]
    assert offsets.tolist() == [0, 1, 3]
    ours = Packed(sessions, hidden=4)
    ours.epoch()
    assert (ours.squares[0] == 0).all()
    assert (ours.slot_of == -1).all()


def test_an_item_beyond_the_table_is_named() -> None:
    sessions = Sessions(np.array([3, 7], np.int32), np.array([0, 2], np.int32), 6)
    with pytest.raises(IndexError, match="id 7 is not one of the 6"):
        Packed(sessions, hidden=4).epoch()
