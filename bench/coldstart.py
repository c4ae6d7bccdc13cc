"""Cold start: what a new process waits for, with an empty kernel cache and with a warm one: `python
bench/coldstart.py`.

Prints one line of JSON. Each figure is the wall time of a process of its own; the log is made
beforehand and read from disk. The clock runs from after the imports to the end of the first exact
step, and on to the end of the first round, which has by then read and encoded the log, made one
exact step, scored the validation sessions and made one round. Figures are the largest over the
presets (`first_step…` is the round's), the least over the processes of one preset."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fastgaum
from fastgaum.game.epochs import EpochRow, Observer

PRESETS = ("fastgaum", "paper-lstm", "paper-pw")
N_EVENTS, N_ITEMS = 2_000, 500
IMPORTS = {
    "import_seconds_above_torch": "fastgaum",
    "import_training_seconds_above_torch": "fastgaum.game.loop",
}
_IMPORT = (
    "import time, torch; started = time.perf_counter(); import {}; print(time.perf_counter() - "
    "started)"
)


def measure(presets: tuple[str, ...] = PRESETS, processes: int = 3) -> dict[str, Any]:
    """Every figure by name; the warm ones and the imports are the best of so many processes, an
    empty cache has one each."""
    figures: dict[str, Any] = {
        name: round(
            min(float(_python(os.environ, "-c", _IMPORT.format(module))) for _ in range(processes)),
            4,
        )
        for name, module in IMPORTS.items()
    }
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        fastgaum.save_log(fastgaum.synthesise(N_EVENTS, preset="scale", n_items=N_ITEMS)[0], log)
        for preset in presets:
            environment = os.environ | {"NUMBA_CACHE_DIR": str(Path(folder) / preset)}
            command = (str(Path(__file__).resolve()), "--process", preset, str(log))
            cold, *warm = [json.loads(_python(environment, *command)) for _ in range(1 + processes)]
            least = {name: min(run[name] for run in warm) for name in cold}
            runs[preset] = {"empty_cache": cold, "warm_cache": least}
    for state in ("empty_cache", "warm_cache"):
        for name in ("first_exact_step", "first_step"):
            figures[f"{name}_{state}_seconds"] = max(run[state][name] for run in runs.values())
    figures["compiled_after_first_step"] = sum(
        run["empty_cache"]["compiled_after"] for run in runs.values()
    )
    figures["kernels"] = {preset: run["empty_cache"]["compiled"] for preset, run in runs.items()}
    return figures | {"presets": runs}


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
    """Notes when the first exact step and the first round are done, and how many kernels there were
    then."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.compiled = 0
        self.phase = "first_exact_step"

    def on_batch_end(self, done: int, total: int) -> None:
        if self.phase not in self.seconds:
            self.seconds[self.phase] = round(time.perf_counter() - self.started, 3)
            self.compiled = held_signatures()

    def on_epoch_end(self, row: EpochRow) -> None:
        self.phase = "first_step"


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
    """Train for an epoch of exact steps and two of rounds; print the figures."""
    import fastgaum.game.loop
    from fastgaum.models.user_model import UserModel

    clock = _Clock()
    model = UserModel.from_preset(
        preset, players="adversarial", warm_start=1, catch_up=0, epochs=2, search=[]
    )
    log = fastgaum.load_log(log_path)
    model.fit(log, [clock])
    print(
        json.dumps(
            clock.seconds
            | {"compiled": clock.compiled, "compiled_after": held_signatures() - clock.compiled}
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument(
        "--processes",
        type=int,
        default=3,
        help="warm processes per preset, of which the best counts",
    )
    parser.add_argument("--process", nargs=2, metavar=("PRESET", "LOG"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.process:
        _process(*asked.process)
    else:
        print(json.dumps(measure(tuple(asked.presets.split(",")), asked.processes)))
