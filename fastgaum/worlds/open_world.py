"""A world by what a user has at hand: a run folder, or the world itself."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import Any

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.logs.read import load
from fastgaum.worlds.world import World


def open_world(
    run: str | os.PathLike[str] | None,
    world: World | None,
    options: dict[str, Any],
    others: Iterable[str] = (),
) -> World:
    """Return the world given, or read that of a run folder or model file.

    Args:
        run: the run; its options are those of `LearnedWorld`, where `log` may also be what
            `fastgaum.load` takes.
        world: a world, which has its options already.
        options: options by name.
        others: names of the caller's own options, which a misspelt one may have meant.

    Raises:
        ConfigError: neither or both are given, or an option is unknown.
        CheckpointError: the run is damaged.
    """
    if (run is None) == (world is None):
        raise ConfigError(
            "an environment is made of a run or of a world: pass run='RUN' or world=…, one of them"
        )
    known: list[str] = []
    if run is not None:
        from fastgaum.worlds.learned_world import LearnedWorld

        known = [name for name in inspect.signature(LearnedWorld).parameters if name != "model"]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"an environment has no option '{name}'{did_you_mean(name, [*others, *known])}"
            )
    if world is not None:
        return world
    from fastgaum.models.user_model import UserModel

    log = options.get("log")
    if isinstance(log, str | os.PathLike):
        options = {**options, "log": load(str(log))}
    return LearnedWorld(UserModel.load(os.fspath(run or "")), **options)
