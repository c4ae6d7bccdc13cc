"""Two processes at once: two writers of one saved log leave one whole log.

The kernels' cache has its test in kernels/test_cache.py, downloads in logs/test_download.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fastgaum.logs.shard_writer import save_log
from fastgaum.logs.shards import load_log
from fastgaum.logs.synthetic import synthesise

SAVE = """
import sys
from fastgaum.logs.shard_writer import save_log
from fastgaum.logs.shards import load_log
log = load_log(sys.argv[1])
for _ in range(10):
    save_log(log, sys.argv[2], overwrite=True)
"""


def run(*commands: list[str]) -> None:
    """Run commands of this Python at the same time; each must end well."""
    started = [
        subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_processes_that_save_under_one_name_at_once_leave_one_whole_log(tmp_path: Path) -> None:
    logs = [synthesise(200, seed=seed)[0] for seed in (1, 2)]
    for number, log in enumerate(logs):
        save_log(log, tmp_path / str(number))
    run(*(["-c", SAVE, str(tmp_path / str(number)), str(tmp_path / "both")] for number in (0, 1)))
    assert load_log(tmp_path / "both").fingerprint in {log.fingerprint for log in logs}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "both"]
