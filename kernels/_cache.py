"""Compiled kernels stay on disk: numba's own cache, in a folder that is named by all that decides
what a kernel compiles to.

An entry that cannot be read is compiled anew. One that cannot be written stays in memory, with one
warning per process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped,unused-ignore]
import numba
import numpy as np
from filelock import FileLock
from llvmlite import binding
from numba.core.caching import CompileResultCacheImpl, FunctionCache

SOURCES = Path(__file__).parent
_SETTINGS = (
    "OPT",
    "BOUNDSCHECK",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "ENABLE_AVX",
    "DEBUGINFO_DEFAULT",
    "CPU_NAME",
    "CPU_FEATURES",
)
"""numba settings, from $NUMBA_…, that change the code of a kernel"""

before_compiling: Callable[[], None] | None = None
"""called once, before the first kernel is compiled that the cache does not hold"""


class _OneFolder:
    """Numba's locator of a cache: the entries of all kernels lie in `folder()`."""

    def __init__(self, file: str) -> None:
        self._py_file = file
        self._folder = folder() or Path()

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _OneFolder:
        """The locator; the folder is made when a first kernel is kept."""
        return cls(file)

    def get_cache_path(self) -> str:
        """The folder."""
        return str(self._folder)

    def ensure_cache_path(self) -> None:
        """Make the folder. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_source_stamp(self) -> str:
        """Return nothing more: the folder's name says which sources these are."""
        return ""

    def get_disambiguator(self) -> str:
        """Return nothing more: a file has one kernel of a name."""
        return ""


class _Kernels(CompileResultCacheImpl):  # type: ignore[misc,unused-ignore]
    _locator_classes: list[Any] = [_OneFolder]  # noqa: RUF012


class KernelCache(FunctionCache):  # type: ignore[misc,unused-ignore]
    """Numba's cache of one kernel."""

    _impl_class = _Kernels

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """A compiled kernel, or None if it is not there or cannot be read."""
        global before_compiling
        try:
            found = super().load_overload(signature, target_context)  # type: ignore[no-untyped-call,unused-ignore]
        # a file may be torn, another user's, or gone a moment ago: there is always the compiler
        except Exception:
            found = None
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call,unused-ignore]
        if found is None and before_compiling is not None:
            tell, before_compiling = before_compiling, None
            tell()
        return found

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a compiled kernel, unless its sources were edited since this process read them."""
        if key_of_sources() != key():
            return
        try:
            self._impl.locator.ensure_cache_path()
            # an index numbers its entries: two processes would give two signatures one number
            with FileLock(Path(self.cache_path) / "lock"):
                super().save_overload(signature, compiled)  # type: ignore[no-untyped-call,unused-ignore]
        # a full disk or a folder that may not be written to ends no training
        except (OSError, NotImplementedError) as error:
            _warn_once(self.cache_path, getattr(error, "strerror", None) or str(error))


def folder() -> Path | None:
    """The folder of the sources as they were when this process started, or None without a home
    folder, or where the sources lie in an archive: $NUMBA_CACHE_DIR/fastgaum/KEY, or else
    $XDG_CACHE_HOME/fastgaum/kernels/KEY, by default in ~/.cache."""
    if not SOURCES.is_dir():
        return None
    chosen, user = getattr(numba.config, "CACHE_DIR", ""), os.environ.get("XDG_CACHE_HOME", "")
    if chosen:
        return Path(chosen) / "fastgaum" / key()
    # the XDG rule: a relative path is to be ignored
    if os.path.isabs(user):
        return Path(user) / "fastgaum" / "kernels" / key()
    home = Path(os.path.expanduser("~"))
    return home / ".cache" / "fastgaum" / "kernels" / key() if home.is_dir() else None


@cache
def key() -> str:
    """Return `key_of_sources` as it was when the first kernel was defined."""
    return key_of_sources()


def key_of_sources() -> str:
    """A hash of whatever decides what a kernel compiles to, 16 hexadecimal digits: sources,
    versions, settings and the processor."""
    settings = [getattr(numba.config, name, None) for name in _SETTINGS]
    versions = sys.version, np.__version__, numba.__version__, llvmlite.__version__
    processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    digest = hashlib.sha256(repr((versions, settings, processor)).encode())
    for file in sorted(SOURCES.glob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


@cache
def _warn_once(place: str, reason: str) -> None:
    warnings.warn(
        f"compiled kernels cannot be kept in '{place}' ({reason}): each process will compile "
        "its own, which takes seconds;"
        " set NUMBA_CACHE_DIR to a folder that may be written to",
        RuntimeWarning,
        stacklevel=2,
    )
