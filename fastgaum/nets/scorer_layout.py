"""How a scorer's parameters lie for the kernel `scorer_forward`, and its scores where nothing is
trained."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fastgaum import threads
from fastgaum.kernels import scorer as kernels

if TYPE_CHECKING:
    from fastgaum.nets.scorers import Scorer
    from fastgaum.nets.tensors import Bags

KINDS = {nn.ReLU: 0, nn.ELU: 1, nn.Tanh: 2}
PART = 1024
"""candidates per part: fewer are not worth a second thread"""
WIDE = 1 << 14
"""multiplications per candidate up to which `PART` holds: layers of 128"""
NO_TABLE: npt.NDArray[np.float32] = np.empty((0, 1), np.float32)
NO_DROPOUT = np.uint32(0), np.uint32(0), np.float32(1)
"""key, threshold and scale"""


def dense_parameters(scorer: Scorer) -> list[nn.Parameter]:
    """All parameters but the tables over ids, in the order of the kernel's `starts`."""
    first, wide = scorer.first, scorer.wide
    parts: list[Any] = [
        _bias(first),
        None if first.numbers is None else first.numbers.weight,
        scorer.from_state.weight,
        first.up,
    ]
    if wide is not None:
        parts += [_bias(wide), None if wide.numbers is None else wide.numbers.weight]
    for layer in linears(scorer):
        parts += [layer.weight, layer.bias]
    return [part for part in parts if part is not None]


def starts_of(scorer: Scorer, place: Any) -> Any:
    """Where the kernel finds each dense parameter; −1 for one that is not there."""
    first, wide = scorer.first, scorer.wide
    numbers = -1 if first.numbers is None else place(first.numbers.weight)
    starts = [
        place(_bias(first)),
        numbers,
        place(scorer.from_state.weight),
        -1 if first.up is None else place(first.up),
    ]
    starts.append(-1 if wide is None else place(_bias(wide)))
    starts += [place(layer.weight) for layer in linears(scorer)]
    return np.array(starts, dtype=np.int64)


def parts_of(display_offsets: Any, least: int = PART, most: int = 16) -> list[tuple[int, int]]:
    """Cut events into at most `most` ranges of about `least` candidates and more; the cut depends
    on the batch alone."""
    n_candidates, n_events = int(display_offsets[-1]), len(display_offsets) - 1
    # an even number: two threads then end together
    n_parts = min(most, n_candidates // least) // 2 * 2
    if n_parts == 0:
        return [(0, n_events)]
    bounds = np.searchsorted(
        display_offsets, np.arange(1, n_parts) * (n_candidates / n_parts)
    ).tolist()
    cuts = sorted({0, n_events, *bounds})
    return list(pairwise(cuts))


def part_of_widths(widths: Any) -> tuple[int, int]:
    """`least` and `most` for `parts_of`: wide layers are shared from fewer candidates on, among few
    parts.

    Each part has gradients of its own for all dense parameters, which for wide layers are
    megabytes."""
    products = sum(a * b for a, b in pairwise(widths.tolist()))
    if products <= WIDE:
        return PART, 16
    return max(PART * WIDE // products, 32), 4


def linears(scorer: Scorer) -> list[nn.Linear]:
    """The layers after the first."""
    return cast("list[nn.Linear]", list(scorer.rest))


def widths_of(scorer: Scorer) -> Any:
    """Width of each hidden layer, int64."""
    return np.array([layer.in_features for layer in linears(scorer)], dtype=np.int64)


def scores_of(scorer: Scorer, candidates: Bags, states: Tensor, display_offsets: Tensor) -> Tensor:
    """Scores on the CPU in float32 without gradients, (n_candidates,): one kernel instead of a
    dozen operators."""
    dense = dense_parameters(scorer)
    places: dict[int, int] = {}
    at = 0
    for parameter in dense:
        places[id(parameter)] = at
        at += parameter.numel()
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in dense]).numpy()
    offsets, n, widths = display_offsets.numpy(), candidates.n_bags, widths_of(scorer)
    wide = scorer.wide.table.detach().numpy() if scorer.wide is not None else NO_TABLE
    scores = np.empty(n, np.float32)
    fixed = (
        offsets,
        candidates.ids.numpy().reshape(n, -1),
        candidates.numbers.numpy(),
        states.detach().contiguous().numpy(),
        scorer.first.table.detach().numpy(),
        wide,
        flat,
        starts_of(scorer, lambda parameter: places[id(parameter)]),
        widths,
        KINDS[type(scorer.act)],
        *NO_DROPOUT,
        np.empty((len(states), int(widths[0])), np.float32),
        np.empty(n * int(widths.sum()), np.float32),
        scores,
    )
    threads.run(kernels.scorer_forward, [(*part, *fixed) for part in parts_of(offsets)])
    return torch.from_numpy(scores)


def _bias(layer: Any) -> nn.Parameter:
    bias: nn.Parameter = layer.bias if layer.bias is not None else layer.numbers.bias
    return bias
