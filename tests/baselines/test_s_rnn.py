"""The session RNN: the contract, and that its training never sees a display set."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from fastgaum.baselines.s_rnn import SessionRnn
from fastgaum.features.batches import Batch, assemble
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import UNKNOWN_ITEM_ID
from fastgaum.nets.tensors import BatchTensors, to_tensors
from tests.baselines.contract import check_baseline
from tests.builders import random_log


def test_contract_with_drawn_negatives() -> None:
    check_baseline(SessionRnn(full_items=2, negatives=8, epochs=10))


def fitted(**settings: object) -> tuple[SessionRnn, BatchTensors]:
    log = random_log(7, n_sessions=80)
    model = SessionRnn.from_mapping({"epochs": 3, **settings})
    model.fit(log)
    assert model.space is not None
    rows = log.sessions_in("train")
    return model, to_tensors(
        assemble(Encoder(model.space, log).encode(rows), np.arange(len(rows), dtype=np.int32))
    )


def without_displays(batch: Batch) -> Batch:
    """Every display set cut to its choice."""
    clicked = batch.choices >= 0
    chosen = batch.display_offsets[:-1][clicked] + batch.choices[clicked]
    place = np.cumsum(np.isin(np.arange(len(batch.ids)), chosen)) - 1
    return dataclasses.replace(
        batch,
        display_offsets=np.concatenate([[0], np.cumsum(clicked)]).astype(np.int32),
        choices=np.where(clicked, 0, -1).astype(np.int32),
        ids=batch.ids[chosen],
        numbers=batch.numbers[chosen],
        chosen=np.arange(len(chosen), dtype=np.int64),
        token_candidates=np.where(
            batch.token_candidates >= 0, place[batch.token_candidates], -1
        ).astype(np.int32),
    )


def test_the_loss_is_of_the_next_item_not_of_the_display_set() -> None:
    """Taking all candidates but the choice away leaves every event's training loss as it was."""
    model, batch = fitted(dropout=0.0)
    model.network.train()
    with torch.no_grad():
        full = model.network(batch)
        alone = model.network(to_tensors(without_displays(batch.source)))
    assert full.shape == (batch.n_events,)
    torch.testing.assert_close(full, alone)


def test_drawn_negatives_give_the_full_softmax_in_expectation() -> None:
    """exp(loss) − 1 is the negatives' weight relative to the choice: its mean over draws is that of
    all items."""
    model, batch = fitted(dropout=0.0)
    network = model.network.train()
    torch.manual_seed(0)
    with torch.no_grad():
        full = network(batch).exp() - 1
        network.full_items, network.negatives = 0, 512  # type: ignore[assignment]
        drawn = torch.stack([network(batch).exp() - 1 for _ in range(200)]).mean(0)
    torch.testing.assert_close(drawn, full, rtol=0.03, atol=1e-4)


def test_unknown_items_tie_whatever_the_state() -> None:
    model, batch = fitted()
    unknown = dataclasses.replace(
        batch,
        candidates=dataclasses.replace(
            batch.candidates, ids=torch.full_like(batch.candidates.ids, UNKNOWN_ITEM_ID)
        ),
    )
    assert len(np.unique(model._scores(unknown))) == 1
