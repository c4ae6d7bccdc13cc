"""The options that make a configuration: --preset, --config, --set, --seed, --protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fastgaum.config import Config, parse_setting
from fastgaum.errors import ConfigError

Settings = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="a configuration key: epochs=3 (repeatable)",
        negative="",
        show_default=False,
    ),
]
Device = Annotated[str, Parameter(help="cpu, cuda or auto")]


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` texts; a later one wins.

    Raises:
        ConfigError: one is not key=value.
    """
    return dict(parse_setting(text) for text in settings)


def resolve_config(
    preset: str | None,
    file: Path | None,
    settings: Sequence[str],
    *,
    seed: int | None,
    protocol: str | None,
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


def resumed_config(
    run: Path,
    asked: Config,
    preset: str | None,
    file: Path | None,
    settings: Sequence[str],
    *,
    seed: int | None,
    protocol: str | None,
) -> Config:
    """The configuration to go on with a run: as it was asked for, or with more epochs; options may
    only repeat it.

    Raises:
        ConfigError: an option says otherwise; all such are named.
    """
    changes = parse_settings(settings)
    if preset is not None or file is not None or "preset" in changes:
        given = resolve_config(preset, file, settings, seed=seed, protocol=protocol)
    else:
        own = {"seed": seed, "protocol": protocol}
        given = asked.replace(
            **{key: value for key, value in own.items() if value is not None}, **changes
        )
    if asked.is_continued_by(given):
        return given
    was, now = asked.to_mapping(), given.to_mapping()
    differ = [
        key for key in was if now[key] != was[key] and not (key == "epochs" and now[key] > was[key])
    ]
    raise ConfigError(
        f"the run in '{run}' has "
        f"{', '.join(f'{key} = {was[key]}, not {now[key]}' for key in differ)}: "
        "leave the options out (the folder has them; epochs alone may be raised), or train in "
        "another folder"
    )


def set_threads(threads: int | None) -> None:
    """Let torch and the kernels use so many threads; None leaves torch's default, all cores.

    Raises:
        ConfigError: fewer than one.
    """
    if threads is not None:
        from fastgaum import threads as pool

        pool.set_threads(threads)
