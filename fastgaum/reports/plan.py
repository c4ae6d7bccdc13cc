"""Which runs a grid holds: data sets × models × splits × seeds, every model named and set before
anything is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastgaum.baselines.registry import check_model, setting_names
from fastgaum.errors import ConfigError, did_you_mean

_OWN_OPTION = {"preset": "--models", "protocol": "--protocol"}
"""settings that a grid has an option for: --set would contradict what the table says of itself"""
_RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?")


@dataclass(frozen=True)
class Run:
    """One training of a grid."""

    dataset: str
    model: str
    settings: Mapping[str, Any]
    """protocol, seed, and the model's own that were set"""
    resplit: int | None = None
    """seed of the split of whole users; None: the log's own split"""

    @property
    def seed(self) -> int:
        """Seed of the model's random streams."""
        return int(self.settings["seed"])


def plan(
    datasets: Sequence[str],
    models: Sequence[str],
    seeds: int,
    protocol: str,
    settings: Mapping[str, Any],
    resplits: Sequence[int | None] = (None,),
) -> list[Run]:
    """List the runs of a grid, in the order of its table; the first seed is the one that is set, or
    0.

    Each model takes the settings that it has.

    Raises:
        ConfigError: an unknown model, a setting that no model of the grid has or that is
            impossible, or no seed.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}")
    own = _settings_by_model(models, protocol, settings)
    return [
        Run(dataset, model, {**own[model], "seed": own[model]["seed"] + i}, resplit)
        for dataset in datasets
        for model in models
        for resplit in resplits
        for i in range(seeds)
    ]


def parse_resplits(text: str) -> list[int]:
    """Read a seed, a range or a list of both: `7`, `1..10`, `1,4,9`; each split once, in the order
    given.

    Raises:
        ConfigError: anything else, or a range that falls.

    >>> parse_resplits("1..3,7")
    [1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise ConfigError(
                f"--resplit takes seeds of at least 0 as 7, 1..10 or 1,4,9, got '{text}'"
            )
        first = int(found[1])
        last = first if found[2] is None else int(found[2])
        if last < first:
            raise ConfigError(f"--resplit {part.strip()} is an empty range: write {last}..{first}")
        seeds.extend(range(first, last + 1))
    return list(dict.fromkeys(seeds))


def _settings_by_model(
    models: Sequence[str], protocol: str, settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    for key in settings:
        if key in _OWN_OPTION:
            raise ConfigError(f"--set {key} does not fit a grid: use {_OWN_OPTION[key]}")
    for model in models:
        check_model(model, {"protocol": protocol})
    known = {model: setting_names(model) for model in models}
    for key in settings:
        if not any(key in names for names in known.values()):
            every = sorted(set().union(*known.values()))
            raise ConfigError(
                f"unknown configuration key '{key}': no model of the grid ({', '.join(models)}) "
                "has it"
                f"{did_you_mean(key, every)}"
            )
    own = {}
    for model in models:
        set_here = {key: value for key, value in settings.items() if key in known[model]}
        own[model] = {"protocol": protocol, "seed": 0, **set_here}
        check_model(model, own[model])
    return own
