"""One model's figures on one split: ranking, likelihood, calibration, each with its denominator and
interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fastgaum.errors import ConfigError
from fastgaum.features.space import EncodedSessions
from fastgaum.logs.log import FloatArray
from fastgaum.metrics.calibration import (
    NoClickCalibration,
    candidate_outcomes,
    expected_calibration_error,
    no_click_calibration,
)
from fastgaum.metrics.intervals import Interval, bootstrap_mean, paired_difference
from fastgaum.metrics.likelihood import brier_score, choice_nll
from fastgaum.metrics.precision import nontrivial_mean, precision_at_k, random_floor, user_mean

MIN_PROB = 1e-6
"""stands in for smaller probabilities in a NLL, so that a sparse distribution's is finite; below
any softmax seen"""


class Head(Protocol):
    """A choice distribution and what candidates are ranked by."""

    @property
    def scores(self) -> FloatArray:
        """Ranking scores, shape (n_candidates,)."""

    @property
    def log_probs(self) -> FloatArray:
        """Shape (n_candidates,)."""

    @property
    def outside_log_prob(self) -> FloatArray:
        """Shape (n_events,)."""


@dataclass(frozen=True)
class HeadFigures:
    """Figures of one head. prec@k in percent; NLL in nats, over all events, no click included."""

    precision: dict[int, Interval]
    """micro average over events with a choice"""
    per_user: dict[int, float]
    """mean over users of their own prec@k"""
    nontrivial: dict[int, float]
    """events with more than k candidates only"""
    nll: Interval
    brier: float
    ece: float
    """expected calibration error of candidate probabilities, in [0, 1]"""
    no_click: NoClickCalibration | None
    precision_per_event: dict[int, np.ndarray] = field(repr=False)
    """kept for paired differences, shape (n_events,), NaN without a choice"""


@dataclass(frozen=True)
class Evaluation:
    """Figures of each head, and the floors of the split."""

    heads: dict[str, HeadFigures]
    n_events: int
    n_users: int
    random: dict[int, float]
    """prec@k of a random order, percent"""
    gap: float | None
    """mean optimality gap; None without a generator"""
    users: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)
    """user of each event, kept for paired differences, shape (n_events,)"""

    def lead(
        self, other: Evaluation, k: int = 1, *, head: str = "reward", other_head: str = "reward"
    ) -> Interval:
        """How much higher prec@k is than that of another model on the same events, in points,
        paired, over users.

        What is hard for both cancels out: the interval is narrower than the two single ones
            suggest.

        Raises:
            ConfigError: a head or a k that was not scored, or the two were scored on other events.
        """
        for evaluation, name in ((self, head), (other, other_head)):
            if name not in evaluation.heads or k not in evaluation.heads[name].precision:
                raise ConfigError(
                    f"there is no prec@{k} of '{name}': heads are {', '.join(evaluation.heads)}, "
                    "with k of"
                    f" {', '.join(map(str, next(iter(evaluation.heads.values())).precision))}"
                )
        if not np.array_equal(self.users, other.users):
            raise ConfigError(
                f"the two models were scored on other events ({self.n_events} and "
                f"{other.n_events}): evaluate both on one"
                " split of one log"
            )
        ours, theirs = (
            self.heads[head].precision_per_event[k],
            other.heads[other_head].precision_per_event[k],
        )
        return paired_difference(ours, theirs, self.users)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        heads = {
            name: {
                "prec": {
                    str(k): {"mean": v.mean, "ci": [v.low, v.high]} for k, v in h.precision.items()
                },
                "prec_per_user": {str(k): v for k, v in h.per_user.items()},
                "prec_nontrivial": {str(k): v for k, v in h.nontrivial.items()},
                "nll": {"mean": h.nll.mean, "ci": [h.nll.low, h.nll.high]},
                "brier": h.brier,
                "ece": h.ece,
                "no_click": None
                if h.no_click is None
                else {
                    "predicted": h.no_click.predicted,
                    "observed": h.no_click.observed,
                    "error": h.no_click.error,
                    "worst_decile": h.no_click.worst_decile,
                },
            }
            for name, h in self.heads.items()
        }
        return {
            "n_events": self.n_events,
            "n_users": self.n_users,
            "gap": self.gap,
            "floors": {"random": {str(k): v for k, v in self.random.items()}},
            "heads": heads,
        }


def evaluate_heads(
    heads: Mapping[str, Head],
    encoded: EncodedSessions,
    outside: bool,
    gap: float | None,
    ks: tuple[int, ...] = (1, 2),
) -> Evaluation:
    """Compute every head's figures on encoded sessions.

    Raises:
        NumericsError: a score or probability is not finite.
    """
    return Evaluation(
        heads={name: _figures(head, encoded, outside, ks) for name, head in heads.items()},
        n_events=encoded.n_events,
        n_users=len(np.unique(encoded.users)),
        random={
            k: 100 * random_floor(encoded.display_offsets, encoded.choices, k).value for k in ks
        },
        gap=gap,
        users=encoded.user_of_event,
    )


def _figures(
    head: Head, encoded: EncodedSessions, outside: bool, ks: tuple[int, ...]
) -> HeadFigures:
    offsets, choices, users = encoded.display_offsets, encoded.choices, encoded.user_of_event
    per_event = {k: 100 * precision_at_k(head.scores, offsets, choices, k) for k in ks}
    probs = np.exp(head.log_probs)
    no_click_probs = np.exp(head.outside_log_prob) if outside else None
    nll = choice_nll(
        head.log_probs,
        head.outside_log_prob if outside else None,
        offsets,
        choices,
        min_prob=MIN_PROB,
    )
    return HeadFigures(
        precision={k: bootstrap_mean(values, users) for k, values in per_event.items()},
        per_user={k: user_mean(values, users).value for k, values in per_event.items()},
        nontrivial={
            k: nontrivial_mean(values, offsets, k).value for k, values in per_event.items()
        },
        nll=bootstrap_mean(nll, users),
        brier=float(brier_score(probs, no_click_probs, offsets, choices).mean()),
        ece=expected_calibration_error(probs, candidate_outcomes(offsets, choices)),
        no_click=no_click_calibration(no_click_probs, choices)
        if no_click_probs is not None
        else None,
        precision_per_event=per_event,
    )
