"""One process at a time in a folder that is being written.

The lock is the kernel's (flock on a file in the folder): it is gone the moment its process is,
however that ended. So there is no stale lock: a file that a killed process left behind is not
locked, and the next process takes it over."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from fastgaum.errors import OutputError
from fastgaum.untrusted import parse_json

LOCK_FILE = ".lock"
PAUSE = 0.1
"""seconds between two looks at whether a lock that is waited for is free"""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""what a file system without locks answers; there, nobody is kept out"""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be; a folder that was made and is still empty at the end
    is removed again.

    Raises:
        OutputError: another process holds it (it is named), or the folder cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    file = folder / LOCK_FILE
    try:
        held = _acquire(file)
    except OSError as error:
        raise OutputError(f"cannot write '{folder}': {error.strerror or error}") from error
    try:
        yield
    finally:
        # removed while it is held: who opened it meanwhile sees that it is no longer the file of
        # that name
        file.unlink(missing_ok=True)
        os.close(held)
        with suppress(OSError):
            for path in made:
                path.rmdir()


def require_free(folder: Path) -> None:
    """Fail early: raise OutputError if another process holds the folder now."""
    try:
        opened = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _lock(opened, folder)
    finally:
        os.close(opened)


@contextmanager
def name_lock(path: Path) -> Iterator[None]:
    """Be the only process that makes `path`, a file or a folder: waits, however long, for one that
    is at it already.

    Raises:
        OutputError: the folder of `path` cannot be written.
    """
    file = path.with_name(f".{path.name}{LOCK_FILE}")
    while True:
        try:
            held = _acquire(file)
        except OutputError:
            time.sleep(PAUSE)
            continue
        except OSError as error:
            raise OutputError(f"cannot write '{file.parent}': {error.strerror or error}") from error
        break
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(held)


def _acquire(file: Path) -> int:
    """An open, locked descriptor of the file of that name."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            # its last owner has just removed the folder
            continue
        try:
            _lock(opened, file.parent)
            if _is_named(opened, file):
                os.ftruncate(opened, 0)
                os.write(opened, _owner().encode())
                return opened
        except BaseException:
            os.close(opened)
            raise
        os.close(opened)


def _lock(opened: int, folder: Path) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(
            f"'{folder}' is in use by {_named(os.pread(opened, 4096, 0))}: wait for it, end it, or "
            "choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _is_named(opened: int, file: Path) -> bool:
    """Whether the descriptor's file is still the one of that name: its last owner may have removed
    it."""
    try:
        return os.path.samestat(os.fstat(opened), os.stat(file))
    except FileNotFoundError:
        return False


def _owner() -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}) + "\n"


def _named(line: bytes) -> str:
    """An owner's line in words; it is unreadable for the moment between taking the lock and writing
    it."""
    try:
        owner = parse_json(line)
        return f"process {owner['pid']} on '{owner['host']}' since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
