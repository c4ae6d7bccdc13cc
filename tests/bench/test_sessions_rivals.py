"""Next-item training on sessions: the data, and the stand-in's lanes, Adagrad and learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastgaum.bench.rivals.session_data import zipf_sessions
from fastgaum.bench.rivals.sessions_gru4rec import Lanes, adagrad_rows, lanes


def test_sessions_are_of_zipf_length_and_the_same_each_time() -> None:
    sessions = zipf_sessions(5_000, 100)
    lengths = np.diff(sessions.offsets)
    assert (lengths.min(), lengths.max()) == (2, 100)
    assert lengths.mean() == pytest.approx(23.6, rel=0.05)
    assert sessions.n_targets == lengths.sum() - 5_000
    assert np.array_equal(sessions.items, zipf_sessions(5_000, 100).items)


@pytest.mark.parametrize("width", [2, 5, 50])
def test_lanes_give_every_session_s_targets_in_order(width: int) -> None:
    sessions = zipf_sessions(20, 50, longest=9)
    walked: list[list[tuple[int, int]]] = []
    at: list[int] = []
    for inputs, targets, alive, fresh in lanes(sessions, width):
        at = [at[lane] if at else -1 for lane in alive]
        for lane, starts in enumerate(fresh):
            if starts:
                walked.append([])
                at[lane] = len(walked) - 1
            walked[at[lane]].append((int(inputs[lane]), int(targets[lane])))
    bounds = zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
    expected = [
        list(zip(sessions.items[a : b - 1], sessions.items[a + 1 : b], strict=True))
        for a, b in bounds
    ]
    # it stops when one lane is left: the tail of one session is not walked
    missing = sum(map(len, expected)) - sum(map(len, walked))
    assert 0 <= missing < 9
    assert all(
        got == want[: len(got)] for got, want in zip(walked, expected[: len(walked)], strict=True)
    )


def test_adagrad_of_rows_is_torch_s_on_those_rows() -> None:
    table = torch.randn(6, 3)
    parameter = torch.nn.Parameter(table.clone())
    stock = torch.optim.Adagrad([parameter], lr=0.1, eps=1e-9)
    squares = torch.zeros_like(table)
    rows = torch.tensor([1, 4])
    for _ in range(2):
        # none near 0, where it matters that eps stands under the root here and beside it in torch
        gradient = (1 + torch.rand(2, 3)) * torch.randn(2, 3).sign()
        parameter.grad = torch.zeros(6, 3).index_copy(0, rows, gradient)
        stock.step()
        adagrad_rows(table, squares, rows, gradient, 0.1)
    torch.testing.assert_close(table, parameter.detach(), rtol=1e-4, atol=1e-5)


def test_the_stand_in_learns() -> None:
    sessions = zipf_sessions(150, 60, longest=20)
    rival = Lanes(sessions, hidden=8, block=16)
    losses = [rival.epoch() for _ in range(4)]
    assert losses[-1] < 0.9 * losses[0]
