"""Advice: whether to deploy a plan in place of greedy slates, with three answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from scipy.stats import t as student

from fastgaum.policies.base import MOST_DECOYS, decoys_text

SHARED_ERROR = 0.03
"""error of a lead that all worlds of a log have in common, as a share of what greedy slates are
paid: chosen on 58 known truths, where the spread alone held 72 % of the paid leads (bench/
experiments/decisions.py), and judged on others"""
Decision = Literal["deploy", "keep greedy", "cannot tell"]


@dataclass(frozen=True)
class Advice:
    """Whether to deploy a plan, and why."""

    policy: str
    leads: tuple[float, ...]
    """what it is paid more than greedy slates an episode, in each world of the set"""
    greedy: float
    """what greedy slates are paid, mean over the worlds"""
    n_events: int | None = None
    """of the log, where it is known"""
    decoys: float = 0.0
    """where users always choose, the share of the displayed items below the median of their
    pool"""

    @property
    def lead(self) -> float:
        """Mean over the worlds."""
        return float(np.mean(self.leads))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Of the lead, 95 %. The upper bound is lead + t(.975, K − 1) e, with the error e = sd ·
        √(1/K + 1/(K − 1)) of K worlds, each of which leaves out one part of K of the users (Nadeau
        & Bengio, "Inference for the Generalization Error", Machine Learning 2003). Worlds promise
        too much rather than too little, so the lower bound has √(e² + (`SHARED_ERROR` · greedy)²)
        in place of e."""
        k = len(self.leads)
        own = np.std(self.leads, ddof=1) * np.sqrt(1 / k + 1 / (k - 1))
        t = student.ppf(0.975, k - 1)
        below = t * np.hypot(own, SHARED_ERROR * self.greedy)
        return float(self.lead - below), float(self.lead + t * own)

    @property
    def decision(self) -> Decision:
        """`deploy` if the interval lies above 0 and it shows few decoys, `keep greedy` if it lies
        below or it shows many, else `cannot tell`."""
        low, high = self.interval
        if high < 0 or self.decoys > MOST_DECOYS:
            return "keep greedy"
        return "deploy" if low > 0 else "cannot tell"

    @property
    def events_needed(self) -> int | None:
        """Events of a log whose interval would leave 0 out, if the lead stays and the whole
        interval narrows with the root of the events; None where those of this one are not
        known."""
        if self.n_events is None or self.lead == 0:
            return None
        half = self.lead - self.interval[0]
        return round(self.n_events * max(1.0, (half / abs(self.lead)) ** 2))

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """That of `to_dict`."""
        fields = {one.name: row[one.name] for one in dataclasses.fields(cls)}
        return cls(**{**fields, "leads": tuple(fields["leads"])})

    def to_dict(self) -> dict[str, object]:
        """As JSON keeps it: the fields, and what they say."""
        low, high = self.interval
        said = {"decision": self.decision, "lead": self.lead, "low": low, "high": high}
        return {**dataclasses.asdict(self), **said, "events_needed": self.events_needed}

    def __str__(self) -> str:
        low, high = self.interval
        text = (
            f"{self.decision}: {self.policy} is paid {self.lead:+.3f} ({low:+.3f} to {high:+.3f}) "
            f"an episode beside greedy slates ({self.greedy:.3f}), in {len(self.leads)} worlds"
        )
        if self.decoys > MOST_DECOYS:
            return f"{text}; {decoys_text(self.decoys)}"
        if self.decision == "cannot tell" and self.events_needed is not None:
            text += f"; about {self.events_needed:,} events like these {self.n_events:,} would tell"
        return text
