"""The pool: every part runs once, whatever the number of threads, and an error comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fastgaum import threads
from fastgaum.errors import ConfigError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_each_part_runs_once_and_may_share_work_of_its_own(n: int) -> None:
    """Helpers are fewer than the calls that want one: none waits for itself."""
    threads.set_threads(n)
    done = np.zeros((6, 40), dtype=np.int64)

    def one(i: int, j: int) -> None:
        done[i, j] += 1

    def many(i: int) -> None:
        threads.run(one, [(i, j) for j in range(40)])

    for _ in range(20):
        threads.run_chains([[(many, (i,))] for i in range(6)])
    assert (done == 20).all()


def test_a_part_shares_nothing_where_there_is_one_for_every_thread() -> None:
    threads.set_threads(3)
    met = threading.Barrier(3)

    def where() -> set[int]:
        at: set[int] = set()
        threads.run(lambda _: at.add(threading.get_ident()), [(i,) for i in range(50)])
        return at

    def part() -> None:
        met.wait()
        for _ in range(20):
            assert where() == {threading.get_ident()}

    threads.run(lambda _: part(), [(i,) for i in range(3)])
    # and afterwards it does again: parts that wait for each other are on a thread each
    again = threading.Barrier(3, timeout=60)
    threads.run(lambda _: again.wait(), [(i,) for i in range(3)])


@pytest.mark.parametrize("n", [1, 3])
def test_an_error_ends_the_work_and_all_parts_are_over_when_it_is_raised(n: int) -> None:
    threads.set_threads(n)
    running, begun = [], []

    def one(i: int) -> None:
        begun.append(i)
        running.append(i)
        time.sleep(0.005)
        running.remove(i)
        if threading.current_thread() is threading.main_thread():
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        threads.run(one, [(i,) for i in range(100)])
    assert running == []
    assert len(begun) <= 6


def test_one_setting_governs_torch_and_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks have one thread unless told; what was set before is back afterwards."""
    monkeypatch.setattr(threads, "_chosen", False)
    torch.set_num_threads(2)

    @threads.for_small_networks()
    def training() -> int:
        raise RuntimeError(str(threads.get_threads()))

    with pytest.raises(RuntimeError, match="1"):
        training()
    assert threads.get_threads() == 2
    threads.set_threads(3)
    with threads.for_small_networks():
        assert threads.get_threads() == 3
        threads.set_threads(2)
    assert threads.get_threads() == torch.get_num_threads() == 2
    with pytest.raises(ConfigError, match="at least 1"):
        threads.set_threads(0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_results_come_in_order_from_single_threads(n: int) -> None:
    threads.set_threads(n)
    asked = []

    def parts() -> Iterator[int]:
        for part in range(20):
            asked.append(part)
            yield part

    def work(part: int) -> tuple[int, int, list[int]]:
        done: list[int] = []
        # shared work within a part stays on its thread
        threads.run(done.append, [(i,) for i in range(5)])
        if part in (14, 15):
            raise ValueError(f"part {part}")
        return part, threads.get_threads(), done

    results = threads.one_thread_each(work, parts())
    assert next(results) == (0, 1, [0, 1, 2, 3, 4])
    assert len(asked) <= n + 1, "parts are asked for a few ahead"
    assert [next(results)[0] for _ in range(13)] == list(range(1, 14))
    # the first error comes in its place and ends the work
    with pytest.raises(ValueError, match="part 14"):
        next(results)
    assert list(results) == []
    assert len(asked) <= 16 + n
    assert threads.get_threads() == torch.get_num_threads() == n


FORKS = """
import os, sys, torch
from fastgaum import threads

def work():
    done = []
    threads.run(done.append, [(i,) for i in range(8)])
    return sorted(done), list(threads.one_thread_each(lambda part: 2 * part, range(4)))

torch.set_num_threads(2)
expected = [0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 4, 6]
assert work() == expected
child = os.fork()
if child == 0:
    os._exit(0 if work() == expected else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """multiprocessing forks unless told otherwise on Linux with Python up to 3.13; the parent's
    pools have no threads there."""
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, check=True, timeout=60)
