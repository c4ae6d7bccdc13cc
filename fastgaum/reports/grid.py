"""The runs of a grid, data sets × models × splits × seeds, one after the other or in processes.
Each has one thread."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import typing
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastgaum.baselines.registry import FLOORS, check_model, make_model, setting_names
from fastgaum.config import Config, Protocol
from fastgaum.errors import (
    ConfigError,
    FastgaumError,
    NumericsError,
    did_you_mean,
    require_known,
    require_whole,
)
from fastgaum.features.training_order import number_of_folds, with_fold
from fastgaum.game.scoring import mean_of
from fastgaum.logs.log import SessionLog
from fastgaum.logs.splits import resplit
from fastgaum.logs.store import load_log, save_log
from fastgaum.metrics.evaluation import Evaluation, evaluate_heads
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel
from fastgaum.threads import one_thread

Task = TypeVar("Task")
_Result = TypeVar("_Result")
PROTOCOLS: tuple[str, ...] = typing.get_args(Protocol)
_OWN_OPTION = {"preset": "--models", "protocol": "--protocol"}
"""settings that a grid has an option for"""
_RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?")


@dataclass(frozen=True)
class GridRun:
    """One training of a grid."""

    dataset: str
    model: str
    settings: Mapping[str, Any]
    """protocol, seed, and the model's own that were set"""
    resplit: int | None = None
    """seed of the split of whole users; None: the log's own"""
    folds: int | Literal["auto"] = 0
    """folds of users, as `Config.folds`, for a model that makes none itself"""

    @property
    def seed(self) -> int:
        """Seed of the model's random streams."""
        return int(self.settings["seed"])


@dataclass(frozen=True)
class GridPlan:
    """The fits on each log: models × splits × seeds."""

    models: Sequence[str]
    """names of baselines and presets"""
    seeds: int = 5
    """runs of each model on each split"""
    protocol: str = "bags"
    """what a candidate's bag holds"""
    resplits: Sequence[int] = ()
    """seeds of splits of whole users, which are pooled"""
    settings: Mapping[str, object] = field(default_factory=dict)
    """settings, each for the models that have it"""

    @property
    def splits(self) -> tuple[int | None, ...]:
        """Seeds of the splits; None for the log's own."""
        return tuple(self.resplits) or (None,)

    def runs(self, logs: Sequence[str]) -> list[GridRun]:
        """The fits on logs of these names, in the order of the table.

        Raises:
            ConfigError: an unknown model or protocol, a setting that no model has or that is
                impossible, or no seed.
        """
        if not self.models:
            raise ConfigError("models is an empty list, at least one name is required")
        require_known("protocol", self.protocol, PROTOCOLS)
        require_whole("seeds", self.seeds)
        for seed in self.resplits:
            require_whole("a seed of resplits", seed)
        if self.seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, got {self.seeds}")
        for key in self.settings:
            if key in _OWN_OPTION:
                raise ConfigError(f"--set {key} does not fit a grid: use {_OWN_OPTION[key]}")
        for model in self.models:
            check_model(model, {"protocol": self.protocol})
        known = {model: setting_names(model) for model in self.models}
        every = sorted({"folds"}.union(*known.values()))
        for key in self.settings:
            if key not in every:
                raise ConfigError(
                    f"unknown configuration key '{key}': no model of the grid "
                    f"({', '.join(known)}) has it{did_you_mean(str(key), every)}"
                )
        # the paper's table is of single fits on its own split
        folds = checked_folds(
            self.settings.get("folds", 0 if self.protocol == "identity" else "auto")
        )
        own: dict[str, dict[str, Any]] = {}
        for model, names in known.items():
            set_here = {key: value for key, value in self.settings.items() if key in names}
            if "folds" in names:
                set_here.setdefault("folds", folds)
            own[model] = {"protocol": self.protocol, "seed": 0, **set_here}
            check_model(model, own[model])
        return [
            GridRun(dataset, model, {**settings, "seed": settings["seed"] + i}, split, folds)
            for dataset in logs
            for model, settings in own.items()
            for split in self.splits
            for i in range(self.seeds)
        ]


def parse_resplits(text: str) -> list[int]:
    """Read a seed, a range or a list of both; each split once, in the order given. Raises
    ConfigError for anything else, or a range that falls.

    >>> parse_resplits("1..3,7")
    [1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise ConfigError(
                f"--resplit takes seeds of at least 0 as 7, 1..10 or 1,4,9, got '{text}'"
            )
        first = int(found[1])
        last = first if found[2] is None else int(found[2])
        if last < first:
            raise ConfigError(f"--resplit {part.strip()} is an empty range: write {last}..{first}")
        seeds.extend(range(first, last + 1))
    return list(dict.fromkeys(seeds))


LOST = (
    "the system ended its process, also when no other run was beside it, most likely because "
    "memory ran out: leave the model out"
)
NO_SELECTION = "—"
"""stands for the selection of a model that chooses no epoch"""


@dataclass(frozen=True)
class RunFigures:
    """The figures of one run."""

    test: Evaluation
    train_gap: float | None
    """mean optimality gap on the training split; None without a generator"""
    seconds: float
    """of the processor, for fit and evaluation on one thread; other work changes it little"""
    protocol: str
    """whose inputs the model read: identity for one that can read nothing else"""
    select: str
    """the validation score that chose the epoch; — where there is none"""
    settings_tried: int | None
    """settings that the fit itself compared; None where it compared none"""
    folds: int = 0
    """folds of users of whose fits it is the mean; 0: one fit"""


RunOutcome = RunFigures | str
"""of a run; the reason where it gave nothing"""


def run_all(
    logs: Mapping[str, SessionLog], runs: Sequence[GridRun], jobs: int, device: str
) -> Generator[tuple[int, RunOutcome], None, None]:
    """Yield each run's outcome as it ends, with its place in `runs`; at most `jobs` runs at a time.

    `logs` have their own splits. A run that diverges, meets a bug, or is ended by the system, is an
    outcome too. Closing the iterator, or a mistake in the input, ends all at once.

    Raises:
        LogFormatError, ConfigError: from a run.
    """
    # the longest runs first, so that none is left alone at the end
    order = sorted(range(len(runs)), key=lambda i: -logs[runs[i].dataset].n_events)
    jobs = min(jobs, len(runs))
    left = dict.fromkeys(range(len(runs)))
    with tempfile.TemporaryDirectory(prefix="fastgaum-") as folder:
        given: dict[str, SessionLog | Path] = dict(logs)
        if jobs > 1:
            # Workers read the logs from disk: a pipe would carry a copy for each of them.
            for i, (name, log) in enumerate(logs.items()):
                given[name] = save_log(log, Path(folder) / str(i))
        tasks = [(runs[i], given[runs[i].dataset], device) for i in order]
        beside = jobs > 1
        while left:
            begun = list(left)
            try:
                with closing(
                    side_by_side(_run_one, [tasks[i] for i in begun], jobs, beside)
                ) as outcomes:
                    for place, outcome in outcomes:
                        del left[begun[place]]
                        yield order[begun[place]], outcome
            except BrokenProcessPool:
                # one of several runs was ended, and the pool does not say which: from here one
                # after the other
                if jobs == 1:
                    ended = next(iter(left))
                    del left[ended]
                    yield order[ended], LOST
                jobs = 1


_log_at = cache(load_log)


def _run_one(task: tuple[GridRun, SessionLog | Path, str]) -> RunOutcome:
    """Train and evaluate with one thread; the log, or the one in the folder, has its own split."""
    run, given, device = task
    started = time.process_time()
    try:
        with one_thread():
            log = given if isinstance(given, SessionLog) else _log_at(given)
            log = split_log(log, run.resplit)
            model, test, folds = _fitted(run, log, device)
            return RunFigures(
                test=test,
                seconds=time.process_time() - started,
                train_gap=None if test.gap is None else model.evaluate(log, "train").gap,
                protocol=model.settings.protocol,
                select=getattr(model.settings, "select", NO_SELECTION),
                settings_tried=model.settings_tried if model.settings_tried > 1 else None,
                folds=folds,
            )
    except NumericsError as error:
        return str(error)
    except FastgaumError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return f"a bug: {type(error).__name__}: {error} ({where})"


def _fitted(run: GridRun, log: SessionLog, device: str) -> tuple[ChoiceModel, Evaluation, int]:
    """A fitted model of a run, its test figures, and of how many folds' fits they are the mean.

    A preset makes its folds itself; of any other model one is fitted without each fold, which
    chooses its settings, and probabilities are the mean."""
    model = make_model(run.model, run.settings, device)
    folds = 0
    if not isinstance(model, UserModel) and run.model not in FLOORS:
        folds = number_of_folds(log, Config(folds=run.folds).folds_of(log.count("events", "train")))
    if not folds:
        model.fit(log)
        own = 0 if model.space is None else model.space.folds
        return model, model.evaluate(log, "test"), own
    scored = []
    for fold in range(folds):
        model = make_model(run.model, run.settings, device)
        model.fit(with_fold(log, fold, folds))
        encoded, of_fold = model.score_sessions(log, "test")
        scored.append(of_fold)
    # scores of two fits have no common scale, their probabilities have
    heads = {
        name: dataclasses.replace(head, scores=head.log_probs)
        for name, head in mean_of(scored).heads.items()
    }
    return model, evaluate_heads(heads, encoded, model.no_click, None), folds


def checked_folds(folds: object) -> int | Literal["auto"]:
    """The folds of a plan. Raises ConfigError for an impossible number."""
    return Config.from_preset("fastgaum", folds=folds).folds


def split_log(log: SessionLog, seed: int | None) -> SessionLog:
    """The log with another split of whole users, or with its own."""
    return log if seed is None else resplit(log, seed)


def side_by_side(
    function: Callable[[Task], _Result], tasks: Sequence[Task], jobs: int, beside: bool = False
) -> Generator[tuple[int, _Result], None, None]:
    """Yield function(task) of each task as it ends, with its place; at most `jobs` at a time,
    one in this process unless `beside`. Closing the iterator, or an error, ends all at once.
    `function` is a module's own."""
    if jobs == 1 and not beside:
        for place, task in enumerate(tasks):
            yield place, function(task)
        return
    context = _context()
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), context, _end_with_parent)
    try:
        with _interrupt_ignored():
            places = {pool.submit(function, task): i for i, task in enumerate(tasks)}
        broken = None
        for future in as_completed(places):
            try:
                result = future.result()
            except BrokenProcessPool as error:
                # those that had ended come first
                broken = error
            else:
                yield places[future], result
        if broken is not None:
            raise broken
    except BaseException:
        # The results are not needed any more: minutes of work need not be finished first.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """How workers begin. Threads of torch do not survive a fork: on Linux they are forked from a
    process that has imported what they need and run nothing, 3 s once instead of for each."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with _interrupt_ignored():
        forkserver.ensure_running()
    # waits for its imports, in which this process may be interrupted
    first = context.Process(target=int)
    first.start()
    first.join()
    return context


@contextmanager
def _interrupt_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _end_with_parent() -> None:
    # a parent that was killed cannot end its workers
    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
