"""What races are made of, which there are, and how they run. A group is ours and its rivals on the
same work:

    GROUPS = {"sums-plain": Group(sums, ("ours", "numpy"))}  # in a file bench_*.py

    def sums(race: Race) -> None:
        work = work_of(race.group, race.full)  # cached: all contenders have the same data
        step = CONTENDERS[race.contender](work)  # step() does the work once, returns named tensors
        race.time(step, work.expected, unit="ids", amount=work.n_ids, bars=[Bar(5.0, "numpy", 3)])

The first call is checked and compiles; at least five are timed. A rival that cannot run here raises
`SkippedError`."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgaum.errors import ConfigError, did_you_mean

OURS = "ours"
RATE, SGEMM = "rate", "sgemm"
"""what a bar may be set over besides a rival"""
SOONER = "x as soon as"
"""how the unit of a figure begins that is `times_as_soon`"""
ROUNDS = 5
SLOW, ENOUGH, LEAST = 0.2, 1.0, 1e-3
"""seconds of a call from which few rounds must do, of all rounds of a quicker one, and of one round
at least"""

Step = Callable[[], Mapping[str, Tensor] | None]


class SkippedError(Exception):
    """A contender cannot run here, with the reason."""


@dataclass(frozen=True)
class Bar:
    """What ours must reach: at least so much over a rival, of a ceiling ("sgemm"), or as a
    "rate"."""

    at_least: float
    over: str
    number: int | None = None
    at_200: float | None = None
    """the share asked for on a machine of 200 GFLOP/s, where `at_least` is of one of 400; between
    them lies a line"""


def times_as_soon(ours: float, theirs: float) -> float:
    """Their seconds until a loss / our seconds: 0 where ours never reached it, infinity where they
    alone never did."""
    return 0.0 if math.isinf(ours) else theirs / ours


def repeat_step(step: Step, rounds: int, calls: int) -> list[float]:
    """Time rounds of a step; return the seconds per call of each."""

    def seconds() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            step()
        return (time.perf_counter() - started) / calls

    return [seconds() for _ in range(rounds)]


def rounds_of(step: Step, first: float, full: bool) -> tuple[int, int]:
    """How many rounds a step has, ROUNDS at least, and how many calls each; `first` are the seconds
    of a first call."""
    # the first call may have compiled: only another says whether the step itself is slow
    seconds = repeat_step(step, 1, 1)[0] if first >= SLOW else first
    if not full or seconds >= SLOW:
        return ROUNDS, 1
    calls = math.ceil(LEAST / max(seconds, 1e-9))
    return max(ROUNDS, int(ENOUGH / (calls * max(seconds, 1e-9)))), calls


@dataclass(frozen=True)
class Race:
    """One contender of one group; what it measures goes into the facts."""

    group: str
    contender: str
    full: bool
    """whether sizes are those of the figures; small ones make a smoke test"""
    facts: dict[str, list[Any]]
    repeat: Callable[[Step, int, int], list[float]] = repeat_step
    """times so many rounds of so many calls; returns the seconds per call of each round"""

    def time(
        self,
        step: Step,
        expected: Mapping[str, Tensor] | None,
        *,
        unit: str,
        amount: float,
        bars: Sequence[Bar] = (),
        flops: float | None = None,
    ) -> None:
        """Check the step's result, each value within a hundred-thousandth of its largest entry
        (None: it checks itself), then time it.

        One call works through `amount` of `unit` ("tokens", "events"), and cannot do without
        `flops` floating-point operations; `bars` are what ours must reach. Raises AssertionError
        for a wrong result."""
        started = time.perf_counter()
        found = step()
        first = time.perf_counter() - started
        if expected is not None:
            assert found is not None
            check(found, expected)
        seconds = self.repeat(step, *rounds_of(step, first, self.full))
        low, median, high = np.percentile(seconds, [25, 50, 75]).tolist()
        self.facts["times"].append(
            {
                "group": self.group,
                "contender": self.contender,
                "unit": unit,
                "amount": amount,
                "flops": flops,
                "threads": torch.get_num_threads(),
                "bars": [asdict(bar) for bar in bars],
                "seconds": median,
                "spread": (high - low) / median,
                "rounds": len(seconds),
            }
        )

    def record(
        self,
        value: float,
        unit: str,
        *,
        bar: int | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Keep a value that is not the time of a step: bytes, seconds of a cold start, a share."""
        # a numpy scalar compares to a numpy bool, which JSON cannot hold
        value, target = float(value), at_most if at_least is None else at_least
        holds = None if target is None else value <= target if at_least is None else value >= target
        sense = None if target is None else "at most" if at_least is None else "at least"
        self.facts["figures"].append(
            {
                "bar": bar,
                "group": self.group,
                "value": value,
                "unit": unit,
                "target": target,
                "sense": sense,
                "holds": holds,
            }
        )


def check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise AssertionError, with a value's name, if one is not within a hundred-thousandth of its
    largest entry."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        atol = 1e-5 * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(
            found[name], value, rtol=0.0, atol=atol, msg=partial("{}: {}".format, name)
        )


@dataclass(frozen=True)
class Group:
    """What runs a group of races, once for each contender."""

    run: Callable[[Race], None]
    contenders: Sequence[str] = (OURS,)


def groups() -> dict[str, Group]:
    """Every group by its name, in the order in which they run."""
    files = sorted(file.stem for file in Path(__file__).parent.glob("bench_*.py"))
    modules = [import_module(f"fastgaum.bench.{file}") for file in files]
    return {name: group for module in modules for name, group in module.GROUPS.items()}


def choose(names: Sequence[str]) -> list[str]:
    """The groups that the names stand for: each a group, or the beginning of some; all where none
    is named. Raises ConfigError for another name."""
    known = groups()
    chosen: dict[str, None] = {} if names else dict.fromkeys(known)
    for name in names:
        meant = [name] if name in known else [group for group in known if group.startswith(name)]
        if not meant:
            close = did_you_mean(name, [*known, *(group.partition("-")[0] for group in known)])
            raise ConfigError(
                f"no group of races '{name}'{close}; `fastgaum bench --list` names all"
            )
        chosen |= dict.fromkeys(meant)
    return list(chosen)


def run(names: Sequence[str], *, smoke: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the groups; return what was measured, as `report.races_object` reads it. `say` receives a
    line for each contender."""
    # only `fastgaum bench` has a machine to speak of
    from fastgaum.bench.roofline import sgemm
    from fastgaum.machine import machine_facts

    facts: dict[str, list[Any]] = {"times": [], "figures": [], "failed": [], "skipped": []}
    known = groups()
    for name in names:
        for contender in known[name].contenders:
            race, what = Race(name, contender, not smoke, facts), f"{name}, {contender}"
            say(what)
            try:
                known[name].run(race)
            except SkippedError as reason:
                facts["skipped"].append({"race": what, "reason": str(reason)})
            except Exception:
                facts["failed"].append(what)
                say(traceback.format_exc())
    # after the races, so that the share of the ceiling is of this machine's state during them
    ceilings = {"sgemm_gflops": sgemm() / 1e9}
    return {"machine": machine_facts(), "ceilings": ceilings, "smoke": smoke, **facts}
