"""What members of a pool say of users whom they have not seen, and the weights that make the best
of it.

Each fold's users are left out of one fit of each member. Every training user is in one fold on a
small log; on a large one, where fits are long and users many, some users are held out once."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from scipy.optimize import minimize
from torch import Tensor

from fastgaum.baselines.base import Float64Array
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features.sessions import EncodedSessions
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import TEST, TRAIN, IntArray, SessionLog
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.nets.segments import (
    expand_to_candidates,
    segment_log_softmax,
    segment_logsumexp,
    segment_sum,
)

MOST_FOLDS = 5
FOLD_EVENTS = 50_000
"""there are as many folds as there are times that the training events fit in so many, from 1 to
MOST_FOLDS"""
KEPT_FOLDS = 4
"""the models of the folds are kept where there are so many: each has seen three quarters of the
users or more"""
HELD_SHARE, HELD_EVENTS = 0.2, 20_000
"""one fold holds out so large a share of the training users, and about so many events at most"""

LEAST_LAPSE, MOST_LAPSE = 1e-9, 0.5

TABLE = {
    "member": pl.String,
    "weight": pl.Float64,
    "fold_nll": pl.Float64,
    "seconds": pl.Float64,
    "left_out": pl.String,
}
"""columns of the table that a fit returns"""

Stage = Callable[[str, int, int], None]
"""called with what is fitted now, how many fits are done, and how many there are"""


@dataclass(frozen=True)
class HeldOut:
    """Events of users who were held out, and the members' log-odds of their candidates."""

    display_offsets: Tensor
    """start of each display set, shape (n_events + 1,)"""
    choices: IntArray
    """position of each choice, -1 for no click, shape (n_events,)"""
    outside: bool
    """whether no click is a choice"""
    opinions: Tensor
    """of each candidate by each member, float64, shape (n_candidates, n_members)"""

    def nll(self, weights: Float64Array, lapse: float) -> tuple[float, Float64Array]:
        """NLL of the choices, nats per event, and its gradient in the weights and the lapse, shape
        (n_members + 1,)."""
        offsets, clicked = self.display_offsets, torch.from_numpy(self.choices >= 0)
        log_probs, no_click, log_share = _pooled(
            self.opinions, torch.from_numpy(weights), offsets, self.outside
        )
        choices = torch.from_numpy(self.choices)[clicked]
        rows = (offsets[:-1][clicked] + choices).long()
        log_kept = log_probs[rows] + math.log1p(-lapse)
        log_lapsed = log_share[clicked] + (math.log(lapse) if lapse else -math.inf)
        log_chosen = torch.logaddexp(log_kept, log_lapsed)
        means = segment_sum(log_probs.exp()[:, None] * self.opinions, offsets)
        kept = (log_kept - log_chosen).exp()[:, None]
        lapsed = (log_lapsed - log_chosen).exp()[:, None]
        # a lapse leaves the probability of a click as it is, which moves with the weights
        log_click = log_share + offsets.diff().double().log()
        away = (no_click - log_click).exp()[clicked][:, None]
        by_weight = means[~clicked].sum(0) - (
            kept * (self.opinions[rows] - means[clicked]) + lapsed * away * means[clicked]
        ).sum(0)
        by_lapse = (log_probs[rows] - log_chosen).exp() - (log_share[clicked] - log_chosen).exp()
        total = -log_chosen.sum() - no_click[~clicked].sum()
        gradient = torch.cat([by_weight, by_lapse.sum()[None]])
        n_events = len(self.choices)
        return float(total) / n_events, gradient.numpy() / n_events

    def penalised(self, weights: Float64Array, lapse: float) -> tuple[float, Float64Array]:
        """The NLL with one click more, of which only a lapse is known, and its gradient, as `nll`
        gives them. It is infinite at a lapse of 0, and counts the less the more events there are.
        """
        nll, gradient = self.nll(weights, lapse)
        n_events = len(self.choices)
        gradient[-1] -= 1 / (lapse * n_events)
        return nll - math.log(lapse) / n_events, gradient

    def best(self) -> tuple[Float64Array, float]:
        """The weights of at least 0, shape (n_members,), and the lapse above 0 that minimise the
        penalised NLL."""
        n_members = self.opinions.shape[1]
        bounds = [(0.0, None)] * n_members

        def without_lapse(weights: Float64Array) -> tuple[float, Float64Array]:
            nll, gradient = self.nll(weights, 0.0)
            return nll, gradient[:-1]

        # convex without a lapse: the search with one begins at its minimum
        start = minimize(
            without_lapse, np.full(n_members, 1 / n_members), jac=True, bounds=bounds
        ).x
        found = minimize(
            lambda values: self.penalised(values[:-1], float(values[-1])),
            np.append(start, 0.01),
            jac=True,
            bounds=[*bounds, (LEAST_LAPSE, MOST_LAPSE)],
        )
        weights, lapse = found.x[:-1], float(found.x[-1])
        # where no member says anything of any candidate, one is kept
        return (weights if weights.any() else np.eye(n_members)[0]), lapse


class MemberFits:
    """The members' fits, and what those without a fold's users say of these."""

    def __init__(self, folds: list[SessionLog], progress: Stage | None, n_members: int) -> None:
        self.folds = folds
        self.progress = progress or (lambda what, done, total: None)
        self.done, self.total = 0, n_members * (len(folds) + 1)
        self.seconds: dict[str, float] = {}
        self.opinions: dict[str, Tensor] = {}
        self.models: dict[str, list[ChoiceModel]] = {}
        self.sessions: EncodedSessions | None = None
        self.outsides: dict[str, bool] = {}

    @property
    def outside(self) -> bool:
        """Whether no click is a choice, for all members that were fitted."""
        return next(iter(self.outsides.values()))

    def require_agreement(self) -> None:
        """Raise ConfigError unless no click is a choice for all members that were fitted, or for
        none."""
        if len(set(self.outsides.values())) > 1:
            offered = [name for name, outside in self.outsides.items() if outside]
            raise ConfigError(
                f"no click is a choice for {', '.join(offered)} and none for the other members: "
                "give the members of a pool one value of no_click"
            )

    def on_folds(self, name: str, model: ChoiceModel) -> None:
        """Fit a member without each fold's users, and keep what it says of them; on a small log
        its fits as well."""
        sessions, odds = [], []
        self.models[name] = []
        for number, fold in enumerate(self.folds, start=1):
            self._fit(f"{name}, fold {number} of {len(self.folds)}", name, model, fold)
            encoded, scored = model.score(fold, "test")
            head = scored.heads["reward"]
            log_probs, outside = map(torch.from_numpy, (head.log_probs, head.outside_log_prob))
            offsets = torch.from_numpy(encoded.display_offsets)
            odds.append(opinion_of(log_probs, outside, offsets, model.outside))
            sessions.append(encoded)
            if len(self.folds) >= KEPT_FOLDS:
                self.models[name].append(copy.deepcopy(model))
        self.outsides[name] = model.outside
        self.sessions = self.sessions or EncodedSessions.joined(sessions)
        self.opinions[name] = torch.cat(odds)

    def whole(self, name: str, model: ChoiceModel, log: SessionLog) -> None:
        """Fit a member on the whole training split."""
        self._fit(name, name, model, log)

    def end(self) -> None:
        """Say that nothing more is fitted."""
        self.progress("weights", self.total, self.total)

    def held_out(self, names: Sequence[str]) -> HeldOut:
        """The held-out events, with the log-odds of some members."""
        assert self.sessions is not None
        odds = torch.stack([self.opinions[name] for name in names], dim=1)
        offsets = torch.from_numpy(self.sessions.display_offsets)
        return HeldOut(offsets, self.sessions.choices, self.outside, odds)

    def best(self, names: Sequence[str]) -> tuple[dict[str, float], float]:
        """The best weights of some members, by name, and the lapse."""
        weights, lapse = self.held_out(names).best()
        return dict(zip(names, weights.tolist(), strict=True)), lapse

    def table(
        self, weights: Mapping[str, float], lapse: float, left_out: Mapping[str, str]
    ) -> pl.DataFrame:
        """A row per member, and one of the pool."""
        rows = [
            {
                "member": name,
                "weight": weights.get(name),
                "fold_nll": self._own_nll(name) if name in weights else None,
                "seconds": self.seconds.get(name, 0.0),
                "left_out": left_out.get(name),
            }
            for name in dict.fromkeys((*weights, *left_out))
        ]
        pooled = self.held_out(list(weights)).nll(np.array(list(weights.values())), lapse)[0]
        seconds = sum(self.seconds.values())
        rows.append(
            {
                "member": "pool",
                "weight": None,
                "fold_nll": pooled,
                "seconds": seconds,
                "left_out": None,
            }
        )
        return pl.DataFrame(rows, schema=TABLE)

    def _own_nll(self, name: str) -> float:
        return self.held_out([name]).nll(np.ones(1), 0.0)[0]

    def _fit(self, what: str, name: str, model: ChoiceModel, log: SessionLog) -> None:
        self.progress(what, self.done, self.total)
        started = time.perf_counter()
        try:
            model.fit(log)
        finally:
            self.done += 1
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def pooled_opinion(
    odds: Tensor, weights: Tensor, lapse: float, display_offsets: Tensor, outside: bool
) -> Tensor:
    """The pool's log-odds of each candidate, as `opinion_of` gives a member's.

    Args:
        odds: the members', shape (n_candidates, n_members).
        weights: shape (n_members,).
        lapse: share of the clicks that go to any candidate of the display set alike.
        display_offsets: start of each display set, shape (n_events + 1,).
        outside: whether no click is a choice.
    """
    log_probs, no_click, log_share = _pooled(odds, weights, display_offsets, outside)
    if lapse:
        lapsed = expand_to_candidates(log_share + math.log(lapse), display_offsets)
        log_probs = torch.logaddexp(log_probs + math.log1p(-lapse), lapsed)
    return log_probs - expand_to_candidates(no_click, display_offsets) if outside else log_probs


def _pooled(
    odds: Tensor, weights: Tensor, display_offsets: Tensor, outside: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of candidates and of no click before a lapse, and of each candidate if a
    click goes to any alike, shape (n_events,)."""
    log_probs, no_click = segment_log_softmax(odds @ weights, display_offsets, outside)
    log_click = segment_logsumexp(log_probs, display_offsets, False)
    return log_probs, no_click, log_click - display_offsets.diff().double().log()


def opinion_of(
    log_probs: Tensor, outside_log_prob: Tensor, display_offsets: Tensor, outside: bool
) -> Tensor:
    """Log-odds of each candidate against no click, float64, shape (n_candidates,); the
    log-probabilities themselves where no click is no choice."""
    odds = log_probs.double()
    if not outside:
        return odds
    return odds - expand_to_candidates(outside_log_prob.double(), display_offsets)


def folds_of(log: SessionLog, seed: int) -> list[SessionLog]:
    """The log once for each fold: the fold's training users are its test split. The sessions of the
    log's own test split are in none.

    Raises:
        LogFormatError: the training split has one user.
    """
    rest = slice_sessions(log, np.flatnonzero(log.split != TEST))
    training = rest.split == TRAIN
    users = np.unique(rest.users[training])
    n_events = log.count("events", "train")
    n_folds = min(max(round(FOLD_EVENTS / max(n_events, 1)), 1), MOST_FOLDS, len(users))
    if len(users) < 2:
        raise LogFormatError(
            f"log '{log.name}' has {len(users)} training user, and a pool is weighed on users held "
            "out: split it otherwise, or train one model"
        )
    order = np.random.default_rng(seed).permutation(len(users))
    if n_folds > 1:
        fold_of_user = order % n_folds
    else:
        share = min(HELD_SHARE, HELD_EVENTS / n_events)
        fold_of_user = np.where(order < max(1, round(share * len(users))), 0, -1)
    fold_of_session = np.where(
        training, fold_of_user[np.searchsorted(users, rest.users).clip(max=len(users) - 1)], -1
    )
    return [
        rest.with_split(np.where(fold_of_session == fold, TEST, rest.split).astype(np.int8))
        for fold in range(n_folds)
    ]
