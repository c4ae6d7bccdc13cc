"""Next-item training on sessions: the draw, the stand-in's lanes, and ours against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from fastgaum.bench.bench_sessions import WholeSessions
from fastgaum.bench.rivals.sessions_gru4rec import ClickSessions, Lanes, lanes, zipf_sessions


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


@pytest.mark.parametrize("maker", [Lanes, WholeSessions])
def test_both_learn(maker: type[Lanes] | type[WholeSessions]) -> None:
    model = maker(zipf_sessions(150, 60, longest=20), hidden=8, block=16)
    losses = [model.epoch() for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]


def test_ours_has_the_gradients_of_autograd() -> None:
    sessions = ClickSessions(
        np.array([3, 1, 2, 5, 4, 1], np.int32), np.array([0, 3, 6], np.int32), 6
    )
    ours = WholeSessions(sessions, hidden=4, block=3)
    table = ours.table.parameter.detach().clone().requires_grad_()
    module = torch.nn.GRU(4, 4)
    module.load_state_dict(dict(zip(dict(module.named_parameters()), ours.weights, strict=True)))
    drawn = torch.from_numpy(np.random.default_rng(0).permutation(4))
    inputs, targets = torch.tensor([5, 4, 3, 1]), torch.tensor([4, 1, 1, 2])
    states = torch.cat([module(table[inputs[at : at + 2], :4])[0] for at in (0, 2)])
    scores = states @ table[targets, :4].t() + table[targets, 4]
    losses = [
        functional.cross_entropy(scores[b][:, b], torch.arange(len(b)), reduction="sum")
        for b in drawn.split(3)
    ]
    loss = torch.stack(losses).sum()
    torch.autograd.backward(loss / 4)
    found, named, rows = ours.gradients(np.array([1, 0], np.int32))
    assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    ours.table.add(named, rows)
    dense = torch.zeros_like(table)
    dense[torch.from_numpy(named.rows[: named.count]).long()] = torch.from_numpy(ours.table.grad)
    torch.testing.assert_close(dense, table.grad, rtol=1e-4, atol=1e-6)
    for weight, twin in zip(ours.weights, module.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, twin.grad, rtol=1e-4, atol=1e-6)


def test_an_item_beyond_the_table_is_named() -> None:
    sessions = ClickSessions(np.array([3, 7], np.int32), np.array([0, 2], np.int32), 6)
    with pytest.raises(IndexError, match="id 7 is not one of the 6"):
        WholeSessions(sessions, hidden=4).epoch()
