"""What a scored split is: every head's scores and choice probabilities, as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastgaum.logs.log import FloatArray

SCORING_SESSIONS = 1024
"""sessions per batch when nothing is trained"""


@dataclass(frozen=True)
class HeadScores:
    """One head's choice distribution; shapes (n_candidates,) and (n_events,)."""

    scores: FloatArray
    """what candidates are ranked by: utilities, logits, or a baseline's own scores"""
    log_probs: FloatArray
    outside_log_prob: FloatArray


@dataclass(frozen=True)
class ScoredSessions:
    """Every head over the scored sessions, in their order."""

    heads: Mapping[str, HeadScores]
    """always "reward"; "generator" where the model has one"""
    gap: FloatArray | None = None
    """optimality gap per event; None without a generator"""
