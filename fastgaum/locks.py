"""One process at a time in a folder: filelock takes the kernel's lock on a file, which is gone
the moment its process is. The file says who holds it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from fastgaum.errors import OutputError
from fastgaum.untrusted import parse_json, read_text

LOCK_FILE = ".lock"
PAUSE = 0.1
"""seconds between two looks at a lock"""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, and removed if it was and is empty at the end.

    Raises:
        OutputError: another process holds it (it is named), or the folder cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with _held(folder / LOCK_FILE):
            yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def require_free(folder: Path) -> None:
    """Fail early: raise OutputError if another process holds the folder now."""
    if (folder / LOCK_FILE).exists():
        with _held(folder / LOCK_FILE):
            pass


@contextmanager
def name_lock(path: Path, waits: bool = True) -> Iterator[None]:
    """Be the only process that makes, or works at, `path`, which may not be there yet.

    Raises:
        OutputError: the folder of `path` cannot be written, or another process has the lock (it is
            named) and is not waited for.
    """
    with _held(path.with_name(f".{path.name}{LOCK_FILE}"), waits, path):
        yield


@contextmanager
def _held(file: Path, waits: bool = False, what: Path | None = None) -> Iterator[None]:
    what = what or file.parent
    # readable by all: the error of another account names the owner
    lock = FileLock(file, timeout=-1 if waits else 0, mode=0o644, poll_interval=PAUSE)
    try:
        while not lock.is_locked:
            file.parent.mkdir(parents=True, exist_ok=True)
            # its last owner may just have removed the folder
            with suppress(FileNotFoundError):
                lock.acquire()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        file.write_text(json.dumps(owner) + "\n", encoding="utf-8")
    except Timeout:
        raise OutputError(
            f"'{what}' is in use by {_owner(file)}: wait for it, end it, or choose another name"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot write '{file.parent}': {error.strerror or error}") from error
    try:
        yield
    finally:
        # removed while it is held: a process that opened it meanwhile sees that it has no name
        file.unlink(missing_ok=True)
        lock.release()


def _owner(file: Path) -> str:
    try:
        owner = parse_json(read_text(file))
        return f"process {owner['pid']} on '{owner['host']}' since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
