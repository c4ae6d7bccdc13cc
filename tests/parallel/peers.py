"""One of several processes that train together; the first prints what it finds as JSON. Run by
torchrun.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.parallel.peers FOLDER case
…"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastgaum.config import Config
from fastgaum.engine.dispatch import game_for
from fastgaum.errors import NumericsError
from fastgaum.features.space import FeatureSpace
from fastgaum.game.checkpoint import Checkpoint, Checkpointer
from fastgaum.game.epochs import Observer
from fastgaum.game.guard import Guard
from fastgaum.game.loop import Trainer, TrainingData
from fastgaum.interrupts import Interrupted
from fastgaum.logs.store import save_log
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.train_loop import train_loop
from fastgaum.models.user_model import UserModel
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.processes import MovedRows, Processes, RowGradient, launched
from tests.builders import NARROW, random_log

CONFIGS: dict[str, dict[str, Any]] = {
    "exact": {"preset": "paper-lstm", "epochs": 2, "id_dropout": 0.0},
    "pw": {"preset": "paper-pw", "epochs": 2, "id_dropout": 0.0},
    "adagrad": {
        "preset": "paper-lstm",
        "epochs": 2,
        "id_dropout": 0.0,
        "wide": True,
        "item_dim": 4,
        "table_optimiser": "adagrad",
    },
    "rounds": {
        **NARROW,
        "epochs": 2,
        "warm_start": 1,
        "catch_up": 1,
        "id_dropout": 0.0,
        "batch_sessions": 64,
    },
    "fastgaum": {
        "preset": "fastgaum",
        "epochs": 2,
        "warm_start": 1,
        "catch_up": 1,
        "id_dropout": 0.0,
        "dropout": 0.0,
    },
    "towers": {
        "preset": "fastgaum",
        "tower_dim": 6,
        "epochs": 2,
        "warm_start": 1,
        "id_dropout": 0.0,
        "dropout": 0.0,
    },
    "bilstm": {
        "preset": "report",
        "epochs": 1,
        "warm_start": 1,
        "catch_up": 1,
        "id_dropout": 0.0,
        "dropout": 0.0,
        "history_dim": 8,
        "history_layers": 2,
        "hidden": (8,),
    },
    "generated": {
        **NARROW,
        "epochs": 1,
        "warm_start": 1,
        "catch_up": 1,
        "id_dropout": 0.1,
        "dropout": 0.1,
        "states": "generated",
    },
}

CONFIGS |= {
    "local": {**CONFIGS["rounds"], "local_steps": 3, "batch_sessions": 32, "dropout": 0.1},
    "local-bilstm": {**CONFIGS["bilstm"], "local_steps": 2},
    "local-stock": {**CONFIGS["generated"], "local_steps": 3, "batch_sessions": 32},
}
"""the last is trained by the reference"""


def fitted(name: str, log: Any, processes: Processes | None) -> tuple[list[float], UserModel]:
    """The loss of every step, and the model."""
    losses: list[float] = []
    plain = Guard.step

    def step(self: Guard, *given: Any) -> float | None:
        loss = plain(self, *given)
        losses.append(float("nan") if loss is None else loss)
        return loss

    Guard.step = step  # type: ignore[method-assign]
    try:
        model = UserModel(
            Config.from_preset(**{"name": "fastgaum", **_named(CONFIGS[name])}), device="cpu"
        )
        model.fit(log, processes=processes)
    finally:
        Guard.step = plain  # type: ignore[method-assign]
    return losses, model


def _named(config: dict[str, Any]) -> dict[str, Any]:
    return {"name" if key == "preset" else key: value for key, value in config.items()}


def same(processes: Processes, folder: Path, name: str) -> dict[str, Any]:
    """Losses and validation figures of this training, by all processes and by one alone."""
    log: Any = synthesise(600, preset="sample", seed=1)[0]
    losses, model = fitted(name, log, processes)
    result = {"losses": losses, "table": model.table.to_dicts()}
    weights = torch.cat([value.double().reshape(-1) for value in model._networks().parameters()])
    result["same_weights"] = (
        len(
            {
                tuple(one)
                for one in processes.agree(weights[:: max(len(weights) // 500, 1)].tolist())
            }
        )
        == 1
    )
    if processes.is_first:
        alone, single = fitted(name, log, None)
        result["alone"], result["alone_table"] = alone, single.table.to_dicts()
    return result


def reduction(processes: Processes, folder: Path) -> dict[str, Any]:
    """What an exchange gives, of known numbers: three processes' events 1, 2, 3 … and one without
    any."""
    own = processes.rank
    dense = torch.full((5,), float(own))
    ids = torch.arange(own + 1, dtype=torch.int32)
    rows = [torch.full((len(ids), 2), 10.0 + own), torch.full((len(ids), 1), 20.0 + own)]
    found: list[RowGradient] = []

    def step(gradients: list[RowGradient]) -> float:
        loss, whole = processes.mean(float(own), dense, gradients)
        found.extend(whole)
        return loss

    gradients = [RowGradient(ids, rows), RowGradient(ids[:0], [torch.zeros(0, 3)])]
    loss = processes.step(step, gradients, own)
    return {
        "loss": loss,
        "dense": dense.tolist(),
        "ids": found[0].ids.tolist(),
        "rows": [table.tolist() for table in found[0].rows],
        "events": processes.n_events,
        "others": list(found[1].rows[0].shape),
    }


def mean(processes: Processes, folder: Path) -> dict[str, Any]:
    """What an average gives, of known numbers: rank r has moved row 0 and row 1 + r."""
    size, own = processes.size, processes.rank
    weights = [(1 + r) / sum(range(1, size + 1)) for r in range(size)]
    dense = [torch.full((3,), float(own)), torch.full((2, 2), 10.0 + own)]
    table, squares = torch.full((size + 2, 2), 100.0), torch.full((size + 2,), 100.0)
    ids = torch.tensor([0, 1 + own])
    table[ids], squares[ids] = float(own), 20.0 + own
    processes.average(weights, dense, [MovedRows(ids, [table, squares]), MovedRows(ids[:0], [])])
    found = [one.tolist() for one in (*dense, table, squares)]
    return {"weights": weights, "found": processes.agree(found)}


def parted(processes: Processes, folder: Path) -> dict[str, Any]:
    """Local steps with a signal to the last process within a row of them, and again from there."""
    log = synthesise(400, preset="sample", seed=1)[0]
    config = Config.from_preset(**_named(CONFIGS["local"])).replace(
        batch_sessions=3, epochs=3, local_steps=2
    )
    file = folder / "parted.safetensors"

    class Stop(Observer):
        def on_batch_end(self, done: int, total: int) -> None:
            if done == 3 and processes.rank == processes.size - 1:
                processes.stop.handle(signal.SIGTERM, None)

    def fit(observers: list[Observer], checkpointer: Checkpointer | None) -> Any:
        torch.manual_seed(0)
        model = UserModel(config, device="cpu")
        table = model.fit(log, observers, checkpointer=checkpointer, processes=processes)
        return table.drop("events_per_second").to_dicts()

    whole = fit([], None)
    saves = file if processes.is_first else None
    try:
        fit([Stop()], Checkpointer(saves, Checkpoint(config, {}, log.fingerprint)))
        ended: Any = None
    except Interrupted as error:
        ended = error.exit_code
    codes = processes.agree(ended)
    processes.stop.signum = processes.agreed.signum = None
    saved = Checkpoint.load(file)
    assert saved.trainer is not None
    rest = fit([], Checkpointer(saves, saved))
    return {
        "codes": codes,
        "batches": saved.trainer["position"]["batches"],
        "whole": processes.agree(whole),
        "resumed": rest,
    }


def refused(processes: Processes, folder: Path, local_steps: int = 1) -> dict[str, Any]:
    """One process meets a number that is not finite: all refuse, name its session, and stop or go
    on alike."""
    log = random_log(3, n_sessions=120)
    space = FeatureSpace.fit(log)
    train = space.encode(log, log.sessions_in("train"))
    numbers = train.numbers.copy()
    numbers[train.display_offsets[train.session_offsets[7]], 0] = np.nan
    data = TrainingData(
        dataclasses.replace(train, numbers=numbers),
        space.encode(log, log.sessions_in("validation")),
        lambda row: f"'{log.session_name(row)}'",
    )
    found: dict[str, Any] = {}
    for rule in ("stop", "skip"):
        config = Config.from_preset(
            "fastgaum",
            search=(),
            epochs=2,
            warm_start=1,
            catch_up=1,
            on_nonfinite=rule,
            batch_sessions=16,
            local_steps=local_steps,
        )
        torch.manual_seed(0)
        networks = Networks(config, space.n_ids, space.n_numbers)
        unknown = torch.from_numpy(space.unknown_of_id)
        game = game_for(networks, config, regulariser_of(config), unknown, False, processes)
        trainer = Trainer(game, data, processes=processes)
        try:
            rows = trainer.run()
            found[rule] = [[row.skipped, row.at_fault] for row in rows]
        except NumericsError as error:
            found[rule] = str(error)
    return {"everywhere": processes.agree(found), "name": log.session_name(int(train.rows[7]))}


def stopped(processes: Processes, folder: Path) -> dict[str, Any]:
    """A signal to the last process ends all of them after the same batch; another number of
    processes goes on from there."""
    log = synthesise(400, preset="sample", seed=1)[0]
    changes = {"epochs": 3, "warm_start": 1, "catch_up": 1, "id_dropout": 0.0, "batch_sessions": 16}
    config = Config.from_preset(**_named({**NARROW, **changes}))
    file = folder / "resume.safetensors"
    stop, plain, steps = processes.stop, Guard.step, [0]

    def step(self: Guard, *given: Any) -> float | None:
        steps[0] += 1
        if steps[0] == 13 and processes.rank == processes.size - 1:
            stop.handle(signal.SIGTERM, None)
        return plain(self, *given)

    Guard.step = step  # type: ignore[method-assign]
    own = Checkpoint(config, {}, log.fingerprint)
    checkpointer = Checkpointer(file if processes.is_first else None, own)
    try:
        UserModel(config, device="cpu").fit(log, checkpointer=checkpointer, processes=processes)
        ended: Any = None
    except Interrupted as error:
        ended = error.exit_code
    finally:
        Guard.step = plain  # type: ignore[method-assign]
    codes, counts = processes.agree(ended), processes.agree(steps[0])
    result: dict[str, Any] = {"codes": codes, "steps": counts}
    if processes.is_first:
        whole = UserModel(config, device="cpu").fit(log)
        model = UserModel(config, device="cpu")
        rest = model.fit(log, checkpointer=Checkpointer(file, Checkpoint.load(file)))
        result |= {"whole": whole.to_dicts(), "resumed": rest.to_dicts()}
    return result


def looped(processes: Processes, folder: Path) -> dict[str, Any]:
    """`train_loop` of one saved log, called twice."""
    log = synthesise(600, preset="sample", seed=1)[0]
    if processes.is_first:
        save_log(log, folder / "looped")
    processes.agree()
    config = {
        "log": str(folder / "looped"),
        "out": str(folder / "looped run"),
        **NARROW,
        "epochs": 3,
        "warm_start": 1,
        "catch_up": 1,
        "batch_sessions": 32,
        "device": "cpu",
    }
    table = train_loop(config)
    again = train_loop(config)
    return {
        "tables": processes.agree(None if table is None else table.to_dicts()),
        "again": None if again is None else again.height,
    }


OWN: dict[str, Callable[[Processes, Path], dict[str, Any]]] = {
    "reduction": reduction,
    "mean": mean,
    "parted": parted,
    "refused": refused,
    "refused alone": partial(refused, local_steps=3),
    "stopped": stopped,
    "looped": looped,
}


def main() -> None:
    """Run the cases that are named, in order."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    found = {}
    with launched(torch.device("cpu")) as processes:
        for case in sys.argv[2:]:
            if case in OWN:
                found[case] = OWN[case](processes, folder)
            else:
                found[case] = same(processes, folder, case)
            processes.agree()
        if processes.is_first:
            print(json.dumps(found))
            sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
