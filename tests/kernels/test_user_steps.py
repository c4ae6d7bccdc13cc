"""One recurrent step in place against torch's cell, with folded inputs."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastgaum.kernels.user_steps import StepInputs, StepTables, lstm_step


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 130),
    st.sampled_from([1, 5, 20]),
    st.sampled_from([0, 3]),
    st.integers(0, 2),
    st.integers(0, 10_000),
)
def test_a_step_is_torch_s_cell(n: int, size: int, n_numbers: int, n_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    n_table = 9
    cell = nn.LSTMCell(n_table + n_numbers, size)
    w_ih, w_hh, b_ih, b_hh = (part.detach().numpy() for part in cell.parameters())
    chosen = rng.integers(-1, n_table - 1, (n, 1, n_rows)).astype(np.int32)
    if n_rows:
        chosen[chosen[:, 0, 0] < 0] = -1
    numbers, active = rng.standard_normal((n, 1, n_numbers)).astype(np.float32), rng.random(n) < 0.7
    h, c = (rng.standard_normal((n, size)).astype(np.float32) for _ in range(2))
    nothing = n_table - 1
    x = np.zeros((n, n_table + n_numbers), np.float32)
    for user in range(n):
        for f in range(n_rows):
            row = chosen[user, 0, f]
            row = nothing if row < 0 and f == 0 else row
            if row >= 0:
                x[user, row] += 1
    x[:, n_table:] = numbers[:, 0]
    before = torch.from_numpy(h.copy()), torch.from_numpy(c.copy())
    with torch.no_grad():
        expected = [part.numpy() for part in cell(torch.from_numpy(x), before)]
    table, from_numbers, weight = (
        np.ascontiguousarray(part.T) for part in (w_ih[:, :n_table], w_ih[:, n_table:], w_hh)
    )
    first = int(rng.integers(0, n))
    moving = active & (np.arange(n) >= first)
    inputs = (first, n, active, StepInputs(chosen, numbers))
    lstm_step(*inputs, StepTables(table, nothing, from_numbers, b_ih + b_hh, weight), h, c)
    for got, old, new in zip((h, c), before, expected, strict=True):
        np.testing.assert_allclose(got[moving], new[moving], atol=2e-6)
        assert np.array_equal(got[~moving], old.numpy()[~moving])
