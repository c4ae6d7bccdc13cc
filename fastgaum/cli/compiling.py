"""Why the first command on a machine is slow to begin: kernels are compiled, and kept for all that
follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastgaum.cli.console import note


def kernel_cache() -> Path | None:
    """The folder of compiled kernels; None where there can be none, or where kernels run as plain
    Python."""
    from fastgaum.kernels import segments

    stats = getattr(segments.logsumexp, "stats", None)
    return Path(stats.cache_path) if stats is not None and stats.cache_path else None


def note_compiling() -> None:
    """Say that kernels will be compiled, if none is at hand: nothing else moves for as long as that
    takes."""
    cache = kernel_cache()
    if cache is not None and not any(cache.glob("*.nbc")):
        note("compiling kernels, once on this machine: half a minute, longer on a busy one")


@contextmanager
def noting_compilation() -> Iterator[None]:
    """Say the same, but when a first kernel is about to be compiled in this process: a refused
    input is one line alone."""
    try:
        from fastgaum.kernels import _cache
    except ImportError:  # numba's own cache is used then, as kernels/_jit.py says
        yield
        return
    _cache.before_compiling = note_compiling
    try:
        yield
    finally:
        _cache.before_compiling = None
