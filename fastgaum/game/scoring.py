"""Scoring sessions with trained networks: utilities and choice log-probabilities of both heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.features.sessions import EncodedSessions, blocks
from fastgaum.game.losses import exact_loss, optimality_gap
from fastgaum.metrics.evaluation import HeadScores
from fastgaum.metrics.precision import precision_at_k
from fastgaum.nets.batches import Batch, assemble
from fastgaum.nets.regularisers import Regulariser

SCORING_SESSIONS = 1024
"""sessions per batch when nothing is trained"""
SCALES = 2.0 ** np.arange(-6, 4.25, 0.25)
"""scales of the calibrated loss: networks are up to fifty times too sure, at first too unsure"""


@dataclass(frozen=True)
class ScoredSessions:
    """Every head over the scored sessions, in their order."""

    heads: Mapping[str, HeadScores]
    """always "reward"; "generator" where the model has one"""
    gap: FloatArray | None = None
    """optimality gap per event; None without a generator"""
    loss: FloatArray | None = None
    """Fenchel–Young loss of the reward per event, where asked for"""

    @classmethod
    def joined(cls, parts: Sequence[ScoredSessions]) -> ScoredSessions:
        """Scores of consecutive sessions as one; at least one part."""

        def head(name: str) -> HeadScores:
            heads = [part.heads[name] for part in parts]
            spread = [head.spread for head in heads if head.spread is not None]
            return HeadScores(
                np.concatenate([head.scores for head in heads]),
                np.concatenate([head.log_probs for head in heads]),
                np.concatenate([head.no_click_log_prob for head in heads]),
                np.concatenate(spread) if spread else None,
            )

        gaps = [part.gap for part in parts if part.gap is not None]
        heads = {name: head(name) for name in parts[0].heads}
        return cls(heads, np.concatenate(gaps) if gaps else None)


def mean_of(members: Sequence[ScoredSessions]) -> ScoredSessions:
    """The mean of the members' probabilities, of their scores and of their gaps."""
    if len(members) == 1:
        return members[0]

    def mean(name: str) -> HeadScores:
        heads = [one.heads[name] for one in members]
        probs = np.exp([head.log_probs for head in heads], dtype=np.float64)
        none = np.exp([head.no_click_log_prob for head in heads], dtype=np.float64)
        with np.errstate(divide="ignore"):  # a sparse regulariser knows the probability 0
            log_probs, log_none = np.log(probs.mean(0)), np.log(none.mean(0))
        scores: FloatArray = np.mean([head.scores for head in heads], 0, np.float32)
        columns = (one.astype(np.float32) for one in (log_probs, log_none, probs.std(0)))
        return HeadScores(scores, *columns)

    gaps = [one.gap for one in members if one.gap is not None]
    heads = {name: mean(name) for name in members[0].heads}
    return ScoredSessions(heads, np.mean(gaps, 0) if gaps else None)


def out_of_fold(
    mean: ScoredSessions, members: Sequence[ScoredSessions], encoded: EncodedSessions
) -> ScoredSessions:
    """The mean, but of sessions that trained (`EncodedSessions.held_out`) the scores of the fit
    that left their fold out, whose spread is not known."""
    assert encoded.held_out is not None
    of_events = np.repeat(encoded.held_out, np.diff(encoded.session_offsets))
    of_candidates = np.repeat(of_events, np.diff(encoded.display_offsets))

    def picked(values: FloatArray, each: Sequence[FloatArray]) -> FloatArray:
        folds, result = of_candidates if len(values) == len(of_candidates) else of_events, values
        for fold, own in enumerate(each):
            result = np.where(folds == fold, own, result)
        return result

    heads = {}
    for name, head in mean.heads.items():
        each = [one.heads[name] for one in members]
        scores, log_probs, no_click = (
            picked(getattr(head, of), [getattr(one, of) for one in each])
            for of in ("scores", "log_probs", "no_click_log_prob")
        )
        spread = head.spread
        if spread is not None:
            spread = np.where(of_candidates >= 0, np.float32(np.nan), spread)
        heads[name] = HeadScores(scores, log_probs, no_click, spread)
    gap = mean.gap
    if gap is not None:
        gap = picked(gap, [one.gap for one in members if one.gap is not None])
    return ScoredSessions(heads, gap)


Outputs = Callable[[Batch], tuple[Tensor, Tensor | None]]
"""utilities and logits of a batch's candidates, without dropout; no logits without a generator"""
HELD_EVENTS = 50_000
"""events up to which scored sessions stay assembled"""


@dataclass(frozen=True)
class Figures:
    """Means over the scored events, percentages for precision."""

    loss: float
    calibrated_loss: float
    """the loss of the reward's utilities times `scale`; NaN if not asked for"""
    scale: float
    """the best one for all utilities; 1 if not asked for"""
    prec1: float
    generator_prec1: float
    """NaN without a generator"""
    gap: float
    """0 without a generator"""


class HeldBatches:
    """Sessions that are scored again and again, as batches; few stay assembled."""

    def __init__(
        self,
        encoded: EncodedSessions,
        device: torch.device,
        most_sessions: int | None = None,
        part: slice = slice(None),
        drawn: IntArray | None = None,
    ) -> None:
        self.encoded, self.device = encoded, device
        positions = np.arange(encoded.n_sessions) if drawn is None else drawn
        n = min(len(positions), most_sessions or len(positions))
        # spread over the log: its order may be that of time
        spread = np.linspace(0, len(positions), n, endpoint=False)
        self.positions = positions[spread.astype(np.int64)[part]]
        few = encoded.n_events * (len(self.positions) / max(encoded.n_sessions, 1)) <= HELD_EVENTS
        self.held = list(self._assembled()) if few else None

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.held) if self.held is not None else self._assembled()

    def _assembled(self) -> Iterator[Batch]:
        for picked in blocks(self.encoded, self.positions.astype(np.int32), SCORING_SESSIONS):
            yield assemble(self.encoded, picked).to(self.device)


def figures(
    outputs: Outputs,
    batches: Iterable[Batch],
    regulariser: Regulariser,
    eta: float,
    no_click: bool,
    total: Callable[[list[float]], list[float]] = lambda values: values,
    *,
    calibrated: bool = False,
) -> Figures:
    """Sum an epoch's figures batch by batch. `total` sums over processes that score a part each."""
    totals, has_generator = np.zeros(6), False
    of_scales = np.zeros(len(SCALES))
    for batch in batches:
        scores = score_batches(outputs, [batch], regulariser, eta, no_click)
        weights = batch.weight_of_event
        totals[4:] += weights.sum(), weights[batch.clicked.cpu()].sum()
        utility = scores.heads["reward"].scores
        if calibrated:
            of_scales += _loss_of_scales(utility, batch, regulariser, eta, no_click)
        if scores.loss is not None:
            totals[0] += scores.loss @ weights
        totals[1] += _hits(utility, batch, weights)
        if scores.gap is not None:
            has_generator = True
            totals[2] += _hits(scores.heads["generator"].log_probs, batch, weights)
            totals[3] += scores.gap @ weights
    sums = total([*totals.tolist(), *of_scales.tolist()])
    of_loss, hits, of_generator, of_gap, of_all, of_clicked = sums[: len(totals)]
    loss, gap = of_loss / of_all, of_gap / of_all
    prec1, generator_prec1 = (100 * one / (of_clicked or 1) for one in (hits, of_generator))
    place, lowest = 0.0, math.nan
    if calibrated:
        place, lowest = lowest_between(np.array(sums[-len(SCALES) :]) / of_all)
    scale = float(SCALES[0] * (SCALES[1] / SCALES[0]) ** place) if calibrated else 1.0
    generator_prec1 = generator_prec1 if has_generator else math.nan
    return Figures(loss, lowest, scale, prec1, generator_prec1, gap)


def _loss_of_scales(
    utility: FloatArray, batch: Batch, regulariser: Regulariser, eta: float, no_click: bool
) -> npt.NDArray[np.float64]:
    values = torch.from_numpy(utility).to(batch.display_offsets.device).double()
    losses = [
        float(batch.weighted(exact_loss(values, batch, regulariser, eta * scale, no_click)).sum())
        for scale in SCALES
    ]
    # `exact_loss` is a Fenchel–Young loss over eta times the scale
    return np.asarray(SCALES * np.array(losses, np.float64), dtype=np.float64)


def lowest_between(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Where a smooth function at equal steps is least, in steps, and its value there: those of the
    parabola through the least of `values` and its neighbours.

    >>> lowest_between(np.array([9.0, 4.0, 1.0, 0.0, 1.0])), lowest_between(np.array([0.0, 1.0]))
    ((3.0, 0.0), (0.0, 0.0))"""
    at = int(np.argmin(values))
    if not 0 < at < len(values) - 1:
        return float(at), float(values[at])
    before, here, after = map(float, values[at - 1 : at + 2])
    bend = before - 2 * here + after
    if bend <= 0:
        return float(at), here
    return at + (before - after) / (2 * bend), here - (after - before) ** 2 / (8 * bend)


def _hits(scores: FloatArray, batch: Batch, weights: Float64Array) -> float:
    offsets, choices = (one.cpu().numpy() for one in (batch.display_offsets, batch.choices))
    precision = precision_at_k(scores, offsets, choices, 1)
    return float(np.nansum(precision * weights))


@torch.no_grad()
def score_batches(
    outputs: Outputs,
    batches: Iterable[Batch],
    regulariser: Regulariser,
    eta: float,
    no_click: bool,
) -> ScoredSessions:
    """Score batches in order. `outputs` are `Networks.outputs`, or those of a game."""
    heads: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {"reward": []}
    losses, gaps = [], []
    for batch in batches:
        offsets = batch.display_offsets
        utility, logits = outputs(batch)
        best = regulariser.best_response(eta * utility, offsets, no_click)
        heads["reward"].append((utility, best.log_probs, best.no_click_log_prob))
        losses.append(exact_loss(utility, batch, regulariser, eta, no_click))
        if logits is not None:
            dist = regulariser.link(logits, offsets, no_click)
            own = (logits, dist.log_probs, dist.no_click_log_prob)
            heads.setdefault("generator", []).append(own)
            gaps.append(optimality_gap(dist, utility, batch, regulariser, eta, no_click))
    return ScoredSessions(
        {name: HeadScores(*map(_numpy, zip(*parts, strict=True))) for name, parts in heads.items()},
        _numpy(gaps) if gaps else None,
        _numpy(losses),
    )


def _numpy(parts: Sequence[Tensor]) -> FloatArray:
    return np.concatenate([part.cpu().numpy() for part in parts]).astype(np.float32, copy=False)
