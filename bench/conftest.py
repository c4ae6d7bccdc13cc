"""What every race shares: full sizes under `make bench`, small ones when benchmarks are off (a smoke test)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether times are taken; `make bench` passes --benchmark-enable, which comes before --benchmark-disable."""
    options = request.config.option
    return bool(options.benchmark_enable or not options.benchmark_disable)


@pytest.fixture
def race(benchmark: Any) -> Callable[..., None]:
    """Time one contender: `race(step, expected, tokens=1000)`.

    `step()` returns named tensors. Its first call compiles what needs compiling and must give the expected tensors:
    a speed counts only when the result is right. `amount` (tokens, events …) is what one call works through; its rate
    is kept beside the times.
    """

    def run(step: Callable[[], dict[str, torch.Tensor]], expected: dict[str, torch.Tensor], **amount: int) -> None:
        found = step()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            # Relative to the largest entry: sums in another order differ most where they cancel.
            torch.testing.assert_close(found[name], value, rtol=0.0, atol=1e-5 * max(1.0, float(value.abs().max())))
        benchmark(step)
        for what, count in amount.items():
            benchmark.extra_info[what] = count
            if benchmark.stats is not None:
                benchmark.extra_info[f"{what}/s"] = count / benchmark.stats.stats.median
        benchmark.extra_info["threads"] = torch.get_num_threads()

    return run
