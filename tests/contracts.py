"""The contract of user models: a test calls `check_user_model`, or, of one that is no preset,
`check_choice_model`, and is done."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from fastgaum.features.encoder import Encoder
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel
from fastgaum.nets.batches import Batch, assemble
from fastgaum.nets.networks import Head
from fastgaum.nets.tensors import gather_bags
from tests.builders import permuted_within_sets, random_log


def check_user_model(model: UserModel, log: SessionLog | None = None) -> None:
    """Fit on a small log, then hold the model to the contract."""
    log = log or random_log(7, n_sessions=80)
    table = model.fit(log).history_
    assert table.height >= 1
    check_choice_model(model, log)
    if model.config.players == "adversarial":
        check_choice_model(model, log, "generator")
    _check_state_is_past_only(model, log)
    _check_advance_equals_encoding(model, log)


def check_choice_model(model: ChoiceModel, log: SessionLog, head: Head = "reward") -> None:
    """A head's probabilities sum to 1, follow their candidates and know nothing of other
    sessions."""
    _check_normalised(model, log, head)
    _check_permutation(model, log, head)
    _check_batching(model, log, head)


def _batch(model: ChoiceModel, log: SessionLog, rows: np.ndarray) -> Batch:
    assert model.space is not None
    encoded = Encoder(model.space, log).encode(rows)
    return assemble(encoded)


def _check_normalised(model: ChoiceModel, log: SessionLog, head: Head) -> None:
    batch = _batch(model, log, log.sessions_in("all"))
    log_probs, no_click = model.choice_log_probs(batch, head)
    sums = np.add.reduceat(log_probs.exp().numpy().astype(np.float64), batch.display_offsets[:-1])
    np.testing.assert_allclose(sums + no_click.exp().numpy(), 1, atol=1e-4)


def _check_permutation(model: ChoiceModel, log: SessionLog, head: Head) -> None:
    """Permuting candidates permutes probabilities. With real order the places stay, and it permutes
    the utilities free of place: tests/models/test_examination.py."""
    if log.ordered:
        return
    permuted, order = permuted_within_sets(log)
    rows = log.sessions_in("test")
    before, _ = model.choice_log_probs(_batch(model, log, rows), head)
    after, _ = model.choice_log_probs(_batch(model, permuted, rows), head)
    _, events = pick_rows(log.session_offsets, rows)
    _, candidates = pick_rows(log.display_offsets, events)
    position = np.full(log.n_candidates, -1)
    position[candidates] = np.arange(len(candidates))
    np.testing.assert_allclose(
        after.numpy(), before.numpy()[position[order[candidates]]], atol=1e-4
    )


def _check_batching(model: ChoiceModel, log: SessionLog, head: Head) -> None:
    """A session alone has the scores it has among others, however long those are."""
    rows = log.sessions_in("test")
    together, _ = model.choice_log_probs(_batch(model, log, rows), head)
    alone = [
        model.choice_log_probs(_batch(model, log, rows[i : i + 1]), head)[0]
        for i in range(len(rows))
    ]
    np.testing.assert_allclose(torch.cat(alone).numpy(), together.numpy(), atol=1e-4)


def _states(model: UserModel, batch: Batch) -> torch.Tensor:
    assert model.networks is not None
    with torch.no_grad():
        return model.networks.eval().utility(batch)[1]


def _longest(log: SessionLog) -> np.ndarray:
    return np.array([np.argmax(np.diff(log.session_offsets))], np.int32)


def _check_state_is_past_only(model: UserModel, log: SessionLog) -> None:
    """Other choices at t and after leave the states up to t as they were, to the bit, and move the
    state at t + 1."""
    row = _longest(log)
    first, last = log.session_offsets[row[0]], log.session_offsets[row[0] + 1]
    sizes = np.diff(log.display_offsets)
    before = _states(model, _batch(model, log, row))
    moved = 0
    for t in range(last - first):
        choices = log.choices.copy()
        later = np.arange(first + t, last)
        choices[later] = (np.maximum(choices[later], 0) + 1) % sizes[later]
        other = dataclasses.replace(log, choices=choices)
        assert model.space is not None
        # the changed log is another log: what is tested is the encoder, so both sides use counts of
        # the first
        encoded = Encoder(model.space, log).encode(row)
        batch = assemble(
            dataclasses.replace(encoded, choices=choices[first:last]), np.zeros(1, np.int32)
        )
        after = _states(model, batch)
        assert torch.equal(after[: t + 1], before[: t + 1])
        if t + 1 < last - first and other.choices[first + t] != log.choices[first + t]:
            moved += int(not torch.equal(after[t + 1], before[t + 1]))
    assert last - first < 3 or moved > 0


@torch.no_grad()
def _check_advance_equals_encoding(model: UserModel, log: SessionLog) -> None:
    """Advancing a user choice by choice gives the states that encoding the session at once
    gives."""
    batch = _batch(model, log, _longest(log))
    encoded = _states(model, batch)
    assert model.networks is not None
    history = model.networks.player.history
    carries = history.initial(1)
    for t in range(batch.n_events):
        state = history.state_of(carries)
        np.testing.assert_allclose(state.numpy()[0], encoded[t].numpy(), atol=1e-5)
        if t + 1 < batch.n_events:
            carries = history.advance(carries, gather_bags(batch.tokens, torch.tensor([t])))
