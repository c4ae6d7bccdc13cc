"""Ray Train hands the shards of a log to its workers, each of which calls FastGAUM's loop: one
model, trained by all of them."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ray.data
import ray.train
from ray.train.torch import TorchTrainer

import fastgaum as fg
from fastgaum.logs.shard_writer import shard_log
from fastgaum.models.train_loop import train_loop


def worker(config: dict[str, Any]) -> None:
    """In each worker, where Ray has set up torch.distributed: train on the shards that the dataset
    hands to this one."""
    numbers = ray.train.get_dataset_shard("shards")
    table = train_loop(config, lambda: [row["id"] for row in numbers.iter_rows()])
    # Ray wants to hear from every worker; the first one alone has the table
    ray.train.report(
        {} if table is None else {"val_loss": table["val_loss"].min(), "epochs": table.height}
    )


def main(
    folder: Path | None = None, n_workers: int = 2, n_shards: int = 8, **changes: Any
) -> fg.UserModel:
    """Put a log in shards, train on all of them, read the run."""
    folder = folder or Path(mkdtemp())
    shard_log(fg.load("sample"), folder / "shards", n_shards)
    config = {
        "log": str(folder / "shards"),
        "out": str(folder / "run"),
        "preset": "fastgaum",
        "batch_sessions": 64,
        **changes,
    }
    trainer = TorchTrainer(
        worker,
        train_loop_config=config,
        # rows with the numbers 0 … n − 1 in `id`; the log itself is read where it lies
        datasets={"shards": ray.data.range(n_shards)},
        scaling_config=ray.train.ScalingConfig(num_workers=n_workers),
    )
    trainer.fit()
    model = fg.UserModel.load(folder / "run")
    print(
        "prec@1 "
        f"{model.evaluate(fg.load('sample'), split='test').heads['reward'].precision[1].mean:.1f}"
    )
    return model


if __name__ == "__main__":
    main()
