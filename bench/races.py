"""What a race is made of: bars, times and figures, and the callable behind the fixtures `race` and
`record`.

How to write a race is told in conftest.py; what becomes of the times, in report.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

OURS = "ours"
"""the contender that all others are compared with"""
RATE = "rate"
CEILINGS = {"sgemm": "sgemm_gflops", "gather": "gather_gbps"}
"""what a bar may be set over besides a rival: a ceiling by its name (the probed figure's key), or
the rate itself"""

SOONER = "x as soon as"
"""how the unit of a figure begins that is `times_as_soon`"""

ROUNDS = 5
"""least number of repeats behind a median"""
_SLOW, _VERY_SLOW = 0.2, 3.0
"""seconds per call from which pytest-benchmark no longer chooses the rounds, and from which few
rounds must do"""

Step = Callable[[], Mapping[str, Tensor] | None]


@dataclass(frozen=True)
class Bar:
    """What ours must reach: at least so much over a rival, of a ceiling, or as a rate.

    >>> Bar(12.0, over="stock-torch")  # 12 times as fast as that contender
    Bar(at_least=12.0, over='stock-torch', number=None, at_200=None)
    >>> Bar(0.45, over="sgemm", number=3)  # 45 % of the probed peak; or over="gather"
    Bar(at_least=0.45, over='sgemm', number=3, at_200=None)
    >>> Bar(600_000, over="rate", number=5)  # units of work per second
    Bar(at_least=600000, over='rate', number=5, at_200=None)
    """

    at_least: float
    over: str
    number: int | None = None
    """its number among the project's bars, if it has one"""
    at_200: float | None = None
    """the share asked for on a machine of 200 GFLOP/s, where `at_least` is of one of 400: what is no
    product takes a larger part of the time where products are quick. Between them lies a line"""


@dataclass(frozen=True)
class Figure:
    """A measured value that is not the time of a step: bytes, seconds of a cold start, a share."""

    group: str
    value: float
    unit: str
    bar: int | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the value is within its bounds; None if it has none."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    def to_dict(self) -> dict[str, Any]:
        """Its entry of the JSON object."""
        target = self.at_most if self.at_least is None else self.at_least
        return {
            "bar": self.bar,
            "group": self.group,
            "value": self.value,
            "unit": self.unit,
            "target": target,
            "sense": None
            if target is None
            else ("at most" if self.at_least is None else "at least"),
            "holds": self.holds,
        }


def times_as_soon(ours: float, theirs: float) -> float:
    """Their seconds until a loss / our seconds: 0 where ours never reached it, infinity where they
    alone never did. Infinite seconds say that it was never reached."""
    return 0.0 if math.isinf(ours) else theirs / ours


class Race:
    """Times one contender of one group; both names are parameters of the test. `times` receives the
    result."""

    def __init__(
        self, benchmark: Any, group: str, contender: str, full: bool, times: list[dict[str, Any]]
    ) -> None:
        self.benchmark, self.group, self.contender, self.full, self.times = (
            benchmark,
            group,
            contender,
            full,
            times,
        )
        benchmark.group = group

    def __call__(
        self,
        step: Step,
        expected: Mapping[str, Tensor] | None,
        *,
        unit: str,
        amount: float,
        bars: Sequence[Bar] = (),
        flops: float | None = None,
        bytes_moved: float | None = None,
        rounds: int | None = None,
        tolerance: float = 1e-5,
    ) -> None:
        """Check the step's result, then time it.

        Args:
            step: does the work once and returns what it found, or None if the test has checked it
                in another way.
            expected: what it must find, each value within `tolerance` of its largest entry; None if
                it returns none.
            unit: what one call works through, in the plural: "tokens", "events".
            amount: how many of them. Contenders may differ: a slow rival may be given less of the
                same work.
            bars: what ours must reach; the same, or nothing, from every contender of a group.
            flops: floating-point operations that one call cannot do without, for the share of the
                sgemm ceiling.
            bytes_moved: bytes of random rows that one call cannot do without, for the share of the
                gather ceiling.
            rounds: repeats, where the rule's are not enough: five at least.
            tolerance: see `expected`.
        """
        seconds = self._check(step, expected, tolerance)
        self._time(step, seconds, rounds)
        if self.benchmark.stats is None:
            return
        stats = self.benchmark.stats.stats
        told = {"group": self.group, "contender": self.contender, "unit": unit, "amount": amount}
        told |= {"flops": flops, "bytes_moved": bytes_moved, "threads": torch.get_num_threads()}
        told |= {"bars": [asdict(bar) for bar in bars]}
        self.benchmark.extra_info.update(told)
        measured = {
            "seconds": stats.median,
            "spread": (stats.q3 - stats.q1) / stats.median,
            "rounds": stats.rounds,
        }
        self.times.append(told | measured)

    def _check(self, step: Step, expected: Mapping[str, Tensor] | None, tolerance: float) -> float:
        """Seconds of the first call, which compiles what needs compiling."""
        started = time.perf_counter()
        found = step()
        seconds = time.perf_counter() - started
        if expected is None:
            return seconds
        assert found is not None
        check(found, expected, tolerance)
        return seconds

    def _time(self, step: Step, seconds: float, rounds: int | None) -> None:
        if seconds >= _SLOW:
            # the first call may have compiled: only another says whether the step itself is slow
            started = time.perf_counter()
            step()
            seconds = time.perf_counter() - started
        if self.full and seconds < _SLOW and rounds is None:
            self.benchmark(step)
        else:
            self.benchmark.pedantic(step, rounds=rounds or ROUNDS)


def check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """Raise AssertionError, with a value's name, if one is not within the tolerance of its largest
    entry: sums in another order differ most where they cancel."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        atol = tolerance * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(
            found[name], value, rtol=0.0, atol=atol, msg=partial("{}: {}".format, name)
        )
