"""What a second process brings, and what it costs: one process and K of them on the same batches.

    python bench/processes.py speed --events 400000        one JSON object: events/s of 1 and K
    processes, bytes per step python bench/processes.py agree LOG …                   losses of 200
    steps and prec@1 on validation, 1 against K

Bytes are read off the loopback interface's own counter, so that what the model of traffic says is
held against the wire."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

SIZES = {"players": "adversarial"}
STEPS, LEARNT_STEPS = 60, 200


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "agree"])
    parser.add_argument("logs", nargs="*", default=["yelp", "taobao", "yoochoose"])
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument(
        "--batch", type=int, action="append", help="sessions of a process's batch (repeatable)"
    )
    parser.add_argument(
        "--preset", action="append", help="of the networks (repeatable; `agree` takes one)"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        found = STAGES[arguments.stage](arguments)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found))
        return
    print(json.dumps({"speed": speed, "agree": agree}[arguments.what](arguments), indent=1))


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turns, three times; the best of each."""
    result: dict[str, Any] = {
        "processes": arguments.processes,
        "items": arguments.items,
        "presets": {},
    }
    for preset in arguments.preset or ("paper-lstm", "large"):
        sides: dict[str, list[dict[str, Any]]] = {"alone": [], "together": []}
        for _ in range(3):
            sides["alone"].append(_stage("rounds", arguments, 1, preset))
            sides["together"].append(_stage("rounds", arguments, arguments.processes, preset))
        batches = result["presets"][preset] = {}
        for batch in sides["alone"][0]:
            alone, together = (
                max((run[batch] for run in sides[side]), key=lambda run: run["events_per_second"])
                for side in sides
            )
            batches[batch] = {
                "alone": alone["events_per_second"],
                "together": together["events_per_second"],
                "speed_up": together["events_per_second"] / alone["events_per_second"],
                **together["traffic"],
            }
    return result


def agree(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same global batches, 1 and K processes."""
    result, preset = {}, (arguments.preset or ["paper-lstm"])[0]
    for log in arguments.logs:
        arguments.logs = [log]
        one, many = (_stage("learnt", arguments, n, preset) for n in (1, arguments.processes))
        pairs = list(zip(one["losses"], many["losses"], strict=True))
        result[log] = {
            "steps": len(pairs),
            "largest_relative": max(abs(a - b) / abs(a) for a, b in pairs),
            "last_relative": abs(pairs[-1][0] - pairs[-1][1]) / abs(pairs[-1][0]),
            "prec1": [one["prec1"], many["prec1"]],
            "prec1_apart": abs(one["prec1"] - many["prec1"]),
            "epochs": [one["epochs"], many["epochs"]],
        }
    return result


def _stage(stage: str, arguments: argparse.Namespace, n: int, preset: str) -> dict[str, Any]:
    given = [
        arguments.what,
        *arguments.logs,
        f"--stage={stage}",
        f"--events={arguments.events}",
        f"--items={arguments.items}",
    ]
    given += [f"--preset={preset}", *(f"--batch={size}" for size in arguments.batch or ())]
    program = [str(Path(__file__).resolve()), *given]
    launch = (
        [] if n == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    )
    done = subprocess.run(
        [sys.executable, *launch, *program],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{stage} with {n} processes failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def rounds(arguments: argparse.Namespace) -> dict[str, Any]:
    """Adversarial rounds on batches of each size a process, one thread each: events per second and
    bytes per step."""
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
    log = synthesise(arguments.events // 5, preset="scale", n_items=arguments.items, seed=0)[0]
    config = Config.from_preset(arguments.preset[0], **SIZES)
    space = FeatureSpace.fit(log, "identity", set_context=False)
    sessions = space.encoder(log).for_training(log.sessions_in("train"))
    result: dict[str, Any] = {}
    with launched(torch.device("cpu")) as processes:
        for size in arguments.batch or (256, 2048, 8192):
            if sessions.n_sessions < size * processes.size:
                raise SystemExit(
                    f"{sessions.n_sessions} training sessions make no batch of "
                    f"{size * processes.size}: more --events"
                )
            torch.manual_seed(0)
            networks = Networks(config, space.n_ids, 0)
            game = EngineGame(
                networks,
                config,
                regulariser_of(config),
                torch.from_numpy(space.unknown_of_id),
                log.has_no_click,
            )
            if processes.size > 1:
                game.share(processes)
            order = np.random.default_rng(0)

            def endless(order: Any = order, whole: int = size * processes.size) -> Iterator[Any]:
                # an epoch's last batch is a shorter one
                while True:
                    yield from islice(
                        batches(sessions, whole, order, share=processes.share),
                        sessions.n_sessions // whole,
                    )

            n_events, model = 0, 0.0
            for step, batch in enumerate(endless()):
                if step == STEPS // 6:
                    # the first steps compile
                    processes.traffic.__init__()  # type: ignore[misc]
                    processes.agree()
                    started, wire, n_events = time.perf_counter(), _loopback_bytes(), 0
                if step == STEPS + STEPS // 6:
                    break
                tensors = to_tensors(batch)
                processes.step(game.round, tensors, batch.n_events)
                n_events += processes.n_events
            seconds = time.perf_counter() - started
            model = processes.traffic.sent_per_step(processes.size)
            processes.agree()
            found = (_loopback_bytes() - wire) / max(processes.traffic.steps, 1) / processes.size
            result[str(size)] = {
                "events_per_second": n_events / seconds,
                "traffic": {
                    "model_bytes_per_step": model,
                    "wire_bytes_per_step": found,
                    "steps": processes.traffic.steps,
                    "gathered_bytes": processes.traffic.gathered,
                    "summed_bytes": processes.traffic.summed,
                },
            }
    return result


def learnt(arguments: argparse.Namespace) -> dict[str, Any]:
    """Losses of the first steps and the validation figures of a training, by one process or
    several."""
    import torch

    import fastgaum as fg
    from fastgaum.processes import launched

    torch.set_num_threads(1)
    log = fg.load(arguments.logs[0])
    losses: list[float] = []
    with launched(torch.device("cpu")) as processes:
        model = fg.UserModel.from_preset(
            arguments.preset[0], dropout=0.0, id_dropout=0.0, batch_sessions=64
        )
        with _recorded(losses):
            table = model.fit(log, processes=processes)
    best = table.filter(table["best"]).row(-1, named=True)
    return {"losses": losses[:LEARNT_STEPS], "prec1": best["val_prec1"], "epochs": table.height}


def _recorded(losses: list[float]) -> Any:
    """Within, every training step's loss is noted."""
    from unittest import mock

    from fastgaum.game.guard import Guard

    plain = Guard.step

    def step(self: Guard, *given: Any) -> float | None:
        loss = plain(self, *given)
        losses.append(float("nan") if loss is None else loss)
        return loss

    return mock.patch.object(Guard, "step", step)


def _loopback_bytes() -> int:
    """Bytes that have gone through the loopback interface since the machine started."""
    for line in Path("/proc/net/dev").read_text(encoding="utf-8").splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[8])
    return 0


STAGES = {"rounds": rounds, "learnt": learnt}

if __name__ == "__main__":
    main()
