"""Running the races in a process of their own, through pytest on this folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastgaum.errors import ConfigError, FastgaumError, did_you_mean

FOLDER = Path(__file__).resolve().parent
PACKAGE = "fastgaum.bench"

# The checkout's or the user's own pytest settings do not apply: the races are run from here with
# these alone.
_SETTINGS = """[pytest]
python_files = bench_*.py
addopts = --import-mode=importlib --strict-markers -p no:cacheprovider
"""
# As `python -m pytest`, but the package is found wherever this process has found it, after
# everything installed.
_PYTEST = (
    "import sys; sys.path.append(sys.argv.pop(1)); import pytest; raise "
    "SystemExit(pytest.main(sys.argv[1:]))"
)
_PASSED, _SOME_FAILED = 0, 1


class BenchError(FastgaumError):
    """The races could not be run at all."""


def require_pytest() -> None:
    """Raise ConfigError if the extra that runs the races is not installed."""
    missing = [name for name in ("pytest", "pytest_benchmark") if find_spec(name) is None]
    if missing:
        needed = missing[0].replace("_", "-")
        raise ConfigError(
            f"the races need {needed}, which is not installed: pip install 'fastgaum[bench]'"
        )


def groups() -> dict[str, str]:
    """Every group's file, by its name, in the order in which they run.

    Raises:
        ConfigError: pytest or pytest-benchmark is not installed.
    """
    require_pytest()
    files = sorted(file.stem for file in FOLDER.glob("bench_*.py"))
    return {
        group: file
        for file in files
        for group in getattr(import_module(f"{PACKAGE}.{file}"), "GROUPS", ())
    }


def choose(names: Sequence[str]) -> tuple[str, ...]:
    """The groups that the names stand for: each a group, or the beginning of some (`lstm` is all
    that begin so).

    Raises:
        ConfigError: one is neither.
    """
    known = groups()
    chosen: dict[str, None] = {}
    for name in names:
        meant = [name] if name in known else [group for group in known if group.startswith(name)]
        if not meant:
            close = did_you_mean(name, [*known, *(group.partition("-")[0] for group in known)])
            raise ConfigError(
                f"no group of races '{name}'{close}; `fastgaum bench --list` names all"
            )
        chosen |= dict.fromkeys(meant)
    return tuple(chosen)


def run(
    names: Sequence[str], *, threads: int | None, smoke: bool, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Run the named groups, or all if none is named; return what was measured, and whether every
    result was right.

    Each line that pytest prints is passed to `say` as it comes.

    Raises:
        BenchError: pytest ended before it ran a race.
    """
    files = [FOLDER / f"{file}.py" for file in dict.fromkeys(groups()[name] for name in names)] or [
        FOLDER
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings, output = Path(folder) / "pytest.ini", Path(folder) / "races.json"
        settings.write_text(_SETTINGS)
        # conftest.py must be found before its options are parsed: that of a folder or file named
        # first is
        options = [
            f"--rootdir={FOLDER}",
            "-c",
            str(settings),
            f"--race-json={output}",
            "--benchmark-enable",
        ]
        options += [f"--race-group={name}" for name in names]
        options += ["--race-smoke"] if smoke else []
        options += [] if threads is None else [f"--race-threads={threads}"]
        code = _pytest([*map(str, files), *options, *_QUIETLY], say)
        if code not in (_PASSED, _SOME_FAILED) or not output.exists():
            raise BenchError(
                f"pytest ended with code {code} before any race was run; what it printed says why"
            )
        facts: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return facts, code == _PASSED


_QUIETLY = (
    "-v",
    "-rs",
    "--no-header",
    "--no-summary",
    "--tb=short",
    "--disable-warnings",
    "--benchmark-quiet",
)


def _pytest(arguments: Sequence[str], say: Callable[[str], None]) -> int:
    command = [sys.executable, "-u", "-c", _PYTEST, str(_home()), *arguments]
    # inside a test process of pytest-xdist, pytest-benchmark would take itself for one of its
    # workers and measure nothing
    alone = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=alone
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.strip():
                    say(line.rstrip())
        except BaseException:
            # interrupted, or nobody reads any more: the races must not go on alone
            process.terminate()
            raise
    return process.returncode


def _home() -> Path:
    """The folder that holds the package."""
    import fastgaum

    return Path(fastgaum.__file__).resolve().parents[1]
