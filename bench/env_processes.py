"""User-steps per second of one vector environment, its users in this process or in worker
processes; one JSON object.

    python bench/env_processes.py > docs/tables/env-processes.json

Two worlds: a learned one, whose kernels run on threads, and `ToldWorld` over a baseline, which is
Python and torch operators; and Gymnasium's AsyncVectorEnv over single users of the first, a process
each. All environments of a world stand side by side, and each round plays an episode of 20 steps in
every one of them in turn, so that what else the machine does falls on all alike. Slates are drawn
before the clock starts."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv

from fastgaum import threads
from fastgaum.baselines.registry import make_model
from fastgaum.bench.bench_env import IDENTITY, world_of
from fastgaum.bench.cost_model import to_markdown
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import machine_facts
from fastgaum.worlds.processes import LEAST
from fastgaum.worlds.single_env import UserEnv
from fastgaum.worlds.told_world import ToldWorld
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import World

K, STEPS = 10, 20
USERS = {"learned": 4096, "told": 512}


def worlds(full: bool) -> Iterator[tuple[str, World]]:
    """A learned world as in the race env-4096 and, at full size, a baseline's."""
    yield "learned", world_of(full, **IDENTITY)
    if full:
        model = make_model("wd-ccf", {"protocol": "identity"})
        model.fit(synthesise(6_000, n_items=1_000, no_click=0.3, seed=1)[0])
        yield "told", ToldWorld(model)


def measure(full: bool = True, rounds: int = 9, most: int | None = None) -> dict[str, Any]:
    """User-steps per second of each world in each place: the median round, and the spread of the
    rounds."""
    before, cores = threads.get_threads(), os.cpu_count() or 1
    most = most or cores
    rows = []
    try:
        for name, world in worlds(full):
            n = USERS[name] if full else LEAST * most
            draws = np.random.default_rng(0)
            slates = [draws.integers(0, world.n_items, (n, K)) for _ in range(STEPS)]
            places: list[tuple[int, int | None]] = [
                (1, None),
                (most, None),
                (most, 1),
                (most, most),
            ]
            places = list(dict.fromkeys(places))
            envs = []
            for n_threads, processes in places:
                threads.set_threads(n_threads)
                envs.append(
                    UserVectorEnv(
                        n, world=world, slate_size=K, horizon=None, leaving=0.0, processes=processes
                    )
                )
            if name == "learned":
                rows.append(_of_gymnasium(world, most, rounds))
            seconds = np.empty((rounds + 1, len(envs)))
            for times in seconds:
                for i, (env, (n_threads, _)) in enumerate(zip(envs, places, strict=True)):
                    threads.set_threads(n_threads)
                    env.reset(seed=0)
                    started = time.perf_counter()
                    for slate in slates:
                        env.step(slate)
                    times[i] = time.perf_counter() - started
            for env, times, (n_threads, processes) in zip(envs, seconds[1:].T, places, strict=True):
                env.close()
                low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
                rows.append(
                    {
                        "world": name,
                        "users": n,
                        "threads": n_threads,
                        "processes": processes,
                        "user_steps_per_second": n * STEPS / middle,
                        "spread": (high - low) / middle,
                    }
                )
    finally:
        threads.set_threads(before)
    return {"machine": machine_facts(), "load": os.getloadavg()[0], "rows": rows}


def _of_gymnasium(world: World, n: int, rounds: int) -> dict[str, Any]:
    """Single users in AsyncVectorEnv, one to a process."""
    made = partial(UserEnv, world=world, slate_size=K, horizon=None, leaving=0.0)
    env = AsyncVectorEnv([made] * n, context="spawn")
    slates = np.random.default_rng(0).integers(0, world.n_items, (STEPS, n, K))
    seconds = []
    for _ in range(rounds + 1):
        env.reset(seed=0)
        started = time.perf_counter()
        for slate in slates:
            env.step(slate)
        seconds.append(time.perf_counter() - started)
    env.close()
    low, middle, high = np.quantile(seconds[1:], (0.25, 0.5, 0.75))
    return {
        "world": "learned",
        "users": n,
        "threads": n,
        "processes": n,
        "of": "AsyncVectorEnv",
        "user_steps_per_second": n * STEPS / middle,
        "spread": (high - low) / middle,
    }


def table(result: Mapping[str, Any]) -> str:
    """The page's table."""
    rows = []
    for row in result["rows"]:
        k, t = row["processes"], row["threads"]
        where = f"this process, {t} thread{'s' * (t > 1)}"
        if "of" in row:
            where = f"{row['of']}, {k} processes of one user"
        elif k is not None:
            where = f"{k} worker{'s' * (k > 1)}, {max(1, t // k)} thread{'s' * (t // k > 1)} each"
        rows.append(
            (
                row["world"],
                f"{row['users']:,}",
                where,
                f"{row['user_steps_per_second']:,.0f}",
                f"{row['spread']:.0%}",
            )
        )
    machine = result["machine"]
    said = (
        f"{machine['processor']}, {machine['cores']} cores, load {result['load']:.1f} while it was "
        "measured\n\n"
    )
    return said + to_markdown(("world", "users", "where", "user-steps/s", "spread"), rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    print(json.dumps(measure(rounds=parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
