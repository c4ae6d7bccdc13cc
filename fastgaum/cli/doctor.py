"""`fastgaum doctor`: what a bug report needs, and whether a training runs here."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from fastgaum.cli.options import DataDir, JsonFile
from fastgaum.cli.output import check_outputs, finish, say
from fastgaum.cli.progress import Bar, kernel_cache


def doctor_command(*, data_dir: DataDir = None, json: JsonFile = None) -> int:
    """Print versions and caches and run a self-check, for a bug report.

    Home folders and user names are left out. Exit code 1 if a check fails."""
    check_outputs(json)
    facts: dict[str, str] = {}

    def tell(name: str, text: str) -> None:
        facts[name.strip()] = text = unnamed(text)
        say(f"{name + ':':<19}{text}")

    for name, text in _facts(data_dir):
        tell(name, text)
    started, failed = time.perf_counter(), False
    try:
        with Bar("training"):
            train_shortly()
        verdict = f"ok ({time.perf_counter() - started:.1f} s)"
    # Whatever is wrong with this machine is what the command is asked for.
    except Exception as error:
        failed = True
        verdict = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    tell("training runs", verdict)
    finish("the check failed" if failed else "the check passed", json, facts)
    return int(failed)


def unnamed(text: str) -> str:
    """A text without the user's home folder and name."""
    for home in {str(Path.home()), str(Path.home().resolve())} - {"/"}:
        text = re.sub(rf"{re.escape(home)}(?=[/\s]|$)", "~", text)
    for name in filter(None, map(os.environ.get, ("USER", "LOGNAME", "USERNAME"))):
        # a part of a path: names like `root` or `cuda` are words elsewhere
        text = re.sub(rf"(?<=/){re.escape(name)}(?=[/\s]|$)", "USER", text)
    return text


def _facts(data_dir: Path | None) -> Iterator[tuple[str, str]]:
    from fastgaum.logs.datasets import data_folders, find_log, names
    from fastgaum.machine import machine_facts

    facts = machine_facts()
    versions = facts["versions"]
    yield "fastgaum", versions.pop("fastgaum")
    yield "python", facts["python"]
    yield from versions.items()
    yield "commit", facts["commit"] or "not a checkout"
    yield "system", facts["system"]
    yield "processor", f"{facts['processor']}, {facts['cores']} cores"
    yield "blas of kernels", facts["blas"] or "not scipy's own"
    yield "threads", str(facts["threads"])
    yield "cuda", facts["cuda"] or "none"
    cache = kernel_cache()
    n_kernels = len(list(cache.glob("*.nbc"))) if cache is not None else 0
    yield "kernel cache", "none" if cache is None else f"{cache}, {n_kernels} kernels"
    for folder in data_folders(data_dir):
        yield "data folder", f"{folder}{'' if folder.is_dir() else ' (absent)'}"
    for name in names():
        path = find_log(name, data_dir)
        yield f"  {name}", "absent" if path is None else str(path)


def train_shortly() -> None:
    """Train on a tiny synthetic log for an epoch."""
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.models.user_model import UserModel

    log, _ = synthesise(200, preset="sample")
    model = UserModel.from_preset("fastgaum", epochs=1, warm_start=1, device="cpu")
    model.fit(log)
    model.evaluate(log)
