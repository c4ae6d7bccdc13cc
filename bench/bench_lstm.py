"""Races: the packed LSTM against torch.nn.LSTM, packed and padded, forward and backward, same
weights.

Lengths are geometric, mean 20, at most 200; or all equal. `lstm-h…`: from items to states and back.
torch embeds each item and projects it; ours gathers the row of a (items × 4H) table, which holds
that product, inside the recurrence. `lstm-dense-h…`: a dense array that both project.

The arithmetic that counts is 24 H² operations per token: the recurrent product forward (8 H²), its
transpose and the weights' gradient backward (8 H² each)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence

from fastgaum.bench.races import Bar, Group, Race, check
from fastgaum.logs.synthetic import synthesise
from fastgaum.ops.lstm import LstmLayer
from fastgaum.ops.tables import OfBags, Table

Step = Callable[[], dict[str, Tensor] | None]
N_ITEMS = 10_000


N_SESSIONS = 512


@dataclass(frozen=True)
class Setting:
    """One group's size, its rival and the bars; lengths are all at the mean where the rival
    pads."""

    size: int
    rival: str
    bars: tuple[Bar, ...]
    dense: bool = False


def _tail(size: int, share: float, at_200: float) -> Setting:
    return Setting(size, "torch-packed", (Bar(share, "sgemm", 4, at_200),))


SETTINGS = {
    "lstm-h64-tail": _tail(64, 0.35, 0.45),
    "lstm-h128-tail": _tail(128, 0.5, 0.6),
    "lstm-h512-tail": _tail(512, 0.6, 0.7),
    "lstm-h64-equal": Setting(64, "torch-padded", (Bar(1.0, "torch-padded", 4),)),
    "lstm-dense-h64-tail": Setting(64, "torch-packed", (), dense=True),
    "lstm-dense-h64-equal": Setting(64, "torch-padded", (Bar(1.0, "torch-padded", 4),), dense=True),
}


class Work:
    """Sequences, weights, and the gradient that comes back from what reads the states."""

    def __init__(self, size: int, n_sequences: int, equal: bool, dense: bool) -> None:
        log, _ = synthesise(30 * n_sequences, preset="tail", n_items=N_ITEMS)
        self.lengths = np.diff(log.session_offsets)[:n_sequences]
        if equal:
            self.lengths = np.full(n_sequences, round(self.lengths.mean()))
        self.n_tokens = int(self.lengths.sum())
        draws = torch.Generator().manual_seed(0)
        chosen = np.asarray(log.items)[log.display_offsets[:-1] + log.choices]
        self.items = torch.from_numpy(np.resize(chosen, self.n_tokens).astype(np.int64))
        self.grad = torch.randn(self.n_tokens, size, generator=draws)
        torch.manual_seed(0)
        self.module = nn.LSTM(size, size, batch_first=True)
        self.embedding = None if dense else nn.Embedding(N_ITEMS, size)
        self.x = torch.randn(self.n_tokens, size, generator=draws)
        self.zeros = torch.zeros(n_sequences, size)
        self.offsets = torch.from_numpy(
            np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int32)
        )

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        equal = len(set(self.lengths.tolist())) == 1
        found = (torch_padded if equal else torch_packed)(self)()
        assert found is not None
        # the module's gradients are its own from the next call on
        return {name: value.clone() for name, value in found.items()}

    def split(self, rows: Tensor) -> list[Tensor]:
        return list(torch.split(rows, self.lengths.tolist()))

    def parameters(self) -> dict[str, nn.Parameter]:
        more = (
            {}
            if self.embedding is None
            else {"embedding": cast(nn.Parameter, self.embedding.weight)}
        )
        return dict(self.module.named_parameters()) | more

    def inputs(self, rows: Tensor) -> Tensor:
        return rows if self.embedding is None else self.embedding(rows)

    def results(self, states: Tensor) -> dict[str, Tensor]:
        grads: dict[str, Tensor] = {
            n: weight.grad for n, weight in self.parameters().items() if weight.grad is not None
        }
        return {"states": states.detach()} | grads


def ours(work: Work) -> Step:
    return FromArray(work) if work.embedding is None else FromItems(work)


class FromItems:
    """The first layer of our history encoder, and the sum of each named row's gradient."""

    def __init__(self, work: Work) -> None:
        self.work = work
        w_ih, self.w_hh, b_ih, b_hh = (value.detach().numpy() for value in work.module.parameters())
        assert work.embedding is not None
        self.embedding = work.embedding.weight.detach().numpy()
        self.w_ih, self.bias = w_ih, b_ih + b_hh
        table = nn.Parameter(torch.from_numpy(self.embedding @ w_ih.T))
        self.table = Table(table)
        self.ids, self.ones = work.items.int().numpy(), np.arange(work.n_tokens + 1, dtype=np.int32)
        self.offsets, self.grad = work.offsets.numpy(), work.grad.numpy()
        self.lstm = LstmLayer(work.grad.shape[1])
        self.grad_weight, self.grad_bias = np.empty_like(self.w_hh), np.empty_like(self.bias)

    def __call__(self) -> None:
        self.states, _ = self.lstm.forward(
            self.offsets, self.w_hh, self.bias, self.table.values, self.ids
        )
        sums, _ = self.lstm.backward(self.grad, self.grad_weight, self.grad_bias)
        self.table.give(OfBags(self.ids, self.ones, sums))
        self.gradient = self.table.take()

    def found(self) -> dict[str, Tensor]:
        """Gradients of torch's parameters: the table is embedding · W_ihᵀ."""
        of_table = np.zeros_like(self.table.values)
        assert self.gradient is not None
        rows, grad = self.gradient
        of_table[rows] = grad
        found = {
            "states": self.states,
            "weight_ih_l0": of_table.T @ self.embedding,
            "weight_hh_l0": self.grad_weight,
            "bias_ih_l0": self.grad_bias,
            "bias_hh_l0": self.grad_bias,
            "embedding": of_table @ self.w_ih,
        }
        return {name: torch.from_numpy(value) for name, value in found.items()}


class FromArray:
    """An upper layer of our history encoder: its projection is part of the recurrence."""

    def __init__(self, work: Work) -> None:
        w_ih, w_hh, b_ih, b_hh = (value.detach().numpy() for value in work.module.parameters())
        self.size, self.weight, self.bias = w_hh.shape[1], np.hstack([w_hh, w_ih]), b_ih + b_hh
        self.x, self.grad, self.offsets = work.x.numpy(), work.grad.numpy(), work.offsets.numpy()
        self.lstm = LstmLayer(self.size)
        self.grad_weight, self.grad_bias = np.empty_like(self.weight), np.empty_like(self.bias)

    def __call__(self) -> None:
        self.states, _ = self.lstm.forward(self.offsets, self.weight, self.bias, self.x)
        self.lstm.backward(self.grad, self.grad_weight, self.grad_bias)

    def found(self) -> dict[str, Tensor]:
        found = {
            "states": self.states,
            "weight_ih_l0": np.ascontiguousarray(self.grad_weight[:, self.size :]),
            "weight_hh_l0": np.ascontiguousarray(self.grad_weight[:, : self.size]),
            "bias_ih_l0": self.grad_bias,
            "bias_hh_l0": self.grad_bias,
        }
        return {name: torch.from_numpy(value) for name, value in found.items()}


def torch_packed(work: Work) -> Step:
    # Packing and unpacking are outside the race: the rival's best case.
    x = pack_sequence(
        work.split(work.x if work.embedding is None else work.items), enforce_sorted=False
    )
    grad = pack_sequence(work.split(work.grad), enforce_sorted=False).data
    rows = unpacked_rows(x)

    def step() -> dict[str, Tensor]:
        zero_grad(work)
        inputs = PackedSequence(
            work.inputs(x.data), x.batch_sizes, x.sorted_indices, x.unsorted_indices
        )
        packed, _ = work.module(inputs)
        torch.autograd.backward(packed.data, grad)
        return work.results(packed.data[rows])

    return step


def zero_grad(work: Work) -> None:
    for weight in work.parameters().values():
        weight.grad = None


def unpacked_rows(packed: Any) -> Tensor:
    """Row in a PackedSequence's data of each session-major token."""
    sizes = packed.batch_sizes
    starts = torch.cumsum(sizes, 0) - sizes
    lengths = (sizes[:, None] > torch.arange(int(sizes[0]))).sum(0)
    place = packed.unsorted_indices
    return torch.cat([starts[: lengths[p]] + p for p in place.tolist()])


def torch_padded(work: Work) -> Step:
    x = pad_sequence(work.split(work.x if work.embedding is None else work.items), batch_first=True)
    grad = pad_sequence(work.split(work.grad), batch_first=True)
    real = torch.arange(x.shape[1]) < torch.from_numpy(work.lengths)[:, None]

    def step() -> dict[str, Tensor]:
        zero_grad(work)
        states, _ = work.module(work.inputs(x))
        torch.autograd.backward(states, grad)
        return work.results(states[real])

    return step


CONTENDERS: dict[str, Callable[[Work], Step]] = {
    "ours": ours,
    "torch-packed": torch_packed,
    "torch-padded": torch_padded,
}


@lru_cache(maxsize=1)
def work_of(size: int, n_sessions: int, equal: bool, dense: bool) -> Work:
    return Work(size, n_sessions, equal, dense)


def passes(race: Race) -> None:
    setting = SETTINGS[race.group]
    # large states cost most in stock torch
    size, n_sessions = (setting.size, N_SESSIONS) if race.full else (min(setting.size, 96), 24)
    work = work_of(size, n_sessions, setting.rival == "torch-padded", setting.dense)
    step = CONTENDERS[race.contender](work)
    expected: dict[str, Tensor] | None = work.expected
    if isinstance(step, FromItems | FromArray):
        step()
        check(step.found(), work.expected)
        expected = None
    flops = 24.0 * size**2 * work.n_tokens
    race.time(step, expected, unit="tokens", amount=work.n_tokens, bars=setting.bars, flops=flops)


GROUPS = {name: Group(passes, ("ours", setting.rival)) for name, setting in SETTINGS.items()}
