"""The configuration of a policy that learns: one frozen dataclass, read strictly."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastgaum.config import MOST_LAYERS, WIDEST, coerce
from fastgaum.errors import ConfigError, did_you_mean

_AT_MOST = {
    "width": WIDEST,
    "users": 10**7,
    "episodes": 10**9,
    "replay": 10**8,
    "batch": 10**6,
    "updates": 10**6,
    "warm_up": 10**9,
    "evaluations": 10**9,
    "seed": 2**62,
}
"""sizes beyond which a configuration is a slip or an attack"""

LARGE_POOL = 20_000
"""items up to which a pool's networks are 32 wide unless told otherwise"""
Form = Literal["joint", "inner"]


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes and training of the Q networks. Raises ConfigError for impossible values."""

    form: Form = "inner"
    """joint: a hidden layer over state and items together, the paper's network; inner: two towers
    and their inner product"""
    width: int = 0
    """hidden units of the joint layer, or size of the inner product; 0 = 32, and 16 for pools of
    more than 20,000 items, where the arg-max takes most of a step"""
    towers: tuple[int, ...] = (64,)
    """hidden layers of the user's and the item's side before they meet; the paper has none"""
    gamma: float = 0.97
    """discount of a step"""
    time: bool = True
    """Q also reads the share of the episode that is left, and the last step ends it; false: an
    episode is a sample of a life without end, whose last step has a future like any other"""
    users: int = 256
    """users that are played side by side"""
    episodes: int = 60
    """episodes of all users"""
    replay: int = 100_000
    """steps of users that are remembered"""
    batch: int = 512
    """steps per update"""
    updates: int = 4
    """updates after each step of all users"""
    warm_up: int = 1_000
    """steps of users before the first update"""
    lr: float = 3e-3
    """Adam's learning rate at the start; it falls linearly to a fiftieth"""
    clip: float = 10.0
    """largest gradient norm"""
    target_rate: float = 0.02
    """share of the networks that enters the target network with each update"""
    epsilon: float = 1.0
    """share of places filled at random at the start"""
    last_epsilon: float = 0.1
    """the same at the end of its schedule"""
    exploration: float = 0.7
    """share of the training over which epsilon falls, linearly"""
    evaluations: int = 10
    """evaluations during training, evenly spread"""
    alpha: float = 0.5
    """linucb: weight of the standard deviation"""
    ridge: float = 1.0
    """linucb: λ of the ridge regression"""
    seed: int = 0
    """seeds networks, exploration and users of the training"""

    def __post_init__(self) -> None:
        for key in (
            "users",
            "episodes",
            "replay",
            "batch",
            "updates",
            "lr",
            "clip",
            "evaluations",
            "ridge",
        ):
            if not 0 < getattr(self, key) < float("inf"):
                raise ConfigError(
                    f"{key} must be greater than 0 and finite, got {getattr(self, key)}"
                )
        for key in ("width", "warm_up", "seed", "alpha"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise ConfigError(f"{key} must be at least 0 and finite, got {getattr(self, key)}")
        for key in ("gamma", "target_rate", "epsilon", "last_epsilon", "exploration"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key} must lie between 0 and 1, got {getattr(self, key)}")
        self._check_sizes()
        if self.form == "joint" and self.width % 2:
            raise ConfigError(
                "width of the joint form must be even, half of the units count negative, got "
                f"{self.width}"
            )
        if any(width < 1 for width in self.towers):
            raise ConfigError(f"towers' widths must be at least 1, got {list(self.towers)}")

    def for_pools(self, size: int) -> PolicyConfig:
        """This configuration with the width that it has for pools of so many items."""
        return self if self.width else self.replace(width=32 if size <= LARGE_POOL else 16)

    def _check_sizes(self) -> None:
        for key, most in _AT_MOST.items():
            if getattr(self, key) > most:
                raise ConfigError(f"{key} must be at most {most}, got {getattr(self, key)}")
        if len(self.towers) > MOST_LAYERS or any(width > WIDEST for width in self.towers):
            raise ConfigError(
                f"towers holds at most {MOST_LAYERS} widths of at most {WIDEST}, got "
                f"{len(self.towers)}"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> PolicyConfig:
        """Read a mapping strictly.

        Raises:
            ConfigError: an unknown key, a wrong type or an impossible value.
        """
        hints = typing.get_type_hints(cls)
        for key in values:
            if key not in hints:
                raise ConfigError(f"unknown policy setting '{key}'{did_you_mean(key, hints)}")
        return cls(**{key: coerce(key, value, hints[key]) for key, value in values.items()})

    def to_mapping(self) -> dict[str, Any]:
        """Plain values; tuples become lists."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    def replace(self, **changes: Any) -> PolicyConfig:
        """A copy with some values changed, checked as in `from_mapping`."""
        return PolicyConfig.from_mapping({**self.to_mapping(), **changes})

    def epsilon_at(self, progress: float) -> float:
        """Share of places filled at random after a share of the training."""
        fallen = 1.0 if self.exploration == 0 else min(progress / self.exploration, 1.0)
        return self.epsilon + fallen * (self.last_epsilon - self.epsilon)
