"""Every row of the table of operators: the operator against its twin, and the twin's gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastgaum import ops
from fastgaum.bench.operators import OPERATORS, Contender, Inputs, Operator, Sizes, agree, inputs_of
from fastgaum.nets.bags import BagLinear
from fastgaum.ops import lstm as recurrence

EVENTS = st.lists(st.one_of(st.just(1), st.integers(1, 6), st.just(70)), max_size=5)
SIZES = st.builds(
    Sizes,
    sessions=st.lists(EVENTS, min_size=1, max_size=5).filter(any),
    fields=st.sampled_from([1, 2, 30]),
    numbers=st.integers(0, 3),
    dim=st.sampled_from([2, 5, 20]),
    no_click=st.booleans(),
)
REGIMES: dict[str, dict[str, Any]] = {
    "narrow tiles": {"SEQUENCES_OF_TILE": 4},
    "wide tiles": {},
    "blocks": {"SMALL_PRODUCT": 0},
    "parts": {"SEQUENCES_OF_TILE": 4, "SECONDS_OF_PART": 1e-9, "MOST_PARTS": 3},
    "blocks and parts": {
        "SEQUENCES_OF_TILE": 4,
        "SECONDS_OF_PART": 1e-9,
        "SMALL_PRODUCT": 0,
        "OUTER_ROWS": 3,
    },
    "weights whole": {"SEQUENCES_OF_TILE": 4, "SMALL_PRODUCT": 0, "WIDE_WEIGHTS": 1},
}
"""ways to walk a batch that its size and the hidden units decide: tiles of four sequences or more,
weights whole or in blocks of four units, one part or several"""
each = pytest.mark.parametrize("row", OPERATORS, ids=[row.name for row in OPERATORS])


@contextmanager
def walked(regime: str) -> Iterator[None]:
    """Force one way to walk a batch, whatever its size."""
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in REGIMES[regime].items():
            patch.setattr(recurrence, constant, value)
        yield


@each
@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 99), regime=st.sampled_from(list(REGIMES)))
def test_an_operator_is_its_twin(row: Operator, sizes: Sizes, seed: int, regime: str) -> None:
    """Values and gradients, by kernels and by torch in float32, against torch in float64."""
    exact = Contender(row, sizes, seed, torch.float64).results()
    with walked(regime):
        agree(Contender(row, sizes, seed, torch.float32).results(), exact, row.tolerance)
    with ops.plain():
        agree(Contender(row, sizes, seed, torch.float32).results(), exact, row.tolerance)


@pytest.mark.parametrize(
    "row", [row for row in OPERATORS if row.differentiable], ids=lambda row: row.name
)
def test_the_gradient_of_a_twin(row: Operator) -> None:
    sizes, double = Sizes([[3, 1], [], [2, 2]], dim=3, n_ids=5), torch.float64
    module, inputs = Contender(row, sizes, 1, double).module, inputs_of(sizes, 1, double)
    for part in module.modules():
        if isinstance(part, BagLinear):
            part.sparse_grad = False
    whole = _Whole(row, module)
    names, leaves = zip(*whole.named_parameters(), strict=True)

    def value(states: Tensor, *values: Tensor) -> Tensor:
        own = dict(zip(names, values, strict=True))
        found = torch.func.functional_call(whole, own, (inputs._replace(states=states),))
        return found + 0 * states.sum()  # type: ignore[no-any-return]

    free = [one.detach().clone().requires_grad_() for one in leaves]
    assert torch.autograd.gradcheck(value, (inputs.states, *free))


class _Whole(nn.Module):
    def __init__(self, row: Operator, module: nn.Module) -> None:
        super().__init__()
        self.row, self.module = row, module

    def forward(self, inputs: Inputs) -> Tensor:
        return self.row.run(self.module, inputs, None)


@each
def test_what_a_row_names_exists(row: Operator) -> None:
    for name in (row.operator, row.twin, *(f"kernels.{one}" for one in row.kernels)):
        file, attribute = name.split(":")
        assert hasattr(import_module(f"fastgaum.{file}"), attribute), name
    if row.triton is not None:
        # Triton need not be here
        file, attribute = row.triton.split(":")
        text = (Path(ops.__file__).parents[1] / f"{file.replace('.', '/')}.py").read_text()
        assert f"def {attribute}(" in text, row.triton
