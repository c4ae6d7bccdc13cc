"""Race: the packed LSTM against torch.nn.LSTM, packed and padded, forward and backward, same weights.

Lengths are those of the synthetic world `tail`: Zipf, mean 20, at most 200; or all equal, where padding costs nothing.
The arithmetic that counts is 24 H² operations per token: the recurrent product forward (8 H²), its transpose and the
weights' gradient backward (8 H² each); the input projection is left out, so that the share of the peak is a low one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence

from fastgaum.bench.races import Bar, Race
from fastgaum.ops.recurrent import lstm
from fastgaum.sessions.synthetic import synthesise

Step = Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class Setting:
    """One group's sizes, rivals and bars."""

    size: int
    n_sessions: int = 512
    lengths: str = "tail"
    """"tail" or "equal", then all at the mean"""
    contenders: tuple[str, ...] = ("ours", "torch-packed", "torch-padded")
    bars: tuple[Bar, ...] = ()

    def small(self) -> Setting:
        """The same with few sessions, for a smoke test; large states cost most in stock torch."""
        return Setting(min(self.size, 96), 24, self.lengths, self.contenders, self.bars)


def _tail(size: int, packed: float, share: float | None) -> Setting:
    bars = (Bar(packed, "torch-packed", 4), *(() if share is None else (Bar(share, "sgemm", 5),)))
    # stock torch takes seconds per call at 512: the padded rival has no bar there, and is left out
    return Setting(size, contenders=("ours", "torch-packed", "torch-padded")[: 2 if size >= 512 else 3], bars=bars)


def _equal(size: int) -> Setting:
    return Setting(size, lengths="equal", contenders=("ours", "torch-padded"), bars=(Bar(1.0, "torch-padded", 4),))


GROUPS = {
    "lstm-h20-tail": _tail(20, 15.0, None),
    "lstm-h64-tail": _tail(64, 15.0, 0.30),
    "lstm-h128-tail": _tail(128, 80.0, 0.45),
    "lstm-h512-tail": _tail(512, 18.0, 0.65),
    "lstm-h64-tail-64-sessions": Setting(64, 64),
    "lstm-h64-tail-4096-sessions": Setting(64, 4096, contenders=("ours", "torch-packed")),
    "lstm-h20-equal": _equal(20),
    "lstm-h64-equal": _equal(64),
    "lstm-h128-equal": _equal(128),
    "lstm-h512-equal": _equal(512),
    "lstm-h64-raggedness": Setting(64, contenders=("ours", "equal-lengths"), bars=(Bar(0.95, "equal-lengths", 9),)),
}


class Work:
    """Sequences, weights, and the gradient that comes back from what reads the states."""

    def __init__(self, size: int, n_sequences: int, lengths: str) -> None:
        log, _ = synthesise(30 * n_sequences, preset="tail", n_items=100)
        self.lengths = np.diff(log.session_offsets)[:n_sequences]
        if lengths == "equal":
            self.lengths = np.full(n_sequences, round(self.lengths.mean()))
        self.n_tokens = int(self.lengths.sum())
        draws = torch.Generator().manual_seed(0)
        self.x = torch.randn(self.n_tokens, size, generator=draws)
        self.grad = torch.randn(self.n_tokens, size, generator=draws)
        torch.manual_seed(0)
        self.module = nn.LSTM(size, size, batch_first=True)
        self.zeros = torch.zeros(n_sequences, size)
        self.offsets = torch.from_numpy(np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int32))

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        """States and gradients as nn.LSTM has them."""
        equal = len(set(self.lengths.tolist())) == 1
        return (torch_padded if equal else torch_packed)(self)()

    def split(self, rows: Tensor) -> list[Tensor]:
        """Rows of each sequence."""
        return list(torch.split(rows, self.lengths.tolist()))


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
        torch.autograd.backward(states, work.grad)
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
        torch.autograd.backward(packed.data, grad)
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
        torch.autograd.backward(states, grad)
        return results(states[real], dict(work.module.named_parameters()))

    return step


CONTENDERS: dict[str, Callable[[Work], Step]] = {
    "ours": ours,
    "equal-lengths": ours,
    "torch-packed": torch_packed,
    "torch-padded": torch_padded,
}


@lru_cache(maxsize=1)
def work_of(size: int, n_sessions: int, lengths: str) -> Work:
    return Work(size, n_sessions, lengths)


@pytest.mark.parametrize(
    ("group", "contender"), [(group, name) for group, setting in GROUPS.items() for name in setting.contenders]
)
def test_lstm(race: Race, full: bool, group: str, contender: str) -> None:
    setting = GROUPS[group] if full else GROUPS[group].small()
    work = work_of(setting.size, setting.n_sessions, "equal" if contender == "equal-lengths" else setting.lengths)
    flops = 24.0 * setting.size**2 * work.n_tokens
    step = CONTENDERS[contender](work)
    race(step, work.expected, unit="tokens", amount=work.n_tokens, bars=setting.bars, flops=flops)
