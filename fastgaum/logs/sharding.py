"""Logs by name or path into shards: streaming where they are files of rows, through memory where
they are packed already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from fastgaum.errors import ConfigError
from fastgaum.logs.convert import Stages, convert_files
from fastgaum.logs.locate import Located, resolve, verify
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions
from fastgaum.logs.registry import load, refuse_choices
from fastgaum.logs.shard_writer import shard_log
from fastgaum.logs.shards import ShardedLog, is_saved_log


def shard_logs(
    logs: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    n_shards: int,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Stages | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> ShardedLog:
    """Write one or more logs (registry names, files, folders) as one log in at most `n_shards`
    shards; return it opened.

    Files of rows are read a piece at a time. A saved log, one in
    shards, and one whose displays are made up pass through memory; such a log is converted alone.

    Raises:
        DatasetError, LogFormatError, ConfigError, OutputError: as `load` and
            `logs.convert.convert_files`.
    """
    found = [resolve(log, data_dir) for log in logs]
    packed = [log for log, one in zip(logs, found, strict=True) if _is_packed(one)]
    if packed:
        if len(logs) > 1:
            raise ConfigError(
                f"'{packed[0]}' is packed already and is converted alone: give the files that it "
                "was made of"
            )
        return shard_log(load(logs[0], data_dir=data_dir, options=options), folder, n_shards)
    for one in found:
        if one.dataset is None:
            refuse_choices(one.path)
        else:
            verify(one.dataset.files[0], one.path)
    first, *others = [replace(one.options, name=None) for one in found]
    if any(other != first for other in others):
        raise ConfigError(
            "the logs are read with different options, one log has one way to be read: convert "
            "them one by one"
        )
    paths = [one.path for one in found]
    options = options.over(found[0].options)
    return convert_files(paths, folder, n_shards, options=options, progress=progress)


def _is_packed(found: Located) -> bool:
    simulated = found.dataset is not None and found.dataset.simulated
    return simulated or is_saved_log(found.path)
