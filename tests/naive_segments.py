"""Slow, obvious twins of the segment, simplex, bag and ranking kernels: one Python list per
event."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from fastgaum.kernels._jit import Array


def per_event(
    rule: Callable[[list[float]], list[float]],
    values: Array,
    offsets: Array,
    no_click: bool,
    absent: float = 0.0,
) -> tuple[Array, Array]:
    """Apply a rule to each event's list (plus a trailing 0 for no click); `absent` is no click's
    result without it."""
    inside: list[float] = []
    no_clicks: list[float] = []
    for start, stop in itertools.pairwise(offsets):
        entries = [float(v) for v in values[start:stop]] + [0.0] * no_click
        result = rule(entries) if entries else []
        no_clicks.append(result.pop() if no_click else absent)
        inside.extend(result)
    return np.array(inside, dtype=float), np.array(no_clicks, dtype=float)


def logsumexp(entries: Sequence[float]) -> float:
    top = max(entries, default=-math.inf)
    return (
        top if top == -math.inf else top + math.log(math.fsum(math.exp(v - top) for v in entries))
    )


def log_softmax(entries: list[float]) -> list[float]:
    total = logsumexp(entries)
    return [math.nan if total == -math.inf else v - total for v in entries]


def softmax(entries: list[float]) -> list[float]:
    return [math.exp(v) for v in log_softmax(entries)]


def entmax(alpha: float) -> Callable[[list[float]], list[float]]:
    """Return the α-entmax rule, by a hundred plain halvings."""

    def rule(entries: list[float]) -> list[float]:
        if max(entries) == -math.inf:
            return [math.nan] * len(entries)
        z = [(alpha - 1) * (v - max(entries)) for v in entries]
        low, high = -1.0, 0.0
        for _ in range(100):
            tau = (low + high) / 2
            shares = [max(v - tau, 0.0) ** (1 / (alpha - 1)) for v in z]
            low, high = (tau, high) if math.fsum(shares) > 1 else (low, tau)
        return [share / math.fsum(shares) for share in shares]

    return rule


def argmax(values: Array, offsets: Array) -> list[int]:
    events = itertools.pairwise(offsets)
    return [int(np.argmax(values[start:stop])) if stop > start else -1 for start, stop in events]


def rank_counts(scores: Array, offsets: Array, choices: Array) -> tuple[list[int], list[int]]:
    better, tied = [], []
    for event, choice in enumerate(choices):
        entries = list(scores[offsets[event] : offsets[event + 1]])
        chosen = entries.pop(choice) if choice >= 0 else None
        better.append(sum(v > chosen for v in entries) if chosen is not None else -1)
        tied.append(sum(v == chosen for v in entries) if chosen is not None else -1)
    return better, tied


def multi_hot(ids: Array, offsets: Array, weights: Array | None, n_rows: int) -> Array:
    """Return the dense matrix (n_bags, n_rows) whose product with a table is the bag sum."""
    dense = np.zeros((len(offsets) - 1, n_rows))
    for bag in range(len(offsets) - 1):
        for i in range(offsets[bag], offsets[bag + 1]):
            dense[bag, ids[i]] += 1.0 if weights is None else weights[i]
    return dense
