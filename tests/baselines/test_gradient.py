"""The torch baselines: their inputs, losses and networks, and the search that they share."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from fastgaum.baselines import s_rnn
from fastgaum.baselines.deep_fm import DeepFm
from fastgaum.baselines.gradient import last_choices, mean_of_choices
from fastgaum.baselines.s_rnn import SessionRnn
from fastgaum.baselines.wide_deep import WideDeepCcf, cross_rows
from fastgaum.errors import NumericsError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.sessions import UNKNOWN_ITEM_ID
from fastgaum.nets.bags import bag_sum
from fastgaum.nets.batches import Batch, assemble
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tensors import gather_bags
from tests.baselines.contract import check_baseline
from tests.builders import random_log
from tests.logs.test_context import navigation


def test_the_user_is_the_mean_of_the_earlier_choices() -> None:
    """Against a loop over events."""
    log = random_log(3, n_sessions=30, no_click=0.3)
    encoded = Encoder(fit_space(log), log).encode(log.sessions_in("all"))
    batch = assemble(encoded)
    embedded = torch.randn(batch.tokens.n_bags, 3)
    means, last = mean_of_choices(embedded, batch), last_choices(batch)
    for session, (start, stop) in enumerate(
        zip(batch.session_offsets[:-1], batch.session_offsets[1:], strict=True)
    ):
        first = batch.token_offsets[session]
        for t, event in enumerate(range(start, stop)):
            if t == 0:
                assert not means[event].any()
                assert last[event] == -1
                continue
            torch.testing.assert_close(means[event], embedded[first : first + t].mean(0))
            token = batch.token_candidates[first + t - 1]
            assert last[event] == (batch.ids[token, 0] if token >= 0 else 0)


def test_hashing_stays_in_the_table_and_spreads() -> None:
    left, right = torch.meshgrid(torch.arange(300), torch.arange(1, 300), indexing="ij")
    rows = cross_rows(left.flatten(), right.flatten(), 1024)
    counts = torch.bincount(rows, minlength=1024)
    assert len(counts) == 1024
    assert counts.max() < 2 * counts.float().mean()


def test_the_search_keeps_the_best_and_leaves_given_settings_alone() -> None:
    log = random_log(7, n_sessions=80)
    model = WideDeepCcf(epochs=1, relations=False)
    table = model.fit(log).history_
    assert table["id_dropout"].unique().sort().to_list() == [0.05, 0.8]
    assert table.filter("best")["val_loss"].to_list() == [table["val_loss"].min()]
    table = WideDeepCcf(epochs=1, id_dropout=0.2, relations=False).fit(log).history_
    assert table["id_dropout"].unique().to_list() == [0.2]


def test_a_loss_that_is_not_finite_is_refused() -> None:
    """Nothing has moved then, and the message says where."""
    log = random_log(3, n_sessions=60)
    model = WideDeepCcf(protocol="bags", id_dropout=0.2, lr=1e30)
    with pytest.raises(
        NumericsError, match=r"'wd-ccf' is \S+ (in epoch 1, batch \d|after epoch 1)"
    ):
        model.fit(log)


@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_the_network_is_the_papers_with_every_field_built(protocol: str) -> None:
    """Field vectors side by side, the double sum over their pairs, and the deep part on all of
    them; the context's fields are some of each kind."""
    log = navigation(40, n_items=30)
    model = DeepFm(protocol=protocol, epochs=1, id_dropout=0.8, loss="logistic")
    model.fit(log)
    assert model.space is not None
    encoded = Encoder(model.space, log).encode(log.sessions_in("all"))
    batch = assemble(encoded)
    network = model.network.eval()
    with torch.no_grad():
        candidates, tokens = batch.candidates, batch.tokens
        summed = (
            bag_sum(network.of_ids, tokens.ids, tokens.offsets, None)
            + tokens.numbers @ network.of_numbers
        )
        users = expand_to_candidates(mean_of_choices(summed, batch), batch.display_offsets)
        ids = network.of_ids[torch.from_numpy(batch.ids).long()]
        events = torch.cat(
            [
                network.of_ids[batch.context.ids.long().view(batch.n_events, -1)],
                batch.context_numbers[:, :, None] * network.of_context_numbers,
            ],
            dim=1,
        )
        assert events.shape[1] == 4
        of_events = expand_to_candidates(events, batch.display_offsets)
        numbers = candidates.numbers[:, :, None] * network.of_numbers
        fields = torch.cat([ids, numbers, users[:, None], of_events], dim=1)
        pairs = itertools.combinations(range(fields.shape[1]), 2)
        expected = sum(
            ((fields[:, i] * fields[:, j]).sum(1) for i, j in pairs), torch.zeros(len(fields))
        )
        expected += network.linear(candidates).squeeze(1) + network.rest(
            network.first(fields.flatten(1))
        ).squeeze(1)
        torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-5)


def test_contract_with_drawn_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s_rnn, "ALL_ITEMS", 2)
    monkeypatch.setattr(s_rnn, "NEGATIVES", 8)
    check_baseline(SessionRnn(epochs=3, dim=16, dropout=0.5))


def fitted(**settings: object) -> tuple[SessionRnn, Batch]:
    log = random_log(7, n_sessions=80)
    model = SessionRnn.from_mapping({"epochs": 3, "dim": 16, **settings})
    model.fit(log)
    assert model.space is not None
    rows = log.sessions_in("train")
    return model, assemble(Encoder(model.space, log).encode(rows))


def without_displays(batch: Batch) -> Batch:
    """Every display set cut to its choice."""
    clicked, bags = batch.choices >= 0, batch.candidates
    kept = gather_bags(bags, batch.chosen)
    return dataclasses.replace(
        batch,
        display_offsets=torch.cat([torch.zeros(1), clicked.cumsum(0)]).int(),
        choices=torch.where(clicked, 0, -1).int(),
        candidates=dataclasses.replace(kept, width=bags.width),
        chosen=torch.arange(len(batch.chosen)),
    )


def test_the_loss_is_of_the_next_item_not_of_the_display_set() -> None:
    """Taking all candidates but the choice away leaves every event's training loss as it was."""
    model, batch = fitted(dropout=0.0)
    model.network.train()
    with torch.no_grad():
        full, alone = (
            model._losses(model.network(one), one) for one in (batch, without_displays(batch))
        )
    assert full.shape == (batch.n_events,)
    torch.testing.assert_close(full, alone)


def test_drawn_negatives_give_the_full_softmax_in_expectation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """exp(loss) − 1 is the negatives' weight relative to the choice: its mean over draws is that of
    all items."""
    model, batch = fitted(dropout=0.0)
    network = model.network.train()
    torch.manual_seed(0)
    with torch.no_grad():
        full = model._losses(network(batch), batch).exp() - 1
        monkeypatch.setattr(s_rnn, "ALL_ITEMS", 0)
        monkeypatch.setattr(s_rnn, "NEGATIVES", 512)
        states = network(batch)
        drawn = torch.stack([model._losses(states, batch).exp() - 1 for _ in range(200)]).mean(0)
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
