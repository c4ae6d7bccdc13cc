"""One setting of threads for everything: torch's own.

Kernels are serial and hold no GIL. Where one call is worth sharing, its rows are cut into parts,
which run on one pool. The cut depends on the data alone and sums over parts are taken in their
order: one thread and many give the same bits. scipy's BLAS, which kernels call, has one thread."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import TypeVar

import torch
from threadpoolctl import LibController, ThreadpoolController

from fastgaum.errors import ConfigError, FastgaumError

Part = TypeVar("Part")
_Result = TypeVar("_Result")
Call = tuple[Callable[..., object], tuple[object, ...]]
"""a function and its arguments"""
Waiting = deque[tuple[object, ...]]
Asked = queue.SimpleQueue[
    tuple[Callable[..., object], Waiting, queue.SimpleQueue[BaseException | None]]
]
MOST_THREADS = 1024


class _Within(threading.local):
    """What this thread is within."""

    busy = False
    """a part of a call whose other parts keep all other threads busy"""


_chosen = False
_stream = threading.RLock()
"""held by the thread that draws from torch's random stream"""
_counting = threading.Lock()
_within = _Within()
_alone: list[int] = []
"""threads of torch before the first `one_thread` of those that are within it, an entry each"""


def set_threads(n: int) -> None:
    """Use n threads in torch and in kernels. Raises ConfigError outside 1 to `MOST_THREADS`."""
    global _chosen
    if not 1 <= n <= MOST_THREADS:
        raise ConfigError(f"--threads must be at least 1 and at most {MOST_THREADS}, got {n}")
    _chosen = True
    torch.set_num_threads(n)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within, torch's random stream, one for the process, begins at a seed; afterwards it is as it
    was. A second thread waits until the first has left."""
    cards = [device] if device is not None and device.type == "cuda" else []
    with _stream, torch.random.fork_rng(devices=cards):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and the kernels use one thread within."""
    with _counting:
        # torch tells a thread that asks first what another one has set last
        _alone.append(_alone[0] if _alone else get_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _counting:
            torch.set_num_threads(_alone.pop())


@contextmanager
def for_small_networks() -> Iterator[None]:
    """`one_thread` within, unless `set_threads` has said how many."""
    with nullcontext() if _chosen else one_thread():
        yield


def get_threads() -> int:
    """How many threads torch and kernels use."""
    return torch.get_num_threads()


def run(function: Callable[..., object], parts: Sequence[tuple[object, ...]]) -> None:
    """Call function(*part) for each part, on the calling thread and the pool's; an error in one
    is raised here. Within a part nothing is shared again where there is a part for every thread."""
    _one_blas_thread()
    if len(parts) == 1:
        function(*parts[0])
        return
    n_threads = 1 if _within.busy else get_threads()
    n_helpers = min(n_threads, len(parts)) - 1
    if n_helpers < 1:
        for one in parts:
            function(*one)
        return
    if len(parts) >= n_threads:
        function = partial(_call_busy, function)
    waiting, own = deque(parts), 0
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    asked = _helpers(n_threads - 1)
    for _ in range(n_helpers):
        asked.put((function, waiting, ended))
    try:
        while (part := _next(waiting)) is not None:
            own += 1
            function(*part)
    finally:
        # after an error here no part is begun any more
        while _next(waiting) is not None:
            own += 1
        # the others still write to the caller's arrays. Parts are waited for, not helpers: one that
        # is busy elsewhere, or that calls this itself, keeps no call waiting
        errors = [ended.get() for _ in range(len(parts) - own)]
    for error in errors:
        if error is not None:
            raise error


def run_chains(chains: Sequence[Sequence[Call]]) -> None:
    """Make the calls of each chain in turn, chains shared over threads as by `run`."""
    if len(chains) == 1:
        _one_blas_thread()
        for function, arguments in chains[0]:
            function(*arguments)
        return

    def in_turn(*chain: Call) -> None:
        for function, arguments in chain:
            function(*arguments)

    run(in_turn, [tuple(chain) for chain in chains])


def in_order(function: Callable[[Part], _Result], parts: Sequence[Part]) -> list[_Result]:
    """Return function(part) of each part, in their order, worked on as by `run`. Raises the
    FastgaumError of the first part that the function refuses."""
    results: dict[int, _Result] = {}
    refused: dict[int, FastgaumError] = {}

    def call(number: int, part: Part) -> None:
        # the parts before a refused one have begun already: the first of all is among them
        if refused:
            return
        try:
            results[number] = function(part)
        except FastgaumError as error:
            refused[number] = error

    run(call, list(enumerate(parts)))
    if refused:
        raise refused[min(refused)]
    return [results[number] for number in range(len(parts))]


def one_thread_each(
    function: Callable[[Part], _Result], parts: Iterable[Part]
) -> Iterator[_Result]:
    """Yield function(part) of each part, in their order, as many at once as torch has threads;
    within, torch and kernels have one. Parts are asked for a few ahead."""
    n = get_threads()
    if n == 1:
        yield from map(function, parts)
        return
    begun: deque[Future[_Result]] = deque()
    try:
        for part in parts:
            begun.append(_pool_of_single_threads(n).submit(function, part))
            if len(begun) > n:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        # nothing goes on when the caller has stopped asking, or an error is on its way
        for future in begun:
            if not future.cancel():
                future.exception()


def _call_busy(function: Callable[..., object], *part: object) -> None:
    _within.busy = True
    try:
        function(*part)
    finally:
        _within.busy = False


def _next(waiting: Waiting) -> tuple[object, ...] | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _help(asked: Asked) -> None:
    while True:
        function, waiting, ended = asked.get()
        while (part := _next(waiting)) is not None:
            error = None
            try:
                function(*part)
            except BaseException as found:
                error = found
            ended.put(error)
            error = None
        # nothing of the last call is held while this thread waits
        del function, waiting, ended


@cache
def _helpers(n: int) -> Asked:
    # a queue of C code wakes a thread in half the time that an executor takes
    asked: Asked = queue.SimpleQueue()
    for i in range(n):
        threading.Thread(target=_help, args=(asked,), name=f"fastgaum {i}", daemon=True).start()
    return asked


@cache
def _pool_of_single_threads(n: int) -> ThreadPoolExecutor:
    """Threads on each of which torch has one thread."""
    pool = ThreadPoolExecutor(n, thread_name_prefix="fastgaum-alone")
    all_there = threading.Barrier(n)

    def become_single(_: int) -> None:
        # torch keeps a number for each thread, and one that a thread takes when it first asks
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_there.wait()

    list(pool.map(become_single, range(n)))
    torch.set_num_threads(n)
    return pool


def _forget_threads() -> None:
    global _stream, _counting
    _helpers.cache_clear()
    _pool_of_single_threads.cache_clear()
    _stream, _counting = threading.RLock(), threading.Lock()


# a forked process has its parent's pools and locks without their threads: work given to them never
# ends
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


@cache
def kernel_blas() -> list[LibController]:
    """The BLAS that numba calls, which is scipy's; numpy's own is a second library."""
    import scipy.linalg.cython_blas  # noqa: F401

    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return [library for library in found if "scipy.libs" in library.filepath]


@cache
def _one_blas_thread() -> None:
    for library in kernel_blas():
        library.set_num_threads(1)
