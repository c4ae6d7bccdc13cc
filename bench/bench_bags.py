"""Race: the embedding bag against torch.nn.functional.embedding_bag, forward and backward, with and
without weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

import pytest
import torch
from torch import Tensor

from fastgaum.bench.races import Race
from fastgaum.nets.ops.bags import bag_sum

Bag = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
GROUPS = {"bags-plain": False, "bags-weighted": True}
"""group: whether ids have weights"""


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
        # forward each id's row is read once and backward its gradient is added to once
        self.bytes_moved = 2 * 4.0 * dim * n_ids

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        """Sums and the table's gradient as torch has them."""
        return step_of(torch_embedding_bag, self)()


def ours(table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    return bag_sum(table, ids, offsets, weights)


def torch_embedding_bag(
    table: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None
) -> Tensor:
    return torch.nn.functional.embedding_bag(
        ids, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def gradient_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def step_of(bag: Bag, work: Work) -> Callable[[], dict[str, Tensor]]:
    def step() -> dict[str, Tensor]:
        work.table.grad = None
        sums = bag(work.table, work.ids, work.offsets, work.weights)
        torch.autograd.backward(sums, work.grad)
        return {"sums": sums.detach(), "gradient": gradient_of(work.table)}

    return step


CONTENDERS: dict[str, Bag] = {"ours": ours, "torch-embedding-bag": torch_embedding_bag}


@lru_cache(maxsize=1)
def work_of(group: str, full: bool) -> Work:
    return Work(*((20_000, 100_000, 64) if full else (200, 500, 8)), weighted=GROUPS[group])


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("group", GROUPS)
def test_bags(race: Race, full: bool, group: str, contender: str) -> None:
    work = work_of(group, full)
    step = step_of(CONTENDERS[contender], work)
    race(step, work.expected, unit="ids", amount=len(work.ids), bytes_moved=work.bytes_moved)
