"""The bench of logs in shards at a small size: every stage gives the figures that its bars are read
from."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fastgaum.bench.shards import PIECES, STAGES


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc: Linux only"
)
def test_every_stage_measures(tmp_path: Path) -> None:
    arguments = argparse.Namespace(events=20_000, items=1_000, shards=4, rounds=3, folder=tmp_path)
    result = {}
    for stage in STAGES.values():
        result |= stage(arguments)
    assert (result["events"], result["shards"], result["items"]) == (20_000, 4, 1_000)
    assert result["displays"] == pytest.approx(100_000, rel=0.05)
    assert result["convert_peak_mb"] > 0
    assert result["verify_seconds"] < 5
    assert set(result["scoring_peak_mb"]) == {"held", "audit", "predict", "evaluate"}
    assert set(result["events_per_second"]) == {"shards", "memory"}
    # the same game on batches of the same size: shards cannot be an order of magnitude away,
    # whatever else the machine does
    assert 0.1 < result["work_of_shards"] < 10
    assert result["shards"] < PIECES
