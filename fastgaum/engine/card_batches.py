"""A batch as a card takes it: all that a step reads, as arrays of bucketed sizes on one device; and
steps that are recorded for such sizes.

A CUDA graph repeats its launches with the same sizes. Batches differ in theirs, so each size is
rounded up to a bucket, four to an octave, and what is too long is filled with what changes nothing:
events without candidates, sequences without tokens, ids below 0, which name no row. Buckets depend
on the batch alone, so a run that is resumed repeats its bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fastgaum.engine.card_kernels import BagEntries, ShownCandidates
from fastgaum.engine.card_lstm import TokenSequences
from fastgaum.nets.tensors import BatchTensors

NO_ROW = -1
"""an id that names no row of a table"""
MOST_GRAPHS = 64
"""graphs that are kept; batches of further sizes run launch by launch, to the same bits"""


def bucket(n: int) -> int:
    """The least of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20 … that is not below n: at most a
    quarter too much.

    >>> [bucket(n) for n in (0, 1, 8, 9, 15, 1000)]
    [1, 1, 8, 10, 16, 1024]
    """
    if n <= 8:
        return max(n, 1)
    quarter = 1 << ((n - 1).bit_length() - 3)
    return -(-n // quarter) * quarter


class Sizes(NamedTuple):
    """How long the arrays of a batch are."""

    sessions: int
    events: int
    candidates: int
    tokens: int
    token_ids: int

    @classmethod
    def of(cls, batch: BatchTensors) -> Sizes:
        """The sizes that a batch needs: one event more than it has, without candidates, which
        padding belongs to."""
        return cls(
            len(batch.token_offsets) - 1,
            batch.n_events + 1,
            batch.candidates.n_bags,
            batch.tokens.n_bags,
            len(batch.tokens.ids),
        )

    def rounded(self) -> Sizes:
        """The buckets that hold them."""
        return Sizes(*map(bucket, self))


@dataclass(frozen=True)
class CardBatch:
    """What a step reads; sizes as in `Sizes`, of padded arrays."""

    ids: Tensor
    """of candidates, int32, (candidates, n_fields)"""
    numbers: Tensor
    """of candidates, (candidates, n_numbers)"""
    display_offsets: Tensor
    """int32, (events + 1,)"""
    events: Tensor
    """event of each candidate, int32, (candidates,); the last one for padding"""
    places: Tensor
    """place of each candidate in its display, from 0, int64, (candidates,)"""
    choices: Tensor
    """place of the logged choice, −1 for no click, int32, (events,)"""
    token_ids: Tensor
    """int32, (token_ids,)"""
    token_id_offsets: Tensor
    """int32, (tokens + 1,)"""
    token_of_id: Tensor
    """int32, (token_ids,)"""
    token_numbers: Tensor
    """(tokens, n_numbers)"""
    token_offsets: Tensor
    """start of each session in the tokens, int32, (sessions + 1,)"""
    order: Tensor
    """sessions by falling length, int32, (sessions,)"""
    before: Tensor
    """the token before each one in its session, int64, (tokens,), −1 for none"""
    readers: Tensor
    """event that reads the state after each token, the last one if none does, int64, (tokens,)"""
    context_ids: Tensor
    """int32, (events, n_context_fields)"""
    context_numbers: Tensor
    """(events, n_context_numbers)"""
    share: Tensor
    """1 / the number of events, of the numbers' kind, (1,)"""

    @classmethod
    def of(cls, batch: BatchTensors, sizes: Sizes) -> CardBatch:
        """Pad a batch, on the device where it is."""
        n_events, device = batch.n_events, batch.display_offsets.device
        last = sizes.events - 1
        offsets = _ends(batch.display_offsets, sizes.events + 1)
        candidates = torch.arange(sizes.candidates, device=device, dtype=torch.int32)
        events = torch.searchsorted(offsets[1:], candidates, right=True, out_int32=True)
        events = events.clamp(max=last)
        choices = torch.full((sizes.events,), -1, dtype=torch.int32, device=device)
        choices[batch.clicked] = (batch.chosen - batch.display_offsets[batch.clicked]).int()
        starts = _ends(batch.token_offsets, sizes.sessions + 1)
        tokens = torch.arange(sizes.tokens, device=device)
        id_offsets = _ends(batch.tokens.offsets, sizes.tokens + 1)
        entries = torch.arange(sizes.token_ids, device=device, dtype=torch.int32)
        of_id = torch.searchsorted(id_offsets[1:], entries, right=True, out_int32=True)
        readers = torch.full((sizes.tokens,), last, dtype=torch.int64, device=device)
        read, later = batch.read_tokens, batch.later_events
        readers.index_copy_(0, tokens[: len(later)] if read is None else read, later)
        first = torch.zeros(sizes.tokens + 1, dtype=torch.bool, device=device)
        first[starts.long()] = True
        n_fields = batch.source.ids.shape[1]
        context = batch.context.ids.reshape(batch.source.context_ids.shape)
        numbers = batch.candidates.numbers
        return cls(
            ids=_filled(batch.candidates.ids.reshape(-1, n_fields), sizes.candidates, NO_ROW),
            numbers=_filled(numbers, sizes.candidates, 0),
            display_offsets=offsets,
            events=events,
            places=candidates.long() - offsets[events.long()],
            choices=choices,
            token_ids=_filled(batch.tokens.ids, sizes.token_ids, NO_ROW),
            token_id_offsets=id_offsets,
            token_of_id=of_id.clamp(max=sizes.tokens - 1),
            token_numbers=_filled(batch.tokens.numbers, sizes.tokens, 0),
            token_offsets=starts,
            order=torch.argsort(starts.diff(), descending=True, stable=True).int(),
            before=torch.where(first[:-1], -1, tokens - 1),
            readers=readers,
            context_ids=_filled(context, sizes.events, NO_ROW),
            context_numbers=_filled(batch.context_numbers, sizes.events, 0),
            share=torch.full((1,), 1 / n_events, dtype=numbers.dtype, device=device),
        )

    @property
    def shown(self) -> ShownCandidates:
        """The candidates, as kernels read them."""
        return ShownCandidates(self.ids, self.events, self.display_offsets, len(self.ids))

    @property
    def candidates(self) -> BagEntries:
        """The candidates' bags, as kernels read them."""
        return bags_of(self.ids)

    @property
    def context(self) -> BagEntries:
        """A bag of one id for each event and context field, as kernels read them."""
        return bags_of(self.context_ids.reshape(-1, 1))

    @property
    def sequences(self) -> TokenSequences:
        """The sessions' tokens, as kernels read them."""
        return TokenSequences(self.order, self.token_offsets, len(self.order))

    @property
    def tokens(self) -> BagEntries:
        """The tokens' bags, as kernels read them."""
        return BagEntries(self.token_ids, self.token_id_offsets)

    def dropped(self, unknown_of_id: Tensor, rate: float) -> CardBatch:
        """With each id replaced by its field's unknown row, by chance; itself for a rate of 0."""
        if not rate:
            return self

        def drop(ids: Tensor) -> Tensor:
            lost = (torch.rand(ids.shape, device=ids.device) < rate) & (ids >= 0)
            return torch.where(lost, unknown_of_id[ids.clamp(min=0).long()], ids)

        drops = {name: drop(getattr(self, name)) for name in ("ids", "token_ids", "context_ids")}
        return replace(self, **drops)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each array: what a recorded step depends on."""
        return tuple(tuple(getattr(self, field.name).shape) for field in fields(self))

    def copy_from(self, other: CardBatch) -> None:
        """Overwrite all arrays by another batch's of the same sizes."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))

    def copied(self) -> CardBatch:
        """A copy in arrays of its own."""
        return CardBatch(*(getattr(self, field.name).clone() for field in fields(self)))


def bags_of(ids: Tensor) -> BagEntries:
    """Bags of equally many ids, (n_bags, n_fields)."""
    n_bags, n_fields = ids.shape
    offsets = torch.arange(n_bags + 1, dtype=torch.int32, device=ids.device) * n_fields
    return BagEntries(ids.reshape(-1), offsets)


def _filled(values: Tensor, n: int, fill: int) -> Tensor:
    """The values, and `fill` behind them, n rows in all."""
    room = [0, 0] * (values.dim() - 1) + [0, n - len(values)]
    return functional.pad(values, room, value=fill)


def _ends(offsets: Tensor, n: int) -> Tensor:
    """Offsets with empty segments behind them, n in all."""
    return torch.cat([offsets, offsets[-1:].expand(n - len(offsets))])


CardStep = Callable[[CardBatch, Tensor], Tensor]
"""a step of the game: of a batch and the optimisers' rates, to figures"""


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    batch: CardBatch
    rates: Tensor
    figures: Tensor


class StepGraphs:
    """The recorded steps of one game; on the processor, steps as they are.

    Recording is not verified on a card: tests run on the processor."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.recorded: dict[tuple[object, ...], _Recorded] = {}
        self.pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(self, step: CardStep, batch: CardBatch, rates: Tensor) -> Tensor:
        """The step's figures, valid until the next step.

        rates: of each optimiser's step, (n_steps, ·), whose first number says whether to move."""
        if self.device.type != "cuda":
            return step(batch, rates)
        key = (step.__name__, *batch.shapes, len(rates))
        if key not in self.recorded:
            if len(self.recorded) == MOST_GRAPHS:
                return step(batch, rates)
            self.recorded[key] = self._record(step, batch, rates)
        graph, own_batch, own_rates, figures = self.recorded[key]
        own_batch.copy_from(batch)
        own_rates.copy_(rates)
        graph.replay()
        return figures

    def _record(self, step: CardStep, batch: CardBatch, rates: Tensor) -> _Recorded:
        own_batch, own_rates, graph = batch.copied(), rates.clone(), torch.cuda.CUDAGraph()
        # a first pass compiles kernels and makes workspaces; neither weights nor draws move on
        own_rates[:, 0] = 0
        random = torch.cuda.get_rng_state(self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step(own_batch, own_rates)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.set_rng_state(random, self.device)
        # all share their memory: no graph's figures are read after the next one has begun
        with torch.cuda.graph(graph, pool=self.pool):
            figures = step(own_batch, own_rates)
        return _Recorded(graph, own_batch, own_rates, figures)
