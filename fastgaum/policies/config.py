"""The configuration of a policy that learns: one frozen dataclass, read strictly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta

from fastgaum.config import (
    CheckedSettings,
    Count,
    CountFromOne,
    Positive,
    Seed,
    Widths,
)
from fastgaum.errors import ConfigError

Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class PolicyConfig(CheckedSettings):
    """Sizes and training of the Q networks. Raises ConfigError for impossible values."""

    what: ClassVar[str] = "policy setting"

    width: Annotated[int, Meta(ge=1, le=1 << 16)] = 32
    """size of the inner product of the two towers; 16 is quicker for pools of more than 20,000
    items"""
    towers: Widths = (64,)
    """hidden layers of the user's and the item's tower"""
    gamma: Share = 0.0
    """discount of a step; 0 = 0.97, and for slateq 1 where Q reads the time"""
    time: bool = True
    """Q also reads the share of the episode that is left, and the last step ends it; false: the
    last step has a future like any other"""
    users: Annotated[int, Meta(ge=1, le=10**7)] = 256
    """users that are played side by side"""
    episodes: CountFromOne = 60
    """episodes of all users"""
    replay: Annotated[int, Meta(ge=1, le=10**8)] = 100_000
    """steps of users that are remembered"""
    batch: Annotated[int, Meta(ge=1, le=10**6)] = 512
    """steps per update"""
    updates: Annotated[int, Meta(ge=1, le=10**6)] = 4
    """updates after each step of all users"""
    warm_up: Count = 1_000
    """steps of users before the first update"""
    lr: Positive = 3e-3
    """Adam's learning rate at the start; it falls linearly to a fiftieth"""
    clip: Positive = 10.0
    """largest gradient norm"""
    target_rate: Annotated[float, Meta(gt=0, le=1)] = 0.02
    """share of the trained weights that each update mixes into the target network; this one acts"""
    epsilon: Share = 1.0
    """share of places filled at random at the start"""
    last_epsilon: Share = 0.1
    """the same at the end of its schedule"""
    exploration: Share = 0.7
    """share of the training over which epsilon falls, linearly"""
    evaluations: CountFromOne = 10
    """evaluations during training, evenly spread"""
    seed: Seed = 0
    """seeds networks, exploration and users of the training"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma == 1.0 and not self.time:
            raise ConfigError(
                "gamma is 1 and time is false: the value of a life without end is a sum without "
                "end; set gamma below 1, as 0.97, or time = true"
            )
        if self.replay < self.warm_up:
            raise ConfigError(
                f"replay is {self.replay:,} and warm_up {self.warm_up:,}: the first update needs "
                "warm_up remembered steps; set replay to at least warm_up"
            )

    def epsilon_at(self, progress: float) -> float:
        """Share of places filled at random after a share of the training."""
        fallen = 1.0 if self.exploration == 0 else min(progress / self.exploration, 1.0)
        return self.epsilon + fallen * (self.last_epsilon - self.epsilon)
