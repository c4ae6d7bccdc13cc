"""The commands that repeat a run and its figures."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from fastgaum.report.run import Run
from fastgaum.sessions.packed import SplitName


def commands(run: Run, split: SplitName) -> list[str]:
    """Lines for a shell, run in the folder that the report was made in: install, train again, evaluate.

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
    lines = [["pip", "install", f"fastgaum=={machine['versions']['fastgaum']}"]] if "versions" in machine else []
    lines += [train, ["fastgaum", "evaluate", again, log, "--split", split]]
    return [shlex.join(line) for line in lines]


def _shown(path: str) -> str:
    """Relative where it lies below the working folder: a page that is passed on need not tell whose home it was."""
    if os.path.isabs(path) and Path(path).is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    return path


def _option(key: str, value: object) -> list[str]:
    """One option of reading: `candidate_field: [a, b]` → --candidate-field a --candidate-field b."""
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, list):
        return [text for one in value for text in (name, str(one))]
    if value is True:
        return [name]
    return [name, _shown(str(value))]
