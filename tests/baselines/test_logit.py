"""The conditional logit's weights are the maximum of the penalised likelihood."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from fastgaum.baselines.logit import ConditionalLogit
from fastgaum.features.batches import assemble
from fastgaum.features.fitting import fit_training
from fastgaum.logs.log import SessionLog
from fastgaum.nets.segments import segment_logsumexp
from tests.builders import put, random_log


def with_context(log: SessionLog) -> SessionLog:
    """The log with a number and a category of each event."""
    rng = np.random.default_rng(0)
    fields = {
        "price": rng.standard_normal(log.n_events).astype(np.float32),
        "place": rng.integers(0, 3, log.n_events).astype(np.int32),
    }
    names = pl.Series(["a", "b", "c"])
    return put(log, event=fields, categories={"place": names})


@pytest.mark.parametrize("no_click", [0.0, 0.3])
@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_the_gradient_is_zero_at_the_weights(protocol: str, no_click: float) -> None:
    """By autograd, of the likelihood written anew over the dense design."""
    log = with_context(random_log(5, n_sessions=80, no_click=no_click))
    model = ConditionalLogit(protocol=protocol, penalty=2.0, number_penalty=3.0)  # type: ignore[arg-type]
    model.fit(log)
    assert model.space is not None
    # a fit reads training sessions in orders, each of them with what was counted before
    order = model._training_order(log)
    _, encoded = fit_training(log, protocol, relations=bool(model.relations), order=order)
    batch = assemble(encoded, np.arange(encoded.n_sessions, dtype=np.int32))
    rows = model._design(batch)
    dense = np.column_stack([rows.times(unit) for unit in np.eye(len(model.weights))])
    errors = np.random.default_rng(0).standard_normal(len(dense))
    for power in (1, 2):
        sums = rows.transposed_times(errors, power)
        np.testing.assert_allclose(sums, (dense**power).T @ errors, atol=1e-9)
    design = torch.from_numpy(dense)
    offsets, chosen = torch.from_numpy(batch.display_offsets), torch.from_numpy(batch.chosen[:])
    penalties = torch.from_numpy(model._penalties(2.0, 3.0))

    def penalised(weights: Tensor) -> Tensor:
        utility = design @ weights
        nll = segment_logsumexp(utility, offsets, model.outside).sum() - utility[chosen].sum()
        return nll + 0.5 * (penalties * weights.square()).sum()

    weights = torch.from_numpy(model.weights).requires_grad_()
    gradient = torch.autograd.grad(penalised(weights), weights)[0]
    assert model.weights.any()
    assert float(gradient.abs().max()) < 5e-3
    draws = torch.Generator().manual_seed(0)
    for _ in range(5):
        away = torch.randn(len(weights), dtype=torch.float64, generator=draws)
        assert penalised(weights.detach() + 0.01 * away) > penalised(weights)


def test_penalties_are_chosen_on_validation() -> None:
    table = ConditionalLogit(number_penalty=1.0).fit(random_log(7, n_sessions=80))
    assert table.columns == ["penalty", "number_penalty", "val_loss", "val_prec1"]
    assert table["number_penalty"].unique().to_list() == [1.0]
    assert table["penalty"].n_unique() == table.height > 1
