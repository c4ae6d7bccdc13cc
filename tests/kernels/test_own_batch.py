"""Losses of next-item training, the input projection of items, and Adagrad by elements, against
naive twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastgaum.kernels import own_batch as kernels
from fastgaum.kernels import rows as row_kernels

N_ITEMS = 40


def draw(n: int, size: int, dtype: Any, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((n, size)).astype(dtype)
    table = rng.standard_normal((N_ITEMS, size + 1)).astype(dtype)
    targets, negatives = rng.integers(N_ITEMS, size=(2, n)).astype(np.int32)
    return rng.permutation(n).astype(np.int32), targets, negatives, states, table


def own_batch(
    block: int, split: int, drawn: Any, targets: Any, states: Any, table: Any
) -> tuple[Any, Any, Any]:
    """Gradients of states and of each target's row, and the mean loss; each piece by a call of its
    own."""
    n, size = states.shape
    n_pieces = -(-n // block) * split
    grad_states, losses = np.full_like(states, np.nan), np.full(n_pieces, np.nan)
    grad_targets = np.full((split * n, size + 1), np.nan, states.dtype)
    for piece in range(n_pieces):
        fixed = (drawn, targets, states, table, grad_states, grad_targets, losses)
        kernels.own_batch(piece, piece + 1, block, split, *fixed)
    return grad_states, grad_targets.reshape(split, n, size + 1).sum(0), losses.sum() / n


def naive_own_batch(
    block: int, drawn: Any, targets: Any, states: Any, table: Any
) -> tuple[Any, Any, float]:
    """The same, a target at a time, in float64."""
    n, size = states.shape
    states, table = states.astype(np.float64), table.astype(np.float64)
    grad_states, grad_targets, loss = np.zeros_like(states), np.zeros((n, size + 1)), 0.0
    for start in range(0, n, block):
        held = drawn[start : start + block]
        for i in held:
            scores = np.array(
                [states[i] @ table[targets[k], :size] + table[targets[k], size] for k in held]
            )
            probs = np.exp(scores - scores.max())
            probs /= probs.sum()
            loss -= np.log(probs[list(held).index(i)])
            for k, prob in zip(held, probs, strict=True):
                pull = (prob - (k == i)) / n
                grad_states[i] += pull * table[targets[k], :size]
                grad_targets[k] += pull * np.append(states[i], 1.0)
    return grad_states, grad_targets, loss / n


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-12)])
@settings(max_examples=20)
@given(
    n=st.integers(1, 24), block=st.integers(1, 30), split=st.integers(1, 3), size=st.integers(1, 6)
)
@example(n=90, block=90, split=2, size=200)
def test_own_batch_is_its_naive_twin(
    dtype: Any, tolerance: float, n: int, block: int, split: int, size: int
) -> None:
    drawn, targets, _, states, table = draw(n, size, dtype)
    found = own_batch(block, split, drawn, targets, states, table)
    for value, expected in zip(
        found, naive_own_batch(block, drawn, targets, states, table), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)


def test_a_block_of_many_tiles_is_torch_s_cross_entropy() -> None:
    n, size = 600, 64
    drawn, targets, _, states, table = draw(n, size, np.float32)
    # 26 rows to a tile: the gradient of the targets is a sum of products
    assert kernels.SMALL_PRODUCT // (n * size) < n // 20
    s = torch.tensor(states).requires_grad_()
    t = torch.tensor(table[targets]).requires_grad_()
    loss = functional.cross_entropy(
        (s @ t[:, :size].t() + t[:, size])[drawn][:, drawn], torch.arange(n)
    )
    torch.autograd.backward(loss)
    grad_states, grad_targets, mean = own_batch(n, 2, drawn, targets, states, table)
    assert mean == pytest.approx(float(loss.detach()), rel=1e-6)
    torch.testing.assert_close(torch.from_numpy(grad_states), s.grad, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(torch.from_numpy(grad_targets), t.grad, rtol=1e-4, atol=1e-8)


def test_gradients_are_those_of_the_loss() -> None:
    drawn, targets, negatives, states, table = draw(9, 3, np.float64)

    def bpr() -> tuple[Any, Any, Any, Any]:
        grads = np.empty_like(states), np.empty((9, 4)), np.empty((9, 4))
        losses = np.empty(1)
        kernels.bpr(0, 9, targets, negatives, states, table, *grads, losses)
        return *grads, losses[0] / 9

    of_states, of_targets, _ = own_batch(4, 2, drawn, targets, states, table)
    by_pairs = bpr()
    rows = {"own batch": np.zeros_like(table), "bpr": np.zeros_like(table)}
    np.add.at(rows["own batch"], targets, of_targets)
    np.add.at(rows["bpr"], targets, by_pairs[1])
    np.add.at(rows["bpr"], negatives, by_pairs[2])
    step = 1e-6
    for array, own, pairs in (
        (states, of_states, by_pairs[0]),
        (table, rows["own batch"], rows["bpr"]),
    ):
        for place in np.ndindex(array.shape):
            kept = array[place]
            losses = []
            for value in (kept + step, kept - step):
                array[place] = value
                losses.append((own_batch(4, 2, drawn, targets, states, table)[2], bpr()[3]))
            array[place] = kept
            slopes = (np.array(losses[0]) - np.array(losses[1])) / (2 * step)
            assert slopes == pytest.approx([own[place], pairs[place]], abs=1e-8)


@settings(max_examples=20)
@given(
    n=st.integers(1, 12),
    cut=st.integers(0, 12),
    size=st.integers(1, 6),
    scale=st.sampled_from([1, 60]),
)
def test_bpr_is_torch_s_in_any_parts(n: int, cut: int, size: int, scale: int) -> None:
    _, targets, negatives, states, table = draw(n, size, np.float32)
    states *= scale  # exp of the margins of the larger is no float32
    s, t, u = (torch.tensor(a).requires_grad_() for a in (states, table[targets], table[negatives]))
    margin = (s * (t - u)[:, :size]).sum(1) + (t - u)[:, size]
    loss = -functional.logsigmoid(margin).mean()
    torch.autograd.backward(loss)
    grads = (
        np.empty_like(states),
        np.empty((n, size + 1), np.float32),
        np.empty((n, size + 1), np.float32),
    )
    losses = np.empty(2)
    for k, part in enumerate([(0, min(cut, n)), (min(cut, n), n)]):
        kernels.bpr(*part, targets, negatives, states, table, *grads, losses[k : k + 1])
    assert losses.sum() / n == pytest.approx(float(loss.detach()), rel=1e-5)
    for value, expected in zip(grads, (s, t, u), strict=True):
        torch.testing.assert_close(torch.from_numpy(value), expected.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_nan_comes_through_and_one_target_costs_nothing(dtype: Any) -> None:
    drawn, targets, _, states, table = draw(5, 3, dtype)
    states[2, 1] = np.nan
    assert np.isnan(own_batch(4, 1, drawn, targets, states, table)[2])
    alone = own_batch(1, 1, drawn[:1] * 0, targets[:1], states[:1], table)
    assert alone[2] == 0
    assert not alone[0].any()
    assert not alone[1].any()


@settings(max_examples=20)
@given(st.integers(1, 200), st.integers(1, 9), st.integers(0, 2))
@example(200, 64, 1)
def test_the_projection_of_items(n: int, size: int, more: int) -> None:
    width = size + more
    rng = np.random.default_rng(3)
    items = rng.integers(N_ITEMS, size=n).astype(np.int32)
    table, weight = rng.standard_normal((N_ITEMS, width)), rng.standard_normal((3 * size, size))
    bias, grad = rng.standard_normal(3 * size), rng.standard_normal((n, 3 * size))
    x, gates = np.full((n, size), np.nan), np.full((n, 3 * size), np.nan)
    rows = np.full((n, width), np.nan)
    sums = []
    for part in ((0, n // 3), (n // 3, n)):
        kernels.item_gates(*part, items, table, np.ascontiguousarray(weight.T), bias, x, gates)
        sums.append((np.full_like(weight, np.nan), np.full_like(bias, np.nan)))
        kernels.item_gates_backward(*part, x, weight, grad, rows, *sums[-1])
    expected = table[items, :size]
    np.testing.assert_allclose(gates, expected @ weight.T + bias, atol=1e-10)
    np.testing.assert_allclose(rows[:, :size], grad @ weight, atol=1e-10)
    assert not rows[:, size:].any()
    np.testing.assert_allclose(sums[0][0] + sums[1][0], grad.T @ expected, atol=1e-10)
    np.testing.assert_allclose(sums[0][1] + sums[1][1], grad.sum(0), atol=1e-10)


@settings(max_examples=15)
@given(width=st.integers(1, 5), named=st.integers(0, 6))
def test_adagrad_by_elements_and_in_one_block(width: int, named: int) -> None:
    rng = np.random.default_rng(4)
    table, dense = rng.standard_normal((6, width)), rng.standard_normal(5)
    twin, twin_squares = table.copy(), np.zeros_like(table)
    parameter = torch.nn.Parameter(torch.tensor(dense))
    stock = torch.optim.Adagrad([parameter], lr=0.1, eps=1e-6)
    squares, dense_squares = np.zeros_like(table), np.zeros_like(dense)
    for step in range(3):
        rows, grad = (
            rng.permutation(6)[:named].astype(np.int32),
            rng.standard_normal((named, width)),
        )
        for part in ((0, named // 2), (named // 2, named)):
            row_kernels.adagrad_elements(table, rows, grad, squares, *part, 0.1, 1e-6)
        for row, g in zip(rows, grad, strict=True):
            twin_squares[row] += g**2
            twin[row] -= 0.1 * g / np.sqrt(twin_squares[row] + 1e-6)
        np.testing.assert_allclose(table, twin, atol=1e-12)
        of_dense = rng.standard_normal(5) * step
        row_kernels.adagrad_dense(dense, of_dense, dense_squares, 0.1, 1e-6)
        parameter.grad = torch.tensor(of_dense)
        stock.step()
        np.testing.assert_allclose(dense, parameter.detach().numpy(), atol=1e-12)
