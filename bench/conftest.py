"""What every race shares. A race is a test of one contender; a group is ours and its rivals on the
same work:

    GROUPS = {"sums-plain": False, "sums-weighted": True}  # the file's groups, by name
    CONTENDERS = {"ours": ours, "numpy": numpy_sums}

    @pytest.mark.parametrize("contender", CONTENDERS)
    @pytest.mark.parametrize("group", GROUPS)
    def test_sums(race: Race, full: bool, group: str, contender: str) -> None:
        work = work_of(group, full)  # cached: every contender gets the same data and weights
        step = CONTENDERS[contender](work)  # step() does the work once, returns named tensors
        bars = [Bar(5.0, over="numpy", number=3), Bar(0.3, over="gather")]
        race(step, work.expected, unit="ids", amount=work.n_ids, bars=bars, bytes_moved=work.bytes)

The parameters `group` and `contender` name the race; "ours" is what the others are compared with.
The first call is checked against `expected` and compiles; at least five are timed. A speed counts
only when the result is right: a step that returns None, with expected=None, is checked by its test.
A rival that cannot run here skips, with its reason (pytest.skip).

A value that is not a step's time goes through `record`, in a test with the parameter `group`:

    def test_memory(record: Callable[..., None], group: str) -> None:
        record(peak / n_events, "bytes/event", bar=8, at_most=64.0)

`fastgaum bench` and `make bench` run these with full sizes; plain pytest runs each once with small
ones (a smoke test)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastgaum.bench.ceilings import probe
from fastgaum.bench.races import Figure, Race
from fastgaum.threads import set_threads

FACTS = pytest.StashKey[dict[str, Any]]()
"""what a run has measured, as `report.races_object` reads it"""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("races")
    group.addoption(
        "--race-group", action="append", metavar="NAME", help="run only this group (repeatable)"
    )
    group.addoption("--race-json", metavar="FILE", help="write what was measured")
    group.addoption("--race-threads", type=int, metavar="N", help="threads of torch and kernels")
    group.addoption("--race-smoke", action="store_true", help="small sizes, though times are taken")


def option(config: pytest.Config, name: str) -> Any:
    """An option, or None where this file was found too late to add it: `pytest .`, say."""
    return config.getoption(name, None)


def timed(config: pytest.Config) -> bool:
    """Whether times are taken; `fastgaum bench` passes --benchmark-enable, which comes before
    --benchmark-disable."""
    return bool(config.option.benchmark_enable or not config.option.benchmark_disable)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FACTS] = {"times": [], "figures": [], "failed": [], "skipped": []}
    config.pluginmanager.register(_Outcomes(config.stash[FACTS]))
    threads = option(config, "race_threads")
    if threads is not None:
        set_threads(threads)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = option(config, "race_group")
    if wanted is None:
        return
    groups = {
        item: getattr(getattr(item, "callspec", None), "params", {}).get("group") for item in items
    }
    config.hook.pytest_deselected(items=[item for item in items if groups[item] not in wanted])
    items[:] = [item for item in items if groups[item] in wanted]


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    path = option(config, "race_json")
    if path is None or config.option.collectonly:
        return
    from fastgaum.machine import machine_facts

    # beside the races, so that the share of a ceiling is of this machine's state during them
    ceilings = probe().to_dict() if timed(config) else None
    facts = {
        "machine": machine_facts(),
        "ceilings": ceilings,
        "smoke": bool(option(config, "race_smoke")),
    }
    Path(path).write_text(json.dumps(facts | config.stash[FACTS]), encoding="utf-8")


class _Outcomes:
    """Keeps which tests failed, and why others were skipped."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[2]
        if report.failed:
            self.facts["failed"].append(name)
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.facts["skipped"].append({"race": name, "reason": reason.removeprefix("Skipped: ")})


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether sizes are those of the figures; small ones make a smoke test."""
    return timed(request.config) and not option(request.config, "race_smoke")


@pytest.fixture
def race(
    request: pytest.FixtureRequest, benchmark: Any, full: bool, group: str, contender: str
) -> Race:
    """Time one contender: `race(step, expected, unit="tokens", amount=1000, bars=…)`, as
    `Race.__call__` tells."""
    return Race(benchmark, group, contender, full, request.config.stash[FACTS]["times"])


@pytest.fixture
def record(request: pytest.FixtureRequest, group: str) -> Callable[..., None]:
    """Keep a figure that is not a time: `record(value, unit, bar=8, at_most=64.0)`, as `Figure`
    tells."""

    def keep(
        value: float,
        unit: str,
        *,
        bar: int | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        figure = Figure(group, float(value), unit, bar, at_least, at_most)
        request.config.stash[FACTS]["figures"].append(figure.to_dict())

    return keep
