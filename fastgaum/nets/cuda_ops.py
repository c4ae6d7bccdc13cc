"""Three operators of a CUDA device, over Triton's kernels: sums of bags, log Σ exp of display sets,
and a packed LSTM, as in plain torch in `bags`, `segments` and `sequences`.

No two programs write to one number, so a card repeats its own bits. Tests run in Triton's
interpreter; no card has run these kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

PROGRAM_COLUMNS = 64
"""entries, or columns, of a program at a time"""
BAGS = 16
"""bags of a program"""
PROGRAM_SEQUENCES = 16
"""sequences of a program: the least that `tl.dot` takes"""
UNITS = 32
"""units, and terms of a product, of an LSTM's program at a time"""


@triton.jit
def bag_sums(
    table: tl.tensor,
    ids: tl.tensor,
    offsets: tl.tensor,
    sums: tl.tensor,
    n_bags: int,
    width: int,
    BAGS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Write the sum of each bag's rows, (n_bags, width); programs (bags, columns).

    table: (n_rows, width); ids: (nnz,); offsets: (n_bags + 1,)."""
    own = tl.program_id(0) * BAGS + tl.arange(0, BAGS)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    there, inside = own < n_bags, columns < width
    first = tl.load(offsets + own, mask=there, other=0)
    last = tl.load(offsets + own + 1, mask=there, other=0)
    total = tl.zeros((BAGS, WIDTH), sums.dtype.element_ty)
    for at in range(0, tl.max(last - first, 0)):
        entries = first + at
        held = entries < last
        rows = tl.load(ids + entries, mask=held, other=0)
        places = rows.to(tl.int64)[:, None] * width + columns[None, :]
        total += tl.load(table + places, mask=held[:, None] & inside[None, :], other=0.0)
    places = own.to(tl.int64)[:, None] * width + columns[None, :]
    tl.store(sums + places, total, mask=there[:, None] & inside[None, :])


@triton.jit
def softmax_events(
    scores: tl.tensor,
    offsets: tl.tensor,
    probs: tl.tensor,
    log_totals: tl.tensor,
    OUTSIDE: tl.constexpr,
    PROGRAM_COLUMNS: tl.constexpr,
) -> None:
    """Write the softmax of each event's scores, and log Σ exp; a program per event.

    scores, probs: (n_candidates,); offsets: (n_events + 1,); log_totals: (n_events,)."""
    event = tl.program_id(0)
    first, last = tl.load(offsets + event), tl.load(offsets + event + 1)
    none = tl.zeros((PROGRAM_COLUMNS,), probs.dtype.element_ty)
    low = none - float("inf")
    top = tl.max(none if OUTSIDE else low, 0)
    for at in range(first, last, PROGRAM_COLUMNS):
        entries = at + tl.arange(0, PROGRAM_COLUMNS)
        here = tl.load(scores + entries, mask=entries < last, other=float("-inf"))
        top = tl.maximum(top, tl.max(here, 0))
    finite = (top > -float("inf")) & (top < float("inf"))
    top = tl.where(finite, top, 0.0).to(probs.dtype.element_ty)
    total = none
    for at in range(first, last, PROGRAM_COLUMNS):
        entries = at + tl.arange(0, PROGRAM_COLUMNS)
        here = tl.load(scores + entries, mask=entries < last, other=float("-inf"))
        total += tl.exp(here - top)
    whole = tl.sum(total, 0)
    if OUTSIDE:
        whole += tl.exp(-top)
    # nothing to sum has the logarithm −∞, and the gradient 0
    nothing = whole == 0.0
    whole = tl.where(nothing, 1.0, whole)
    for at in range(first, last, PROGRAM_COLUMNS):
        entries = at + tl.arange(0, PROGRAM_COLUMNS)
        here = tl.load(scores + entries, mask=entries < last, other=float("-inf"))
        tl.store(probs + entries, tl.exp(here - top) / whole, mask=entries < last)
    tl.store(log_totals + event, tl.where(nothing, -float("inf"), top + tl.log(whole)))


@triton.jit
def _tanh(x: tl.tensor) -> tl.tensor:
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def lstm_forward(
    x: tl.tensor,
    order: tl.tensor,
    offsets: tl.tensor,
    weight: tl.tensor,
    gates: tl.tensor,
    h: tl.tensor,
    c: tl.tensor,
    n: int,
    size: int,
    PROGRAM_SEQUENCES: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Write gates i, f, g, o, h and c after each token; a program takes several sequences.

        i, f, o = logistic(q),  g = tanh(q),  q = W_hh h' + x,  c = f c' + i g,  h = o tanh(c)

    x: W_ih x + b of each token, (n_tokens, 4 · size); order: sequences by length, (n,); offsets:
    start of each in the tokens, (n + 1,); weight: W_hh, (4 · size, size); gates: as x; h, c:
    (n_tokens, size)."""
    ranks = tl.program_id(0) * PROGRAM_SEQUENCES + tl.arange(0, PROGRAM_SEQUENCES)
    there = ranks < n
    sequence = tl.load(order + ranks, mask=there, other=0)
    first = tl.load(offsets + sequence, mask=there, other=0)
    length = tl.load(offsets + sequence + 1, mask=there, other=0) - first
    kind = x.dtype.element_ty
    for step in range(0, tl.max(length, 0)):
        token = (first + step).to(tl.int64)
        running = (step < length)[:, None]
        later = running & (token > first)[:, None]
        for start in range(0, size, UNITS):
            units = start + tl.arange(0, UNITS)
            inside = (units < size)[None, :]
            q_i = tl.zeros((PROGRAM_SEQUENCES, UNITS), kind)
            q_f = tl.zeros((PROGRAM_SEQUENCES, UNITS), kind)
            q_g = tl.zeros((PROGRAM_SEQUENCES, UNITS), kind)
            q_o = tl.zeros((PROGRAM_SEQUENCES, UNITS), kind)
            for deep in range(0, size, DEPTH):
                k = deep + tl.arange(0, DEPTH)
                places = (token - 1)[:, None] * size + k[None, :]
                state = tl.load(h + places, mask=later & (k < size)[None, :], other=0.0)
                places = units[None, :] * size + k[:, None]
                held = inside & (k < size)[:, None]
                block = size * size
                w = tl.load(weight + places, mask=held, other=0.0)
                q_i += tl.dot(state, w, input_precision="ieee")
                w = tl.load(weight + block + places, mask=held, other=0.0)
                q_f += tl.dot(state, w, input_precision="ieee")
                w = tl.load(weight + 2 * block + places, mask=held, other=0.0)
                q_g += tl.dot(state, w, input_precision="ieee")
                w = tl.load(weight + 3 * block + places, mask=held, other=0.0)
                q_o += tl.dot(state, w, input_precision="ieee")
            here = running & inside
            at = token[:, None] * (4 * size) + units[None, :]
            i = tl.sigmoid(q_i + tl.load(x + at, mask=here, other=0.0))
            f = tl.sigmoid(q_f + tl.load(x + at + size, mask=here, other=0.0))
            g = _tanh(q_g + tl.load(x + at + 2 * size, mask=here, other=0.0))
            o = tl.sigmoid(q_o + tl.load(x + at + 3 * size, mask=here, other=0.0))
            place = token[:, None] * size + units[None, :]
            memory = tl.load(c + place - size, mask=later & inside, other=0.0)
            memory = f * memory + i * g
            tl.store(gates + at, i, mask=here)
            tl.store(gates + at + size, f, mask=here)
            tl.store(gates + at + 2 * size, g, mask=here)
            tl.store(gates + at + 3 * size, o, mask=here)
            tl.store(c + place, memory, mask=here)
            tl.store(h + place, o * _tanh(memory), mask=here)
        # the next step reads what other threads of this program have written
        tl.debug_barrier()


@triton.jit
def lstm_backward(
    grad_h: tl.tensor,
    grad_q: tl.tensor,
    carry: tl.tensor,
    order: tl.tensor,
    offsets: tl.tensor,
    weight: tl.tensor,
    gates: tl.tensor,
    c: tl.tensor,
    n: int,
    size: int,
    PROGRAM_SEQUENCES: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """Write the gradient of q, and of x, at each token, (n_tokens, 4 · size).

    grad_h: (n_tokens, size); carry: room for the gradient of c', (n, size)."""
    ranks = tl.program_id(0) * PROGRAM_SEQUENCES + tl.arange(0, PROGRAM_SEQUENCES)
    there = ranks < n
    sequence = tl.load(order + ranks, mask=there, other=0)
    first = tl.load(offsets + sequence, mask=there, other=0)
    length = tl.load(offsets + sequence + 1, mask=there, other=0) - first
    longest = tl.max(length, 0)
    for back in range(0, longest):
        step = longest - 1 - back
        token = (first + step).to(tl.int64)
        running, followed = (step < length)[:, None], (step + 1 < length)[:, None]
        later = (token > first)[:, None]
        for start in range(0, size, UNITS):
            units = start + tl.arange(0, UNITS)
            inside = (units < size)[None, :]
            here = running & inside
            place = token[:, None] * size + units[None, :]
            grad = tl.load(grad_h + place, mask=here, other=0.0)
            for deep in range(0, 4 * size, DEPTH):
                k = deep + tl.arange(0, DEPTH)
                places = (token + 1)[:, None] * (4 * size) + k[None, :]
                after = tl.load(grad_q + places, mask=followed & (k < 4 * size)[None, :], other=0.0)
                places = k[:, None] * size + units[None, :]
                w = tl.load(weight + places, mask=(k < 4 * size)[:, None] & inside, other=0.0)
                grad += tl.dot(after, w, input_precision="ieee")
            at = token[:, None] * (4 * size) + units[None, :]
            i = tl.load(gates + at, mask=here, other=0.0)
            f = tl.load(gates + at + size, mask=here, other=0.0)
            g = tl.load(gates + at + 2 * size, mask=here, other=0.0)
            o = tl.load(gates + at + 3 * size, mask=here, other=0.0)
            squashed = _tanh(tl.load(c + place, mask=here, other=0.0))
            before = tl.load(c + place - size, mask=here & later, other=0.0)
            own = ranks[:, None] * size + units[None, :]
            grad_c = tl.load(carry + own, mask=followed & inside, other=0.0)
            grad_c += grad * o * (1.0 - squashed * squashed)
            tl.store(grad_q + at, grad_c * g * i * (1.0 - i), mask=here)
            tl.store(grad_q + at + size, grad_c * before * f * (1.0 - f), mask=here)
            tl.store(grad_q + at + 2 * size, grad_c * i * (1.0 - g * g), mask=here)
            tl.store(grad_q + at + 3 * size, grad * squashed * o * (1.0 - o), mask=here)
            tl.store(carry + own, grad_c * f, mask=here)
        tl.debug_barrier()


class _BagSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, offsets: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(ids, offsets)
        ctx.shape, ctx.sparse = table.shape, sparse
        return _sums(table.contiguous(), ids, offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """A row's gradient is the sum of the bags that name it."""
        ids, offsets = ctx.saved_tensors
        bags = torch.arange(len(offsets) - 1, device=ids.device).repeat_interleave(
            offsets.diff(), output_size=len(ids)
        )
        ids, by_id = ids.sort(stable=True)
        rows, counts = ids.unique_consecutive(return_counts=True)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
        sums = _sums(grad.contiguous(), bags[by_id].int(), starts)
        if ctx.sparse:
            known: dict[str, Any] = {"is_coalesced": True, "check_invariants": False}
            found = torch.sparse_coo_tensor(rows.long()[None], sums, ctx.shape, **known)
            return found, None, None, None
        return sums.new_zeros(ctx.shape).index_copy(0, rows.long(), sums), None, None, None


def sum_bags(table: Tensor, ids: Tensor, offsets: Tensor, sparse_grad: bool = False) -> Tensor:
    """The sum of each bag's rows, (n_bags, d), as `bags.bag_sum`."""
    found: Tensor = _BagSum.apply(table, ids, offsets, sparse_grad)  # type: ignore[no-untyped-call]
    return found


def _sums(table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    n_bags, width = len(offsets) - 1, table.shape[1]
    sums = table.new_empty(n_bags, width)
    if n_bags:
        columns = min(PROGRAM_COLUMNS, triton.next_power_of_2(width))
        programs = (triton.cdiv(n_bags, BAGS), triton.cdiv(width, columns))
        bag_sums[programs](table, ids, offsets, sums, n_bags, width, BAGS, columns)
    return sums


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: Tensor, no_click: bool) -> Tensor:
        probs, totals = torch.empty_like(values), values.new_empty(len(offsets) - 1)
        if len(totals):
            programs = (len(totals),)
            softmax_events[programs](
                values.contiguous(), offsets, probs, totals, no_click, PROGRAM_COLUMNS
            )
        ctx.save_for_backward(probs, offsets)
        return totals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        probs, offsets = ctx.saved_tensors
        of_candidates = grad.repeat_interleave(offsets.diff(), output_size=len(probs))
        return probs * of_candidates, None, None


def log_sum_exp(values: Tensor, offsets: Tensor, no_click: bool) -> Tensor:
    """log Σ exp(value) of each event, (n_events,), as `segments.segment_logsumexp`."""
    found: Tensor = _LogSumExp.apply(values, offsets, no_click)  # type: ignore[no-untyped-call]
    return found


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
        n, size = len(offsets) - 1, weight.shape[1]
        order = offsets.diff().argsort(descending=True).int()
        x, weight, gates = x.contiguous(), weight.contiguous(), torch.empty_like(x)
        h, c = x.new_empty(len(x), size), x.new_empty(len(x), size)
        if n:
            lstm_forward[(triton.cdiv(n, PROGRAM_SEQUENCES),)](
                x, order, offsets, weight, gates, h, c, n, size, PROGRAM_SEQUENCES, UNITS, UNITS
            )
        ctx.save_for_backward(order, offsets, weight, gates, h, c)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor, None, Tensor]:
        order, offsets, weight, gates, h, c = ctx.saved_tensors
        n, size = len(offsets) - 1, weight.shape[1]
        q, carry = torch.zeros_like(gates), h.new_empty(n, size)
        if n:
            lstm_backward[(triton.cdiv(n, PROGRAM_SEQUENCES),)](
                *(grad_h.contiguous(), q, carry, order, offsets, weight, gates, c),
                *(n, size, PROGRAM_SEQUENCES, UNITS, UNITS),
            )
        before = h.roll(1, 0)
        before[offsets[:-1][offsets.diff() > 0].long()] = 0
        return q, None, q.T @ before


def lstm_states(gates_x: Tensor, offsets: Tensor, weight_hh: Tensor) -> Tensor:
    """h after each token from zero states, (n_tokens, H), as `sequences.lstm`."""
    found: Tensor = _Lstm.apply(gates_x, offsets, weight_hh)  # type: ignore[no-untyped-call]
    return found
