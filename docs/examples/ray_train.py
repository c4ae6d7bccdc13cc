"""Ray Train starts workers, each of which calls what `torchrun` calls: one model, trained by all of
them; of a large log each reads its share of the parts."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

import fastgaum as fg
from fastgaum.game.processes import Processes
from fastgaum.logs.parts import save_in_parts
from fastgaum.logs.store import StoredLog
from fastgaum.models.run_folder import train_run


def worker(config: dict[str, Any]) -> None:
    """In each worker, where Ray has set up torch.distributed: train on its part of every batch."""
    settings = {key: value for key, value in config.items() if key not in ("log", "out")}
    model = fg.UserModel.from_preset("fastgaum", **settings)
    processes = Processes.of_group(model.device)
    table = train_run(model, StoredLog(config["log"]), Path(config["out"]), processes=processes)
    # every worker has the table; the first one has written the run
    ray.train.report({"val_loss": table["val_loss"].min(), "epochs": table.height})


def main(folder: Path | None = None, n_workers: int = 2, **changes: Any) -> fg.UserModel:
    """Train with so many workers, read the run."""
    place = folder or Path(mkdtemp())
    out, log = place / "run", save_in_parts("sample", place / "log", 8)
    trainer = TorchTrainer(
        worker,
        train_loop_config={"log": str(log), "out": str(out), "batch_sessions": 64, **changes},
        scaling_config=ray.train.ScalingConfig(num_workers=n_workers),
    )
    trainer.fit()
    model = fg.UserModel.load(out)
    evaluation = model.evaluate(fg.load("sample"), split="test")
    print(f"prec@1 {evaluation.heads['reward'].precision[1].mean:.1f}")
    return model


if __name__ == "__main__":
    main()
