"""Several processes train as one does: the same losses, the same figures, the same refusals, and
they stop together."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.features.batches import Share

ROOT = Path(__file__).resolve().parents[2]
AGREEING = [
    "exact",
    "pw",
    "adagrad",
    "rounds",
    "fastgaum",
    "towers",
    "bilstm",
]
LOCAL = ["local", "local-bilstm", "local-stock"]
CASES = {
    2: [
        *AGREEING,
        *LOCAL,
        "generated",
        "reduction",
        "mean",
        "parted",
        "refused",
        "refused alone",
        "stopped",
        "looped",
    ],
    3: ["rounds", "local", "reduction", "mean", "parted", "stopped"],
}


def torchrun(n: int, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={n}",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, **options)


@pytest.fixture(scope="module", params=CASES)
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    n = request.param
    done = torchrun(
        n, "-m", "tests.parallel.peers", str(tmp_path_factory.mktemp("peers")), *CASES[n]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {"n": n, **json.loads(done.stdout)}


def test_losses_and_figures_are_those_of_one_process(found: dict[str, Any]) -> None:
    """Sums in another order: equal to some last bits of float32."""
    for name in set(AGREEING) & set(found):
        case = found[name]
        assert len(case["losses"]) >= 4
        # a round's loss is a difference of utilities, near 0 from a best response on
        assert case["losses"] == pytest.approx(case["alone"], rel=1e-4, abs=1e-5), name
        assert case["same_weights"], name
        for row, alone in zip(case["table"], case["alone_table"], strict=True):
            for figure in ("loss", "val_loss", "gap", "val_gap"):
                assert row[figure] == pytest.approx(
                    alone[figure], rel=1e-3, abs=1e-6, nan_ok=True
                ), (name, figure)
            # one display in a hundred or so
            assert row["val_prec1"] == pytest.approx(alone["val_prec1"], abs=2.0), name


def test_random_draws_are_each_process_s_own_and_leave_the_weights_in_step(
    found: dict[str, Any],
) -> None:
    if "generated" in found:
        case = found["generated"]
        assert case["same_weights"]
        assert case["losses"] != pytest.approx(case["alone"], rel=1e-6)
        assert case["table"][-1]["val_loss"] == pytest.approx(
            case["alone_table"][-1]["val_loss"], rel=0.02
        )


def test_the_mean_is_over_events(found: dict[str, Any]) -> None:
    """Rank r has r events, the loss r, the gradient r, and rows 10 + r; who has no event takes no
    part."""
    n, case = found["n"], found["reduction"]
    events = sum(range(n))
    mean = sum(r * r for r in range(n)) / events
    assert case["events"] == events
    assert case["loss"] == pytest.approx(mean)
    assert case["dense"] == pytest.approx([mean] * 5)
    assert case["ids"] == [i for r in range(1, n) for i in range(r + 1)]
    for rows, value, width in zip(case["rows"], (10, 20), (2, 1), strict=True):
        expected = [[(value + r) * r / events] * width for r in range(1, n) for _ in range(r + 1)]
        np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert case["others"] == [0, 3]


def test_local_steps_leave_all_with_the_same_weights_and_the_loss_of_one(
    found: dict[str, Any],
) -> None:
    for name in set(LOCAL) & set(found):
        case = found[name]
        assert case["same_weights"], name
        table, alone = case["table"], case["alone_table"]
        assert [row["phase"] for row in table] == [row["phase"] for row in alone]
        # some ten steps each: means of weights are near, not equal
        assert table[-1]["val_loss"] == pytest.approx(alone[-1]["val_loss"], rel=0.05), name
        assert table[-1]["val_loss"] < table[0]["val_loss"] + 1e-6, name


def test_the_mean_of_rows_is_over_those_who_moved_them(found: dict[str, Any]) -> None:
    n, case = found["n"], found["mean"]
    weights = np.array(case["weights"])
    first, *others = case["found"]
    assert all(one == first for one in others)
    mean = float(weights @ np.arange(n))
    dense, matrix, table, squares = (np.array(part) for part in first)
    np.testing.assert_allclose(dense, np.full(3, mean), rtol=1e-6)
    np.testing.assert_allclose(matrix, np.full((2, 2), 10 + mean), rtol=1e-6)
    rows = np.array([mean, *range(n), 100.0])
    np.testing.assert_allclose(table, np.column_stack([rows, rows]), rtol=1e-6)
    np.testing.assert_allclose(squares, [20 + mean, *(20.0 + r for r in range(n)), 100], rtol=1e-6)


def test_local_steps_stop_when_all_hold_the_same_and_go_on_to_the_same_bits(
    found: dict[str, Any],
) -> None:
    case = found["parted"]
    assert case["codes"] == [143] * found["n"]
    assert case["batches"] == 8
    first, *others = case["whole"]
    assert all(one == first for one in others)
    np.testing.assert_equal(case["resumed"], first)


@pytest.mark.parametrize("how", ["refused", "refused alone"])
def test_a_refused_step_is_refused_by_all(found: dict[str, Any], how: str) -> None:
    if how in found:
        first, *others = found[how]["everywhere"]
        assert all(one == first for one in others)
        name = found[how]["name"]
        assert f"at fault: session '{name}'" in first["stop"]
        skipped, at_fault = zip(*first["skip"], strict=True)
        # once in each epoch, whichever process has the session
        assert set(skipped) == {1}
        assert all(name in one for one in at_fault)


def test_all_stop_after_the_same_batch_and_another_number_goes_on(found: dict[str, Any]) -> None:
    case = found["stopped"]
    assert case["codes"] == [143] * found["n"]
    assert len(set(case["steps"])) == 1
    assert len(case["whole"]) == len(case["resumed"]) > 1
    for whole, resumed in zip(case["whole"], case["resumed"], strict=True):
        assert resumed["phase"] == whole["phase"]
        assert resumed["val_loss"] == pytest.approx(whole["val_loss"], rel=1e-4)
        if not math.isnan(whole["loss"]):
            assert resumed["loss"] == pytest.approx(whole["loss"], rel=1e-3, abs=1e-5)


def test_workers_of_another_program_train_one_model(found: dict[str, Any]) -> None:
    if "looped" in found:
        case = found["looped"]
        first, *others = case["tables"]
        assert others == [None]
        assert [row["phase"] for row in first] == ["exact", "rounds", "rounds", "rounds"]
        assert first[-1]["val_loss"] < first[0]["val_loss"]
        # the finished run is not trained again
        assert case["again"] == 4


def test_shares_lie_side_by_side() -> None:
    for size in (1, 2, 3, 7):
        for n in (0, 1, 5, 20):
            spans = [Share(rank, size).span(n) for rank in range(size)]
            assert [first for first, _ in spans] == [0, *(last for _, last in spans[:-1])]
            assert spans[-1][1] == n
            assert (
                max(last - first for first, last in spans)
                - min(last - first for first, last in spans)
                <= 1
            )
