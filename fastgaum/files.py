"""Writing files so that a reader sees the previous state or the next, never a half."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from fastgaum.errors import OutputError, require_path

_T = TypeVar("_T")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a path beside the target to write to; rename it into place on success, remove it on
    failure. A symbolic link stays, and the file that it leads to is written.

    Raises:
        ConfigError: the name is one that no file can have.
        OutputError: the folder is missing, not writable, or full, or the target is no file.
    """
    _beside(Path(path))
    target = Path(os.path.realpath(path))
    beside = _beside(target)
    if target.is_symlink() or (target.exists() and not target.is_file()):
        what = "a folder" if target.is_dir() else "a device, a pipe or a link to itself"
        raise OutputError(f"cannot write '{path}': it is {what}, give the name of a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with open(beside, "rb") as file:
            sync_file(file)
        # some writers make private files, and a result is as readable as any other file
        mask = os.umask(0o077)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)
        os.replace(beside, target)
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write '{target}': {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _beside(target: Path) -> Path:
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    require_path("an output", beside)
    return beside


def read_whole(path: Path, read: Callable[[], _T]) -> _T:
    """What `read` makes of a file, again where `atomic` replaced it meanwhile: safetensors opens a
    path twice."""
    while True:
        before = _identity(path)
        try:
            result = read()
        except Exception:
            if _identity(path) == before:
                raise
        else:
            if _identity(path) == before:
                return result


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def sync_file(file: IO[bytes]) -> None:
    """Make the contents of an open file survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def require_writable(path: str | Path) -> None:
    """Fail early unless the nearest existing folder above `path` is writable.

    Raises:
        ConfigError: the name is one that no file can have.
        OutputError: naming the folder.
    """
    folder = Path(path).absolute()
    if folder.name:
        _beside(folder)
    if folder.is_file():
        folder = folder.parent
    while not folder.exists():
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise OutputError(
            f"cannot write '{path}': '{folder}' is not a folder you may write to; choose another "
            "output"
        )
