"""Race: the segment log-softmax over flat ragged values against torch's over a padded matrix,
forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

import pytest
import torch
from torch import Tensor

from fastgaum.bench.races import Race
from fastgaum.nets.ops.segments import segment_log_softmax

Step = Callable[[], dict[str, Tensor]]
GROUPS = ("segment-log-softmax",)


class Work:
    """Values of ragged display sets, no click offered, and the gradient that comes back."""

    def __init__(self, n_events: int) -> None:
        draws = torch.Generator().manual_seed(0)
        sizes = torch.randint(1, 20, (n_events,), generator=draws)
        self.offsets = torch.cat([torch.zeros(1), sizes.cumsum(0)]).int()
        self.values = torch.randn(int(sizes.sum()), generator=draws).requires_grad_()
        self.grad = torch.randn(self.values.shape, generator=draws)
        self.grad_outside = torch.randn(n_events, generator=draws)
        self.real = torch.arange(int(sizes.max())) < sizes[:, None]

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        """Log-probabilities and the values' gradient as torch has them."""
        return torch_padded(self)()


def ours(work: Work) -> Step:
    def step() -> dict[str, Tensor]:
        work.values.grad = None
        log_probs, outside = segment_log_softmax(work.values, work.offsets, True)
        torch.autograd.backward([log_probs, outside], [work.grad, work.grad_outside])
        return results(work, log_probs, outside)

    return step


def torch_padded(work: Work) -> Step:
    """Pads in each step, as a model whose scores come flat must; the mask is made before."""

    def step() -> dict[str, Tensor]:
        work.values.grad = None
        padded = torch.full(work.real.shape, -torch.inf).masked_scatter(work.real, work.values)
        # No click is one more column, of value 0.
        log_probs = torch.log_softmax(torch.nn.functional.pad(padded, (0, 1)), dim=1)
        chosen, outside = log_probs[:, :-1][work.real], log_probs[:, -1]
        torch.autograd.backward([chosen, outside], [work.grad, work.grad_outside])
        return results(work, chosen, outside)

    return step


def results(work: Work, log_probs: Tensor, outside: Tensor) -> dict[str, Tensor]:
    assert work.values.grad is not None
    return {
        "log_probs": log_probs.detach(),
        "outside": outside.detach(),
        "gradient": work.values.grad,
    }


CONTENDERS: dict[str, Callable[[Work], Step]] = {"ours": ours, "torch-padded": torch_padded}


@lru_cache(maxsize=1)
def work_of(full: bool) -> Work:
    return Work(20_000 if full else 200)


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("group", GROUPS)
def test_log_softmax(race: Race, full: bool, group: str, contender: str) -> None:
    work = work_of(full)
    race(CONTENDERS[contender](work), work.expected, unit="candidates", amount=len(work.values))
