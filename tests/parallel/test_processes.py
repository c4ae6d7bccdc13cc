"""Several processes train one model: means of their weights, the same figures in all, and they stop
together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def torchrun(n: int, *words: str) -> subprocess.CompletedProcess[str]:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    return subprocess.run(
        [sys.executable, "-m", *launcher, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=1800,
    )


N = 2


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = torchrun(N, "-m", "tests.parallel.peers")
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def test_the_mean_of_a_row_is_over_those_who_moved_it(found: dict[str, Any]) -> None:
    """A row that one has moved stays where that one brought it."""
    first, *others = found["averaged"]
    assert all(one == first for one in others)
    matrix, vector = first
    moves = [2.0 * (1 + rank) for rank in range(N)]
    np.testing.assert_allclose(matrix, [np.mean(moves), *moves, 0], rtol=1e-6)
    np.testing.assert_allclose(vector, [1 + np.mean(range(N))] * 3)


def test_rows_that_nobody_moved_are_the_same_and_wait_for_their_decay(
    found: dict[str, Any],
) -> None:
    """Of four steps the second and the fourth end with a mean."""
    (one, after), (other, after_too) = found["rows"]
    assert after == after_too
    np.testing.assert_allclose(one[3][1], after[1], rtol=1e-6)
    np.testing.assert_allclose(other[3][2], after[2], rtol=1e-6)
    np.testing.assert_allclose((one[3][0] + other[3][0]) / 2, after[0], rtol=1e-6)
    # after the first mean each has the other's row
    np.testing.assert_allclose(one[2][2] / 0.95, other[1][2], rtol=1e-6)
    np.testing.assert_allclose(other[2][1] / 0.95, one[1][1], rtol=1e-6)
    np.testing.assert_allclose(after[3], 8 * 0.95**4, rtol=1e-6)


@pytest.mark.parametrize("name", ["kernels", "stock"])
def test_all_end_with_the_same_weights_and_about_the_loss_of_one(
    found: dict[str, Any], name: str
) -> None:
    case = found[name]
    first, *others = case["everywhere"]
    assert all(one == first for one in others)
    table, alone = first[1], case["alone"]
    assert [row["phase"] for row in table] == [row["phase"] for row in alone]
    # some ten steps each: means of weights are near, not equal
    assert table[-1]["val_loss"] == pytest.approx(alone[-1]["val_loss"], rel=0.05)
    # of a dozen steps, whose drops are drawn
    assert table[-1]["val_loss"] <= table[0]["val_loss"] + 1e-3


def test_a_refused_step_stops_all(found: dict[str, Any]) -> None:
    first, *others = found["refused"]
    assert all(one == first for one in others)
    assert "made up in epoch 1, batch " in first
