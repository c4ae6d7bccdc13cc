"""Compiled kernels stay on disk: numba's own cache, in a folder that is named by all that decides
what a kernel compiles to. Numba alone reads no folder that may not be written to, gives two entries
of two processes one number, and raises for a torn file or a full disk."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llvmlite  # type: ignore[import-untyped,unused-ignore]
import numba
import numpy as np
from filelock import FileLock
from llvmlite import binding
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.compiler_lock import global_compiler_lock

SOURCES = Path(__file__).parent
_SETTINGS = (
    *("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "DEBUGINFO_DEFAULT"),
    *("CPU_NAME", "CPU_FEATURES"),
)
"""of numba, from $NUMBA_…, that change the code of a kernel"""
MOST_SECONDS = 60.0


def _locator(function: object, file: str) -> SimpleNamespace:
    """Where numba keeps the kernels of a file: with all others. The folder's name says which
    sources these are, and a file has one kernel of a name: `str` returns nothing more."""
    place = folder() or Path()
    return SimpleNamespace(
        _py_file=file,
        get_cache_path=lambda: str(place),
        ensure_cache_path=lambda: place.mkdir(parents=True, exist_ok=True),
        get_source_stamp=str,
        get_disambiguator=str,
    )


class _Kernels(CompileResultCacheImpl):  # type: ignore[misc,unused-ignore]
    _locator_classes: Any = (SimpleNamespace(from_function=_locator),)


class KernelCache(FunctionCache):  # type: ignore[misc,unused-ignore]
    """Numba's cache of one kernel. What is not there is compiled by one process, for which the
    others wait."""

    _impl_class = _Kernels

    def __init__(self, function: Any) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call,unused-ignore]
        self._held = contextlib.ExitStack()
        self._lock_of: tuple[int, FileLock] | None = None

    @property
    def _lock(self) -> FileLock:
        """This process's own: no process can take one that it has by a fork."""
        process = os.getpid()
        if self._lock_of is None or self._lock_of[0] != process:
            path = Path(self.cache_path) / f"{self._impl.filename_base}.lock"
            # a process that was stopped is waited for no longer than this
            self._lock_of = process, FileLock(path, timeout=MOST_SECONDS)
        return self._lock_of[1]

    def once(self, compile_kernel: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What loads or compiles a signature, without collecting garbage, which takes a quarter as
        long again."""

        def compile_once(signature: Any) -> Any:
            with global_compiler_lock, self._held, _no_collection():
                return compile_kernel(signature)

        return compile_once

    def is_empty(self) -> bool:
        """Whether no process has kept this kernel."""
        return not Path(self._cache_file._index_path).exists()

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """A compiled kernel, or None if it is not there or cannot be read."""
        found = self._load(signature, target_context)
        if found is None:
            # where no lock can be had, there is always the compiler
            with contextlib.suppress(OSError, NotImplementedError):
                self._impl.locator.ensure_cache_path()
                self._held.enter_context(self._lock)
                found = self._load(signature, target_context)
        return found

    def _load(self, signature: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(signature, target_context)  # type: ignore[no-untyped-call,unused-ignore]
        # a file may be torn, another user's, or gone a moment ago
        except Exception:
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call,unused-ignore]
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a compiled kernel, unless its sources were edited since this process read them."""
        if key_of_sources() != key():
            return
        try:
            self._impl.locator.ensure_cache_path()
            with self._lock:
                super().save_overload(signature, compiled)  # type: ignore[no-untyped-call,unused-ignore]
        # a full disk or a folder that may not be written to ends no training
        except (OSError, NotImplementedError) as error:
            _warn_once(self.cache_path, getattr(error, "strerror", None) or str(error))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def folder() -> Path | None:
    """$NUMBA_CACHE_DIR/fastgaum/KEY, or else $XDG_CACHE_HOME/fastgaum/kernels/KEY, by default in
    ~/.cache; None without a home folder, or where the sources lie in an archive."""
    chosen, user = getattr(numba.config, "CACHE_DIR", ""), os.environ.get("XDG_CACHE_HOME", "")
    # the XDG rule: a relative path is to be ignored
    caches = Path(user if os.path.isabs(user) else os.path.expanduser("~/.cache"))
    if not SOURCES.is_dir() or not (chosen or os.path.isabs(user) or caches.parent.is_dir()):
        return None
    return (Path(chosen) / "fastgaum" if chosen else caches / "fastgaum" / "kernels") / key()


def key_of_sources() -> str:
    """A hash of whatever decides what a kernel compiles to, 16 hexadecimal digits: sources,
    versions, settings and the processor."""
    settings = [getattr(numba.config, name, None) for name in _SETTINGS]
    versions = sys.version, np.__version__, numba.__version__, llvmlite.__version__
    processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    files = [(file.name, file.read_bytes()) for file in sorted(SOURCES.glob("*.py"))]
    return hashlib.sha256(repr((versions, settings, processor, files)).encode()).hexdigest()[:16]


key = cache(key_of_sources)
"""the hash when the first kernel was defined"""


@cache
def _warn_once(place: str, reason: str) -> None:
    warnings.warn(
        f"compiled kernels cannot be kept in '{place}' ({reason}): each process compiles its own, "
        "which takes seconds; set NUMBA_CACHE_DIR to a folder that may be written to",
        RuntimeWarning,
        stacklevel=2,
    )
