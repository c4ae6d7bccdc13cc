"""Logs in shards: memory of converting and of training, speed beside the log in memory; one JSON
object on one line.

    python bench/shards.py --events 10000000 --items 1000000 --shards 16

The `scale` world is drawn and written as parquet files of rows, one row per displayed candidate.
Each stage is a process of its own: converting the files; one epoch of rounds at the paper's sizes
(as bench/memory_training.py); audit, predict and evaluate; and short pieces of training from shards
and from memory in turns. Linux only (it reads /proc/self/status)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgaum.bench.memory import restart_peak, status_mb

if TYPE_CHECKING:
    from fastgaum.features.batches import Batch

SIZES: dict[str, Any] = {
    "batch_sessions": 2048,
    "players": "adversarial",
    "warm_start": 0,
    "catch_up": 0,
    "table_optimiser": "adagrad",
}
PIECES = 32
"""pieces of training that an epoch makes: short, so that what else the machine does falls on both
sides"""
DISPLAYED = 5.0
"""mean candidates per event: 10 million events are 50 million displays"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument(
        "--rounds", type=int, default=32, help="pieces of training from each side; 32 are an epoch"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where files lie; a temporary folder if not given; what is there is used",
    )
    parser.add_argument("--stage", choices=tuple(STAGES), help="run one stage in this process")
    arguments = parser.parse_args()
    if arguments.stage is not None:
        print(json.dumps(STAGES[arguments.stage](arguments)))
    elif arguments.folder is not None:
        print(json.dumps(measure(arguments)))
    else:
        with tempfile.TemporaryDirectory(prefix="fastgaum-shards-") as folder:
            arguments.folder = Path(folder)
            print(json.dumps(measure(arguments)))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every stage's figures, each measured in a process of its own."""
    given = [f"--{name}={value}" for name, value in vars(arguments).items() if name != "stage"]
    result: dict[str, Any] = {}
    for stage in STAGES:
        command = [sys.executable, str(Path(__file__).resolve()), f"--stage={stage}", *given]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"stage {stage} failed:\n{done.stderr}")
        result |= json.loads(done.stdout)
    return result


def rows(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw the world and write it as files of rows, as many as shards."""
    from fastgaum.logs.fold import to_frame
    from fastgaum.logs.synthetic import world

    folder = arguments.folder / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = world("scale", n_items=arguments.items, mean_display=DISPLAYED)
    per_file = arguments.events // arguments.shards
    for part in range(arguments.shards):
        path = folder / f"{part:04}.parquet"
        if not path.exists():
            frame = to_frame(drawn.draw_part(per_file, part)).select(
                "session", "event", "item", "chosen", "split"
            )
            frame.write_parquet(path, compression="lz4")
    return {"rows_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6}


def convert(arguments: argparse.Namespace) -> dict[str, Any]:
    """Convert the files: peak resident memory of the whole process, and rows per second."""
    from fastgaum.logs.convert import convert_files

    started = time.perf_counter()
    log = convert_files([arguments.folder / "rows"], arguments.folder / "shards", arguments.shards)
    seconds = time.perf_counter() - started
    return {
        "events": log.n_events,
        "displays": log.n_candidates,
        "items": log.n_items,
        "shards": len(log.shards),
        "shards_mb": sum(shard.bytes for shard in log.shards) / 1e6,
        "convert_seconds": seconds,
        "convert_rows_per_second": log.n_candidates / seconds,
        "convert_peak_mb": status_mb("VmHWM"),
    }


def opening(arguments: argparse.Namespace) -> dict[str, Any]:
    """Open the log, every file looked at and hashed."""
    from fastgaum.logs.shards import open_shards

    started = time.perf_counter()
    open_shards(arguments.folder / "shards", verify=True)
    return {"verify_seconds": time.perf_counter() - started}


def epoch(arguments: argparse.Namespace) -> dict[str, Any]:
    """One epoch of training: peak memory above torch's own."""
    import torch  # noqa: F401

    alone = status_mb("VmRSS")
    from fastgaum.logs.shards import open_shards
    from fastgaum.models.user_model import UserModel

    log = open_shards(arguments.folder / "shards")
    restart_peak()
    table = UserModel.from_preset("paper-lstm", epochs=1, **SIZES).fit(log)
    return {
        "training_peak_mb": status_mb("VmHWM") - alone,
        "torch_mb": alone,
        "epoch_events_per_second": table["events_per_second"][0],
    }


def scoring(arguments: argparse.Namespace) -> dict[str, Any]:
    """Audit, predict and evaluate with fresh networks: peak memory of each above torch's own, with
    networks and items."""
    import torch

    alone = status_mb("VmRSS")
    from fastgaum.features.space import FeatureSpace
    from fastgaum.logs.audit import audit
    from fastgaum.logs.shards import open_shards
    from fastgaum.models.user_model import UserModel
    from fastgaum.nets.networks import Networks

    log = open_shards(arguments.folder / "shards")
    model = UserModel.from_preset("paper-lstm")
    model.space = FeatureSpace.fit(log, "identity", set_context=False)
    torch.manual_seed(0)
    model.networks = Networks(model.config, model.space.n_ids, 0)
    verbs: dict[str, Callable[[], Any]] = {
        "audit": lambda: audit(log),
        "predict": lambda: sum(part.height for part in model.predict_parts(log, "test")),
        "evaluate": lambda: model.evaluate(log, "test"),
    }
    peaks = {"held": status_mb("VmRSS") - alone}
    for name, verb in verbs.items():
        restart_peak()
        verb()
        peaks[name] = status_mb("VmHWM") - alone
    return {"scoring_peak_mb": peaks}


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Events per second of training from shards and from memory, in turns, by the clock and by all
    threads' work."""
    import torch

    from fastgaum.bench.training import GAMES, Data
    from fastgaum.config import Config
    from fastgaum.features.space import FeatureSpace
    from fastgaum.features.streamed_sessions import StreamedSessions
    from fastgaum.logs.shards import open_shards
    from fastgaum.nets.networks import Networks

    config = Config.from_preset("paper-lstm", **SIZES)
    log = open_shards(arguments.folder / "shards")
    space = FeatureSpace.fit(log, "identity", set_context=False)
    whole = log.load()
    in_memory = space.encoder(whole).for_training(whole.sessions_in("train"))
    unknown = torch.from_numpy(space.unknown_of_id)
    streamed = StreamedSessions(space.encoder(log), log, "train", config.window)
    pieces: dict[str, Callable[[], _Spent]] = {}
    torch.manual_seed(0)
    # one set of networks: what is compared is where batches come from, and two sets would share the
    # caches unevenly
    game = GAMES["ours"](Networks(config, space.n_ids, 0), config, Data(in_memory, unknown))
    for side, sessions in (("shards", streamed), ("memory", in_memory)):
        pieces[side] = _pieces(game, sessions, config.batch_sessions)
    # the first piece of each side compiles; the windows' readings fall into all others as they come
    for piece in pieces.values():
        piece()
    spent: dict[str, list[_Spent]] = {side: [] for side in pieces}
    for _ in range(arguments.rounds):
        for side, piece in pieces.items():
            spent[side].append(piece())
    wall, work = (
        {
            side: sum(one.n_events for one in each) / sum(getattr(one, kind) for one in each)
            for side, each in spent.items()
        }
        for kind in ("wall", "work")
    )
    best = {side: max(one.n_events / one.wall for one in each) for side, each in spent.items()}
    return {
        "events_per_second": wall,
        "best_piece": best,
        "speed_of_shards": wall["shards"] / wall["memory"],
        "best_of_shards": best["shards"] / best["memory"],
        "events_per_second_of_work": work,
        "work_of_shards": work["shards"] / work["memory"],
    }


@dataclass(frozen=True)
class _Spent:
    """A piece of training: its events, and its seconds by the clock and of all threads' work."""

    n_events: int
    wall: float
    work: float


def _pieces(game: Any, sessions: Any, batch_sessions: int) -> Callable[[], _Spent]:
    """A function that trains on the next piece, 1/PIECES of an epoch, of an endless run of
    epochs."""
    import numpy as np

    from fastgaum.features.batches import batches, count_batches
    from fastgaum.nets.tensors import to_tensors

    order = np.random.default_rng(0)

    def endless() -> Iterator[Batch]:
        while True:
            yield from batches(sessions, batch_sessions, order)

    waiting = endless()
    n = max(1, count_batches(sessions, batch_sessions) // PIECES)

    def piece() -> _Spent:
        started, work, n_events = time.perf_counter(), time.process_time(), 0
        for _, batch in zip(range(n), waiting, strict=False):
            game.round(to_tensors(batch))
            n_events += batch.n_events
        return _Spent(n_events, time.perf_counter() - started, time.process_time() - work)

    return piece


STAGES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "rows": rows,
    "convert": convert,
    "opening": opening,
    "epoch": epoch,
    "scoring": scoring,
    "speed": speed,
}

if __name__ == "__main__":
    main()
