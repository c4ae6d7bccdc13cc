"""`fastgaum doctor`: what a bug report needs, and whether a kernel compiles and autograd works
here."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from fastgaum.cli.options import DataDir, Json
from fastgaum.cli.output import check_outputs, finish, say
from fastgaum.cli.progress import Bar


def doctor_command(*, data_dir: DataDir = None, json: Json = None) -> int:
    """Print versions, threads, caches and data sets, and run a self-check; exit code 1 if it
    fails."""
    check_outputs(json)
    facts: dict[str, str] = {}

    def tell(name: str, text: str) -> None:
        facts[name.strip()] = text = unnamed(text)
        say(f"{name + ':':<19}{text}")

    for name, text in _facts(data_dir):
        tell(name, text)
    failed = 0
    for name, check in CHECKS.items():
        started = time.perf_counter()
        try:
            with Bar(name):
                check()
            verdict = f"ok ({time.perf_counter() - started:.1f} s)"
        # Whatever is wrong with this machine is what the command is asked for.
        except Exception as error:
            failed += 1
            verdict = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        tell(name, verdict)
    # they are probed with a kernel: where none runs, the check above has said so
    for name, text in () if failed else _ceilings():
        tell(name, text)
    finish(
        "all checks passed" if not failed else f"{failed} of {len(CHECKS)} checks failed",
        json,
        facts,
    )
    return 1 if failed else 0


def unnamed(text: str) -> str:
    """A text without the user's home folder and name: it will be pasted where everybody reads
    it."""
    for home in dict.fromkeys((os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~")))):
        if len(home) > 1:
            text = re.sub(rf"{re.escape(home)}(?=[/\\\s]|$)", "~", text)
    for variable in ("USER", "LOGNAME", "USERNAME"):
        name = os.environ.get(variable, "")
        # a part of a path: names like `root` or `cuda` are words elsewhere
        text = re.sub(rf"(?<=[/\\]){re.escape(name)}(?=[/\\\s]|$)", "USER", text) if name else text
    return text


def _facts(data_dir: Path | None) -> Iterator[tuple[str, str]]:
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
    yield "extras", ", ".join(_extras()) or "none"
    yield "kernel cache", _kernel_cache()
    yield from _data_sets(data_dir)


def _extras() -> list[str]:
    """Optional libraries that are installed."""
    found = []
    for name in ("xgboost", "matplotlib", "stable-baselines3", "tensorboardX", "mlflow-skinny"):
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def _kernel_cache() -> str:
    """The folder of compiled kernels, how many it holds, and whether it takes more."""
    from fastgaum.kernels import choice

    stats = getattr(choice.choice_probs, "stats", None)
    if stats is None:
        return "none: kernels run as plain Python (NUMBA_DISABLE_JIT)"
    if not stats.cache_path:
        return "none: there is no home folder, set NUMBA_CACHE_DIR"
    path = Path(stats.cache_path)
    sizes = [file.stat().st_size for file in path.glob("*.nbc")] if path.is_dir() else []
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    chosen = " ($NUMBA_CACHE_DIR)" if os.environ.get("NUMBA_CACHE_DIR") else ""
    refusal = "" if writable else ", not writable: each process compiles what is missing"
    return f"{path}{chosen}, {len(sizes)} kernels, {sum(sizes) / 1e6:.1f} MB{refusal}"


def _ceilings() -> Iterator[tuple[str, str]]:
    """What this machine can do at most, which `fastgaum bench` compares speeds with."""
    from fastgaum.bench.ceilings import probe
    from fastgaum.bench.report import short

    ceilings = probe()
    yield "sgemm ceiling", f"{short(ceilings.sgemm_gflops)} GFLOP/s"
    yield "gather ceiling", f"{short(ceilings.gather_gbps)} GB/s (random rows of 64 floats)"


def _data_sets(data_dir: Path | None) -> Iterator[tuple[str, str]]:
    from fastgaum.logs.registry import data_folders, find_log, names

    for folder in data_folders(data_dir):
        yield "data folder", f"{folder}{'' if folder.is_dir() else ' (absent)'}"
    for name in names():
        path = find_log(name, data_dir)
        yield f"  {name}", "absent" if path is None else str(path)


def _kernel_compiles() -> None:
    """Compile a loop anew, whatever the cache of kernels holds."""
    import numba
    import numpy as np

    def total(values: np.ndarray) -> float:
        result = 0.0
        for value in values:
            result += value
        return result

    found = numba.njit(total)(np.arange(4.0))
    if found != 6.0:
        raise RuntimeError(f"a compiled sum of 0, 1, 2 and 3 is {found}")


def _network_learns() -> None:
    """Differentiate the log-softmax of two display sets of two candidates each."""
    import torch

    from fastgaum.nets.segments import segment_log_softmax

    utility = torch.zeros(4, requires_grad=True)
    log_probs, _ = segment_log_softmax(utility, torch.tensor([0, 2, 4], dtype=torch.int32), False)
    log_probs[0].backward()
    gradient = utility.grad
    if gradient is None or not torch.allclose(
        gradient, torch.tensor([0.5, -0.5, 0.0, 0.0]), atol=1e-6
    ):
        raise RuntimeError(f"autograd's gradient is {gradient}, [0.5, -0.5, 0, 0] is right")


def _training_runs() -> None:
    """Train on a tiny synthetic log for an epoch and rank with the result."""
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.models.user_model import UserModel

    log, _ = synthesise(200, preset="sample")
    model = UserModel.from_preset("fastgaum", epochs=1, warm_start=1, device="cpu")
    model.fit(log)
    model.evaluate(log)


CHECKS: dict[str, Callable[[], None]] = {
    "kernel compiles": _kernel_compiles,
    "autograd works": _network_learns,
    "training runs": _training_runs,
}
