"""One of several processes that train together; the first prints what it finds as JSON. Run by
torchrun.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.parallel.peers"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from fastgaum.config import Config
from fastgaum.errors import NumericsError, StepRefusedError
from fastgaum.game.game import Game
from fastgaum.game.processes import Averaging, Processes, launched
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.nets.batches import Batch
from fastgaum.ops.optimiser import LazyAdamW
from tests.builders import NARROW

SMALL = {name: value for name, value in NARROW.items() if name != "preset"}
SMALL |= {"warm_start": 1, "catch_up": 1, "batch_sessions": 32, "local_steps": 3}
ONE: dict[str, Any] = {"search": [], "folds": 0}
CONFIGS: dict[str, Config] = {
    # of two settings and two folds
    "kernels": Config.from_preset(
        "fastgaum", **SMALL, epochs=3, dropout=0.1, search=["relations"], folds=2
    ),
    # torch takes the loss of this
    "stock": Config.from_preset("fastgaum", **SMALL, **ONE, epochs=1, regulariser="l2"),
    "alone": Config.from_preset("fastgaum", **{**SMALL, "local_steps": 100}, **ONE, epochs=2),
}


def averaged(processes: Processes) -> list[Any]:
    """The mean, of known numbers: rank r moves two entries of a dense matrix and a vector."""
    player = nn.Module()
    player.matrix = nn.Parameter(torch.zeros(processes.size + 2, 2))
    player.vector = nn.Parameter(torch.zeros(3))
    game: Any = SimpleNamespace(
        networks=SimpleNamespace(player=player, generator=None),
        optimisers=lambda: {"reward": SimpleNamespace(counters=(0.0, 0.0), tables=[])},
        config=SimpleNamespace(local_steps=2),
        settle=lambda: None,
    )
    averaging = Averaging(game, processes)
    averaging.remember()
    averaging.after_step()
    player.matrix.data[[0, 1 + processes.rank]] += 2.0 * (1 + processes.rank)
    player.vector.data += 1 + processes.rank
    averaging.after_step()
    return processes.agree([player.matrix.data[:, 0].tolist(), player.vector.data.tolist()])


def averaged_rows(processes: Processes) -> list[Any]:
    """The mean of a table that an optimiser owns: rank r has a gradient of rows 0 and 1 + r in each
    of two steps. Also what each has before it, with the decay of all steps."""
    player = nn.Module()
    player.table = nn.Parameter(torch.full((processes.size + 2, 2), 8.0))
    player.vector = nn.Parameter(torch.zeros(3))
    optimiser = LazyAdamW([player.vector], [player.table], 0.1, 0.5, 5.0)
    game: Any = SimpleNamespace(
        networks=SimpleNamespace(player=player, generator=None),
        optimisers=lambda: {"reward": optimiser},
        config=SimpleNamespace(local_steps=2),
        settle=optimiser.settle,
    )
    averaging = Averaging(game, processes)
    averaging.remember()
    rows, found = torch.tensor([[0, 1 + processes.rank]]), []
    for _ in range(4):
        optimiser.zero_grad()
        gradient = torch.full((2, 2), 1.0 + processes.rank)
        player.table.grad = torch.sparse_coo_tensor(rows, gradient, player.table.shape)
        optimiser.step()
        own = player.table.detach().clone()
        left = optimiser.log_decay - optimiser.tables[0].shrunk
        found.append((own * left.exp()[:, None].float())[:, 0].tolist())
        averaging.after_step()
    optimiser.settle()
    return processes.agree([found, player.table.data[:, 0].tolist()])


def fitted(processes: Processes, name: str) -> dict[str, Any]:
    """The table of a fit by all processes, and whether all end with the same weights."""
    log = synthesise(600, preset="sample", seed=1)[0]
    model = UserModel(CONFIGS[name], device="cpu")
    table = model.fit(log, processes=processes).history_
    networks = [one.networks for one in (model, *model.members) if one.networks is not None]
    sums = [float(one.detach().double().sum()) for each in networks for one in each.parameters()]
    alone = (
        UserModel(CONFIGS[name], device="cpu").fit(log).history_ if processes.is_first else table
    )
    everywhere = processes.agree([sums, table.drop("events_per_second").to_dicts()])
    return {"everywhere": everywhere, "alone": alone.to_dicts()}


def refused(processes: Processes) -> list[Any]:
    """The last process meets losses that are not finite: all stop."""
    step, said = Game.exact_step, ""

    def bad(game: Game, batch: Batch) -> float:
        if processes.rank == processes.size - 1 and batch.rows.min() < 40:
            raise StepRefusedError("made up")
        return step(game, batch)

    Game.exact_step = bad  # type: ignore[method-assign]
    log = synthesise(600, preset="sample", seed=1)[0]
    try:
        config = CONFIGS["alone"].replace(players="exact")
        UserModel(config, device="cpu").fit(log, processes=processes)
    except NumericsError as error:
        said = str(error)
    Game.exact_step = step  # type: ignore[method-assign]
    return processes.agree(said)


def main() -> None:
    """Run all cases."""
    torch.set_num_threads(1)
    with launched(torch.device("cpu")) as processes:
        found = {
            "averaged": averaged(processes),
            "rows": averaged_rows(processes),
            "kernels": fitted(processes, "kernels"),
            "stock": fitted(processes, "stock"),
            "refused": refused(processes),
        }
        if processes.is_first:
            print(json.dumps(found))
            sys.stdout.flush()
        processes.agree()
    os._exit(0)


if __name__ == "__main__":
    main()
