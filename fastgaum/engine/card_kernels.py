"""Triton's kernels of a card: choice probabilities of ragged display sets, sums of bags and their
gradients by row, the towers' dot product, and steps of table rows. The LSTM's are in `card_lstm`.

Each kernel is what one of `fastgaum/kernels/` is on the processor. No sum depends on the order in
which programs run: no two programs write to one number, so a card repeats its own bits. Arrays may
be longer than what they hold (`card_batches`): offsets end before the padding, padded ids are −1
and name no row. Sizes in capitals are known when a kernel is compiled. Numbers are float32, or
float64 in tests."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor


class BagEntries(NamedTuple):
    """Bags of rows of a table."""

    ids: Tensor
    """int32, (nnz,); one below 0 names no row"""
    offsets: Tensor
    """start of each bag in `ids`, int32, (n_bags + 1,)"""


class SortedEntries(NamedTuple):
    """Ids of a batch, sorted; each id's entries stand together."""

    ids: Tensor
    """int32, (nnz,); one below 0 names no row"""
    bags: Tensor
    """bag of each entry, int32, (nnz,)"""
    ends: Tensor
    """where the entries of the same id end, int32, (nnz,)"""


class BagFactors(NamedTuple):
    """Gradients of bags as products: that of bag b < n is scores[b] · users[events[b]]."""

    events: Tensor
    """int32, (n,)"""
    scores: Tensor
    """(n,)"""
    users: Tensor
    """(n_events, width)"""
    n: int


class RowGradients(NamedTuple):
    """What `row_sums` writes."""

    sums: Tensor
    """where the first of an id's entries stands, (nnz, width)"""
    squares: Tensor
    """Σ of the squares of each sum, float64, (nnz,); 0 where no sum is written"""


class CardRows(NamedTuple):
    """A table with what its rows remember."""

    table: Tensor
    """(n_ids, width)"""
    m: Tensor
    """(n_ids, width); not read for Adagrad"""
    v: Tensor
    """(n_ids, width); for Adagrad the squares, (n_ids,)"""
    shrunk: Tensor
    """logarithm of the weight decay that each row has had, float64, (n_ids,)"""


class ShownCandidates(NamedTuple):
    """Candidates of a batch."""

    ids: Tensor
    """int32, (n, FIELDS)"""
    events: Tensor
    """int32, (n,)"""
    offsets: Tensor
    """each event's first candidate, int32, (n_events + 1,)"""
    n: int


class DotFactors(NamedTuple):
    """The two sides of the towers' product."""

    users: Tensor
    """u, or its gradient, (n_events, width)"""
    table: Tensor
    """T, (n_ids, width)"""


@triton.jit
def softmax_events(
    scores: tl.tensor,
    offsets: tl.tensor,
    probs: tl.tensor,
    log_totals: tl.tensor,
    OUTSIDE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write the softmax of each event's scores, and log Σ exp; a program per event.

    scores, probs: (n_candidates,); offsets: (n_events + 1,); log_totals: (n_events,). With OUTSIDE
    no click, of score 0, is one more choice: its probability is what is missing to 1."""
    event = tl.program_id(0)
    first, last = tl.load(offsets + event), tl.load(offsets + event + 1)
    none = tl.zeros((BLOCK,), probs.dtype.element_ty)
    low = none - float("inf")
    top = tl.max(none if OUTSIDE else low, 0)
    for at in range(first, last, BLOCK):
        entries = at + tl.arange(0, BLOCK)
        here = tl.load(scores + entries, mask=entries < last, other=float("-inf"))
        top = tl.maximum(top, tl.max(here, 0))
    # an event without candidates has nothing to sum
    top = tl.where((last > first) | OUTSIDE, top, 0.0).to(probs.dtype.element_ty)
    total = none
    for at in range(first, last, BLOCK):
        entries = at + tl.arange(0, BLOCK)
        here = tl.load(scores + entries, mask=entries < last, other=float("-inf"))
        total += tl.exp(here - top)
    whole = tl.sum(total, 0)
    if OUTSIDE:
        whole += tl.exp(-top)
    else:
        whole = tl.where(last > first, whole, 1.0).to(probs.dtype.element_ty)
    for at in range(first, last, BLOCK):
        entries = at + tl.arange(0, BLOCK)
        here = tl.load(scores + entries, mask=entries < last, other=float("-inf"))
        tl.store(probs + entries, tl.exp(here - top) / whole, mask=entries < last)
    tl.store(log_totals + event, top + tl.log(whole))


@triton.jit
def choice_gradients(
    probs: tl.tensor,
    offsets: tl.tensor,
    choices: tl.tensor,
    share: tl.tensor,
    grad: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Write (probability − 1 for the logged choice) · share: the way back of a loss over events.

    choices: places of the logged choices, (n_events,), −1 for no click; share: 1 / n_events, (1,);
    grad: (n_candidates,). A program per event."""
    event = tl.program_id(0)
    first, last = tl.load(offsets + event), tl.load(offsets + event + 1)
    choice, each = tl.load(choices + event), tl.load(share)
    for at in range(first, last, BLOCK):
        entries = at + tl.arange(0, BLOCK)
        here = tl.load(probs + entries, mask=entries < last, other=0.0)
        logged = (choice >= 0) & (entries == first + choice)
        tl.store(grad + entries, tl.where(logged, here - 1.0, here) * each, mask=entries < last)


@triton.jit
def bag_sums(
    table: tl.tensor,
    bags: BagEntries,
    sums: tl.tensor,
    n_bags: int,
    width: int,
    BAGS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Write the sum of each bag's rows, (n_bags, width); programs (bags, columns).

    table: (n_rows, width)."""
    own = tl.program_id(0) * BAGS + tl.arange(0, BAGS)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    there, inside = own < n_bags, columns < width
    first = tl.load(bags.offsets + own, mask=there, other=0)
    last = tl.load(bags.offsets + own + 1, mask=there, other=0)
    total = tl.zeros((BAGS, WIDTH), sums.dtype.element_ty)
    for at in range(0, tl.max(last - first, 0)):
        entries = first + at
        rows = tl.load(bags.ids + entries, mask=entries < last, other=-1)
        held = rows >= 0
        places = rows.to(tl.int64)[:, None] * width + columns[None, :]
        total += tl.load(table + places, mask=held[:, None] & inside[None, :], other=0.0)
    places = own.to(tl.int64)[:, None] * width + columns[None, :]
    tl.store(sums + places, total, mask=there[:, None] & inside[None, :])


@triton.jit
def row_sums(
    named: SortedEntries,
    factors: BagFactors,
    others: tl.tensor,
    written: RowGradients,
    width: int,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Write the gradient of each named row, and the sum of its squares; a program per entry.

    The first entry of an id sums them all. others: gradients of the bags from factors.n on,
    (n_bags − n, width)."""
    at = tl.program_id(0)
    row = tl.load(named.ids + at)
    before = tl.load(named.ids + at - 1, mask=at > 0, other=-1)
    sum_of_squares = tl.zeros((WIDTH,), tl.float64)
    if (row >= 0) & (row != before):
        end = tl.load(named.ends + at)
        for start in range(0, width, WIDTH):
            columns = start + tl.arange(0, WIDTH)
            inside = columns < width
            total = tl.zeros((WIDTH,), others.dtype.element_ty)
            for some in range(at, end, BLOCK):
                entries = some + tl.arange(0, BLOCK)
                held = entries < end
                bag = tl.load(named.bags + entries, mask=held, other=0)
                factored = held & (bag < factors.n)
                event = tl.load(factors.events + bag, mask=factored, other=0).to(tl.int64)
                score = tl.load(factors.scores + bag, mask=factored, other=0.0)
                places = event[:, None] * width + columns[None, :]
                user = tl.load(
                    factors.users + places, mask=factored[:, None] & inside[None, :], other=0.0
                )
                spelled = held & (bag >= factors.n)
                places = (bag - factors.n).to(tl.int64)[:, None] * width + columns[None, :]
                other = tl.load(others + places, mask=spelled[:, None] & inside[None, :], other=0.0)
                total += tl.sum(score[:, None] * user + other, 0)
            tl.store(written.sums + at.to(tl.int64) * width + columns, total, mask=inside)
            exact = total.to(tl.float64)
            sum_of_squares += tl.where(inside, exact * exact, 0.0)
    tl.store(written.squares + at, tl.sum(sum_of_squares, 0))


@triton.jit
def step_rows(
    ids: tl.tensor,
    grad: tl.tensor,
    rows: CardRows,
    rates: tl.tensor,
    width: int,
    ADAM: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Move the named rows; a program per entry, of which the first of each id works.

    Lazy AdamW, or row-wise Adagrad without ADAM, as in `kernels/optimiser.py`.

    Args:
        ids: as in `SortedEntries`.
        grad: `RowGradients.sums`.
        rows: what is moved.
        rates: float64, (6,): whether to move, shrink, lr, log of all decay so far, and Adam's two
            corrections.
    """
    at = tl.program_id(0)
    row = tl.load(ids + at)
    before = tl.load(ids + at - 1, mask=at > 0, other=-1)
    if (row >= 0) & (row != before) & (tl.load(rates) > 0.0):
        shrink, lr = tl.load(rates + 1), tl.load(rates + 2)
        decayed = tl.load(rates + 3)
        keep = tl.exp(decayed - tl.load(rows.shrunk + row))
        tl.store(rows.shrunk + row, decayed)
        base, source = row.to(tl.int64) * width, at.to(tl.int64) * width
        kind = grad.dtype.element_ty
        if ADAM:
            step, grow = lr / tl.load(rates + 4), 1.0 / tl.load(rates + 5)
            for start in range(0, width, WIDTH):
                columns = start + tl.arange(0, WIDTH)
                inside = columns < width
                g = tl.load(grad + source + columns, mask=inside, other=0.0) * shrink.to(kind)
                first = 0.9 * tl.load(rows.m + base + columns, mask=inside, other=0.0) + 0.1 * g
                second = tl.load(rows.v + base + columns, mask=inside, other=0.0)
                second = 0.999 * second + 0.001 * (g * g)
                tl.store(rows.m + base + columns, first, mask=inside)
                tl.store(rows.v + base + columns, second, mask=inside)
                value = tl.load(rows.table + base + columns, mask=inside, other=0.0)
                moved = step.to(kind) * first / (tl.sqrt(second) * grow.to(kind) + 1e-8)
                tl.store(rows.table + base + columns, value * keep.to(kind) - moved, mask=inside)
        else:
            total = tl.zeros((WIDTH,), kind)
            for start in range(0, width, WIDTH):
                columns = start + tl.arange(0, WIDTH)
                inside = columns < width
                g = tl.load(grad + source + columns, mask=inside, other=0.0) * shrink.to(kind)
                total += g * g
            squares = tl.load(rows.v + row) + tl.sum(total, 0) / width
            tl.store(rows.v + row, squares)
            step = lr.to(kind) / (tl.sqrt(squares) + 1e-8)
            for start in range(0, width, WIDTH):
                columns = start + tl.arange(0, WIDTH)
                inside = columns < width
                g = tl.load(grad + source + columns, mask=inside, other=0.0) * shrink.to(kind)
                value = tl.load(rows.table + base + columns, mask=inside, other=0.0)
                tl.store(rows.table + base + columns, value * keep.to(kind) - step * g, mask=inside)


@triton.jit
def dot_candidates(
    factors: DotFactors,
    shown: ShownCandidates,
    scores: tl.tensor,
    width: int,
    FIELDS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Write ⟨u, Σ_f T_f⟩ of each candidate, (n_candidates,); a program per block of candidates.

    A candidate's own vector is never written."""
    candidates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = candidates < shown.n
    event = tl.load(shown.events + candidates, mask=there, other=0).to(tl.int64)
    total = tl.zeros((BLOCK,), scores.dtype.element_ty)
    for start in range(0, width, WIDTH):
        columns = start + tl.arange(0, WIDTH)
        inside = columns < width
        vector = tl.zeros((BLOCK, WIDTH), scores.dtype.element_ty)
        for field in range(FIELDS):
            row = tl.load(shown.ids + candidates * FIELDS + field, mask=there, other=-1)
            held = (row >= 0)[:, None] & inside[None, :]
            places = row.to(tl.int64)[:, None] * width + columns[None, :]
            vector += tl.load(factors.table + places, mask=held, other=0.0)
        places = event[:, None] * width + columns[None, :]
        user = tl.load(factors.users + places, mask=there[:, None] & inside[None, :], other=0.0)
        total += tl.sum(user * vector, 1)
    tl.store(scores + candidates, total, mask=there)


@triton.jit
def dot_users_gradient(
    grad_scores: tl.tensor,
    factors: DotFactors,
    shown: ShownCandidates,
    width: int,
    FIELDS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Write Σ_a g_a Σ_f T_f of each event, (n_events, width); programs (events, columns)."""
    event = tl.program_id(0)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = columns < width
    first, last = tl.load(shown.offsets + event), tl.load(shown.offsets + event + 1)
    total = tl.zeros((WIDTH,), grad_scores.dtype.element_ty)
    for at in range(first, last, BLOCK):
        candidates = at + tl.arange(0, BLOCK)
        there = candidates < last
        g = tl.load(grad_scores + candidates, mask=there, other=0.0)
        for field in range(FIELDS):
            row = tl.load(shown.ids + candidates * FIELDS + field, mask=there, other=-1)
            held = (row >= 0)[:, None] & inside[None, :]
            places = row.to(tl.int64)[:, None] * width + columns[None, :]
            total += tl.sum(g[:, None] * tl.load(factors.table + places, mask=held, other=0.0), 0)
    tl.store(factors.users + event.to(tl.int64) * width + columns, total, mask=inside)
