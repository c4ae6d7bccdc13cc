"""Kept weights come back as they were, from memory and from a file, and average with later ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastgaum.errors import OutputError
from fastgaum.game import checkpoint


@pytest.mark.parametrize("in_memory", [True, False])
def test_kept_weights_come_back_in_place_and_average_with_later_ones(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_ROWS", 2)
    if not in_memory:
        monkeypatch.setattr(checkpoint, "IN_MEMORY_BYTES", 10)
    module = nn.ModuleDict(
        {"a": nn.Linear(3, 5), "b": nn.BatchNorm1d(2), "none": nn.Embedding(0, 2)}
    )
    kept, state = checkpoint.KeptWeights(module), module.state_dict()
    places = {name: value.data_ptr() for name, value in state.items()}
    for _ in range(3):
        before = {name: value.clone() for name, value in state.items()}
        kept.copy()
        tensors = kept.tensors()
        assert list(tensors) == list(before)
        for value in state.values():
            value.fill_(7)
        kept.restore()
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), name
            assert torch.equal(tensors[name], before[name]), name
            assert value.data_ptr() == places[name]
            value.add_(1)
        kept.leave(0.25)
        for name, value in state.items():
            share = 0.25 if value.is_floating_point() else 1
            torch.testing.assert_close(value, before[name] + share, check_dtype=False)
        if in_memory:
            kept.approach(0.25)
            for name, value in kept.tensors().items():
                share = 1 / 16 if value.is_floating_point() else 1
                torch.testing.assert_close(value, before[name] + share, check_dtype=False)
    kept.close()


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "IN_MEMORY_BYTES", 10)
    best = checkpoint.KeptWeights(nn.Linear(3, 2))

    def full(_: nn.Module) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_bytes_of", full)
    with pytest.raises(OutputError, match="No space left on device; free space or set TMPDIR"):
        best.copy()
    best.close()
