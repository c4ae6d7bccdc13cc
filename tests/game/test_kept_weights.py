"""Kept weights come back as they were, from memory and from a file, and average with later ones;
sessions that are scored again and again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastgaum.errors import OutputError
from fastgaum.features.space import FeatureSpace
from fastgaum.game import checkpoint, scoring
from fastgaum.logs.synthetic import synthesise


@pytest.mark.parametrize("in_memory", [True, False])
def test_copied_weights_are_restored_in_place(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(checkpoint, "IN_MEMORY_BYTES", 10)
    module = nn.ModuleDict(
        {"a": nn.Linear(3, 2), "b": nn.BatchNorm1d(2), "none": nn.Embedding(0, 2)}
    )
    best = checkpoint.KeptWeights(module)
    for _ in range(2):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        places = [parameter.data_ptr() for parameter in module.parameters()]
        best.copy()
        kept = best.tensors()
        assert list(kept) == list(before)
        assert all(torch.equal(kept[name], value) for name, value in before.items())
        for value in module.state_dict().values():
            value.fill_(7)
        best.restore()
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert places == [parameter.data_ptr() for parameter in module.parameters()]
    best.close()


@pytest.mark.parametrize("in_memory", [True, False])
def test_weights_leave_the_kept_ones_by_a_share(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_ROWS", 2)
    if not in_memory:
        monkeypatch.setattr(checkpoint, "IN_MEMORY_BYTES", 10)
    module = nn.ModuleDict({"a": nn.Linear(3, 5), "b": nn.BatchNorm1d(2)})
    average = {name: value.clone() for name, value in module.state_dict().items()}
    kept = checkpoint.KeptWeights(module)
    for _ in range(3):
        for value in module.state_dict().values():
            value.add_(1)
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                average[name] = 0.75 * average[name] + 0.25 * value
            else:
                average[name] = value.clone()
        kept.leave(0.25)
        kept.copy()
    kept.close()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, average[name])


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "IN_MEMORY_BYTES", 10)
    best = checkpoint.KeptWeights(nn.Linear(3, 2))

    def full(_: nn.Module) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_bytes_of", full)
    with pytest.raises(OutputError, match="No space left on device; free space or set TMPDIR"):
        best.copy()
    best.close()


@pytest.mark.parametrize("held", [True, False])
def test_scored_sessions_are_the_same_whether_held_or_assembled(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "HELD_EVENTS", 10**6 if held else 0)
    monkeypatch.setattr(scoring, "SCORING_SESSIONS", 16)
    log, _ = synthesise(300, preset="sample")
    space = FeatureSpace.fit(log, "identity", set_context=False)
    encoded = space.encode(log, log.sessions_in("train"))
    whole = scoring.HeldBatches(encoded, torch.device("cpu"))
    assert (whole.held is not None) == held
    for _ in range(2):
        assert sum(batch.n_events for batch in whole) == encoded.n_events
    few = scoring.HeldBatches(encoded, torch.device("cpu"), 10)
    rows = [row for batch in few for row in batch.source.rows.tolist()]
    assert len(rows) == len(set(rows)) == 10
    # spread over all sessions
    assert max(rows) > encoded.rows[-1] * 0.8
