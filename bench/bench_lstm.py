"""Races: the packed LSTM against torch.nn.LSTM, packed, forward and backward, same weights.

Lengths are Zipf, mean 20, at most 200; from items to states and back. torch embeds each item and
projects it; ours gathers the row of a (items × 4H) table, which holds that product, inside the
recurrence.

The arithmetic that counts is 24 H² operations per token: the recurrent product forward (8 H²), its
transpose and the weights' gradient backward (8 H² each)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from fastgaum.bench.races import Bar, Group, Race, check
from fastgaum.engine.recurrence import LstmLayer
from fastgaum.engine.tables import Named, NamedRoom, SparseTable
from fastgaum.logs.synthetic import synthesise

Step = Callable[[], dict[str, Tensor] | None]
N_ITEMS, N_SESSIONS = 10_000, 512
RIVAL = "torch-packed"
SIZES = {"lstm-h64-tail": (64, 0.35), "lstm-h128-tail": (128, 0.5), "lstm-h512-tail": (512, 0.6)}
"""size of each group's states, and the share of the ceiling that is asked for"""


class Work:
    """Sequences, weights, and the gradient that comes back from what reads the states."""

    def __init__(self, size: int, n_sequences: int) -> None:
        log, _ = synthesise(30 * n_sequences, preset="tail", n_items=N_ITEMS)
        self.lengths = np.diff(log.session_offsets)[:n_sequences]
        self.n_tokens = int(self.lengths.sum())
        draws = torch.Generator().manual_seed(0)
        chosen = np.asarray(log.items)[log.display_offsets[:-1] + log.choices]
        self.items = torch.from_numpy(np.resize(chosen, self.n_tokens).astype(np.int64))
        self.grad = torch.randn(self.n_tokens, size, generator=draws)
        torch.manual_seed(0)
        self.module = nn.LSTM(size, size, batch_first=True)
        self.embedding = nn.Embedding(N_ITEMS, size)
        self.offsets = np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int32)

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        found = torch_packed(self)()
        assert found is not None
        # the module's gradients are its own from the next call on
        return {name: value.clone() for name, value in found.items()}

    def parameters(self) -> dict[str, Tensor]:
        return {**dict(self.module.named_parameters()), "embedding": self.embedding.weight}

    def results(self, states: Tensor) -> dict[str, Tensor]:
        grads: dict[str, Tensor] = {
            n: weight.grad for n, weight in self.parameters().items() if weight.grad is not None
        }
        return {"states": states.detach()} | grads


class FromItems:
    """The first layer of the engine's history encoder, and the sum of each named row's gradient."""

    def __init__(self, work: Work) -> None:
        self.work, self.room = work, NamedRoom()
        w_ih, self.w_hh, b_ih, b_hh = (value.detach().numpy() for value in work.module.parameters())
        self.embedding = work.embedding.weight.detach().numpy()
        self.w_ih, self.bias = w_ih, b_ih + b_hh
        table = nn.Parameter(torch.from_numpy(self.embedding @ w_ih.T))
        self.table = SparseTable(table, N_ITEMS)
        self.slot_of = np.full(N_ITEMS, -1, np.int32)
        self.ids, self.ones = work.items.int().numpy(), np.arange(work.n_tokens + 1, dtype=np.int32)
        self.offsets, self.grad = work.offsets, work.grad.numpy()
        self.lstm = LstmLayer(work.grad.shape[1])
        self.grad_weight, self.grad_bias = np.empty_like(self.w_hh), np.empty_like(self.bias)

    def __call__(self) -> None:
        self.states, _ = self.lstm.forward(
            self.offsets, self.w_hh, self.bias, self.table.values, self.ids
        )
        sums, _ = self.lstm.backward(self.grad, self.grad_weight, self.grad_bias)
        self.named = Named(self.ids, self.ones, self.slot_of, self.room)
        self.table.add(self.named, sums)

    def found(self) -> dict[str, Tensor]:
        """Gradients of torch's parameters: the table is embedding · W_ihᵀ."""
        of_table = np.zeros_like(self.table.values)
        of_table[self.named.rows[: self.named.count]] = self.table.grad
        found = {
            "states": self.states,
            "weight_ih_l0": of_table.T @ self.embedding,
            "weight_hh_l0": self.grad_weight,
            "bias_ih_l0": self.grad_bias,
            "bias_hh_l0": self.grad_bias,
            "embedding": of_table @ self.w_ih,
        }
        return {name: torch.from_numpy(value) for name, value in found.items()}


def torch_packed(work: Work) -> Step:
    # Packing and unpacking are outside the race: the rival's best case.
    parts = (torch.split(rows, work.lengths.tolist()) for rows in (work.items, work.grad))
    x, grad = (pack_sequence(list(part), enforce_sorted=False) for part in parts)
    rows = unpacked_rows(x)

    def step() -> dict[str, Tensor]:
        for weight in work.parameters().values():
            weight.grad = None
        inputs = PackedSequence(
            work.embedding(x.data), x.batch_sizes, x.sorted_indices, x.unsorted_indices
        )
        packed, _ = work.module(inputs)
        torch.autograd.backward(packed.data, grad.data)
        return work.results(packed.data[rows])

    return step


def unpacked_rows(packed: Any) -> Tensor:
    """Row in a PackedSequence's data of each session-major token."""
    sizes = packed.batch_sizes
    starts = torch.cumsum(sizes, 0) - sizes
    lengths = (sizes[:, None] > torch.arange(int(sizes[0]))).sum(0)
    place = packed.unsorted_indices
    return torch.cat([starts[: lengths[p]] + p for p in place.tolist()])


@lru_cache(maxsize=1)
def work_of(size: int, n_sessions: int) -> Work:
    return Work(size, n_sessions)


def passes(race: Race) -> None:
    size, share = SIZES[race.group]
    # large states cost most in stock torch
    size, n_sessions = (size, N_SESSIONS) if race.full else (min(size, 96), 24)
    work = work_of(size, n_sessions)
    step: Step
    if race.contender == RIVAL:
        step, expected = torch_packed(work), work.expected
    else:
        step, expected = ours(work), None
    flops, bars = 24.0 * size**2 * work.n_tokens, (Bar(share, "sgemm", 4),)
    race.time(step, expected, unit="tokens", amount=work.n_tokens, bars=bars, flops=flops)


def ours(work: Work) -> Step:
    step = FromItems(work)
    step()
    check(step.found(), work.expected)
    return step


GROUPS = {name: Group(passes, ("ours", RIVAL)) for name in SIZES}
