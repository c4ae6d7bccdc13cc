"""What a second process brings: one process and K of them, one thread each, on the same batches.

    python bench/processes.py --json docs/tables/processes.json

Events per second of both sides by preset and by sessions of a process's batch, the best of three
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
from typing import Any

BATCHES = (256, 2048, 8192)
WARM_UP, STEPS, MEASURED = 4, 60, 400_000
"""steps before the clock runs, steps that are measured at most, and events that they have: large
batches have fewer steps"""
SESSION = 5
"""events of a session of the log"""
SETTINGS: dict[str, dict[str, Any]] = {
    "paper-lstm": {},
    "paper-lstm, item_dim = 8": {"item_dim": 8},
}
"""rows of 64 and 80 values, and narrow ones"""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turns, three times; the best of each."""
    from fastgaum.machine import machine_facts

    presets: dict[str, Any] = {}
    for preset in SETTINGS:
        sides: dict[int, list[dict[str, float]]] = {1: [], arguments.processes: []}
        for turn in range(3):
            for n, found in sides.items():
                found.append(_launch(n, preset, arguments))
                told = ", ".join(f"{size}: {rate:,.0f}" for size, rate in found[-1].items())
                print(f"{preset}, turn {turn + 1}, {n} processes: {told}", flush=True)
        best = {
            n: {b: max(run[b] for run in found) for b in found[0]} for n, found in sides.items()
        }
        alone, together = best[1], best[arguments.processes]
        presets[preset] = {
            b: {"alone": alone[b], "together": together[b], "speed_up": together[b] / alone[b]}
            for b in alone
        }
    return {
        "processes": arguments.processes,
        "items": arguments.items,
        "presets": presets,
        "machine": machine_facts(0),
    }


def _launch(n: int, preset: str, arguments: argparse.Namespace) -> dict[str, float]:
    launch = (
        [] if n == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    )
    sizes = [f"--events={arguments.events}", f"--items={arguments.items}"]
    program = [str(Path(__file__).resolve()), f"--preset={preset}", *sizes]
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


def rounds(preset: str, events: int, items: int) -> dict[str, float]:
    """Events per second of adversarial rounds, by sessions of a process's batch."""
    import numpy as np
    import torch

    from fastgaum.config import Config
    from fastgaum.engine.game import EngineGame
    from fastgaum.features.batches import batches
    from fastgaum.features.space import FeatureSpace
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.nets.networks import Networks
    from fastgaum.nets.regularisers import regulariser_of
    from fastgaum.nets.tensors import to_tensors
    from fastgaum.processes import launched

    torch.set_num_threads(1)
    log = synthesise(events // SESSION, preset="scale", n_items=items, seed=0)[0]
    config = Config.from_preset("paper-lstm", players="adversarial", **SETTINGS[preset])
    space = FeatureSpace.fit(log, "identity", set_context=False)
    sessions = space.encoder(log).for_training(log.sessions_in("train"))
    regulariser, unknown = regulariser_of(config), torch.from_numpy(space.unknown_of_id)
    rates = {}
    with launched(torch.device("cpu")) as processes:
        for size in BATCHES:
            whole = size * processes.size
            if sessions.n_sessions < whole:
                raise SystemExit(
                    f"{sessions.n_sessions} training sessions make no batch of {whole}: more "
                    "--events"
                )
            torch.manual_seed(0)
            networks = Networks(config, space.n_ids, 0)
            game = EngineGame(networks, config, regulariser, unknown, log.has_no_click)
            if processes.size > 1:
                game.share(processes)
            order, step, n_events, started = np.random.default_rng(0), 0, 0, 0.0
            steps = min(STEPS, max(8, MEASURED // (size * SESSION)))
            while step < WARM_UP + steps:
                epoch = batches(sessions, whole, order, share=processes.share)
                # an epoch's last batch is a shorter one
                left = WARM_UP + steps - step
                for batch in islice(epoch, min(left, sessions.n_sessions // whole)):
                    if step == WARM_UP:
                        processes.agree()
                        started, n_events = time.perf_counter(), 0
                    processes.step(game.round, to_tensors(batch), batch.n_events)
                    n_events += processes.n_events
                    step += 1
            rates[str(size)] = n_events / (time.perf_counter() - started)
            processes.agree()
    return rates


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--preset", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.preset is None:
        found = measure(asked)
        if asked.json is not None:
            from fastgaum.files import atomic

            with atomic(asked.json) as beside:
                beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    else:
        one = rounds(asked.preset, asked.events, asked.items)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(one))
