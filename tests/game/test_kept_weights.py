"""Kept weights come back as they were, and average with later ones."""

from __future__ import annotations

import torch
from torch import nn

from fastgaum.game.checkpoint import KeptWeights


def test_kept_weights_come_back_in_place_and_average_with_later_ones() -> None:
    module = nn.ModuleDict(
        {"a": nn.Linear(3, 5), "b": nn.BatchNorm1d(2), "none": nn.Embedding(0, 2)}
    )
    kept, state = KeptWeights(module), module.state_dict()
    places = {name: value.data_ptr() for name, value in state.items()}
    for _ in range(3):
        before = {name: value.clone() for name, value in state.items()}
        kept.copy()
        assert list(kept.copies) == list(before)
        for value in state.values():
            value.fill_(7)
        kept.restore()
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), name
            assert torch.equal(kept.copies[name], before[name]), name
            assert value.data_ptr() == places[name]
            value.add_(1)
        kept.leave(0.25)
        for name, value in state.items():
            share = 0.25 if value.is_floating_point() else 1
            torch.testing.assert_close(value, before[name] + share, check_dtype=False)
        kept.approach(0.25)
        for name, value in kept.copies.items():
            share = 1 / 16 if value.is_floating_point() else 1
            torch.testing.assert_close(value, before[name] + share, check_dtype=False)
