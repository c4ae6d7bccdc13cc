"""What polars prints when it panics, held back from stderr: the error that it raises says enough.

Rust prints it on file descriptor 2 itself. While polars reads, what comes there passes a thread
that leaves panics out; Python's own sys.stderr writes past it, to where it wrote before."""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_PANIC = re.compile(rb"thread '.*' .*panicked at ")
_STDERR = 2
_lock = threading.Lock()
_n_readers = 0
_direct: TextIO | None = None
"""sys.stderr meanwhile, kept open for those who still hold it later"""
_passing: tuple[threading.Thread, int, TextIO | None] | None = None
"""the thread, the true stderr's descriptor, and Python's own stderr if it writes there"""


@contextmanager
def without_panics() -> Iterator[None]:
    """Leave the text of panics out of stderr. Readers on several threads share one passage."""
    global _n_readers
    with _lock:
        _n_readers += 1
        if _n_readers == 1:
            # a process without a stderr has none to keep clean
            with suppress(OSError, ValueError):
                _begin()
    try:
        yield
    finally:
        with _lock:
            _n_readers -= 1
            if _n_readers == 0:
                _end()


def _begin() -> None:
    global _direct, _passing
    true = os.dup(_STDERR)
    come, go = os.pipe()
    os.set_inheritable(true, False)
    own = sys.stderr if _writes_to_stderr(sys.stderr) else None
    if own is not None:
        own.flush()
        if _direct is None:
            _direct = open(  # noqa: SIM115
                os.dup(true), "w", buffering=1, encoding=own.encoding, errors=own.errors
            )
        else:
            os.dup2(true, _direct.fileno(), inheritable=False)
        sys.stderr = _direct
    os.dup2(go, _STDERR)
    os.close(go)
    thread = threading.Thread(target=_pass, args=(come, os.dup(true)), daemon=True)
    thread.start()
    _passing = (thread, true, own)


def _end() -> None:
    global _passing
    if _passing is None:
        return
    (thread, true, own), _passing = _passing, None
    if _direct is not None:
        _direct.flush()
    os.dup2(true, _STDERR)
    os.close(true)
    if own is not None and sys.stderr is _direct:
        sys.stderr = own
    # a process that was begun meanwhile may hold the pipe: the thread goes on for it, and passes
    # what is left when this process ends
    thread.join(1)
    if thread.is_alive():
        atexit.register(thread.join, 1)


def _writes_to_stderr(file: TextIO | None) -> bool:
    with suppress(AttributeError, OSError, ValueError):
        return file is not None and file.fileno() == _STDERR
    return False


def _pass(come: int, go: int) -> None:
    """Write on what comes, line by line, up to a panic; nothing tells where one ends."""
    with open(come, "rb") as lines, open(go, "wb", buffering=0) as out:
        blank, panics = b"", False
        for line in lines:
            panics = panics or _PANIC.match(line) is not None
            if panics:
                continue
            if line == b"\n":
                # a panic begins with an empty line
                blank += line
                continue
            out.write(blank + line)
            blank = b""
        if not panics:
            out.write(blank)
