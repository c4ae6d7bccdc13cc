"""The options that make a configuration: --preset, --config, --set, --seed, --protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fastgaum.config import Config, parse_setting
from fastgaum.errors import ConfigError

Settings = Annotated[
    tuple[str, ...], Parameter(name="--set", help="a configuration key: epochs=3 (repeatable)", negative="")
]
Device = Annotated[str, Parameter(help="cpu, cuda or auto")]


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` texts; a later one wins.

    Raises:
        ConfigError: one is not key=value.
    """
    return dict(parse_setting(text) for text in settings)


def resolve_config(
    preset: str | None, file: Path | None, settings: Sequence[str], *, seed: int | None, protocol: str | None
) -> Config:
    """Build a configuration: a preset or a file's, then --seed and --protocol, then --set.

    Raises:
        ConfigError: an unknown preset or key, or a value that is not allowed.
    """
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if protocol is not None:
        changes["protocol"] = protocol
    changes |= parse_settings(settings)
    # `--set preset=x` means the preset's values, not its label alone.
    preset = changes.pop("preset", preset)
    if preset is not None and not isinstance(preset, str):
        raise ConfigError(f"preset must be a name, got {preset!r}")
    if file is not None:
        return Config.from_toml(file, **changes, **({} if preset is None else {"preset": preset}))
    return Config.from_preset(preset or "fastgaum", **changes)


def set_threads(threads: int | None) -> None:
    """Let torch and the kernels use so many threads; None leaves torch's default, all cores.

    Raises:
        ConfigError: fewer than one.
    """
    if threads is not None:
        from fastgaum.ops import threads as pool

        pool.set_threads(threads)
