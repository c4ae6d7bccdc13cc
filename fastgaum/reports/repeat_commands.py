"""The commands that repeat a run and its figures."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgaum.logs.log import SplitName
from fastgaum.reports.opened_run import Run


def commands(run: Run, split: SplitName) -> list[str]:
    """Lines for a shell: install, in a checkout where the run came from one; train again and
    evaluate, where the report was made.

    Training starts from the run's resolved configuration, in which a search has been decided.
    """
    machine = run.machine
    log = _shown(machine["log"].get("source") or machine["log"].get("name", "LOG"))
    folder = _shown(str(run.folder.absolute()))
    again = f"{folder}-again"
    reading = [text for key, value in run.reading.items() for text in _option(key, value)]
    train = ["fastgaum", "train", log, "-o", again, "--config", f"{folder}/config.toml", *reading]
    if machine.get("threads"):
        train += ["--threads", str(machine["threads"])]
    evaluate = ["fastgaum", "evaluate", again, log, "--split", split]
    return [_install(machine), shlex.join(train), shlex.join(evaluate)]


def _install(machine: Mapping[str, Any]) -> str:
    if machine.get("commit"):
        return f"git checkout {shlex.quote(machine['commit'])} && pip install ."
    version = machine.get("versions", {}).get("fastgaum")
    return f"pip install {shlex.quote(f'fastgaum=={version}' if version else 'fastgaum')}"


def _shown(path: str) -> str:
    """Relative where it lies below the working folder: a page that is passed on need not tell whose
    home it was."""
    if os.path.isabs(path) and Path(path).is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    return path


def _option(key: str, value: object) -> list[str]:
    """One option of reading: `candidate_field: [a, b]` → --candidate-field a --candidate-field
    b."""
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, list):
        return [text for one in value for text in (name, str(one))]
    if value is True:
        return [name]
    return [name, _shown(str(value))]
