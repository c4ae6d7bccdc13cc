"""The kernels of a card against plain torch: values and every gradient, in float64, on drawn shapes.

They run in Triton's interpreter where there is no card: `make cuda-test`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

# read when Triton is imported, and when a kernel is defined
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed: pip install 'fastgaum[cuda]'")

from fastgaum.engine import card_kernels as kernels
from fastgaum.engine.card_batches import bags_of
from fastgaum.engine.card_layers import ragged_softmax
from fastgaum.engine.card_lstm import CardLstmLayer, TokenSequences
from fastgaum.engine.card_tables import (
    CardTable,
    bag_of_entry,
    sorted_entries,
    sum_bags,
    sum_segments,
)
from fastgaum.nets import segments
from fastgaum.nets.bags import bag_sum
from fastgaum.nets.sequences import lstm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=5)
FEW = settings(max_examples=8)


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=DEVICE)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, device=DEVICE)


def ids_of(*shape: int) -> Tensor:
    """Ids of six rows; one in seven names no row."""
    return torch.randint(-1, 6, shape, dtype=torch.int32, device=DEVICE)


def agree(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-9)


@FEW
@given(lengths=LENGTHS, outside=st.booleans(), scale=st.sampled_from([1.0, 0.0, 1e4]))
def test_softmax(lengths: list[int], outside: bool, scale: float) -> None:
    torch.manual_seed(0)
    offsets, n = offsets_of(lengths), sum(lengths)
    scores = scale * drawn(n)
    probs, totals = ragged_softmax(torch.cat([scores, drawn(2)]), offsets, outside)
    agree(probs[:n], segments.segment_softmax(scores, offsets, outside)[0])
    assert not probs[n:].any(), "padding has no probability"
    expected = segments.segment_logsumexp(scores, offsets, outside)
    agree(totals, torch.where(expected.isfinite(), expected, 0.0))


@FEW
@given(lengths=LENGTHS, outside=st.booleans())
def test_gradient_of_logged_choices(lengths: list[int], outside: bool) -> None:
    torch.manual_seed(0)
    lengths = [max(1, length) for length in lengths]
    offsets, n, n_events = offsets_of(lengths), sum(lengths), len(lengths)
    scores = drawn(n).requires_grad_()
    choices = torch.tensor([length - 1 - outside for length in lengths], dtype=torch.int32)
    choices = choices.to(DEVICE)
    # in an event of one candidate no click is logged, where it is a choice
    clicked = (choices >= 0).nonzero()[:, 0]
    chosen = scores[(offsets[:-1] + choices)[clicked].long()]
    loss = segments.segment_logsumexp(scores, offsets, outside).sum() - chosen.sum()
    (expected,) = torch.autograd.grad(loss / n_events, scores)
    probs, _ = ragged_softmax(scores.detach(), offsets, outside)
    grad, share = torch.zeros_like(probs), torch.full_like(probs[:1], 1 / n_events)
    kernels.choice_gradients[(n_events,)](probs, offsets, choices, share, grad, 2)
    agree(grad, expected)


@FEW
@given(lengths=LENGTHS, width=st.sampled_from([1, 3, 130]), n_fields=st.integers(1, 2))
def test_bags_and_their_gradients_by_row(lengths: list[int], width: int, n_fields: int) -> None:
    """Factored bags of `n_fields` ids, then bags of any length."""
    torch.manual_seed(0)
    offsets, ids = offsets_of(lengths), ids_of(sum(lengths))
    shown = ids_of(4, n_fields)
    table = drawn(6, width).requires_grad_()
    own = sum_bags(table.detach(), kernels.BagEntries(ids, offsets))
    agree(own, _bag_sum(table, ids, offsets))
    agree(sum_segments(own, offsets_of([len(own), 0])), torch.stack([own.sum(0), 0 * own.sum(0)]))

    users, scores, events = drawn(3, width), drawn(4), torch.tensor([0, 2, 2, 1]).int().to(DEVICE)
    others = drawn(len(lengths), width)
    equal = bags_of(shown)
    total = (_bag_sum(table, *equal) * (scores[:, None] * users[events])).sum()
    total = total + (_bag_sum(table, ids, offsets) * others).sum()
    (expected,) = torch.autograd.grad(total, table)
    bags = [bag_of_entry(shown), 4 + segments.segment_ids(offsets, len(ids)).int()]
    entries = sorted_entries(torch.cat([equal.ids, ids]), torch.cat(bags))
    sparse = CardTable(table, 6, "adam")
    sparse.add(entries, others, kernels.BagFactors(events, scores, users, 4))
    assert float(sparse.squares()) == pytest.approx(float(expected.square().sum()))
    found = torch.zeros_like(expected)
    for at, row in enumerate(entries.ids.tolist()):
        if row >= 0 and (at == 0 or entries.ids[at - 1] != row):
            found[row] = sparse.grad.sums[at]
    agree(found, expected)


def _bag_sum(table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    """The reference, for which a row of zeros is what no id names."""
    padded = torch.cat([table.new_zeros(1, table.shape[1]), table])
    return bag_sum(padded, ids + 1, offsets)


@FEW
@given(lengths=LENGTHS, width=st.sampled_from([1, 5, 130]), n_fields=st.integers(1, 3))
def test_dot_products(lengths: list[int], width: int, n_fields: int) -> None:
    torch.manual_seed(0)
    offsets, n = offsets_of(lengths), max(sum(lengths), 1)
    offsets[-1] = n
    events = segments.segment_ids(offsets, n).int()
    ids, table = ids_of(n, n_fields), drawn(6, width)
    users = drawn(len(lengths), width).requires_grad_()
    expected = (_bag_sum(table, *bags_of(ids)) * users[events]).sum(1)
    grad_scores = drawn(n)
    (grad_users,) = torch.autograd.grad(expected, users, grad_scores)
    shown = kernels.ShownCandidates(ids, events, offsets, n)
    scores, found = torch.empty_like(grad_scores), torch.empty_like(users)
    factors = kernels.DotFactors(users.detach(), table)
    kernels.dot_candidates[(-(-n // 4),)](factors, shown, scores, width, n_fields, 4, 2)
    agree(scores, expected)
    factors = kernels.DotFactors(found, table)
    programs = (len(users), -(-width // 64))
    kernels.dot_users_gradient[programs](grad_scores, factors, shown, width, n_fields, 2, 64)
    agree(found, grad_users)


@settings(max_examples=6)
@given(lengths=LENGTHS, size=st.sampled_from([1, 3, 33]), more=st.booleans())
def test_lstm(lengths: list[int], size: int, more: bool) -> None:
    """With `more`, sequences for two programs, and tokens of none at the end."""
    torch.manual_seed(0)
    lengths = [*lengths, 1, *([1, 2] * 8 if more else [])]
    offsets, n = offsets_of(lengths), sum(lengths)
    x, weight = drawn(n, 4 * size).requires_grad_(), drawn(4 * size, size).requires_grad_()
    zeros = drawn(len(lengths), size) * 0
    expected, _ = lstm(x, offsets, weight, zeros, zeros)
    grad_h = drawn(n + 2 * more, size)
    wanted = torch.autograd.grad(expected, (x, weight), grad_h[:n], materialize_grads=True)
    before = torch.arange(len(grad_h), device=DEVICE) - 1
    before[offsets[:-1][offsets.diff() > 0].long()] = -1
    before[n:] = -1
    order = torch.argsort(offsets.diff(), descending=True).int()
    layer = CardLstmLayer()
    given_x = torch.cat([x.detach(), drawn(2 * more, 4 * size)])
    sequences = TokenSequences(order, offsets, len(lengths))
    h = layer.forward(given_x, weight.detach(), sequences)
    assert not h[n:].any(), "a token of no sequence has no state"
    agree(h[:n], expected)
    grad_x, grad_weight = layer.backward(grad_h, before)
    agree(grad_x[:n], wanted[0])
    agree(grad_weight, wanted[1])


ROOT = Path(__file__).parents[2]
FILES = ("card_kernels", "card_lstm")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card compiles what it runs")
def test_kernels_compile_for_cards(tmp_path: Path) -> None:
    """For an A100 and an H100, with no card at hand: the interpreter takes what a compiler refuses."""
    keep = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment: dict[str, Any] = {**keep, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "compile_card.py")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trees = [ast.parse((ROOT / f"fastgaum/engine/{name}.py").read_text()) for name in FILES]
    functions = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    marked = {one.name for one in functions if one.decorator_list and one.name[0] != "_"}
    assert set(done.stdout.split()) == marked
