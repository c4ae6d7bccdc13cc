"""What an opinion pool is made of: the names of its members, and what they are made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fastgaum.config import CheckedSettings, Protocol, Seed
from fastgaum.errors import ConfigError

POOL = "pool"
"""the name of the model that weighs several"""
MEMBERS = ("fastgaum", "logit", "wd-ccf", "xgboost", "scknnc", "linucb")
"""the members of the model `pool`: a user's state, a linear model, crossed features, trees, the
nearest sessions, a regression"""


@dataclass(frozen=True)
class PoolSettings(CheckedSettings):
    """What a pool is made of."""

    what: ClassVar[str] = "setting of a pool"

    members: tuple[str, ...] = MEMBERS
    """names of its models"""
    protocol: Protocol = "bags"
    """what a candidate's bag holds, for each member that can read it"""
    seed: Seed = 0
    """seeds every random stream"""


def check_members(names: Sequence[str], check_name: Callable[[str], None]) -> None:
    """Raise ConfigError unless a pool may have members of these names: one at least, and no pool,
    whose sessions no other model reads."""
    if not names:
        raise ConfigError("a pool has no member: name at least one model")
    if POOL in names:
        raise ConfigError("a pool is no member of a pool: name its members instead")
    for name in names:
        check_name(name)
