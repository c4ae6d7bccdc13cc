"""The training loop as a function that somebody else's workers call: Ray Train, a scheduler of
one's own.

The scheduler hands each worker shards of a log in shards. The workers are the processes of
torch.distributed's default group, which the scheduler has set up, and train one model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch.distributed as dist

from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.features.windows import ShardIterator
from fastgaum.game.epochs import Observer
from fastgaum.logs.read import open_log
from fastgaum.logs.shards import ShardedLog
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
    config: Mapping[str, Any],
    shard_iterator: ShardIterator,
    observers: Sequence[Observer] = (),
) -> pl.DataFrame | None:
    """Train on the shards that this worker is handed, together with the other workers; the first
    writes the run folder.

    Args:
        config: `log`, a folder in shards that every worker can read; `out`, the run folder, which
            the first worker writes; `device` (auto if not given); all other keys are those of a
            configuration, `preset` among them. `batch_sessions` is the sessions of a batch over all
            workers.
        shard_iterator: called at the beginning of each epoch, gives the numbers of the shards to go
            through, in their order; in an epoch each shard should be one worker's. Workers may get
            different numbers of them: a worker that finishes early waits.
        observers: see each epoch and each batch, in the first worker.

    Returns:
        The training table, one row per epoch, in the first worker; None in the others.

    An unfinished run in the folder goes on: a scheduler that restarts the workers gives them the
    same arguments. A run does not remember which shards were handed out: one that stopped within an
    epoch goes through the shards that are handed out next.

    Raises:
        ConfigError: a key or value of `config` is wrong, or a worker has no shard.
        LogFormatError, OutputError, NumericsError: as `train_run`.
    """
    missing = [key for key in ("log", "out") if key not in config]
    if missing:
        raise ConfigError(
            f"train_loop needs '{missing[0]}' in its config: log, the folder in shards, and out, "
            "the run folder"
        )
    keys = {key: value for key, value in config.items() if key not in OWN_KEYS}
    model = UserModel(
        Config.from_preset(keys.pop("preset", "fastgaum"), **keys),
        device=config.get("device", "auto"),
    )
    log = open_log(config["log"])
    if not isinstance(log, ShardedLog):
        raise ConfigError(
            f"'{config['log']}' is not in shards: make it so with `fastgaum data convert --shards "
            "N`"
        )
    grouped = dist.is_available() and dist.is_initialized()
    processes = Processes.of_process_group(model.device) if grouped else Processes()
    processes.shards = shard_iterator
    if not processes.is_first:
        follow_run(model, log, processes)
        return None
    out, source = Path(config["out"]), str(Path(config["log"]).absolute())
    if run_checkpoint(out) is not None:
        return resume_run(model, log, out, observers=observers, source=source, processes=processes)
    origin = LogOrigin(source)
    return train_run(model, log, out, observers=observers, origin=origin, processes=processes)
