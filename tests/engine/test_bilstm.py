"""The bidirectional LSTM over prefixes by hand: its gradients, its weights' factors, and batches
without a history."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastgaum.engine.bilstm import BiLstmHistory
from fastgaum.engine.optimiser import PlayerOptimiser, ProductWeight
from fastgaum.errors import ConfigError
from fastgaum.features.batches import batches
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.bags import BagSizes
from fastgaum.nets.histories import PrefixBiLstm
from fastgaum.nets.sequences import prefixes
from fastgaum.nets.tensors import BatchTensors, to_tensors
from tests.builders import log_of, random_log


def batch_of(max_length: int) -> tuple[BatchTensors, int]:
    log = random_log(5, n_sessions=30, n_items=12, max_length=max_length, no_click=0.2)
    space = FeatureSpace.fit(log, "identity", set_context=False)
    return to_tensors(next(batches(space.encode(log, log.sessions_in("train")), 30))), space.n_ids


def passes(n_ids: int, dim: int, layers: int) -> tuple[PrefixBiLstm, BiLstmHistory, np.ndarray]:
    torch.manual_seed(0)
    encoder = PrefixBiLstm(BagSizes(n_ids, 0), dim, layers)
    fused = BiLstmHistory(copy.deepcopy(encoder))
    tables = fused.own_tables(n_ids, "adam")
    fused.bind(
        PlayerOptimiser(fused.dense_parameters(), tables, 0.1, 0.0, 5.0, fused.own_products())
    )
    return encoder, fused, np.full(n_ids, -1, np.int32)


def gradients(fused: BiLstmHistory, n_ids: int) -> dict[str, Any]:
    """As the encoder names them, from factors, views and named rows."""
    found = {
        f"weight_hh.{i}": weight.left @ weight.right for i, weight in enumerate(fused.weight_hh)
    }
    found |= {
        f"weight_ih.{i}": weight.left @ weight.right for i, weight in enumerate(fused.weight_ih)
    }
    found |= {f"bias_ih.{i}": grad for i, grad in enumerate(fused.grad_biases)}
    for i, part in enumerate(fused.inputs):
        found[f"inputs.{i}.bias"] = part.grads[-1]
        table = np.zeros((n_ids, part.table.width), np.float32)
        assert part.table.named is not None
        table[part.table.named.rows[: part.table.named.count]] = part.table.grad
        found[f"inputs.{i}.table"] = table
    return found


@pytest.mark.parametrize(
    ("max_length", "dim", "layers"), [(6, 5, 1), (6, 4, 3), (2, 40, 2), (9, 160, 2)]
)
def test_states_and_gradients_are_autograds(max_length: int, dim: int, layers: int) -> None:
    batch, n_ids = batch_of(max_length)
    encoder, fused, slot_of = passes(n_ids, dim, layers)
    expected, found = encoder(batch), fused.forward(batch, batch.tokens)
    grad = torch.randn_like(expected)
    torch.autograd.backward(expected, grad)
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)
    fused.backward(grad.numpy(), slot_of)
    ours = gradients(fused, n_ids)
    assert ours.keys() == dict(encoder.named_parameters()).keys()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None
        scale = max(1.0, float(parameter.grad.abs().max()))
        np.testing.assert_allclose(
            ours[name], parameter.grad.numpy(), atol=1e-5 * scale, err_msg=name
        )


def test_sessions_of_one_event_have_no_history_and_no_gradient() -> None:
    log = log_of([[([1, 2], 0)], [([2, 3, 4], 1)]])
    space = FeatureSpace.fit(log, "identity", set_context=False)
    batch = to_tensors(next(batches(space.encode(log, np.arange(2, dtype=np.int32)), 2)))
    _, fused, slot_of = passes(space.n_ids, 3, 2)
    assert not fused.forward(batch, batch.tokens).any()
    fused.weight_hh[0].set_gradient(np.ones((1, 12), np.float32), np.ones((1, 3), np.float32))
    fused.backward(np.ones((2, 6), np.float32), slot_of)
    assert all(weight.squares() == 0 for weight in (*fused.weight_hh, *fused.weight_ih))
    assert not fused.optimiser.grad.any()


@pytest.mark.parametrize("terms", [0, 1, 5, 200])
def test_norm_of_a_gradient_from_its_factors(terms: int) -> None:
    """By the factors' inner products where the terms are few, else piece by piece."""
    rng = np.random.default_rng(terms)
    weight = ProductWeight(nn.Parameter(torch.zeros(30, 20)))
    sums, inputs = (
        rng.standard_normal((terms, 30), dtype=np.float32),
        rng.standard_normal((terms, 20), dtype=np.float32),
    )
    weight.set_gradient(sums, inputs)
    assert weight.squares() == pytest.approx(
        float(((sums.T @ inputs).astype(np.float64) ** 2).sum()), rel=1e-4
    )


def test_prefixes_of_a_very_long_session_are_refused_by_name() -> None:
    offsets = torch.tensor([0, 3, 100_003], dtype=torch.int32)
    with pytest.raises(
        ConfigError, match=r"longest session has 100,000 choices are 5,000,050,006 positions"
    ):
        prefixes(offsets)
    assert len(prefixes(offsets, window=20).rows) == 6 + 20 * 100_000 - 190
