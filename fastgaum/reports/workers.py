"""Tasks side by side in processes of their own, and one after the other where one job is asked for.

Each process is spawned, since torch's threads do not survive a fork. They end with the process that
began them, whatever ends that one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

Task = TypeVar("Task")
_Result = TypeVar("_Result")


def side_by_side(
    function: Callable[[Task], _Result],
    tasks: Sequence[Task],
    jobs: int,
) -> Generator[tuple[int, _Result], None, None]:
    """Yield function(task) of each task as it ends, with its place in `tasks`; at most `jobs` at a
    time, begun in their order; one job works in this process.

    Closing the iterator, or an error in a task, which is raised here, ends all at once.

    Args:
        function: a module's own function, which a process can find by name.
        tasks: what it is called with.
        jobs: how many processes, at most.
    """
    if jobs == 1:
        for place, task in enumerate(tasks):
            yield place, function(task)
        return
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), context, _end_with_parent)
    try:
        with _interrupt_ignored():
            places = {pool.submit(function, task): i for i, task in enumerate(tasks)}
        for future in as_completed(places):
            yield places[future], future.result()
    except BaseException:
        # The results are not needed any more: minutes of work need not be finished first.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupt_ignored() -> Iterator[None]:
    """Processes started here do not react to Ctrl-C, which a terminal sends to all of them: the
    parent ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they end themselves."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
