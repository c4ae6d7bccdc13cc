"""Passes of a scorer over packed display sets, shared over threads by events.

A scorer is the last of the networks: it goes forward, through the loss and back while a tile of
candidates is in the cache. `learn` does all three, and leaves the gradients of parameters where
their optimiser reads them; `score` is a node of autograd, whose backward pass goes forward
again."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastgaum import threads
from fastgaum.arrays import FloatArray, IntArray, LongArray
from fastgaum.kernels import examination as examination_kernels
from fastgaum.kernels import scorer as kernels
from fastgaum.kernels.choice import GIVEN, SCORES, Loss
from fastgaum.kernels.draws import DropoutRule
from fastgaum.ops import towers
from fastgaum.ops.displays import CANDIDATES_OF_PART, DisplayBatch, Room, allocate
from fastgaum.ops.history import HistoryPass
from fastgaum.ops.tables import NamedRoom, OfParts, learned_table, pointers_of

KINDS = {nn.ReLU: 0, nn.ELU: 1}
MOST_SUMMED_PARTS = 4
"""parts at most, whose gradients are added up"""
WIDE_SCORER = 1 << 14
"""multiplications per candidate up to which `CANDIDATES_OF_PART` holds"""
NO_TABLE: npt.NDArray[np.float32] = np.empty((0, 1), np.float32)
NO_DROPOUT = DropoutRule(np.uint32(0), np.uint32(0), np.float32(1))
_NONE = np.empty(0, np.float32)
ONLY_SCORES = Loss(SCORES, np.float32(1), False, np.empty(0, np.int32), _NONE, _NONE)
GRADIENT_GIVEN = ONLY_SCORES._replace(kind=GIVEN)
_flattening = threading.Lock()

Chains = list[list[threads.Call]]
"""calls in turn for each part of the display sets"""


class ScorerModule(Protocol):
    """What is read of `nets.networks.Scorer`."""

    first: Any
    from_state: nn.Linear
    wide: Any
    act: nn.Module
    dropout: nn.Dropout
    rest: nn.ModuleList
    tower: Any
    examination: Any
    signed: Any


class ScorerKernels:
    """A scorer's parameters as kernels read them, and where they leave gradients."""

    def __init__(self, scorer: ScorerModule) -> None:
        self.scorer, self.tower = scorer, scorer.tower
        self.widths = widths_of(scorer)
        self.share = part_of_widths(self.widths)
        self.kind = KINDS[type(scorer.act)]
        self.room, self.key = Room(), [0]
        self.rooms = NamedRoom(), NamedRoom()
        self.tables = [one.table for one in (scorer.first, scorer.wide) if one is not None]
        self.dense = kernel_parameters(scorer)
        self.parameters = [*self.dense, *self.tables]
        self.n_deep = self.n_own = sum(one.numel() for one in dense_parameters(scorer))
        if self.tower is not None and self.tower.numbers is not None:
            self.n_own += self.tower.numbers.weight.numel()

    @property
    def is_learned(self) -> bool:
        """Whether an optimiser reads the gradients that kernels leave."""
        return learned_table(self.tables[0]) is not None

    def bind(self) -> None:
        """Find the parameters where they are now."""
        if pointers_of(self.parameters) == self.key:
            return
        with _flattening:
            flat = flat_of(self.dense)
            starts = starts_of(self.scorer, self.dense)
            if self.n_own > self.n_deep:
                starts[kernels.LINEAR] = self.n_deep
            table = self.tables[0].detach().numpy()
            wide = self.tables[1].detach().numpy() if len(self.tables) > 1 else NO_TABLE
            self.weights = kernels.ScorerWeights(
                table, wide, flat[: self.n_own], starts, self.widths, self.kind
            )
            self.of_towers = flat[self.n_own :]
            self.grad = self.grad_of_towers = flat[:0]
            if self.is_learned:
                grad = flat_gradient_of(self.dense)
                self.grad, self.grad_of_towers = grad[: self.n_own], grad[self.n_own :]
            self.key = pointers_of(self.parameters)


class ScorerPass:
    """One pass forward, then at most one back; its arrays are valid until the room's next pass."""

    def __init__(
        self,
        of: ScorerKernels,
        room: Callable[..., FloatArray],
        shown: DisplayBatch,
        states: FloatArray,
        key: int | None,
        vectors: FloatArray | None = None,
        examined: bool = True,
    ) -> None:
        """room: arrays by name and shape, a `Room` or `allocate`; key: of dropout, if any; vectors:
        of the displayed items, projected to rows of the towers' table, (n_distinct, d); examined:
        whether places add to scores."""
        of.bind()
        self.of, self.room, self.shown, self.states = of, room, shown, states
        self.vectors, scorer = vectors, of.scorer
        self.signed: Tensor | None = None
        self.numbers = shown.read(None if scorer.signed is None else scorer.signed.n_read)
        deep_key = key
        self.of_tower: towers.TowerCalls | None = None
        if of.tower is not None:
            # another key: one dropout must not follow the other
            deep_key = None if key is None else key ^ 0x5BD1E995
            rate, of_hidden = of.tower.dropout.p, None if key is None else key + towers.HIDDEN_KEY
            dropouts = dropout_rule(rate, key), dropout_rule(rate, of_hidden)
            self.of_tower = towers.TowerCalls(
                of.tower, of.of_towers, room, shown, self.numbers, states, vectors, dropouts
            )
        self.dropout = dropout_rule(scorer.dropout.p, deep_key)
        self.by_place = None
        if examined and scorer.examination is not None:
            self.by_place = scorer.examination.by_place.detach().numpy()
        if scorer.signed is not None:
            self.signed_states = torch.from_numpy(states).requires_grad_(of.is_learned)
            # a batch of a few hundred numbers is worth no second thread
            with threads.one_thread(), torch.set_grad_enabled(of.is_learned):
                self.signed = scorer.signed.of_displays(
                    shown.ids, shown.numbers, self.signed_states, shown.offsets
                )

    def forward(self, loss: Loss = ONLY_SCORES, with_states: bool = True) -> FloatArray:
        """Scores, (n_candidates,); with a loss also its gradients, left where the optimiser reads
        them, and that of the states in `grad_states` where they are wanted."""
        shown, parts = self.shown, self.shown.parts
        n = len(shown.ids)
        self.scores = self.room("scores", n)
        self.scores[:] = 0
        self.log_totals = self.room("log_totals", len(self.states))
        chains: list[Chains] = []
        if self.of_tower is not None:
            chains.append([[call] for call in self.of_tower.forward(self.scores)])
        if self.signed is not None:
            values = self.signed.detach().numpy()
            of_parts = [slice(*shown.offsets[list(part)].tolist()) for part in parts]
            chains.append(
                [[(np.add, (self.scores[i], values[i], self.scores[i]))] for i in of_parts]
            )
        if self.by_place is not None:
            at = [shown.offsets[first : last + 1] for first, last in parts]
            examine = examination_kernels.examine
            chains.append([[(examine, (one, self.by_place, self.scores))] for one in at])
        if loss.kind == SCORES:
            none = self.scores[:0]
            written = kernels.ScorerOutputs(
                self.scores, none, none, none, NO_TABLE, NO_TABLE, NO_TABLE
            )
            calls = self._calls(loss, written, [none], towers.NO_SLOTS)
            threads.run_chains(joined(*chains, [[call] for call in calls]))
            return self.scores
        self._learn(loss, chains, self.room("grad_scores", n), with_states)
        return self.scores

    def backward(self, grad_scores: FloatArray, with_states: bool = True) -> None:
        """Leave the gradients, from that of the scores, (n_candidates,)."""
        self.scores = self.room("scores", len(self.shown.ids))
        self.log_totals = self.room("log_totals", len(self.states))
        self._learn(GRADIENT_GIVEN, [], grad_scores, with_states)

    def _learn(
        self, loss: Loss, chains: list[Chains], grad_scores: FloatArray, with_states: bool
    ) -> None:
        of, room, parts = self.of, self.room, self.shown.parts
        table = learned_table(of.tables[0])
        assert table is not None
        named = self.shown.named(table.slot_of)
        rows = [room(f"rows {i}", named.count, one.shape[1]) for i, one in enumerate(of.tables)]
        blocks = of.grad[None]
        if len(parts) > 1:
            blocks = room("blocks", len(parts), len(of.grad))
        self.grad_states = room("grad_states", *self.states.shape) if with_states else NO_TABLE
        written = kernels.ScorerOutputs(
            self.scores,
            self.log_totals,
            grad_scores,
            blocks[0],
            rows[0],
            rows[1] if len(rows) > 1 else NO_TABLE,
            self.grad_states,
        )
        calls = self._calls(loss, written, list(blocks), named.slots)
        chains = [*chains, [[call] for call in calls]]
        if self.of_tower is not None:
            back = self.of_tower.backward(of.grad_of_towers, grad_scores, self.grad_states)
            chains.append([[call] for call in back])
        threads.run_chains(joined(*chains))
        if len(blocks) > 1:
            np.add.reduce(blocks, axis=0, out=of.grad)
        for parameter, one in zip(of.tables, rows, strict=True):
            owner = learned_table(parameter)
            assert owner is not None
            owner.give(OfParts(named, one))
        self.grad_vectors = None if self.of_tower is None else self.of_tower.end()
        if self.by_place is not None:
            of_places = np.empty(len(self.by_place), np.float32)
            examination_kernels.examination_gradient(self.shown.offsets, grad_scores, of_places)
            of.scorer.examination.later.grad.numpy()[:] = of_places[1:]
        if self.signed is not None:
            with threads.one_thread():
                torch.autograd.backward(self.signed, torch.from_numpy(grad_scores))
            if with_states:
                assert self.signed_states.grad is not None
                self.grad_states += self.signed_states.grad.numpy()

    def _calls(
        self,
        loss: Loss,
        written: kernels.ScorerOutputs,
        blocks: Sequence[FloatArray],
        slots: IntArray,
    ) -> list[threads.Call]:
        shown, each = self.shown, [written] * len(self.shown.parts)
        if len(blocks) > 1:
            each = [written._replace(dense=block) for block in blocks]
        inputs = kernels.ScorerInputs(shown.offsets, shown.ids, self.numbers, self.states, slots)
        fixed = inputs, self.of.weights, self.dropout, loss
        return [
            (kernels.scorer_pass, (*part, *fixed, one))
            for part, one in zip(shown.parts, each, strict=True)
        ]


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        vectors: Tensor | None,
        anchor: Tensor,
        of: ScorerKernels,
        shown: DisplayBatch,
        key: int | None,
    ) -> Tensor:
        of_vectors = None if vectors is None else vectors.detach().numpy()
        ctx.of, ctx.wants = of, states.requires_grad
        ctx.made = ScorerPass(of, allocate, shown, states.detach().numpy(), key, of_vectors)
        return torch.from_numpy(ctx.made.forward())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ctx.made.backward(grad.contiguous().numpy(), ctx.wants)
        of_states = torch.from_numpy(ctx.made.grad_states) if ctx.wants else None
        of_vectors = ctx.made.grad_vectors
        return of_states, None if of_vectors is None else torch.from_numpy(of_vectors), *4 * [None]


def score(
    of: ScorerKernels,
    shown: DisplayBatch,
    states: Tensor,
    key: int | None = None,
    vectors: Tensor | None = None,
) -> Tensor:
    """Scores of the candidates, (n_candidates,), a node of autograd where gradients are wanted.

    Args:
        of: the scorer.
        shown: its display sets.
        states: (n_events, state_dim).
        key: of dropout; None: nothing is dropped.
        vectors: as of `ScorerPass`."""
    if torch.is_grad_enabled() and of.is_learned:
        anchor = of.dense[0]
        found: Tensor = _Scores.apply(states, vectors, anchor, of, shown, key)  # type: ignore[no-untyped-call]
        return found
    of_vectors = None if vectors is None else vectors.detach().numpy()
    made = ScorerPass(of, allocate, shown, states.detach().contiguous().numpy(), key, of_vectors)
    return torch.from_numpy(made.forward())


def learn(
    of: ScorerKernels,
    shown: DisplayBatch,
    states: Tensor,
    loss: Loss,
    key: int | None = None,
    vectors: Tensor | None = None,
    way_back: HistoryPass | None = None,
) -> ScorerPass:
    """Score, take the loss, and go back: gradients of parameters are left where their optimiser
    reads them; those of `states` and `vectors` go on from here. Arguments as of `score`; way_back:
    takes the states' gradient in place of autograd."""
    of_states, of_vectors = states.detach().contiguous().numpy(), None
    if vectors is not None:
        of_vectors = vectors.detach().numpy()
    made = ScorerPass(of, of.room, shown, of_states, key, of_vectors)
    made.forward(loss, states.requires_grad or way_back is not None)
    go_on(made, states, vectors, way_back)
    return made


def go_on(
    made: ScorerPass, states: Tensor, vectors: Tensor | None, way_back: HistoryPass | None
) -> None:
    """Take the gradients of a pass's inputs further back."""
    inputs, grads = [], []
    if way_back is not None:
        way_back.backward(made.grad_states)
    elif states.requires_grad:
        inputs.append(states)
        grads.append(torch.from_numpy(made.grad_states))
    if vectors is not None and vectors.requires_grad:
        assert made.grad_vectors is not None
        inputs.append(vectors)
        grads.append(torch.from_numpy(made.grad_vectors))
    if inputs:
        torch.autograd.backward(inputs, grads)


def calls_that_score(
    of: ScorerKernels, shown: DisplayBatch, states: FloatArray, examined: bool, scores: FloatArray
) -> list[tuple[object, ...]]:
    """Arguments of the calls of `scorer_pass` that write the scores of the candidates, zeros until
    then, (n_candidates,), by a scorer that is bound, and whose parameters stay; none where they are
    written already. examined: whether places add to scores."""
    scorer = of.scorer
    examined = examined and scorer.examination is not None
    if of.tower is not None or scorer.signed is not None or examined:
        made = ScorerPass(of, allocate, shown, states, None, examined=examined)
        scores[:] = made.forward()
        return []
    none = scores[:0]
    inputs = kernels.ScorerInputs(shown.offsets, shown.ids, shown.numbers, states, towers.NO_SLOTS)
    written = kernels.ScorerOutputs(scores, none, none, none, NO_TABLE, NO_TABLE, NO_TABLE)
    fixed = (inputs, of.weights, NO_DROPOUT, ONLY_SCORES, written)
    return [(*part, *fixed) for part in shown.parts]


def joined(*chains: Chains) -> Chains:
    """Each part's calls one after another."""
    return [[call for calls in of_part for call in calls] for of_part in zip(*chains, strict=True)]


def dropout_rule(rate: float, key: int | None) -> DropoutRule:
    """Dropout at a rate; none without a key."""
    if key is None or not rate:
        return NO_DROPOUT
    threshold, scale = np.uint32(math.floor(rate * 2**32)), np.float32(1 / (1 - rate))
    return DropoutRule(np.uint32(key), threshold, scale)


def flat_of(parameters: Sequence[Tensor]) -> FloatArray:
    """One array that holds the parameters one after another; they become views of it where they are
    not yet."""
    values = [one.detach() for one in parameters]
    if not _follow_each_other(values):
        flat = torch.cat([one.reshape(-1) for one in values])
        at = 0
        for one in parameters:
            one.data = flat[at : at + one.numel()].view(one.shape)
            at += one.numel()
        values = [one.detach() for one in parameters]
    return _as_one(values)


def flat_gradient_of(parameters: Sequence[Tensor]) -> FloatArray:
    """One array of the parameters' gradients, which their optimiser has laid one after another."""
    return _as_one([cast(Tensor, one.grad) for one in parameters])


def _follow_each_other(values: Sequence[Tensor]) -> bool:
    at = values[0].data_ptr()
    for one in values:
        if one.data_ptr() != at or not one.is_contiguous():
            return False
        at += one.nbytes
    return True


def _as_one(values: Sequence[Tensor]) -> FloatArray:
    n = sum(one.numel() for one in values)
    flat: FloatArray = torch.as_strided(values[0], (n,), (1,)).numpy()
    return flat


def kernel_parameters(scorer: ScorerModule) -> list[nn.Parameter]:
    """All parameters of a scorer but tables over ids and its examination, as kernels read them: of
    the network, then w, then the towers'."""
    parameters, tower = dense_parameters(scorer), scorer.tower
    if tower is None:
        return parameters
    linear = [] if tower.numbers is None else [tower.numbers.weight]
    return [*parameters, *linear, *towers.tower_parameters(tower)]


def dense_parameters(scorer: ScorerModule) -> list[nn.Parameter]:
    """Those of the network beside the towers, in the order of the kernel's `starts`."""
    first, wide = scorer.first, scorer.wide
    parts: list[Tensor | None] = [
        _bias(first),
        None if first.numbers is None else first.numbers.weight,
        scorer.from_state.weight,
    ]
    if wide is not None:
        parts += [_bias(wide), None if wide.numbers is None else wide.numbers.weight]
    for layer in linears(scorer):
        parts += [layer.weight, layer.bias]
    return cast("list[nn.Parameter]", [part for part in parts if part is not None])


def starts_of(scorer: ScorerModule, block: Sequence[Tensor]) -> LongArray:
    """Where the kernel finds each dense parameter in a block of some, one after another; −1 for one
    that is not there."""
    ends = accumulate((one.numel() for one in block), initial=0)
    starts_in_block = {id(one): start for one, start in zip(block, ends, strict=False)}

    def place(one: Tensor) -> int:
        return starts_in_block[id(one)]

    first, wide = scorer.first, scorer.wide
    numbers = -1 if first.numbers is None else place(first.numbers.weight)
    starts = [
        place(_bias(first)),
        numbers,
        place(scorer.from_state.weight),
    ]
    starts.append(-1 if wide is None else place(_bias(wide)))
    starts.append(-1 if wide is None or wide.numbers is None else place(wide.numbers.weight))
    starts += [place(layer.weight) for layer in linears(scorer)]
    return np.array(starts, dtype=np.int64)


def part_of_widths(widths: LongArray) -> tuple[int, int]:
    """`least` and `most` for `parts_of`."""
    products = sum(a * b for a, b in pairwise(widths.tolist()))
    if products <= WIDE_SCORER:
        return CANDIDATES_OF_PART, MOST_SUMMED_PARTS
    return max(CANDIDATES_OF_PART * WIDE_SCORER // products, 32), MOST_SUMMED_PARTS


def linears(scorer: ScorerModule) -> list[nn.Linear]:
    """The layers after the first."""
    return cast("list[nn.Linear]", list(scorer.rest))


def widths_of(scorer: ScorerModule) -> LongArray:
    """Width of each hidden layer, int64."""
    return np.array([layer.in_features for layer in linears(scorer)], dtype=np.int64)


def _bias(layer: Any) -> Tensor:
    bias = layer.bias if layer.numbers is None else layer.numbers.bias
    assert isinstance(bias, Tensor)
    return bias
