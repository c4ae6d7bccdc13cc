"""A kernel gives the same bits whether it was compiled a moment ago or loaded from the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import hashlib
import torch
from fastgaum.ops.recurrent import gru, lstm
from fastgaum.ops.position_weight import bag_outer_sum, lag_structure, lag_weighted
torch.set_num_threads(1)
torch.manual_seed(0)
digest = hashlib.sha256()
offsets = torch.tensor([0, 5, 6, 6, 40], dtype=torch.int32)
for gates, size in ((4, 8), (4, 20), (3, 20)):
    x = torch.randn(40, gates * size, requires_grad=True)
    w = (0.2 * torch.randn(gates * size, size)).requires_grad_()
    zeros = torch.zeros(4, size)
    h = lstm(x, offsets, w, zeros, zeros)[0] if gates == 4 else gru(x, offsets, w, torch.randn(3 * size), zeros)
    for part in (h, *torch.autograd.grad((h * torch.randn(40, size)).sum(), (x, w))):
        digest.update(part.detach().numpy().tobytes())
ids = torch.randint(0, 9, (40,), dtype=torch.int32)
lags, bias, table = torch.randn(6, 4).requires_grad_(), torch.randn(4).requires_grad_(), torch.randn(36, 16).requires_grad_()
structure = lag_structure(offsets, ids, torch.arange(41, dtype=torch.int32), 6)
state_ids, state_offsets, weights = lag_weighted(structure, lags, bias, "tanh")
states = bag_outer_sum(table, state_ids, state_offsets, weights)
for part in (states, *torch.autograd.grad((states * torch.randn(40, 16)).sum(), (lags, bias, table))):
    digest.update(part.detach().numpy().tobytes())
print(digest.hexdigest())
"""


def test_cold_and_warm_caches_give_the_same_bits(tmp_path: Path) -> None:
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    digests = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert any(tmp_path.rglob("*.nbi")), "the kernels were not cached, so nothing was compared"
    assert digests[0] == digests[1]
