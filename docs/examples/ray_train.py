"""Ray Train's workers, each of which calls FastGAUM's loop: one model, trained by all of them."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

import fastgaum as fg
from fastgaum.models.train_loop import train_loop


def worker(config: dict[str, Any]) -> None:
    """In each worker, where Ray has set up torch.distributed: train on a share of each batch."""
    table = train_loop(config)
    # Ray wants to hear from every worker; the first one alone has the table
    ray.train.report(
        {} if table is None else {"val_loss": table["val_loss"].min(), "epochs": table.height}
    )


def main(folder: Path | None = None, n_workers: int = 2, **changes: Any) -> fg.UserModel:
    """Save a log where all workers read it, train on it, read the run."""
    folder = folder or Path(mkdtemp())
    config = {
        "log": str(fg.save_log(fg.load("sample"), folder / "log")),
        "out": str(folder / "run"),
        "preset": "fastgaum",
        "batch_sessions": 64,
        **changes,
    }
    trainer = TorchTrainer(
        worker,
        train_loop_config=config,
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
