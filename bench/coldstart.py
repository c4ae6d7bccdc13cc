"""Cold start: what a new process waits for, with an empty kernel cache and with a warm one: `python
bench/coldstart.py` prints one line of JSON.

Each figure is the wall time of a process of its own, from after the imports to the end of the first
round. Figures are the largest over the presets, those of a warm cache the least over the processes
of one preset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fastgaum
from fastgaum.game.observers import EpochRow, Observer

PRESETS = ("fastgaum", "paper-lstm", "paper-pw")
N_EVENTS, N_ITEMS, PROCESSES = 2_000, 500, 3
_IMPORT = (
    "import time, torch; started = time.perf_counter(); import fastgaum; "
    "print(time.perf_counter() - started)"
)


def measure() -> dict[str, Any]:
    imports = [float(_python(os.environ, "-c", _IMPORT)) for _ in range(PROCESSES)]
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        fastgaum.save_log(fastgaum.synthesise(N_EVENTS, preset="scale", n_items=N_ITEMS)[0], log)
        for preset in PRESETS:
            environment = os.environ | {"NUMBA_CACHE_DIR": str(Path(folder) / preset)}
            command = (str(Path(__file__).resolve()), preset, str(log))
            first, *others = [
                json.loads(_python(environment, *command)) for _ in range(1 + PROCESSES)
            ]
            cold.append(first)
            warm.append(min(run["first_step"] for run in others))
    return {
        "import_seconds_above_torch": min(imports),
        "first_step_empty_cache_seconds": max(run["first_step"] for run in cold),
        "first_step_warm_cache_seconds": max(warm),
        "compiled_after_first_step": sum(run["compiled_after"] for run in cold),
    }


def _python(environment: Any, *arguments: str) -> str:
    """What a new Python prints; it imports this process's fastgaum."""
    path = os.pathsep.join(
        [str(Path(fastgaum.__file__).parents[1]), environment.get("PYTHONPATH", "")]
    )
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment, "PYTHONPATH": path},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


class _Clock(Observer):
    """Notes when the first round is done, and how many kernels there are then."""

    def __init__(self) -> None:
        self.started, self.seconds = time.perf_counter(), 0.0
        self.compiled = self.epochs = 0

    def on_batch_end(self, done: int, total: int) -> None:
        if self.epochs and not self.seconds:
            self.seconds = round(time.perf_counter() - self.started, 3)
            self.compiled = held_signatures()

    def on_epoch_end(self, row: EpochRow) -> None:
        self.epochs += 1


def held_signatures() -> int:
    """How many signatures of kernels this process holds, from the compiler or the cache."""
    from numba.core.dispatcher import Dispatcher

    modules = [
        module for name, module in sys.modules.items() if name.startswith("fastgaum.kernels.")
    ]
    kernels = {
        id(value): value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Dispatcher)
    }
    return sum(len(kernel.signatures) for kernel in kernels.values())


def _process(preset: str, log_path: str) -> None:
    import fastgaum.game.loop
    from fastgaum.models.user_model import UserModel

    clock = _Clock()
    model = UserModel.from_preset(
        preset, players="adversarial", warm_start=1, catch_up=0, epochs=2, search=[], folds=0
    )
    log = fastgaum.load_log(log_path)
    model.fit(log, [clock])
    after = held_signatures() - clock.compiled
    print(json.dumps({"first_step": clock.seconds, "compiled_after": after}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _process(*sys.argv[1:])
    else:
        print(json.dumps(measure()))
