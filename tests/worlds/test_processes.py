"""Users in worker processes: the same lives bit by bit, and nothing left when they or their caller
end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from fastgaum import threads
from fastgaum.errors import ConfigError, WorkerError
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.cascade import VectorCascadeWrapper
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.processes import ProcessPopulation
from fastgaum.worlds.single_env import UserEnv
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import World
from tests.worlds.small_world import SmallWorld
from tests.worlds.test_seeding import assert_equal, trajectory
from tests.worlds.worker_worlds import BarrenWorld, FailingWorld, LockedWorld

ROOT = Path(__file__).resolve().parents[2]
N, K = 300, 3
SMALL = SmallWorld()


def housed(world: World, users: ProcessPopulation) -> Any:
    """The world, whose users are those: workers are slow to start, and one set of them serves many
    environments."""
    same: Any = copy(world)
    same.population = lambda n: users
    return same


def is_there(pid: int) -> bool:
    """Whether a process lives; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float = 20.0) -> bool:
    """Whether processes end within so many seconds."""
    limit = time.monotonic() + seconds
    while any(map(is_there, pids)) and time.monotonic() < limit:
        time.sleep(0.05)
    return not any(map(is_there, pids))


@pytest.fixture(scope="module")
def small_users() -> Iterator[ProcessPopulation]:
    """Three hundred users in two processes, 256 and 44."""
    users = ProcessPopulation(SMALL, N, 2, K)
    yield users
    users.close()


@pytest.fixture(scope="module")
def learned(small_run: Path, small_log: SessionLog) -> World:
    return LearnedWorld(UserModel.load(small_run), starts="logged", log=small_log)


@pytest.fixture(scope="module")
def learned_users(learned: World) -> Iterator[ProcessPopulation]:
    users = ProcessPopulation(learned, N, 2, K)
    yield users
    users.close()


OPTIONS: list[dict[str, Any]] = [
    {"autoreset_mode": "NEXT_STEP", "leaving": 0.3},
    {"autoreset_mode": "SAME_STEP", "pool": "per_step", "pool_size": 6, "horizon": 3},
    {
        "autoreset_mode": "SAME_STEP",
        "pool": "per_user",
        "pool_size": 6,
        "leaving": 0.2,
        "reward": "click",
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["small", "learned"])
def test_a_life_does_not_depend_on_processes(
    kind: str, options: dict[str, Any], request: Any
) -> None:
    world = SMALL if kind == "small" else request.getfixturevalue("learned")
    users = request.getfixturevalue(f"{kind}_users")
    here = UserVectorEnv(N, world=world, slate_size=K, **options)
    there = UserVectorEnv(N, world=housed(world, users), slate_size=K, **options)
    assert_equal(trajectory(here, N, seed=5), trajectory(there, N, seed=5))
    seeds = [user * user % 7 for user in range(N)]
    assert_equal(trajectory(here, N, seed=seeds), trajectory(there, N, seed=seeds))


def test_masks_and_disabled_autoreset(small_users: ProcessPopulation) -> None:
    """A mask whose users all lie with one worker, and one that crosses workers."""
    envs = [
        UserVectorEnv(
            N, world=world, slate_size=K, horizon=4, autoreset_mode=AutoresetMode.DISABLED
        )
        for world in (SMALL, housed(SMALL, small_users))
    ]
    slates = np.random.default_rng(0).integers(SMALL.n_items, size=(10, N, K))
    seen: list[list[np.ndarray]] = [[], []]
    for env, kept in zip(envs, seen, strict=True):
        env.reset(seed=1)
        for t, slate in enumerate(slates):
            observation, rewards, terminated, truncated, _ = env.step(slate)
            kept += [observation, rewards]
            if (terminated | truncated).any():
                kept.append(env.reset(options={"reset_mask": terminated | truncated})[0])
            if t in (1, 6):
                mask = np.isin(np.arange(N), [3] if t == 1 else [1, 255, 256, 299])
                kept.append(env.reset(options={"reset_mask": mask})[0])
    assert_equal(*seen)


def test_a_cascade_over_processes(small_users: ProcessPopulation) -> None:
    envs = [
        VectorCascadeWrapper(UserVectorEnv(N, world=world, slate_size=K, leaving=0.5))
        for world in (SMALL, housed(SMALL, small_users))
    ]
    picks = np.random.default_rng(0).integers(SMALL.n_items, size=(20, N))
    for env in envs:
        env.reset(seed=2)
    for pick in picks:
        one, other = (env.step(pick) for env in envs)
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("kind", ["small", "learned"])
def test_all_verbs_of_a_population(kind: str, request: Any) -> None:
    """Slates of another length, pools, probabilities, and choices that others made."""
    world: World = SMALL if kind == "small" else request.getfixturevalue("learned")
    there = request.getfixturevalue(f"{kind}_users")
    here = world.population(N)
    draws = np.random.default_rng(0)
    keys = draws.integers(0, 2**64, (6, N), dtype=np.uint64)
    slates = draws.permuted(np.tile(np.arange(8, dtype=np.int32), (N, 1)), axis=1)
    for users in (here, there):
        users.reset(keys[0])
    for t, width in enumerate((K, 5, 1, K), 1):
        active = draws.random(N) < 0.6 if t > 1 else None
        one, other = (users.step(slates[:, :width], keys[t], active) for users in (here, there))
        for name in ("places", "items", "utilities"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(here.states, there.states)
    for pools, k in ((slates, None), (slates[0], None), (slates[:, :6], 3)):
        # large pools are cut by their size: only the last bits depend on who stands beside a user
        np.testing.assert_allclose(here.utilities(pools, k), there.utilities(pools, k), atol=1e-5)
    for one, other in zip(here.probabilities(slates), there.probabilities(slates), strict=True):
        np.testing.assert_array_equal(one, other)
    if kind == "learned":
        for users in (here, there):
            users.follow(slates[:, :4], np.arange(N) % 5 - 1, np.arange(N) != 2)
        np.testing.assert_array_equal(here.states, there.states)
    assert not there.states.flags.writeable
    with pytest.raises(ConfigError, match="a slate holds item 99"):
        there.step(np.full((N, K), 99), keys[0])


def test_a_killed_worker_is_named_and_takes_the_others_with_it() -> None:
    env = UserVectorEnv(N, world=SMALL, slate_size=K, processes=2)
    env.reset(seed=1)
    pids = env.users.pids  # type: ignore[attr-defined]
    assert len(pids) == 2
    assert all(map(is_there, pids))
    slates = np.tile(np.arange(K), (N, 1))
    env.step(slates)
    os.kill(pids[1], signal.SIGKILL)
    assert gone(pids[1:])
    named = rf"worker 2 of 2 \(users 256 to 299\), process {pids[1]}, was ended by SIGKILL"
    with pytest.raises(WorkerError, match=named):
        env.step(slates)
    assert gone(pids, 0.0)
    with pytest.raises(WorkerError, match=r"have ended \(worker 2 of 2.*make a new environment"):
        env.step(slates)
    env.close()


def test_a_failure_in_a_worker_is_told_and_threads_are_shared_out() -> None:
    before = threads.get_threads()
    threads.set_threads(4)
    try:
        env = UserVectorEnv(N, world=FailingWorld(), slate_size=K, processes=2)
    finally:
        threads.set_threads(before)
    observation, _ = env.reset(seed=1)
    assert (observation[:, 0] == 2).all(), "four threads, two processes"
    slates = np.tile(np.arange(K), (N, 1))
    env.step(slates)
    pids = env.users.pids  # type: ignore[attr-defined]
    slates[0, 0] = 11
    named = r"worker 1 of 2 \(users 0 to 255\) failed: ValueError: the last item is poison"
    with pytest.raises(WorkerError, match=named) as told:
        env.step(slates)
    assert "worker_worlds.py" in str(told.value), "where it happened"
    assert gone(pids, 0.0)


def test_close_ends_the_workers_and_so_does_forgetting_them(small_users: ProcessPopulation) -> None:
    env, other = (UserVectorEnv(2, world=SMALL, slate_size=K, processes=1) for _ in range(2))
    pids, others = env.users.pids, other.users.pids  # type: ignore[attr-defined]
    env.close()
    env.close()
    assert gone(pids, 0.0)
    with pytest.raises(WorkerError, match="they were closed"):
        env.reset(seed=1)
    assert all(map(is_there, others))
    del other
    gc.collect()
    assert gone(others, 0.0)
    assert all(map(is_there, small_users.pids)), "others' workers are not touched"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"processes": 0},
            ConfigError,
            "processes is 0, a number from 1 to 2 is required: 300 users are shared",
        ),
        ({"processes": 3}, ConfigError, "processes is 3, a number from 1 to 2 is required"),
        (
            {"processes": 1, "world": LockedWorld()},
            ConfigError,
            "this LockedWorld cannot be sent to worker processes",
        ),
        (
            {"processes": 1, "world": BarrenWorld()},
            WorkerError,
            r"worker 1 of 1 \(users 0 to 299\) failed: ValueError: nobody",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        UserVectorEnv(N, **{"world": SMALL, **options})


def test_one_user_needs_no_processes() -> None:
    with pytest.raises(ConfigError, match="one user has no processes"):
        UserEnv(world=SMALL, processes=2)


SCRIPT = """
import sys, time
import gymnasium
import fastgaum

class Mine(fastgaum.worlds.true_world.TrueWorld):
    pass

def make():
    from fastgaum.logs.synthetic import SyntheticWorld
    world = Mine(SyntheticWorld(n_items=20))
    return gymnasium.make_vec("fastgaum/User-v0", num_envs=4, world=world, slate_size=2, processes=1)

def work():
    envs = make()
    envs.reset(seed=0)
    print(*envs.unwrapped.users.pids, flush=True)
    time.sleep(600)

{call}
"""


def script(folder: Path, call: str) -> Path:
    path = folder / "script.py"
    path.write_text("import fastgaum.worlds.true_world\n" + SCRIPT.format(call=call))
    return path


def test_workers_end_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    """A class of the script itself goes to the workers, as those of a notebook do."""
    path = script(tmp_path, "if __name__ == '__main__':\n    work()")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=env
    ) as caller:
        assert caller.stdout is not None
        pids = [int(pid) for pid in caller.stdout.readline().split()]
        assert len(pids) == 1
        assert is_there(pids[0])
        caller.kill()
    assert gone(pids)


def test_a_script_without_a_main_is_told_what_it_lacks(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script(tmp_path, "work()"))],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )
    assert done.returncode != 0
    assert "WorkerError: worker 1 of 1 (users 0 to 3)" in done.stderr
    assert "does its work below `if __name__ == '__main__':`" in done.stderr
