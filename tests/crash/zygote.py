"""Commands as real processes that start at once: forked from a process that has imported FastGAUM
and run nothing, or else most random kills would hit an import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fastgaum.cli.app import main

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = (
    "cli.train",
    "cli.data",
    "logs.read",
    "logs.store",
    "features.fitting",
    "models.run_folder",
)
"""what these commands import as they run, so that each job need not"""
CONTEXT.set_forkserver_preload(
    [*(f"fastgaum.{module}" for module in PRELOADED), "scipy.optimize", "torch"]
)


class Zygote:
    """Starts the commands, and ends with them."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output.txt"
        """what the commands print"""
        self.processes: dict[int, ForkServerProcess] = {}
        forkserver.ensure_running()

    def start(self, *argv: str) -> int:
        """Start `fastgaum ARGV`; returns the process id."""
        process = CONTEXT.Process(target=_command, args=(argv, str(self.output)))
        process.start()
        assert process.pid is not None
        self.processes[process.pid] = process
        return process.pid

    def wait(self, pid: int) -> int:
        """Wait for a command's end; returns its exit code, or the negated number of the signal that
        killed it."""
        process = self.processes.pop(pid)
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def kill(self, pid: int) -> int:
        """SIGKILL to the command alone, not to processes it has started; returns its exit code."""
        self.processes[pid].kill()
        return self.wait(pid)

    def said(self) -> str:
        """What the commands have printed so far."""
        return self.output.read_text() if self.output.exists() else ""


def _command(argv: tuple[str, ...], output: str) -> None:
    import torch

    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore")
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    code = main(list(argv))
    sys.stdout.flush()
    os._exit(code)
