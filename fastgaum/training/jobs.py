"""Independent runs, one after the other or side by side in processes.

Each run uses one thread, so that its figures depend on its seed alone: not on how many runs stand beside it, nor on how
many cores the machine has.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from fastgaum.config import Config
from fastgaum.metrics.evaluation import Evaluation
from fastgaum.models.user_model import UserModel
from fastgaum.sessions.packed import SessionLog
from fastgaum.sessions.store import load_log, save_log


@dataclass(frozen=True)
class Run:
    """One training of a grid."""

    dataset: str
    model: str
    config: Config


@dataclass(frozen=True)
class RunFigures:
    """What one run gives."""

    test: Evaluation
    train_gap: float | None
    """mean optimality gap on the training split; None without a generator"""
    seconds: float
    """wall time of fit and evaluation"""


def run_all(
    logs: Mapping[str, SessionLog], runs: Sequence[Run], jobs: int, device: str, on_start: Callable[[Run], None]
) -> Generator[tuple[int, RunFigures], None, None]:
    """Yield each run's figures as it ends, with its place in `runs`; at most `jobs` runs at a time.

    Closing the iterator, or an error in a run, ends the others at once.

    Raises:
        NumericsError, LogFormatError, ConfigError: from a run.
    """
    # The longest runs first, so that none is left alone at the end.
    order = sorted(range(len(runs)), key=lambda i: -_cost(runs[i], logs))
    if jobs <= 1 or len(runs) == 1:
        for i in order:
            on_start(runs[i])
            yield i, run_one(runs[i], logs[runs[i].dataset], device)
        return
    for i in order:
        on_start(runs[i])
    with tempfile.TemporaryDirectory(prefix="fastgaum-") as folder:
        # Workers map the logs from disk: nothing large is copied to each of them.
        folders = {name: save_log(log, Path(folder) / str(i)) for i, (name, log) in enumerate(logs.items())}
        yield from _side_by_side(folders, runs, order, min(jobs, len(runs)), device)


def run_one(run: Run, log: SessionLog, device: str) -> RunFigures:
    """Train and evaluate with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.perf_counter()
        model = UserModel(run.config, device=device)
        model.fit(log)
        test = model.evaluate(log, "test")
        seconds = time.perf_counter() - started
        return RunFigures(test, model.evaluate(log, "train").gap, seconds)
    finally:
        torch.set_num_threads(threads)


def _cost(run: Run, logs: Mapping[str, SessionLog]) -> int:
    config = run.config
    return logs[run.dataset].n_events * config.history_layers * (config.history_dim + sum(config.hidden))


def _side_by_side(
    folders: dict[str, Path], runs: Sequence[Run], order: Sequence[int], jobs: int, device: str
) -> Generator[tuple[int, RunFigures], None, None]:
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (folders, device))
    try:
        with _interrupt_ignored():
            places = {pool.submit(_run_in_worker, runs[i]): i for i in order}
        for future in as_completed(places):
            yield places[future], future.result()
    except BaseException:
        # Nobody waits for the figures any more: minutes of work need not be finished first.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupt_ignored() -> Iterator[None]:
    """Processes started here do not react to Ctrl-C, which a terminal sends to all of them: the parent ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


_worker: tuple[dict[str, SessionLog], str] = ({}, "auto")


def _start_worker(folders: dict[str, Path], device: str) -> None:
    global _worker
    _worker = {name: load_log(folder) for name, folder in folders.items()}, device
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they end themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_in_worker(run: Run) -> RunFigures:
    logs, device = _worker
    return run_one(run, logs[run.dataset], device)
