"""Segment reductions: gradients, extremes, invariances, torch row by row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgaum.nets import segments as ops

# event 1 is empty, event 2 has one candidate, the last holds ties
OFFSETS = torch.tensor([0, 4, 4, 5, 12, 15], dtype=torch.int32)

DISTRIBUTIONS: dict[str, Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]] = {
    "log_softmax": ops.segment_log_softmax,
    "softmax": ops.segment_softmax,
    "sparsemax": lambda v, o, outside: ops.segment_entmax(v, o, outside, 2.0),
    "entmax-1.5": lambda v, o, outside: ops.segment_entmax(v, o, outside, 1.5),
    "entmax-1.3": lambda v, o, outside: ops.segment_entmax(v, o, outside, 1.3),
    "entmax-2.5": lambda v, o, outside: ops.segment_entmax(v, o, outside, 2.5),
}
each_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)
with_and_without_outside = pytest.mark.parametrize("outside", [False, True])


def draw(seed: int = 0, *, requires_grad: bool = False) -> Tensor:
    values = torch.randn(15, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_(requires_grad)


@each_distribution
@with_and_without_outside
def test_gradients_of_both_outputs(name: str, outside: bool) -> None:
    def function(values: Tensor) -> tuple[Tensor, ...]:
        inside, outside_entry = DISTRIBUTIONS[name](values, OFFSETS, outside)
        return (inside, outside_entry) if outside else (inside,)

    assert torch.autograd.gradcheck(function, draw(requires_grad=True))


@with_and_without_outside
def test_gradients_of_the_reductions(outside: bool) -> None:
    # Without the outside option the empty event is −inf, which finite differences cannot take.
    kept = [0, 1, 2, 3, 4] if outside else [0, 2, 3, 4]
    assert torch.autograd.gradcheck(
        lambda v: ops.segment_logsumexp(v, OFFSETS, outside)[kept], draw(requires_grad=True)
    )
    matrix = draw(1).outer(torch.ones(2, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ops.segment_sum(v, OFFSETS), draw(requires_grad=True))
    assert torch.autograd.gradcheck(lambda v: ops.segment_sum(v, OFFSETS), matrix)
    per_event = draw()[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ops.expand_to_candidates(v, OFFSETS), per_event)
    assert torch.autograd.gradgradcheck(
        lambda v: ops.expand_to_candidates(v, OFFSETS).square(), per_event
    )
    assert torch.autograd.gradcheck(
        lambda v: ops.expand_to_candidates(v, OFFSETS), matrix[:5].detach().requires_grad_()
    )


@with_and_without_outside
def test_log_softmax_equals_torch_row_by_row(outside: bool) -> None:
    values = draw(requires_grad=True)
    log_probs, outside_log_prob = ops.segment_log_softmax(values, OFFSETS, outside)
    rows = []
    for event, row in enumerate(values.tensor_split(OFFSETS[1:-1].tolist())):
        entries = torch.cat((row, row.new_zeros(1))) if outside else row
        rows.append(entries.log_softmax(0)[: len(row)])
        expected = -entries.logsumexp(0).item() if outside else float("-inf")
        assert outside_log_prob[event].item() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(log_probs, torch.cat(rows))


@each_distribution
@with_and_without_outside
def test_a_distribution_sums_to_one_even_at_the_extremes(name: str, outside: bool) -> None:
    values = draw().float() * 4
    values[:4] = torch.tensor([1e4, -1e4, 1e4, -torch.inf])
    values[5:8] = -torch.inf
    inside, outside_entry = DISTRIBUTIONS[name](values.requires_grad_(), OFFSETS, outside)
    if name == "log_softmax":
        inside, outside_entry = inside.exp(), outside_entry.exp()
    totals = ops.segment_sum(inside, OFFSETS) + outside_entry
    torch.testing.assert_close(totals, torch.tensor([1.0, float(outside), 1.0, 1.0, 1.0]))
    assert (inside[[1, 3, 5, 6, 7]] == 0).all()
    torch.testing.assert_close(inside[[0, 2]], torch.tensor([0.5, 0.5]))
    inside[[0, 8, 9, 12]].sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()


@each_distribution
def test_a_shuffled_display_set_and_other_events_change_nothing(name: str) -> None:
    values = draw(3, requires_grad=True)
    order = torch.cat(
        (torch.tensor([2, 0, 3, 1, 4]), torch.randperm(7) + 5, torch.tensor([14, 12, 13]))
    )
    weights = draw(4)
    inside, outside_entry = DISTRIBUTIONS[name](values, OFFSETS, True)
    (grad,) = torch.autograd.grad((inside * weights).sum() + outside_entry.sum(), values)
    shuffled = values.detach()[order].requires_grad_()
    inside_s, outside_s = DISTRIBUTIONS[name](shuffled, OFFSETS, True)
    (grad_s,) = torch.autograd.grad((inside_s * weights[order]).sum() + outside_s.sum(), shuffled)
    torch.testing.assert_close(inside_s, inside[order])
    torch.testing.assert_close(outside_s, outside_entry)
    torch.testing.assert_close(grad_s, grad[order])
    alone, outside_alone = DISTRIBUTIONS[name](
        values[5:12], torch.tensor([0, 7], dtype=torch.int32), True
    )
    assert torch.equal(alone, inside[5:12])
    assert torch.equal(outside_alone, outside_entry[3:4])


def test_wrong_arguments_are_named() -> None:
    values = draw()
    with pytest.raises(ValueError, match="offsets end at 15, but there are 14 rows"):
        ops.segment_softmax(values[:14], OFFSETS, True)
    with pytest.raises(ValueError, match=r"shape \(15, 1\), a flat"):
        ops.segment_softmax(values[:, None], OFFSETS, True)
    with pytest.raises(ValueError, match="3 rows for 5 events"):
        ops.expand_to_candidates(values[:3], OFFSETS)
    with pytest.raises(ValueError, match=r"alpha is 1\.0"):
        ops.segment_entmax(values, OFFSETS, True, 1.0)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_sorting_and_bisection_agree_on_long_segments(alpha: float) -> None:
    values = 0.3 * torch.randn(
        3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    offsets = torch.tensor([0, 1000, 1000, 3000], dtype=torch.int32)
    exact, near = (
        ops.segment_entmax(values, offsets, True, value)[0] for value in (alpha, alpha + 1e-9)
    )
    torch.testing.assert_close(exact, near, atol=1e-7, rtol=0)
    assert 20 < int((exact > 0).sum()) < 3000


def test_no_events_at_all() -> None:
    values, offsets = torch.zeros(0, requires_grad=True), torch.zeros(1, dtype=torch.int32)
    for function in DISTRIBUTIONS.values():
        inside, outside_entry = function(values, offsets, True)
        assert inside.shape == outside_entry.shape == (0,)
    assert ops.segment_sum(values, offsets).shape == (0,)
    assert ops.segment_argmax(values, offsets).dtype == torch.int64
