"""Wide & deep under both losses, and the search that it shares with the other networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastgaum.baselines.gradient import last_choices, mean_of_choices
from fastgaum.baselines.wide_deep import WideDeepCcf, WideDeepLr, cross_rows
from fastgaum.errors import NumericsError
from fastgaum.features.batches import assemble
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.nets.tensors import to_tensors
from tests.builders import random_log

BOTH = pytest.mark.parametrize("model", [WideDeepLr, WideDeepCcf])


def test_the_user_is_the_mean_of_the_earlier_choices() -> None:
    """Against a loop over events."""
    log = random_log(3, n_sessions=30, no_click=0.3)
    encoded = Encoder(fit_space(log), log).encode(log.sessions_in("all"))
    source = assemble(encoded, np.arange(encoded.n_sessions, dtype=np.int32))
    batch = to_tensors(source)
    embedded = torch.randn(batch.tokens.n_bags, 3)
    means, last = mean_of_choices(embedded, batch), last_choices(batch)
    for session, (start, stop) in enumerate(
        zip(source.session_offsets[:-1], source.session_offsets[1:], strict=True)
    ):
        first = source.token_offsets[session]
        for t, event in enumerate(range(start, stop)):
            if t == 0:
                assert not means[event].any()
                assert last[event] == -1
                continue
            torch.testing.assert_close(means[event], embedded[first : first + t].mean(0))
            token = source.token_candidates[first + t - 1]
            assert last[event] == (source.ids[token, 0] if token >= 0 else 0)


def test_hashing_stays_in_the_table_and_spreads() -> None:
    left, right = torch.meshgrid(torch.arange(300), torch.arange(1, 300), indexing="ij")
    rows = cross_rows(left.flatten(), right.flatten(), 1024)
    counts = torch.bincount(rows, minlength=1024)
    assert len(counts) == 1024
    assert counts.max() < 2 * counts.float().mean()


def test_the_search_keeps_the_best_and_leaves_given_settings_alone() -> None:
    log = random_log(7, n_sessions=80)
    model = WideDeepCcf(epochs=3)
    table = model.fit(log)
    assert table["id_dropout"].unique().sort().to_list() == [0.05, 0.8]
    assert table.filter("best")["val_loss"].to_list() == [table["val_loss"].min()]
    assert WideDeepCcf(epochs=3, id_dropout=0.2).fit(log)["id_dropout"].unique().to_list() == [0.2]


def test_a_loss_that_is_not_finite_is_refused() -> None:
    """Nothing has moved then, and the message says where."""
    log = random_log(3, n_sessions=60)
    model = WideDeepCcf(protocol="bags", id_dropout=0.2, lr=1e30)
    with pytest.raises(
        NumericsError, match=r"'wd-ccf' is \S+ (in epoch 1, batch \d|after epoch 1)"
    ):
        model.fit(log)
