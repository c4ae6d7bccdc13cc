"""Some seconds of the fuzzer; `python -m tests.fuzz --inputs 10000` runs the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz, summary

SECONDS = 12.0
INPUTS = 150
"""at most, so that a quick machine meets no other inputs than a slow one"""


@pytest.mark.parametrize("seed", ["ci"])
def test_mutated_inputs_break_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, seed: str
) -> None:
    kept = tmp_path_factory.mktemp("kept")
    answers = fuzz(seed, range(INPUTS), tmp_path, kept, apart=0, budget=SECONDS)
    assert len(answers) >= 10
    assert {one["code"] for one in answers} <= {0, 2}, summary(answers)
    assert [one for one in answers if one["wrong"]] == []
