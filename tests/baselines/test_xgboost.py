"""Boosted trees: the contract, the softmax objective, and that no order of candidates leaks in."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("xgboost", reason="needs the extra 'baselines'")

from fastgaum.baselines.field_columns import chosen_before
from fastgaum.baselines.xgboost_trees import (
    XgboostRank,
    XgboostSoftmax,
    shuffled_within_sets,
    softmax_gradient,
)
from fastgaum.errors import ConfigError
from fastgaum.features.batches import assemble
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.sessions import EncodedSessions
from fastgaum.nets.segments import segment_logsumexp
from fastgaum.nets.tensors import to_tensors
from tests.builders import random_log


def encoded_log(no_click: float = 0.3) -> EncodedSessions:
    log = random_log(3, n_sessions=30, no_click=no_click)
    return Encoder(fit_space(log), log).encode(log.sessions_in("all"))


@pytest.mark.parametrize("outside", [False, True])
def test_softmax_gradient_is_autograd(outside: bool) -> None:
    encoded = encoded_log(no_click=0.3 if outside else 0.0)
    clicked = encoded.choices >= 0
    chosen = torch.from_numpy(
        encoded.display_offsets[:-1][clicked] + encoded.choices[clicked]
    ).long()
    offsets = torch.from_numpy(encoded.display_offsets)
    margins = torch.randn(len(encoded.ids), dtype=torch.float64)

    def nll(values: torch.Tensor) -> torch.Tensor:
        return segment_logsumexp(values, offsets, outside).sum() - values[chosen].sum()

    values = margins.clone().requires_grad_()
    (expected,) = torch.autograd.grad(nll(values), values)
    label = torch.zeros_like(margins).index_fill(0, chosen, 1.0).numpy()
    gradient, hessian = softmax_gradient(margins.numpy(), label, encoded.display_offsets, outside)
    np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-9)
    p = gradient + label
    np.testing.assert_allclose(hessian, np.maximum(p * (1 - p), 1e-6))


def test_choices_so_far_as_columns() -> None:
    """Against a loop, with a window of two."""
    encoded = encoded_log()
    source = assemble(encoded)
    batch = to_tensors(source)
    n_ids = int(encoded.ids.max()) + 1
    columns = chosen_before(batch, n_ids, window=2).toarray()
    for session in range(source.n_sessions):
        for event in range(source.session_offsets[session], source.session_offsets[session + 1]):
            stop = source.token_offsets[session] + event - source.session_offsets[session]
            expected = np.zeros(n_ids)
            for token in range(max(source.token_offsets[session], stop - 2), stop):
                candidate = source.token_candidates[token]
                np.add.at(expected, source.ids[candidate] if candidate >= 0 else [0], 1)
            np.testing.assert_array_equal(columns[event], expected)


def test_shuffling_keeps_the_choice() -> None:
    encoded = encoded_log()
    shuffled = shuffled_within_sets(encoded, 0)
    clicked = encoded.choices >= 0
    np.testing.assert_array_equal(shuffled.choices >= 0, clicked)
    rows = [
        e.ids[e.display_offsets[:-1][clicked] + e.choices[clicked]] for e in (encoded, shuffled)
    ]
    np.testing.assert_array_equal(*rows)
    assert (encoded.choices != shuffled.choices).any()


def test_ndcg_ties_by_expectation() -> None:
    """All candidates tie: the mean over places of 1 / log2(1 + place)."""
    encoded = encoded_log(no_click=0.0)
    sizes = np.diff(encoded.display_offsets)
    expected = np.mean([np.mean(1 / np.log2(1 + np.arange(1, k + 1))) for k in sizes])
    assert XgboostRank()._loss(np.zeros(len(encoded.ids)), encoded) == pytest.approx(-expected)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "xgboost":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install 'fastgaum\[baselines\]'"):
        XgboostSoftmax()
