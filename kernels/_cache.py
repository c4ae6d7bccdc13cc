"""Compiled kernels are kept in the user's cache: one folder per state of the sources, one entry per
compiled signature.

Numba's own cache (`cache=True`) will not do, not even in a folder of ours: an entry that a crash
cut short raises in the user's process; a filled folder that may be read but not written is not
read; and its index numbers entries, so that two processes which start on an empty cache can give
two signatures the same number. Here

- the folder's name is a hash of every kernel file, of Python, numpy, numba and llvmlite, and of
  what else changes code;
- an entry's name is a hash of the signature and of the processor: every process that writes it
  writes the same, by renaming;
- what cannot be read is compiled anew, what cannot be written stays in memory, with one warning per
  process;
- the folders used last are kept, older ones are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped,unused-ignore]
import numba
import numpy as np
from numba.core.caching import IndexDataCacheFile
from numba.core.compiler import CompileResult

KEPT = 8
"""how many states of the sources are kept"""
CLAIM_SECONDS = 600.0
"""how long a claim counts: no kernel takes so long to compile"""
SOURCES = Path(__file__).parent
_NAME = re.compile("[0-9a-f]{16}")
_SETTINGS = (
    "OPT",
    "BOUNDSCHECK",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "ENABLE_AVX",
    "DEBUGINFO_DEFAULT",
)
"""numba settings, from $NUMBA_…, that change the code of a kernel"""


before_compiling: Callable[[], None] | None = None
"""called before a kernel is compiled because the cache does not hold it, once"""


def _tell() -> None:
    global before_compiling
    told, before_compiling = before_compiling, None
    if told is not None:
        told()


class KernelCache:
    """What numba's dispatcher asks of a cache, for one kernel (numba.core.caching._Cache)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._key = key()

    @property
    def cache_path(self) -> str:
        """The folder that holds this kernel's entries; empty if there can be none."""
        return str(folder() or "")

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return a compiled kernel, or None if it is not there or cannot be read."""
        target_context.refresh()
        try:
            entry, name = self._entry(signature, target_context.codegen())
            found = entry.load(name)
            if found is None:
                _tell()
                return None
            _mark_used()
            return CompileResult._rebuild(target_context, *found)
        # A file may be torn, another user's, or gone a moment ago: there is always the compiler.
        except Exception:
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a compiled kernel. One that depends on addresses in this process, or on sources
        edited since, is not kept."""
        try:
            if compiled.library.has_dynamic_globals or key_of_sources() != self._key:
                return
            _make()
            entry, name = self._entry(signature, compiled.codegen)
            # `save` reads the index first, which may be what is damaged
            entry.flush()
            entry.save(name, compiled._reduce())
        # A full disk or a folder that may not be written to ends no training.
        except Exception as error:
            _warn_once(
                folder(), str(getattr(error, "strerror", None) or error or type(error).__name__)
            )

    def flush(self) -> None:
        """Nothing to do: the folder's name changes with the sources."""

    def enable(self) -> None:
        """Nothing to do: always enabled."""

    def disable(self) -> None:
        """Nothing to do: always enabled."""

    def _entry(self, signature: Any, codegen: Any) -> tuple[Any, str]:
        """A numba index of this signature alone, on this processor, and the one key in it."""
        home = folder()
        if home is None:
            raise OSError("no home folder, or no kernel sources beside this file")
        name = repr((str(signature), codegen.magic_tuple()))
        base = f"{self._name}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return IndexDataCacheFile(str(home), base, self._key), name


@contextlib.contextmanager
def claimed(kernel: str) -> Iterator[bool]:
    """Claim a kernel, "module.function", within. Yields whether it is to be compiled here: the
    folder holds no entry of it, and no other process has claimed it.

    A process that is killed leaves its claim, which counts for `CLAIM_SECONDS`. That says more than
    a process id, which may be another process's by now, or of another machine that shares the
    folder. Two processes that have both claimed a kernel write the same entry twice, no more."""
    home = folder()
    if home is None or not _claim(home, kernel):
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            _claim_file(home, kernel).unlink()


def _claim(home: Path, kernel: str) -> bool:
    """False also where the folder cannot be written to."""
    if getattr(numba.config, "DISABLE_JIT", False):
        return False
    file = _claim_file(home, kernel)
    try:
        if home.is_dir() and any(home.glob(f"{kernel}-*")):
            return False
        _make()
        with contextlib.suppress(FileNotFoundError):
            # a clock that was wrong may have dated it after now
            if abs(time.time() - file.stat().st_mtime) > CLAIM_SECONDS:
                file.unlink()
        file.touch(exist_ok=False)
    except OSError:
        return False
    return True


def _claim_file(home: Path, kernel: str) -> Path:
    return home / f"{kernel}.claimed"


def root() -> Path | None:
    """Where folders of compiled kernels stand; None if the user has no home, or one that is not
    there: it is not for a cache to make it.

    $NUMBA_CACHE_DIR/fastgaum, or else $XDG_CACHE_HOME/fastgaum/kernels, by default
    ~/.cache/fastgaum/kernels."""
    chosen = getattr(numba.config, "CACHE_DIR", "")
    if chosen:
        return Path(chosen) / "fastgaum"
    user = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rule: a relative path is to be ignored.
    if os.path.isabs(user):
        return Path(user) / "fastgaum" / "kernels"
    try:
        home = Path("~").expanduser()
    except RuntimeError:
        return None
    return home / ".cache" / "fastgaum" / "kernels" if home.is_dir() else None


def folder() -> Path | None:
    """The folder of the sources as they were when this process started; None if there can be
    none."""
    place = root()
    return place / key() if place is not None and key() else None


@cache
def key() -> str:
    """`key_of_sources` as it was when the first kernel was defined."""
    return key_of_sources()


def key_of_sources() -> str:
    """Hash of whatever decides what a kernel compiles to, the processor excepted: 16 hexadecimal
    digits.

    Empty if the sources cannot be read (from an archive, say): nothing would tell their versions
    apart."""
    settings = [getattr(numba.config, name, None) for name in _SETTINGS]
    versions = sys.version, np.__version__, numba.__version__, llvmlite.__version__
    digest = hashlib.sha256(repr((versions, settings)).encode())
    try:
        contents = [(file.name, file.read_bytes()) for file in sorted(SOURCES.glob("*.py"))]
    except OSError:
        return ""
    for name, content in contents:
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16] if contents else ""


def _make() -> None:
    """Make the folder, and remove those used longest ago."""
    home = folder()
    if home is None or home.is_dir():
        return
    home.mkdir(parents=True, exist_ok=True)
    others = [path for path in home.parent.iterdir() if path != home and _NAME.fullmatch(path.name)]
    for path in sorted(others, key=_last_used)[: -(KEPT - 1)]:
        shutil.rmtree(path, ignore_errors=True)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        # another process removed it
        return 0.0


@cache
def _mark_used() -> None:
    # a folder that is shared read-only is not ours to mark
    with contextlib.suppress(OSError):
        os.utime(folder() or "")


@cache
def _warn_once(place: Path | None, reason: str) -> None:
    warnings.warn(
        f"compiled kernels cannot be kept in '{place}' ({reason}): each process will compile its "
        "own, which takes seconds;"
        " set NUMBA_CACHE_DIR to a folder that may be written to",
        RuntimeWarning,
        stacklevel=2,
    )
