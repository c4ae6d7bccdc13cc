"""Forked processes. A fork takes no threads along: where polars has begun threads before, a forked
process that uses polars waits for ever, and is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fastgaum.errors import ConfigError

_TASKS = Path("/proc/self/task")
"""a folder for each thread of this process, on Linux"""
_POOL = re.compile(r"polars-\d+\n")
_has_begun = _is_lost = False


def require_threads() -> None:
    """Raise ConfigError in a process that was forked from one whose threads it would wait for."""
    if _is_lost:
        raise ConfigError(
            "this process was forked from one that had used polars. A fork takes no threads along, "
            "and this process would wait for them for ever: begin it by "
            'multiprocessing.get_context("spawn")'
        )


def _look() -> None:
    global _has_begun
    try:
        _has_begun = any(_POOL.fullmatch((one / "comm").read_text()) for one in _TASKS.iterdir())
    except OSError:
        # no such folder, or a thread that has just ended: nothing is known
        _has_begun = False


def _note() -> None:
    global _is_lost
    _is_lost = _is_lost or _has_begun


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_look, after_in_child=_note)
