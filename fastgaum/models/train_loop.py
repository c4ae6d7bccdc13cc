"""The training loop as a function that somebody else's workers call: Ray Train, a scheduler of
one's own.

The workers are the processes of torch.distributed's default group, which the scheduler has set up.
They read one log, share each batch of it, and train one model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch.distributed as dist

from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.game.epochs import Observer
from fastgaum.logs.read import load
from fastgaum.models.run_folder import (
    LogOrigin,
    follow_run,
    resume_run,
    run_checkpoint,
    train_run,
)
from fastgaum.models.user_model import UserModel
from fastgaum.processes import Processes

OWN_KEYS = ("log", "out", "device")


def train_loop(
    config: Mapping[str, Any], observers: Sequence[Observer] = ()
) -> pl.DataFrame | None:
    """Train together with the other workers; the first writes the run folder.

    Args:
        config: `log`, which every worker can read; `out`, the run folder, which the first worker
            writes; `device` (auto if not given); all other keys are those of a configuration,
            `preset` among them. `batch_sessions` is the sessions of a batch over all workers.
        observers: see each epoch and each batch, in the first worker.

    Returns:
        The training table, one row per epoch, in the first worker; None in the others.

    An unfinished run in the folder goes on: a scheduler that restarts the workers gives them the
    same arguments.

    Raises:
        ConfigError: a key or value of `config` is wrong.
        LogFormatError, OutputError, NumericsError: as `train_run`.
    """
    missing = [key for key in ("log", "out") if key not in config]
    if missing:
        raise ConfigError(
            f"train_loop needs '{missing[0]}' in its config: log, a name or a path, and out, the "
            "run folder"
        )
    keys = {key: value for key, value in config.items() if key not in OWN_KEYS}
    model = UserModel(
        Config.from_preset(keys.pop("preset", "fastgaum"), **keys),
        device=config.get("device", "auto"),
    )
    log = load(config["log"])
    grouped = dist.is_available() and dist.is_initialized()
    processes = Processes.of_process_group(model.device) if grouped else Processes()
    if not processes.is_first:
        follow_run(model, log, processes)
        return None
    out, source = Path(config["out"]), str(Path(config["log"]).absolute())
    if run_checkpoint(out) is not None:
        return resume_run(model, log, out, observers=observers, source=source, processes=processes)
    origin = LogOrigin(source)
    return train_run(model, log, out, observers=observers, origin=origin, processes=processes)
