"""Race: the embedding bag against torch.nn.functional.embedding_bag, forward and backward, with and without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastgaum.ops.bags import bag_sum

Step = Callable[[], dict[str, Tensor]]
Bag = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class Work:
    """Bags of one to eight ids into a table, popular ids more often."""

    def __init__(self, n_bags: int, n_rows: int, dim: int, weighted: bool) -> None:
        draws = torch.Generator().manual_seed(0)
        sizes = torch.randint(1, 9, (n_bags,), generator=draws)
        n_ids = int(sizes.sum())
        self.offsets = torch.cat([torch.zeros(1), sizes.cumsum(0)]).int()
        self.ids = (n_rows * torch.rand(n_ids, generator=draws) ** 3).int()
        self.table = torch.randn(n_rows, dim, generator=draws).requires_grad_()
        self.weights = torch.rand(n_ids, generator=draws) if weighted else None
        self.grad = torch.randn(n_bags, dim, generator=draws)


def ours(table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    return bag_sum(table, ids, offsets, weights)


def torch_embedding_bag(table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    return torch.nn.functional.embedding_bag(
        ids, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def step_of(bag: Bag, work: Work) -> Step:
    def step() -> dict[str, Tensor]:
        work.table.grad = None
        sums = bag(work.table, work.ids, work.offsets, work.weights)
        sums.backward(work.grad)
        assert work.table.grad is not None
        return {"sums": sums.detach(), "gradient": work.table.grad}

    return step


@pytest.fixture(scope="module")
def work(request: pytest.FixtureRequest, full: bool) -> Work:
    return Work(*((20_000, 100_000, 64) if full else (200, 500, 8)), weighted=request.param)


@pytest.mark.parametrize("contender", [ours, torch_embedding_bag])
@pytest.mark.parametrize("work", [False, True], ids=["plain", "weighted"], indirect=True)
def test_bags(benchmark: Any, race: Callable[..., None], work: Work, contender: Bag) -> None:
    benchmark.group = f"bags-{'plain' if work.weights is None else 'weighted'}"
    race(step_of(contender, work), step_of(torch_embedding_bag, work)(), ids=len(work.ids))
