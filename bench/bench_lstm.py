"""Race: the packed LSTM against torch.nn.LSTM, packed and padded, forward and backward, same weights.

Lengths are those of the synthetic world `tail`: Zipf, mean 20, at most 200.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence

from fastgaum.ops.recurrent import lstm
from fastgaum.sessions.synthetic import synthesise

Step = Callable[[], dict[str, Tensor]]


class Work:
    """Sequences, weights, and the gradient that comes back from what reads the states."""

    def __init__(self, size: int, n_sequences: int) -> None:
        log, _ = synthesise(30 * n_sequences, preset="tail", n_items=100)
        self.lengths = np.diff(log.session_offsets)[:n_sequences]
        self.n_tokens = int(self.lengths.sum())
        draws = torch.Generator().manual_seed(0)
        self.x = torch.randn(self.n_tokens, size, generator=draws)
        self.grad = torch.randn(self.n_tokens, size, generator=draws)
        self.module = nn.LSTM(size, size, batch_first=True)
        self.zeros = torch.zeros(n_sequences, size)
        self.offsets = torch.from_numpy(np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int32))

    def split(self, rows: Tensor) -> list[Tensor]:
        """Rows of each sequence."""
        return list(rows.split(self.lengths.tolist()))


def results(states: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """States, and each weight's gradient."""
    return {"states": states.detach()} | {name: w.grad for name, w in weights.items() if w.grad is not None}


def ours(work: Work) -> Step:
    weights = {name: value.detach().clone().requires_grad_() for name, value in work.module.named_parameters()}
    w_ih, w_hh, b_ih, b_hh = weights.values()

    def step() -> dict[str, Tensor]:
        for weight in weights.values():
            weight.grad = None
        gates = nn.functional.linear(work.x, w_ih, b_ih + b_hh)
        states, _ = lstm(gates, work.offsets, w_hh, work.zeros, work.zeros)
        states.backward(work.grad)
        return results(states, weights)

    return step


def torch_packed(work: Work) -> Step:
    # Packing and unpacking are outside the race: the rival's best case.
    x = pack_sequence(work.split(work.x), enforce_sorted=False)
    grad = pack_sequence(work.split(work.grad), enforce_sorted=False).data
    rows = unpacked_rows(x)

    def step() -> dict[str, Tensor]:
        work.module.zero_grad(set_to_none=True)
        packed, _ = work.module(x)
        packed.data.backward(grad)
        return results(packed.data[rows], dict(work.module.named_parameters()))

    return step


def unpacked_rows(packed: Any) -> Tensor:
    """Row in a PackedSequence's data of each session-major token."""
    sizes = packed.batch_sizes
    starts = torch.cumsum(sizes, 0) - sizes
    lengths = (sizes[:, None] > torch.arange(int(sizes[0]))).sum(0)
    place = packed.unsorted_indices
    return torch.cat([starts[: lengths[p]] + p for p in place.tolist()])


def torch_padded(work: Work) -> Step:
    x = pad_sequence(work.split(work.x), batch_first=True)
    grad = pad_sequence(work.split(work.grad), batch_first=True)
    real = torch.arange(x.shape[1]) < torch.from_numpy(work.lengths)[:, None]

    def step() -> dict[str, Tensor]:
        work.module.zero_grad(set_to_none=True)
        states, _ = work.module(x)
        states.backward(grad)
        return results(states[real], dict(work.module.named_parameters()))

    return step


@pytest.fixture(scope="module")
def work(request: pytest.FixtureRequest, full: bool) -> Work:
    torch.manual_seed(0)
    return Work(request.param, 512 if full else 48)


@pytest.mark.parametrize("contender", [ours, torch_packed, torch_padded])
@pytest.mark.parametrize("work", [20, 64], ids=lambda size: f"h{size}", indirect=True)
def test_lstm(benchmark: Any, race: Callable[..., None], work: Work, contender: Callable[[Work], Step]) -> None:
    benchmark.group = f"lstm-h{work.module.hidden_size}-tail"
    race(contender(work), torch_padded(work)(), tokens=work.n_tokens)
