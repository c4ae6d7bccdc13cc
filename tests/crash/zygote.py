"""Commands as real processes that start at once: forked from a process that has imported FastGAUM
and run nothing.

A process of its own for each command takes seconds to import, so that most random kills would hit
an import."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

_SERVER = """
import json, os, signal, sys
import fastgaum.cli.app, fastgaum.cli.train, fastgaum.cli.data, fastgaum.cli.reproduce
import fastgaum.models.run_folder, fastgaum.reports.reproduce, fastgaum.worlds.truth
from fastgaum.logs import registry

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        out = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        import torch
        torch.set_num_threads(1)
        if order["registry"] is not None:
            entries = registry.parse_registry(order["registry"])
            registry._registry = lambda: entries
        code = fastgaum.cli.app.main(order["argv"])
        sys.stdout.flush()
        os._exit(code)
    print(child, flush=True)
"""


class Zygote:
    """The process that the commands are forked from; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output.txt"
        """what the commands print"""
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(600)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def start(self, *argv: str, registry: str | None = None) -> int:
        """Start `fastgaum ARGV`, with a registry of data sets of its own if need be; returns the
        process id."""
        return int(self._ask(argv=argv, output=str(self.output), registry=registry))

    def wait(self, pid: int) -> int:
        """Wait for a command's end; returns its exit code, or the negated number of the signal that
        killed it."""
        return int(self._ask(wait=pid))

    def run(self, *argv: str, registry: str | None = None) -> int:
        """Run a command to its end."""
        return self.wait(self.start(*argv, registry=registry))

    def kill(self, pid: int) -> int:
        """SIGKILL to the command alone, not to processes it has started; returns its exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def said(self) -> str:
        """What the commands have printed so far."""
        return self.output.read_text() if self.output.exists() else ""

    def _ask(self, **order: object) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()
