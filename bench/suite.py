"""The races as a suite of pytest-benchmark, with its saved runs, comparisons and histograms:

    pytest bench/suite.py --benchmark-enable -k lstm --benchmark-autosave
    pytest bench/suite.py --benchmark-enable -k lstm --benchmark-compare

Without `--benchmark-enable` every contender runs at small sizes: the suite shows that all of them
give right results."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastgaum.bench.races import ROUNDS, Race, SkippedError, Step, groups

RACES = [(name, contender) for name, group in groups().items() for contender in group.contenders]


@pytest.mark.parametrize(("group", "contender"), RACES)
def test_race(group: str, contender: str, benchmark: BenchmarkFixture) -> None:
    """Time one contender of one group. A figure that is no time, as bytes, is recorded beside."""

    def repeat(step: Step, rounds: int, calls: int) -> list[float]:
        benchmark.pedantic(step, rounds=rounds, iterations=calls)
        # without stats nothing was timed: pytest-benchmark has called the step once
        return list(benchmark.stats.stats.data) if benchmark.stats else [1.0] * ROUNDS

    facts: dict[str, list[object]] = {"times": [], "figures": []}
    benchmark.group = group
    benchmark.extra_info |= {"threads": torch.get_num_threads(), "figures": facts["figures"]}
    try:
        groups()[group].run(Race(group, contender, benchmark.enabled, facts, repeat))
    except SkippedError as reason:
        pytest.skip(str(reason))
    assert facts["times"] or facts["figures"]
