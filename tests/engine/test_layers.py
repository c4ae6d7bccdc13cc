"""The engine's layers against autograd through the reference: scores and states, and every
gradient, on drawn shapes, ties and extremes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.engine.histories import RecurrentHistory
from fastgaum.engine.optimiser import PlayerOptimiser
from fastgaum.engine.scorer import (
    GRADIENT_GIVEN,
    ONLY_SCORES,
    DisplayBatch,
    ScorerLayer,
    dense_parameters,
)
from fastgaum.engine.tables import NamedParts, PartsRoom, SparseTable
from fastgaum.nets.bags import BagSizes
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import Scorer
from fastgaum.nets.tensors import Bags

N_IDS, N_NUMBERS = 6, 2
BAGS = BagSizes(N_IDS, N_NUMBERS)
ENCODERS: dict[str, Any] = {
    "lstm": lambda: Recurrent(BAGS, 3, 2),
    "lstm over embeddings": lambda: Recurrent(BagSizes(N_IDS, N_NUMBERS, 2), 3),
}
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=6)
SCALES = st.sampled_from([1.0, 0.0, 1e4])


def bags_of(n: int, width: int, scale: float) -> Bags:
    ids = torch.randint(0, N_IDS, (n * width,), dtype=torch.int32)
    offsets = torch.arange(0, n * width + 1, width, dtype=torch.int32)
    return Bags(ids, offsets, scale * torch.randn(n, N_NUMBERS))


def offsets_of(sizes: list[int]) -> torch.Tensor:
    return torch.tensor([0, *np.cumsum(sizes).tolist()], dtype=torch.int32)


def of_table(table: SparseTable) -> Any:
    """The gradient of a whole table, from its named rows."""
    found = np.zeros_like(table.values)
    if table.named is not None:
        found[table.named.rows[: table.named.count]] = table.grad
    return found


def agree(found: Any, expected: torch.Tensor, scale: float) -> None:
    """Within float32's rounding, and 3e-5 of the inputs: the kernels' exp and tanh are rational, so
    that a saturated unit keeps a slope of 4e-7; and a sum of 1e4s that comes out near ELU's bend is
    wrong by 7e-4, and so is its slope (torch's own float32 too)."""
    wanted = expected.detach().numpy()
    most = max(1.0, scale, float(np.abs(wanted).max(initial=0.0)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5 * most)


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, scale=SCALES, item_dim=st.sampled_from([0, 2]), wide=st.booleans())
@pytest.mark.parametrize("activation", ["relu", "elu", "tanh"])
def test_scores(activation: str, sizes: list[int], scale: float, item_dim: int, wide: bool) -> None:
    torch.manual_seed(0)
    scorer = Scorer(BagSizes(N_IDS, N_NUMBERS, item_dim), 3, (5, 4), activation, wide=wide)
    offsets, n = offsets_of(sizes), sum(sizes)
    candidates = bags_of(n, 2, scale)
    states = torch.randn(len(sizes), 3)
    grad = torch.randn(n)
    # in float64: in float32 the reference's rounding would add to the layer's
    exact, inputs64 = deepcopy(scorer).double(), states.detach().double().requires_grad_()
    numbers64 = Bags(candidates.ids, candidates.offsets, candidates.numbers.double())
    expected = exact(numbers64, inputs64, offsets)
    torch.autograd.backward(expected, grad.double())
    wanted = {name: part.grad for name, part in exact.named_parameters()}

    layer = ScorerLayer(scorer)
    tables = layer.own_tables(N_IDS)
    optimiser = PlayerOptimiser(dense_parameters(scorer), tables, 0.1, 0.0, 1.0)
    layer.bind(optimiser)
    ids, parts = candidates.ids.numpy().reshape(n, 2), [(0, len(sizes))]
    of_rows = NamedParts(ids, offsets.numpy(), parts, np.full(N_IDS, -1, np.int32), PartsRoom())
    shown = DisplayBatch(offsets.numpy(), ids, candidates.numbers.numpy(), parts, of_rows)
    scores = layer.begin(shown, states.numpy())
    layer.run(ONLY_SCORES, scores)
    agree(scores, expected, scale)
    layer.run(GRADIENT_GIVEN, scores, grad.numpy())
    assert inputs64.grad is not None
    agree(layer.grad_states, inputs64.grad, scale)
    for name, parameter in scorer.named_parameters():
        of_parameter = wanted[name]
        assert of_parameter is not None
        if name.endswith("table"):
            agree(of_table(tables[name.startswith("wide")]), of_parameter, scale)
        else:
            agree(optimiser.grad_of(parameter), of_parameter, scale)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), scale=SCALES)
@pytest.mark.parametrize("kind", list(ENCODERS))
def test_states(kind: str, sizes: list[int], scale: float) -> None:
    if sum(sizes) == 0:
        return
    torch.manual_seed(0)
    encoder: Recurrent = ENCODERS[kind]()
    offsets, tokens = offsets_of(sizes), bags_of(sum(sizes), 2, scale)
    expected = encoder.after_tokens(tokens, offsets)
    grad = torch.randn_like(expected)
    torch.autograd.backward(expected, grad)
    wanted = {name: part.grad for name, part in encoder.named_parameters()}
    layer, check = by_hand(encoder)
    agree(layer.after_tokens(tokens, offsets), expected, scale)
    layer.back_from_tokens(grad.numpy(), np.full(N_IDS, -1, np.int32))
    check(wanted, scale)


def by_hand(
    encoder: Recurrent,
) -> tuple[RecurrentHistory, Callable[[dict[str, Any], float], None]]:
    """The encoder by hand, and what holds its gradients to those of autograd, by name."""
    layer = RecurrentHistory(encoder)
    tables = layer.own_tables(N_IDS)
    optimiser = PlayerOptimiser(layer.dense_parameters(), tables, 0.1, 0.0, 1.0)
    layer.bind(optimiser)

    def check(wanted: dict[str, Any], scale: float) -> None:
        known = {id(table.parameter): of_table(table) for table in tables}
        for name, parameter in encoder.named_parameters():
            found = known[id(parameter)] if id(parameter) in known else optimiser.grad_of(parameter)
            agree(np.reshape(found, wanted[name].shape), wanted[name], scale)

    return layer, check


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_events_read_the_last_token_before_them(kind: str) -> None:
    """Of eight tokens, four are read: the others are actions before a further token."""
    torch.manual_seed(0)
    encoder: Recurrent = ENCODERS[kind]()
    batch: Any = SimpleNamespace(
        n_events=6,
        tokens=bags_of(8, 2, 1.0),
        token_offsets=offsets_of([3, 0, 4, 1]),
        later_events=torch.tensor([0, 2, 3, 5]),
        read_tokens=torch.tensor([1, 2, 5, 7]),
    )
    expected = encoder(batch)
    grad = torch.randn_like(expected)
    torch.autograd.backward(expected, grad)
    wanted = {name: part.grad for name, part in encoder.named_parameters()}
    layer, check = by_hand(encoder)
    agree(layer.forward(batch, batch.tokens), expected, 1.0)
    layer.backward(grad.numpy(), np.full(N_IDS, -1, np.int32))
    check(wanted, 1.0)
