"""One process at a time in a folder, whatever became of the one before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastgaum.errors import OutputError
from fastgaum.locks import LOCK_FILE, folder_lock, require_free

HOLDER = """
import sys
from pathlib import Path
from fastgaum.locks import folder_lock

with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_refused_by_name_and_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    with holder(folder) as process:
        with pytest.raises(
            OutputError, match=rf"in use by process {process.pid} on '.+' since 20\d\d-"
        ):
            require_free(folder)
        with (
            pytest.raises(OutputError, match=f"in use by process {process.pid}"),
            folder_lock(folder),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = json.loads((folder / LOCK_FILE).read_text())
        assert left["pid"] == process.pid
        require_free(folder)
        with folder_lock(folder):
            assert json.loads((folder / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert list(folder.iterdir()) == []


def test_a_process_id_that_lives_on_is_no_lock(tmp_path: Path) -> None:
    """The line says who holds the lock; whether it is held is the kernel's word, so a reused id
    fools nobody."""
    line = {"pid": os.getppid(), "host": "here", "since": "2020-01-01T00:00:00+00:00"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(line))
    require_free(tmp_path)
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_what_was_made_for_the_lock_alone_goes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with folder_lock(folder):
        assert (folder / LOCK_FILE).is_file()
    assert list(tmp_path.iterdir()) == []
    with folder_lock(folder):
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_unreadable_owner_and_folder_that_cannot_be_made(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        (tmp_path / LOCK_FILE).write_bytes(b"\xff[")
        with pytest.raises(OutputError, match="in use by another process"):
            require_free(tmp_path)
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="Not a directory"),
        folder_lock(tmp_path / "file" / "run"),
    ):
        pass
