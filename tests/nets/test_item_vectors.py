"""Vectors of items in plain torch: projected to the rows of a table, with gradients checked in
float64; and bags that carry them."""

from __future__ import annotations

import torch

from fastgaum.nets.bags import BagSizes, IdDropout
from fastgaum.nets.tensors import Bags, BagVectors
from fastgaum.nets.towers import vector_table

SIZES = BagSizes(n_ids=5, n_numbers=0, vector_dim=3)


def bags_of(rows: list[int], n_vectors: int = 4) -> Bags:
    """Bags of one id each, with the vectors of those rows."""
    n = len(rows)
    vectors = BagVectors(
        torch.randn(n_vectors, 3, dtype=torch.float64), torch.tensor(rows, dtype=torch.int32)
    )
    ids = torch.randint(0, 5, (n,), dtype=torch.int32)
    return Bags(ids, torch.arange(n + 1, dtype=torch.int32), torch.empty(n, 0), vectors)


def test_a_bag_is_its_rows_and_its_projected_vector() -> None:
    torch.manual_seed(0)
    items = vector_table(SIZES, 4).double()
    bags = bags_of([2, -1, 0, 2])
    assert items.projection is not None
    assert bags.vectors is not None
    assert (items.projection[:, -1] == 0).all(), "the bias starts at 0"
    for at, (row, id_) in enumerate(zip([2, -1, 0, 2], bags.ids.tolist(), strict=True)):
        expected = items.table[id_]
        if row >= 0:
            expected = expected + bags.vectors.values[row] @ items.projection
        torch.testing.assert_close(items(bags)[at], expected)


def test_bags_that_drop_ids_keep_their_vectors() -> None:
    """An item that is dropped has the row of unknown ones and its own vector: as a new item has."""
    bags = bags_of([0, 1, -1])
    dropped = IdDropout(torch.zeros(5, dtype=torch.int32), rate=1.0)(bags)
    assert dropped.ids.tolist() == [0, 0, 0]
    assert dropped.vectors is bags.vectors
