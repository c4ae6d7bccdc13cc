"""What a second process brings: one process and K of them, one thread each, on the same batches; the
K share every step, or take local steps.

    python bench/processes.py --json docs/tables/processes.json

Events per second of all sides by preset and by sessions of a process's batch, the best of three
turns; some six minutes on two cores with nothing else to do."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgaum.processes import Processes

BATCHES = {256: 128, 2048: 128, 8192: 64}
"""steps that are measured, by sessions of a process's batch"""
LOCAL, WARM_UP = 32, 16
"""steps that each process takes alone, on the third side; and steps before the clock runs"""
LEARNED, LEARNING, FEW_ITEMS = 64, 2048, 2_000
"""exact steps after which losses are compared, each of LEARNING sessions of every process; and the
items of their log, whose loss is near its best by then"""
SESSION = 5
"""events of a session of the log"""
SETTINGS: dict[str, dict[str, Any]] = {
    "paper-lstm": {},
    "paper-lstm, item_dim = 8": {"item_dim": 8},
}
"""rows of 64 and 80 values, and narrow ones"""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All sides in turns, three times; the best of each."""
    from fastgaum.machine import machine_facts

    presets: dict[str, Any] = {}
    n = arguments.processes
    sides = {"alone": (1, 1), "together": (n, 1), "apart": (n, LOCAL)}
    for preset in SETTINGS:
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for turn in range(3):
            for side, (size, local) in sides.items():
                found[side].append(_launch(size, preset, local, arguments))
                told = ", ".join(f"{name}: {one:,.5g}" for name, one in found[side][-1].items())
                print(f"{preset}, turn {turn + 1}, {side}: {told}", flush=True)
        losses = {side: runs[0].pop("loss") for side, runs in found.items()}
        best = {
            side: {b: max(run[b] for run in runs) for b in runs[0]} for side, runs in found.items()
        }
        presets[preset] = {
            "loss": losses,
            "rates": {
                b: {
                    **{side: best[side][b] for side in sides},
                    "speed_up": best["together"][b] / best["alone"][b],
                    "local_speed_up": best["apart"][b] / best["alone"][b],
                }
                for b in map(str, BATCHES)
            },
        }
    return {
        "processes": n,
        "items": arguments.items,
        "local_steps": LOCAL,
        "presets": presets,
        "machine": machine_facts(0),
    }


def _launch(n: int, preset: str, local: int, arguments: argparse.Namespace) -> dict[str, float]:
    launch = (
        [] if n == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    )
    sizes = [f"--events={arguments.events}", f"--items={arguments.items}"]
    told = [f"--preset={preset}", f"--apart={local}", f"--processes={arguments.processes}"]
    program = [str(Path(__file__).resolve()), *told, *sizes]
    done = subprocess.run(
        [sys.executable, *launch, *program],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{preset} with {n} processes failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


class Side:
    """One training, of one process or of several."""

    def __init__(self, arguments: argparse.Namespace, processes: Processes, n_items: int) -> None:
        from fastgaum.config import Config
        from fastgaum.features.space import FeatureSpace
        from fastgaum.logs.synthetic import synthesise

        self.processes = processes
        log = synthesise(arguments.events // SESSION, preset="scale", n_items=n_items, seed=0)[0]
        self.config = Config.from_preset(
            "paper-lstm",
            players="adversarial",
            local_steps=arguments.apart,
            **SETTINGS[arguments.preset],
        )
        self.space = FeatureSpace.fit(log, "identity", set_context=False)
        self.outside = log.has_no_click
        encoder = self.space.encoder(log)
        self.sessions = encoder.for_training(log.sessions_in("train"))
        self.held = encoder.for_training(log.sessions_in("validation"))

    def begin(self) -> None:
        """Networks and a game anew."""
        import torch

        from fastgaum.engine.dispatch import game_for
        from fastgaum.game.guard import Guard
        from fastgaum.game.local_steps import steps_of
        from fastgaum.nets.networks import Networks
        from fastgaum.nets.regularisers import regulariser_of

        torch.manual_seed(0)
        networks = Networks(self.config, self.space.n_ids, 0)
        unknown = torch.from_numpy(self.space.unknown_of_id)
        regulariser = regulariser_of(self.config)
        self.game = game_for(
            networks, self.config, regulariser, unknown, self.outside, self.processes
        )
        guard = Guard(self.game, networks, self.config, self.sessions, str, self.processes)
        self.steps = steps_of(self.game, guard)
        self.regulariser = regulariser

    def play(self, whole: int, steps: int, warm_up: int = 0, exact: bool = False) -> float:
        """Events per second of so many rounds, or exact steps, of batches of `whole` sessions, after
        some others."""
        import numpy as np

        from fastgaum.features.batches import batches
        from fastgaum.nets.tensors import to_tensors

        if self.sessions.n_sessions < whole:
            raise SystemExit(
                f"{self.sessions.n_sessions} training sessions make no batch of {whole}: more "
                "--events"
            )
        order, step, n_events, started = np.random.default_rng(0), 0, 0, 0.0
        take = self.game.exact_step if exact else self.game.round
        while step < warm_up + steps:
            epoch = batches(self.sessions, whole, order, share=self.processes.share)
            # an epoch's last batch is a shorter one
            left = warm_up + steps - step
            for batch in islice(epoch, min(left, self.sessions.n_sessions // whole)):
                if step == warm_up:
                    self.steps.meet()
                    self.processes.agree()
                    started, n_events = time.perf_counter(), 0
                n_events += self.steps.take(take, to_tensors(batch), "the race").seen
                step += 1
        n_events += self.steps.meet().seen
        return n_events / (time.perf_counter() - started)

    def loss(self) -> float:
        """Mean validation loss of the reward."""
        import torch

        from fastgaum.game.scoring import HeldBatches, figures

        self.game.settle()
        held = HeldBatches(self.held, torch.device("cpu"), share=self.processes.share)
        total, eta = self.processes.sum, self.config.eta
        return figures(self.game.outputs, held, self.regulariser, eta, self.outside, total).loss


def race(arguments: argparse.Namespace) -> dict[str, float]:
    """Events per second of adversarial rounds by sessions of a process's batch, and the validation
    loss after the same batches on every side."""
    import torch

    from fastgaum.processes import launched

    torch.set_num_threads(1)
    found = {}
    with launched(torch.device("cpu")) as processes:
        side = Side(arguments, processes, arguments.items)
        for size, steps in BATCHES.items():
            side.begin()
            found[str(size)] = side.play(size * processes.size, steps, WARM_UP)
            processes.agree()
        side = Side(arguments, processes, FEW_ITEMS)
        side.begin()
        side.play(LEARNING * arguments.processes, LEARNED, exact=True)
        found["loss"] = side.loss()
        processes.agree()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--preset", help=argparse.SUPPRESS)
    parser.add_argument("--apart", type=int, default=1, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.preset is None:
        found = measure(asked)
        if asked.json is not None:
            from fastgaum.files import atomic

            with atomic(asked.json) as beside:
                beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    else:
        one = race(asked)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(one))
