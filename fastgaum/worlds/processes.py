"""Users of a world in worker processes, as one population: what `UserVectorEnv(…, processes=4)`
steps.

Every process holds the world and a share of the users. What a step reads and writes (slates, keys,
choices, states) lies in memory that all share; a few bytes through a pipe say whose turn it is.
Draws come from keys, which the environment makes, so a user lives the same life, bit by bit, in one
process as in many.

Processes are spawned: they share no thread, lock or random state with the caller's. They end when
they are closed, when the population is forgotten, and when the caller's process ends in whatever
way: the pipe closes then."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector.utils import CloudpickleWrapper, create_shared_memory, read_from_shared_memory
from threadpoolctl import threadpool_limits

from fastgaum import threads
from fastgaum.errors import ConfigError, WorkerError
from fastgaum.worlds.world import (
    FloatArray,
    IntArray,
    KeyArray,
    Population,
    Response,
    World,
    checked_slates,
)

LEAST = 256
"""users are shared out in multiples of so many, the last worker's rest may be fewer: populations
cut themselves so, and the last bits of a row of a matrix product depend on its place in its cut"""
PATIENCE = 5.0
"""seconds that a worker has to end by itself before it is killed"""
MAIN = (
    "a script that starts processes does its work below `if __name__ == '__main__':`, because "
    "each process imports the"
    " script first"
)


@dataclass(frozen=True)
class _Shared:
    """Arrays with a row per user, in memory that all processes see."""

    slates: IntArray
    keys: KeyArray
    active: npt.NDArray[np.bool_]
    places: IntArray
    items: IntArray
    utilities: FloatArray
    states: FloatArray

    @classmethod
    def in_memory(cls, memory: Any, n: int, k: int, state_dim: int) -> _Shared:
        """The arrays in `memory_of(n, k, state_dim)`."""
        arrays: Any = read_from_shared_memory(_space(k, state_dim), memory, n)
        return cls(
            **{
                **arrays,
                "keys": arrays["keys"].view(np.uint64),
                "active": arrays["active"].view(np.bool_),
            },
        )


def _space(k: int, state_dim: int) -> spaces.Dict:
    """What each user has in the shared memory; bounds mean nothing there."""

    def box(dtype: Any, *shape: int) -> spaces.Box:
        return spaces.Box(0, 1, shape, dtype)

    return spaces.Dict(
        {
            "slates": box(np.int32, k),
            "keys": box(np.int64),
            "active": box(np.int8),
            "places": box(np.int32),
            "items": box(np.int32),
            "utilities": box(np.float32),
            "states": box(np.float32, state_dim),
        }
    )


class ProcessPopulation(Population):
    """Users of a world, an equal share of them in each of several worker processes.

    The world is sent to each, so it must be possible to pickle it; functions and classes of a
    script or a notebook may be in it. Every worker has its own copy, and as many threads as its
    part of this process's (`threads.get_threads`), so that together they have no more than it has.
    """

    def __init__(self, world: World, n: int, processes: int, k: int) -> None:
        """Start the workers, and wait until all have their users.

        Args:
            world: whose users these are.
            n: how many there are.
            processes: how many workers share them, at most one for each LEAST users begun.
            k: places of a slate; slates of other lengths take longer, through the pipes.

        Raises:
            ConfigError: there are too many processes or too few, or the world cannot be sent to
                them.
            WorkerError: a worker failed, or ended.
        """
        most = -(-n // LEAST)
        if not 1 <= processes <= most:
            raise ConfigError(
                f"processes is {processes}, a number from 1 to {most} is required: {n} users are "
                "shared out in multiples of"
                f" {LEAST}"
            )
        self.world, self.n, self.k = world, n, k
        sent = _packed(world)
        context = multiprocessing.get_context("spawn")
        memory = create_shared_memory(_space(k, world.state_dim), n, context)  # type: ignore[arg-type]
        self._shared = _Shared.in_memory(memory, n, k, world.state_dim)
        self._seen = self._shared.states.view()
        self._seen.flags.writeable = False
        bounds = [*(i * most // processes * LEAST for i in range(processes)), n]
        self.n_threads = max(1, threads.get_threads() // processes)
        self._workers: list[_Worker] = []
        self._end = weakref.finalize(self, _end_all, self._workers, os.getpid())
        self._why = "they were closed"
        shape = n, k, world.state_dim
        try:
            for number, (first, last) in enumerate(pairwise(bounds), 1):
                name = f"worker {number} of {processes} (users {first} to {last - 1})"
                self._workers.append(
                    _Worker(context, name, first, last, (memory, shape, self.n_threads))
                )
            # all are importing by now
            for worker in self._workers:
                worker.send(sent)
            for worker in self._workers:
                worker.answer()
        except BaseException:
            self.close()
            raise

    @property
    def states(self) -> FloatArray:
        """The users' states now, shape (n, state_dim); read-only, overwritten by the next `reset`
        or `step`."""
        return self._seen

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers; none when they are closed."""
        return [worker.process.pid or 0 for worker in self._workers]

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew: all, or those of `rows`.

        Raises:
            WorkerError: a worker failed or ended, or they are closed.
        """
        if rows is None:
            self._all("reset", lambda first, last: (keys[first:last], None))
            return
        rows = np.asarray(rows, np.int32)

        def own(first: int, last: int) -> tuple[Any, ...] | None:
            mine = (rows >= first) & (rows < last)
            return (keys[mine], rows[mine] - np.int32(first)) if mine.any() else None

        self._all("reset", own)

    def step(
        self, slates: IntArray, keys: KeyArray, active: npt.NDArray[np.bool_] | None = None
    ) -> Response:
        """Show each user a slate (n, k) and let them choose; their states move on.

        Raises:
            ConfigError: the slates are not of n users, or hold a number that is no item.
            WorkerError: a worker failed or ended, or they are closed.
        """
        slates, shared = checked_slates(slates, self.n, self.world.n_items), self._shared
        ours = slates.shape[1] == self.k
        if ours:
            shared.slates[:] = slates
        shared.keys[:] = keys
        if active is not None:
            shared.active[:] = active
        self._all(
            "step", lambda first, last: (None if ours else slates[first:last], active is not None)
        )
        return Response(shared.places.copy(), shared.items.copy(), shared.utilities.copy())

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        """Each user's utility now of each item of a pool, (n, m) or one for all (m,); shape (n, m).

        Its last bits may be others than in one process.
        """
        pools = checked_slates(pools, self.n, self.world.n_items, any_rows=True)
        alike = pools.ndim == 1
        parts = self._all(
            "utilities", lambda first, last: (pools if alike else pools[first:last], k)
        )
        return np.concatenate(parts)

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,); nobody moves."""
        slates = checked_slates(slates, self.n, self.world.n_items)
        parts = self._all("probabilities", lambda first, last: (slates[first:last],))
        return np.concatenate([part[0] for part in parts]), np.concatenate(
            [part[1] for part in parts]
        )

    def follow(
        self, slates: IntArray, places: IntArray, active: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Let each user see a slate and choose as somebody else did, place (n,) or -1 for nothing;
        states move on.

        Raises:
            WorkerError: these users cannot be told what to choose, or a worker ended.
        """
        slates, places = checked_slates(slates, self.n, self.world.n_items), np.asarray(places)
        self._all(
            "follow",
            lambda first, last: (
                slates[first:last],
                places[first:last],
                None if active is None else active[first:last],
            ),
        )

    def close(self) -> None:
        """End the workers, those that do not end by themselves within seconds by force."""
        self._end()

    def _all(self, verb: str, of: Callable[[int, int], tuple[Any, ...] | None]) -> list[Any]:
        """Every worker's answer to a verb; `of(first, last)` are its arguments, None leaves it out.

        After a failure some users have moved and others have not: all workers are ended.
        """
        if not self._end.alive:
            raise WorkerError(
                f"the users' processes have ended ({self._why}): make a new environment"
            )
        try:
            asked = []
            for worker in self._workers:
                arguments = of(worker.first, worker.last)
                if arguments is not None:
                    worker.ask(verb, arguments)
                    asked.append(worker)
            return [worker.answer() for worker in asked]
        except BaseException as error:
            self._why = str(error).partition("\n")[0] or type(error).__name__
            self.close()
            raise


class _Worker:
    """The caller's end of one worker."""

    def __init__(
        self, context: SpawnContext, name: str, first: int, last: int, made_of: tuple[Any, ...]
    ) -> None:
        self.name, self.first, self.last = name, first, last
        self.hint = MAIN
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, first, last, *made_of), name=name, daemon=True
        )
        self.process.start()
        # theirs alone holds it now: the pipe says so when they are gone
        theirs.close()

    def send(self, world: bytes) -> None:
        """Give it its world."""
        try:
            self.pipe.send_bytes(world)
        except OSError:
            raise self._gone() from None

    def ask(self, verb: str, arguments: tuple[Any, ...]) -> None:
        """Tell it to begin."""
        try:
            self.pipe.send((verb, arguments))
        except OSError:
            raise self._gone() from None

    def answer(self) -> Any:
        """Wait until it is done."""
        try:
            good, value = self.pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        self.hint = "its own message stands above"
        if not good:
            raise WorkerError(f"{self.name} failed: {value}")
        return value

    def _gone(self) -> WorkerError:
        hint = self.hint
        self.process.join(PATIENCE)
        code = self.process.exitcode
        if code is not None and code < 0:
            how = signal.Signals(-code).name
            hint = "the system does so when memory runs out" if how == "SIGKILL" else hint
            return WorkerError(
                f"{self.name}, process {self.process.pid}, was ended by {how}: {hint}"
            )
        return WorkerError(
            f"{self.name}, process {self.process.pid}, ended with exit code {code}: {hint}"
        )


def _end_all(workers: list[_Worker], owner: int) -> None:
    """Close the pipes, which ends workers, and see to it that they have ended."""
    if os.getpid() != owner:
        # a fork of the caller's process has a copy of this, and no workers
        return
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        worker.process.join(PATIENCE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()
    workers.clear()


def _packed(world: World) -> bytes:
    """The world as bytes, by Gymnasium's own means, which know functions of scripts and notebooks
    too."""
    sent = world.bare()
    try:
        wrapped: Any = CloudpickleWrapper
        packed: bytes = wrapped(lambda: sent).__getstate__()
        return packed
    except Exception as error:
        raise ConfigError(
            f"this {type(world).__name__} cannot be sent to worker processes "
            f"({type(error).__name__}: {error}): leave"
            " processes out, or make it of what can be pickled"
        ) from error


def _work(
    pipe: Connection,
    first: int,
    last: int,
    memory: Any,
    shape: tuple[int, int, int],
    n_threads: int,
) -> None:
    """A worker's life: take the world, make users, answer until the pipe closes."""
    # Ctrl-C is for the caller, who then closes the pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threads.set_threads(n_threads)
    threadpool_limits(n_threads)
    own = slice(first, last)
    # the caller has gone
    with suppress(EOFError, OSError):
        world = pipe.recv_bytes()
        users, why = _tried(lambda: _users_of(world, last - first))
        pipe.send((users is not None, why))
        if users is None:
            return
        turns = _Turns(users, _Shared.in_memory(memory, *shape), own)
        while True:
            verb, arguments = pipe.recv()
            value, why = _tried(lambda: getattr(turns, verb)(*arguments))  # noqa: B023
            pipe.send((why is None, value if why is None else why))


def _users_of(world: bytes, n: int) -> Population:
    made: Any = CloudpickleWrapper(lambda: None)
    made.__setstate__(world)
    users: Population = made.fn().population(n)
    return users


def _tried(function: Callable[[], Any]) -> tuple[Any, str | None]:
    """A function's value, or what its error says."""
    try:
        return function(), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"


class _Turns:
    """What a worker does when it is asked."""

    def __init__(self, users: Population, shared: _Shared, own: slice) -> None:
        self.users, self.own = users, own
        self.shared = _Shared(**{name: array[own] for name, array in vars(shared).items()})
        self.shared.states[:] = users.states

    def reset(self, keys: KeyArray, rows: IntArray | None) -> None:
        self.users.reset(keys, rows)
        self.shared.states[:] = self.users.states

    def step(self, slates: IntArray | None, some: bool) -> None:
        shared = self.shared
        response = self.users.step(
            shared.slates if slates is None else slates,
            shared.keys,
            shared.active if some else None,
        )
        shared.places[:], shared.items[:] = response.places, response.items
        shared.utilities[:] = response.utilities
        shared.states[:] = self.users.states

    def follow(
        self, slates: IntArray, places: IntArray, active: npt.NDArray[np.bool_] | None
    ) -> None:
        self.users.follow(slates, places, active)
        self.shared.states[:] = self.users.states

    def utilities(self, pools: IntArray, k: int | None) -> FloatArray:
        return self.users.utilities(pools, k)

    def probabilities(self, slates: IntArray) -> Sequence[FloatArray]:
        return self.users.probabilities(slates)
