"""What `tune` varies: the settings that a fit of the preset `fastgaum` compares by itself, and
values around theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PRESET = "fastgaum"
Value = str | int | float
Values = dict[str, Value]
"""one trial's values by key; `hidden` as text, `setting` the name of a compared setting"""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included."""

    low: float
    high: float
    log: bool = False
    """whether their logarithms are spread evenly"""
    whole: bool = False
    """whole numbers only"""


KEYS: dict[str, Range | tuple[str, ...]] = {
    "hidden": ("32", "64", "128", "64, 64", "128, 64"),
    "history_dim": Range(4, 64, log=True, whole=True),
    "tower_dim": Range(16, 256, log=True, whole=True),
    "dropout": Range(0.0, 0.8),
    "id_dropout": Range(0.0, 0.9),
    "weight_decay": Range(0.003, 1.0, log=True),
    "lr": Range(0.001, 0.01, log=True),
}
"""the keys of a configuration that are varied, and between what; they hold the values of the preset
and of all its sizes"""
RATES = {key: span for key, span in KEYS.items() if key in ("lr", "weight_decay")}
"""keys whose product is bounded"""


@dataclass(frozen=True)
class SearchSpace:
    """The configurations that trials may have."""

    settings: Mapping[str, Config]
    """what a fit of the preset compares on the log, by name; at least one"""
    keys: tuple[str, ...]
    """keys whose values are varied, in the order of KEYS"""

    @classmethod
    def of(cls, base: Config, log: SessionLog, fixed: Mapping[str, object]) -> SearchSpace:
        """The space of a log for a configuration; keys of `fixed` keep the value that they have in
        it.

        Raises:
            ConfigError: nothing is left to vary, or a key is set to what does not fit all values
                of the others.
        """
        counts = (log.count(what, "train") for what in ("sessions", "events", "candidates"))
        found = base.settings(*counts) or {"as it is": base.replace(grow=False, search=())}
        towers = any(config.tower_dim for config in found.values())
        keys = tuple(key for key in KEYS if key not in fixed and (towers or key != "tower_dim"))
        if not keys:
            raise ConfigError(
                f"every key that is varied is set ({', '.join(KEYS)}): leave one of them open"
            )
        # what no trial may have is said now: the search would meet it again and again
        most = {
            key: span.high for key, span in RATES.items() if key in keys and isinstance(span, Range)
        }
        for config in found.values():
            config.replace(**most)
        return cls(found, keys)

    @property
    def first(self) -> list[Values]:
        """The values of the settings that a fit compares by itself: together they are the
        default."""
        return [self._of_setting(name) for name in self.settings]

    def config(self, values: Mapping[str, Value]) -> Config:
        """The configuration of a trial's values.

        Raises:
            ConfigError: they do not fit together.
        """
        config = self.settings[str(values.get("setting", next(iter(self.settings))))]
        changes: dict[str, object] = {}
        for key in self.keys:
            if key == "hidden":
                changes[key] = tuple(map(int, str(values[key]).split(",")))
            elif key != "tower_dim" or config.tower_dim:
                value = values[key]
                changes[key] = float(f"{value:.3g}") if isinstance(value, float) else value
        return config.replace(**changes)

    def distributions(self) -> dict[str, BaseDistribution]:
        """The space in Optuna's words."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        found: dict[str, BaseDistribution] = {}
        if len(self.settings) > 1:
            found["setting"] = CategoricalDistribution(list(self.settings))
        for key in self.keys:
            span = KEYS[key]
            if not isinstance(span, Range):
                found[key] = CategoricalDistribution(list(span))
            elif span.whole:
                found[key] = IntDistribution(int(span.low), int(span.high), log=span.log)
            else:
                found[key] = FloatDistribution(span.low, span.high, log=span.log)
        return found

    def facts(self) -> dict[str, object]:
        """The space as plain values: what must be alike for a search to go on."""
        spans = {key: KEYS[key] for key in self.keys}
        return {
            "settings": {name: config.to_mapping() for name, config in self.settings.items()},
            "keys": {
                key: [span.low, span.high] if isinstance(span, Range) else list(span)
                for key, span in spans.items()
            },
        }

    def _of_setting(self, name: str) -> Values:
        config = self.settings[name]
        values: Values = {"setting": name} if len(self.settings) > 1 else {}
        for key in self.keys:
            value = getattr(config, key)
            if key == "hidden":
                value = ", ".join(map(str, value))
            elif key == "tower_dim" and not value:
                value = int(KEYS[key].low)  # type: ignore[union-attr]
            values[key] = value
        return values


def changed_keys(config: Config) -> dict[str, object]:
    """What a TOML file must say for a run of `config`: its preset, and the keys in which it
    differs. A run has a seed of its own."""
    usual = Config.from_preset(PRESET).to_mapping()
    own = {
        key: value
        for key, value in config.to_mapping().items()
        if value != usual[key] and key != "seed"
    }
    return {"preset": PRESET, **own}


def base_config(fixed: Mapping[str, object]) -> Config:
    """The default that a search begins with: the preset with the keys that are set.

    Raises:
        ConfigError: an unknown key, an impossible value, or one under which nothing can be judged.
    """
    if fixed.get("preset", PRESET) != PRESET:
        raise ConfigError(
            f"tune varies the preset '{PRESET}', got preset = {fixed['preset']!r}: leave it out, "
            "and set single keys"
        )
    base = Config.from_preset(PRESET, **{k: v for k, v in fixed.items() if k != "preset"})
    if base.regulariser != "shannon":
        raise ConfigError(
            f"trials are judged by their likelihood, regulariser = {base.regulariser} may give a "
            "choice the probability 0: leave it at shannon"
        )
    return base
