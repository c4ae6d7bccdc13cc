"""The operators of the networks as one table: a row gives an operator its tests
(tests/ops/test_operators.py) and its race (bench_operators.py).

An operator and its twin are one module over the same inputs: in float32 on the CPU kernels take it,
in float64 and within `ops.plain` torch does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.standardise import Moments, standardised
from fastgaum.game.game import optimiser_of
from fastgaum.game.losses import exact_loss
from fastgaum.kernels.choice import CHOICES, Loss
from fastgaum.nets.bags import BagLinear, BagSizes
from fastgaum.nets.batches import Batch, assemble
from fastgaum.nets.examination import Examination
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import Scorer
from fastgaum.nets.regularisers import Shannon
from fastgaum.nets.towers import TwoTower, vector_table
from fastgaum.ops.optimiser import LazyAdamW
from fastgaum.ops.scorer import learn


@dataclass(frozen=True)
class Sizes:
    """What inputs are drawn of."""

    sessions: Sequence[Sequence[int]]
    """candidates of each event of each session"""
    fields: int = 2
    """ids of a candidate's bag"""
    numbers: int = 2
    dim: int = 4
    """of states and hidden layers"""
    n_ids: int = 9
    no_click: bool = True


class Inputs(NamedTuple):
    """Sessions, and states of their events, (n_events, dim), that want a gradient."""

    batch: Batch
    states: Tensor
    no_click: bool


def inputs_of(sizes: Sizes, seed: int, dtype: torch.dtype) -> Inputs:
    """Draw sessions and states; the same numbers in every dtype."""
    rng, lengths = np.random.default_rng(seed), [len(one) for one in sizes.sessions]
    shown = np.array([n for one in sizes.sessions for n in one], np.int32)
    n, n_events = int(shown.sum()), len(shown)
    offsets, displays = (
        np.concatenate(([0], np.cumsum(one))).astype(np.int32) for one in (lengths, shown)
    )
    encoded = EncodedSessions(
        rows=np.arange(len(lengths), dtype=np.int32),
        session_offsets=offsets,
        display_offsets=displays,
        choices=rng.integers(-1 if sizes.no_click else 0, shown).astype(np.int32),
        users=np.arange(len(lengths), dtype=np.int32),
        ids=rng.integers(1, sizes.n_ids, (n, sizes.fields)).astype(np.int32),
        base=rng.standard_normal((n, sizes.numbers)).astype(np.float32),
        varying=np.empty(0, np.int64),
        code=standardised(Moments(), sizes.numbers),
        context_ids=np.empty((n_events, 0), np.int32),
        context_numbers=np.empty((n_events, 0), np.float32),
    )
    batch = assemble(encoded)
    candidates, tokens = (
        replace(one, numbers=one.numbers.to(dtype)) for one in (batch.candidates, batch.tokens)
    )
    states = torch.from_numpy(rng.standard_normal((n_events, sizes.dim)).astype(np.float32))
    batch = replace(batch, candidates=candidates, tokens=tokens)
    return Inputs(batch, states.to(dtype).requires_grad_(), sizes.no_click)


def _linear(sizes: Sizes) -> BagLinear:
    return BagLinear(sizes.n_ids, sizes.numbers, sizes.dim, 1.0)


def _recurrent(sizes: Sizes) -> Recurrent:
    return Recurrent(BagSizes(sizes.n_ids, sizes.numbers), sizes.dim, layers=2)


class _OverVectors(nn.Module):
    """An LSTM over rows of a table that others own, which a matrix maps to gates."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        bags = BagSizes(sizes.n_ids, sizes.numbers)
        self.items = vector_table(bags, sizes.dim)
        self.history = Recurrent(bags, sizes.dim, items=self.items)


def _scorer(sizes: Sizes) -> Scorer:
    bags, dim = BagSizes(sizes.n_ids, sizes.numbers), sizes.dim
    scorer = Scorer(bags, dim, (dim, dim), "elu", wide=True)
    scorer.examination = Examination((0.0, -0.5, -1.0))
    return scorer


def _towers(sizes: Sizes) -> Scorer:
    bags, dim = BagSizes(sizes.n_ids, sizes.numbers), sizes.dim
    scorer = Scorer(bags, dim, (dim,), "elu")
    scorer.items = vector_table(bags, dim)
    scorer.tower = TwoTower(scorer.items, dim, sizes.numbers, dim, own=range(sizes.numbers))
    return scorer


def _score(scorer: Any, inputs: Inputs, _: LazyAdamW | None) -> Tensor:
    batch, states = inputs.batch, inputs.states
    scores: Tensor = scorer(batch.candidates, states, batch.display_offsets)
    return scores


def _learn(scorer: Any, inputs: Inputs, _: LazyAdamW | None) -> Tensor:
    """The mean exact loss, (); kernels leave its gradients at once."""
    batch, states, no_click = inputs
    of = scorer.kernels_for(batch.candidates, states)
    if of is None:
        utility = scorer(batch.candidates, states, batch.display_offsets)
        return exact_loss(utility, batch, Shannon(), 1.0, no_click).mean()
    shown = scorer.inputs(of, batch.candidates, batch.display_offsets)[0]
    none, choices = np.empty(0, np.float32), batch.choices.numpy()
    made = learn(of, shown, states, Loss(CHOICES, np.float32(1), no_click, choices, none, none))
    total = made.log_totals.sum(dtype=np.float64) - made.scores[batch.chosen.numpy()].sum()
    return torch.tensor(total / batch.n_events)


def _steps(linear: Any, inputs: Inputs, optimiser: LazyAdamW | None) -> Tensor:
    """Parameters after steps that name other rows each, so that weight decay waits."""
    assert optimiser is not None
    draws, ids = torch.Generator().manual_seed(0), inputs.batch.candidates.ids.long()
    for step in range(3):
        optimiser.zero_grad()
        drawn = torch.randn(optimiser.grad.shape, generator=draws)
        optimiser.grad.copy_(drawn)
        named = ids[step::3]
        rows = torch.randn(len(named), linear.table.shape[1], generator=draws)
        linear.table.grad = torch.sparse_coo_tensor(
            named[None],
            rows.to(linear.table.dtype),
            linear.table.shape,
            check_invariants=True,
        )
        optimiser.step()
    return torch.cat([optimiser.flat, linear.table.detach()[ids].reshape(-1)])


Run = Callable[[Any, Inputs, LazyAdamW | None], Tensor]


@dataclass(frozen=True)
class Operator:
    """A row."""

    name: str
    make: Callable[[Sizes], nn.Module]
    """draws the parameters"""
    run: Run
    """the operator, or its twin, of a module, inputs and the module's optimiser"""
    operator: str
    kernels: tuple[str, ...]
    twin: str
    triton: str | None = None
    """its twin on a card"""
    tolerance: float = 2e-5
    """in float32, of the largest entry, and at least of 1"""
    differentiable: bool = True


_OF_SCORER = "scorer:scorer_pass", "examination:examine", "examination:examination_gradient"
_OF_TOWERS = "scorer:scorer_pass", "towers:tower_forward", "towers:tower_backward"
_OF_LSTM = "lstm:lstm_tiles", "lstm:lstm_tiles_backward"
_OF_BAGS = "bag_linear:bag_linear", "bag_linear:bag_linear_backward"
_OF_ADAM = "optimiser:adam_dense", "optimiser:adam_rows", "optimiser:sum_of_squares"

OPERATORS = (
    Operator(
        "bag-linear",
        _linear,
        lambda module, inputs, _: cast(Tensor, module(inputs.batch.tokens)),
        operator="ops.bag_linear:bag_linear",
        kernels=_OF_BAGS,
        twin="nets.bags:bag_sum",
        triton="nets.cuda_ops:sum_bags",
    ),
    Operator(
        "lstm",
        _recurrent,
        lambda module, inputs, _: cast(
            Tensor, module.after_tokens(inputs.batch.tokens, inputs.batch.token_offsets)
        ),
        operator="ops.lstm:lstm_states",
        kernels=_OF_LSTM,
        twin="nets.sequences:lstm",
        triton="nets.cuda_ops:lstm_states",
    ),
    Operator(
        "history",
        _recurrent,
        lambda module, inputs, _: cast(Tensor, module(inputs.batch)),
        operator="ops.history:states_of_events",
        kernels=(*_OF_BAGS, *_OF_LSTM),
        twin="nets.histories:Recurrent",
    ),
    Operator(
        "history-over-vectors",
        _OverVectors,
        lambda module, inputs, _: cast(Tensor, module.history(inputs.batch)),
        operator="ops.history:states_of_events",
        kernels=(*_OF_BAGS, *_OF_LSTM),
        twin="nets.bags:SharedBagLinear",
    ),
    Operator("score", _scorer, _score, "ops.scorer:score", _OF_SCORER, twin="nets.networks:Scorer"),
    Operator(
        "towers", _towers, _score, "ops.towers:TowerCalls", _OF_TOWERS, "nets.towers:TwoTower"
    ),
    Operator("learn", _scorer, _learn, "ops.scorer:learn", _OF_SCORER, "game.losses:exact_loss"),
    Operator(
        "learn-towers", _towers, _learn, "ops.scorer:learn", _OF_TOWERS, "game.losses:exact_loss"
    ),
    Operator(
        "adamw",
        _linear,
        _steps,
        operator="ops.optimiser:LazyAdamW",
        kernels=_OF_ADAM,
        twin="ops.optimiser:LazyAdamW",
        differentiable=False,
    ),
)


class Contender:
    """A row's module over drawn inputs, with an optimiser that takes its gradients."""

    def __init__(self, row: Operator, sizes: Sizes, seed: int, dtype: torch.dtype) -> None:
        torch.manual_seed(seed)
        self.row, self.module = row, row.make(sizes)
        for parameter in self.module.parameters():
            # nothing starts at zero, where a gradient could be missed; scores keep the size of a
            # trained network's: among ±150 a pass took seven times as long, perhaps by subnormal
            # numbers
            nn.init.normal_(parameter, std=sizes.dim**-0.5)
        self.module.to(dtype)
        self.inputs = inputs_of(sizes, seed, dtype)
        scorer: Any = self.module if isinstance(self.module, Scorer) else _NoScorer
        self.optimiser = optimiser_of(self.module, scorer, 1e-2, 0.1, 0.5)

    def __call__(self) -> Tensor:
        """Go forward and back; return the value."""
        self.optimiser.zero_grad()
        states = self.inputs.states
        states.grad = None
        value = self.row.run(self.module, self.inputs, self.optimiser)
        if value.requires_grad:
            grad = torch.linspace(1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
            torch.autograd.backward(value, grad)
        return value.detach()

    def results(self) -> dict[str, Tensor]:
        """The value, and the gradients of the states and all parameters."""
        value, states = self(), self.inputs.states
        found = {"value": value, "states": states.grad}
        names = {id(one): name for name, one in self.module.named_parameters()}
        for rows in self.optimiser.tables:
            taken, whole = rows.take(), torch.zeros_like(rows.parameter)
            if taken is not None:
                whole.index_add_(0, taken[0].long(), taken[1])
            found[names.pop(id(rows.parameter))] = whole
        dense = {id(one): one.grad for one in self.optimiser.parameters}
        found |= {name: dense[key] for key, name in names.items()}
        return {name: one.detach().clone() for name, one in found.items() if one is not None}


class _NoScorer:
    first = None


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Raise AssertionError, with a value's name, where one is further off than the tolerance of its
    largest entry."""
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        most = max(1.0, float(one.abs().max())) if one.numel() else 1.0
        torch.testing.assert_close(
            found[name].double(),
            one.double(),
            rtol=0,
            atol=tolerance * most,
            msg=f"{name}: {{}}".format,
        )
