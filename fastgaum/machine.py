"""The machine: its devices, and the facts that repeat a figure."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta

from fastgaum.errors import ConfigError
from fastgaum.threads import kernel_blas

Amount = Annotated[int, Meta(ge=0, le=1 << 62)]
_BLAS = ("internal_api", "version", "architecture")
Seconds = Annotated[float, Meta(ge=0, le=1e12)]


class LogRecord(msgspec.Struct):
    """A log, as a run's machine.json has it."""

    fingerprint: str
    name: str | None = None
    source: str | None = None


class CostRecord(msgspec.Struct):
    """Its record of a fit that has ended."""

    seconds: Seconds
    peak_memory_bytes: Amount | None
    peak_card_memory_bytes: Amount | None


class MachineRecord(msgspec.Struct):
    """The part of machine.json that a report reads."""

    log: LogRecord
    cost: CostRecord | None = None
    python: str = "of an unknown version"
    system: str = "unknown system"
    processor: str | None = None
    cuda: str | None = None
    commit: str | None = None
    cores: Amount | None = None
    threads: Amount | None = None
    versions: dict[str, str] = {}


def checked_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The values of a machine.json, with defaults. Raises ValueError, naming the place, where
    one is of another type or size."""
    known: dict[str, Any] = msgspec.to_builtins(msgspec.convert(facts, MachineRecord))
    return known | facts


def device_of(name: str) -> torch.device:
    """The device of that name; auto = the card where one is at hand. Raises ConfigError for an
    absent one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device '{name}': use cpu, cuda or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for and no card is at hand: use cpu or auto")
    return device


def machine_facts(seed: int | None = None) -> dict[str, Any]:
    """What repeats a figure: the command, versions, threads, processor, commit and seed."""
    program = Path(sys.argv[0]).name
    blas = [library.info() for library in kernel_blas()]
    packages = ("fastgaum", "torch", "numba", "numpy", "scipy", "polars")
    return {
        "argv": ["fastgaum" if program == "__main__.py" else program, *sys.argv[1:]],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _line_of("/proc/cpuinfo", "model name") or platform.processor(),
        # its architecture too: an older release may take the processor for another
        "blas": " ".join(str(blas[0][key]) for key in _BLAS) if blas else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: _version(name) for name in packages},
        "commit": _commit(),
        "seed": seed,
    }


def peak_memory() -> dict[str, int | None]:
    """Most memory that the process, and the card, have held so far, in bytes."""
    said = _line_of("/proc/self/status", "VmHWM")
    card = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    host = int(said.split()[0]) * 1024 if said else None
    return {"peak_memory_bytes": host, "peak_card_memory_bytes": card}


def _line_of(file: str, name: str) -> str | None:
    with suppress(OSError):
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            if line.partition(":")[0].strip() == name:
                return line.partition(":")[2].strip()
    return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
