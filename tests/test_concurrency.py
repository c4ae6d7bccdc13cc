"""Two processes at once: two writers of one saved log leave one whole log. Two fits on two threads:
each is its seed's.

The kernels' cache has its test in kernels/test_cache.py, downloads in logs/test_download.py.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fastgaum.logs.store import load_log, save_log
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.state_file import split_state
from fastgaum.threads import get_threads, one_thread
from tests.builders import random_log

SAVE = """
import sys
from fastgaum.logs.store import load_log, save_log
log = load_log(sys.argv[1])
for _ in range(10):
    save_log(log, sys.argv[2], overwrite=True)
"""


def test_processes_that_save_under_one_name_at_once_leave_one_whole_log(tmp_path: Path) -> None:
    logs = [synthesise(200, seed=seed)[0] for seed in (1, 2)]
    for number, log in enumerate(logs):
        save_log(log, tmp_path / str(number))
    command = [sys.executable, "-c", SAVE]
    started = [
        subprocess.Popen([*command, tmp_path / number, tmp_path / "both"]) for number in ("0", "1")
    ]
    assert [process.wait(120) for process in started] == [0, 0]
    assert load_log(tmp_path / "both").fingerprint in {log.fingerprint for log in logs}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "both"]


def weights_of(model: UserModel) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in split_state(model.state())[1].items()}


def test_fits_on_two_threads_are_those_in_turn() -> None:
    """Networks draw their first weights and what they drop from torch's one random stream."""
    log = random_log(3)

    def made() -> list[UserModel]:
        own = {"device": "cpu", "epochs": 2}
        return [UserModel.from_preset("paper-lstm", seed=seed, **own) for seed in (1, 2)]

    torch.manual_seed(5)
    before = torch.get_rng_state()
    in_turn, at_once = made(), made()
    for model in in_turn:
        model.fit(log)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda model: model.fit(log), at_once))
    assert [weights_of(model) for model in at_once] == [weights_of(model) for model in in_turn]
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_that_ask_for_one_thread_at_once_leave_what_was_set() -> None:
    """The first leaves before the second does."""
    before, inside, leave = get_threads(), threading.Event(), threading.Event()

    def other() -> None:
        with one_thread():
            inside.set()
            leave.wait(60)

    torch.set_num_threads(3)
    try:
        thread = threading.Thread(target=other)
        with one_thread():
            thread.start()
            inside.wait(60)
            assert get_threads() == 1
        assert get_threads() == 3
        leave.set()
        thread.join(60)
        found: list[int] = []
        # a thread takes the number that was set last
        late = threading.Thread(target=lambda: found.append(get_threads()))
        late.start()
        late.join(60)
        assert found == [3]
    finally:
        torch.set_num_threads(before)


FORKS = """
import os, sys
import polars as pl
import fastgaum as fg
from fastgaum.errors import ConfigError
from fastgaum.logs.log import require_log

frame = pl.DataFrame({"session": [1, 1], "event": [1, 1], "item": [1, 2], "chosen": [0, 1]})
log = fg.read_log(frame)
child = os.fork()
if child == 0:
    refused = 0
    for use in (lambda: fg.read_log(frame), lambda: require_log(log)):
        try:
            use()
        except ConfigError as error:
            refused += "spawn" in str(error)
    os._exit(0 if refused == 2 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are seen on Linux alone")
def test_a_forked_process_says_what_it_would_wait_for() -> None:
    """Every fit and every scoring asks for its log first."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    subprocess.run(command, check=True, timeout=60)
