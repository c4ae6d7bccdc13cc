"""Baseline: what the published models share.

A baseline ranks candidates by scores of its own scale. The link makes them probabilities,
softmax(scale · score), with scale (and, where no click is offered, a shift) fitted on validation.
The ranking stays as it was."""

from __future__ import annotations

import dataclasses
import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import polars as pl
import torch
from scipy.optimize import minimize
from torch import Tensor

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.config import CheckedSettings, Protocol, Seed
from fastgaum.errors import ConfigError
from fastgaum.features.encoder import N_RESERVED, Encoder
from fastgaum.features.fitting import fit_training
from fastgaum.features.relations import left_out
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.training_order import ONCE, Training, training_order
from fastgaum.game.scoring import ScoredSessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import as_log
from fastgaum.logs.tables import Frame
from fastgaum.metrics.evaluation import HeadScores
from fastgaum.metrics.precision import micro_mean, precision_at_k
from fastgaum.models.choice_model import ChoiceModel, ScoreSessions
from fastgaum.models.fit_checks import offers_no_click, require_validation
from fastgaum.models.space_state import saved_space
from fastgaum.nets.batches import Batch
from fastgaum.nets.examination import Place
from fastgaum.nets.networks import Head
from fastgaum.nets.regularisers import ChoiceDistribution, Shannon
from fastgaum.state_file import State
from fastgaum.threads import seeded

Arrays = dict[str, np.ndarray]
Values = dict[str, Any]
SettingRows = list[Values]
"""a row per epoch or per setting that was tried"""
Grids = Mapping[str, tuple[Any, ...]]
"""values that are tried for settings, by name"""


@dataclass(frozen=True)
class Link:
    """utility = scale · score + shift; no click has utility 0."""

    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def fit(cls, scores: Float64Array, encoded: EncodedSessions, no_click: bool) -> Self:
        """Maximum likelihood of the choices, with a scale above 0; scores (n_candidates,)."""
        spread = max(float(scores.std()), 1e-9)
        total = nll_of_link(scores, encoded, no_click)

        def nll(parameters: Float64Array) -> float:
            link = cls(float(np.exp(parameters[0])) / spread, float(parameters[1]))
            # a weak pull towards scale 1 / spread keeps the optimum finite when the scores separate
            # perfectly
            return total(link) + float(0.05 * parameters @ parameters)

        best = minimize(
            nll, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4}
        ).x
        return cls(float(np.exp(best[0]) / spread), float(best[1]) if no_click else 0.0)


class SoftmaxModel(ChoiceModel):
    """A model whose distribution is the softmax of its utilities, whatever the head."""

    @abstractmethod
    def _ranked(self, batch: Batch) -> tuple[np.ndarray, Tensor]:
        """Scores that rank a batch's candidates, and their utilities, (n_candidates,) each."""

    def utility(self, batch: Batch) -> Tensor:
        """Utilities of a batch's candidates, shape (n_candidates,); no click has 0."""
        return self._ranked(batch)[1]

    def choice_distribution(self, batch: Batch, head: Head = "reward") -> ChoiceDistribution:
        """The softmax of the utilities over each display set."""
        return Shannon().best_response(
            self.utility(batch), batch.display_offsets.cpu(), self.no_click
        )

    def _scorer(self, n_candidates: int, at_place: Place = "own") -> ScoreSessions:
        return self._score

    def _score(self, encoded: EncodedSessions) -> ScoredSessions:
        parts = []
        for batch in self._batches(encoded):
            # ranked by the scores themselves: rounding a utility must not make a tie
            scores, utility = self._ranked(batch)
            offsets = batch.display_offsets.cpu()
            dist = Shannon().best_response(utility, offsets, self.no_click)
            parts.append((scores, dist.log_probs.numpy(), dist.no_click_log_prob.numpy()))
        return ScoredSessions(
            {"reward": HeadScores(*map(np.concatenate, zip(*parts, strict=True)))}
        )


@dataclass(eq=False)
class Baseline(SoftmaxModel, CheckedSettings):
    """Base of the published models: a dataclass whose fields are its settings."""

    what: ClassVar[str] = "setting"
    name: ClassVar[str]
    published_name: ClassVar[str | None] = None
    """the row of the published table that it repeats"""
    reads: ClassVar[tuple[str, ...]] = ("identity", "bags", "views")
    """protocols that it can read; with another it reads the identity alone"""
    counts_fields: ClassVar[bool] = False
    """whether it counts values of declared fields (`field_columns`); a session is then read once"""
    grids: ClassVar[Grids] = {}
    """values tried for a setting left open (None or "auto"), the published one first"""
    reads_weights: ClassVar[bool] = True
    """whether its fit can weigh events"""
    fit_link: ClassVar[bool] = True
    """False for models whose scores are utilities already"""

    protocol: Protocol = "bags"
    relations: bool | None = None
    """numbers of `features.relations`; None: if it reads bags, under all protocols but identity,
    and displays are not large (`presets.LARGE_DISPLAYS`)"""
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol not in self.reads:
            self.protocol = "identity"
        self.chooses_relations = self.relations is None and "bags" in self.reads
        if self.relations is None or "bags" not in self.reads:
            self.relations = self.protocol != "identity" and "bags" in self.reads
        self.link = Link()
        self.chosen: Values = {}
        self.training: Training | None = None

    def _read_training(self, log: SessionLog) -> tuple[FeatureSpace, EncodedSessions]:
        """Count the training split, and read it."""
        if self.chooses_relations:
            self.relations = self.protocol != "identity" and not left_out(log)
        relations = bool(self.relations)
        counts = self.protocol != "identity" or relations
        order = training_order(log) if counts and not self.counts_fields else ONCE
        return fit_training(log, self.protocol, relations=relations, order=order)

    def open_grids(self) -> dict[str, tuple[Any, ...]]:
        """Values of each setting in `grids`: its grid where it is open, else its own alone."""
        return {
            name: grid
            if getattr(self, name) in (None, "auto")
            else (type(grid[0])(getattr(self, name)),)
            for name, grid in self.grids.items()
        }

    def combinations(self) -> list[Values]:
        """Every combination of the open settings' values in `grids`."""
        values = self.open_grids()
        return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]

    @abstractmethod
    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        """Learn from encoded sessions; return a row per epoch or per setting that was tried."""

    @abstractmethod
    def _scores(self, batch: Batch) -> Float64Array:
        """Scores of a batch's candidates, shape (n_candidates,), without the events' choices."""

    @abstractmethod
    def _arrays(self) -> Arrays:
        """The fitted model as named arrays."""

    @abstractmethod
    def _restore(self, arrays: Arrays) -> None:
        """Become the model that `_arrays` described; `self.space` is set."""

    @property
    def settings(self) -> Self:
        """Its own fields."""
        return self

    @classmethod
    def check_weights(cls, log: SessionLog) -> None:
        """Raise ConfigError for weights of events that the fit would not read."""
        if log.weights is not None and not cls.reads_weights:
            raise ConfigError(
                f"'{cls.name}' counts every event once, and log '{log.name}' has weights of events:"
                " leave the model out, or read the log without them (--weight '', weight='')"
            )

    def fit(self, log: SessionLog | Frame, y: None = None, *, progress: bool | None = None) -> Self:
        """Train on the training split, choose on validation; return the model, whose `history_` has
        a row per epoch or setting tried. Raises LogFormatError: a split is empty."""
        log = as_log(log)
        self.check_weights(log)
        # no baseline reads actions
        space, train = self._read_training(log)
        require_validation(log)
        self.space, self.no_click = space, offers_no_click(log)
        if self.counts_fields:
            counted = Encoder(space, log).encode(log.sessions_in("train"), numbers=False)
            self.training = Training(counted, train)
        validation = Encoder(space, log).encode(log.sessions_in("validation"))
        with seeded(self.seed):
            try:
                rows = self._fit(train, validation)
            finally:
                # it holds the log
                self.training = None
        self.link = Link()
        if self.fit_link:
            self.link = Link.fit(self._all_scores(validation), validation, self.no_click)
        self.history_ = pl.DataFrame(rows or [{"epoch": 1}])
        return self

    def _ranked(self, batch: Batch) -> tuple[np.ndarray, Tensor]:
        scores = self._scores(batch)
        utility = (self.link.scale * scores + self.link.shift).astype(np.float32)
        return scores, torch.from_numpy(utility)

    def state(self) -> State:
        """Settings, link, feature space and the fitted model."""
        if self.space is None:
            raise ConfigError("the model has not been trained: call fit before save")
        return {
            "space": saved_space(self.space),
            "no_click": self.no_click,
            "model": self.name,
            "settings": self.to_mapping(),
            "link": dataclasses.astuple(self.link),
            "chosen": self.chosen,
            "arrays": self._arrays(),
        }

    def _all_scores(self, encoded: EncodedSessions) -> Float64Array:
        return np.concatenate([self._scores(batch) for batch in self._batches(encoded)])


def validation_nll(
    scores: Float64Array, encoded: EncodedSessions, no_click: bool, link: Link | None = None
) -> float:
    """NLL of the choices after a link, or the best one, nats per event."""
    link = link or Link.fit(scores, encoded, no_click)
    return nll_of_link(scores, encoded, no_click)(link) / encoded.n_events


def validation_prec1(scores: np.ndarray, encoded: EncodedSessions) -> float:
    """prec@1 in percent, ties by their expectation; 0 without a choice."""
    precision = precision_at_k(scores, encoded.display_offsets, encoded.choices, 1)
    found = 100 * micro_mean(precision, encoded.weights)
    return 0.0 if np.isnan(found) else found


def inner_arrays(name: str, arrays: Arrays) -> Arrays:
    """The arrays of a part: those whose names begin with its name and a dot, without that."""
    start = f"{name}."
    return {key[len(start) :]: one for key, one in arrays.items() if key.startswith(start)}


def item_rows(shown: Batch | EncodedSessions) -> IntArray:
    """Row of each candidate's item among training items, -1 if unknown, (n_candidates,)."""
    return shown.ids[:, 0] - np.int32(N_RESERVED)


def nll_of_link(
    scores: Float64Array, encoded: EncodedSessions, no_click: bool
) -> Callable[[Link], float]:
    """The summed NLL of the choices as a function of the link, nats."""
    starts, sizes = encoded.display_offsets[:-1], np.diff(encoded.display_offsets)
    clicked = encoded.choices >= 0
    weights = encoded.weight_of_event
    of_choices = scores[encoded.chosen_candidates] @ weights[clicked]
    n_choices = weights[clicked].sum()
    top = np.maximum.reduceat(scores, starts)
    below = scores - np.repeat(top, sizes)

    def total(link: Link) -> float:
        shift = link.shift if no_click else 0.0
        sums = np.log(np.add.reduceat(np.exp(link.scale * below), starts))
        sums += link.scale * top + shift
        if no_click:
            sums = np.logaddexp(sums, 0.0)
        return float(sums @ weights - link.scale * of_choices - shift * n_choices)

    return total


_T = TypeVar("_T")


@dataclass(eq=False)
class GridBaseline(Baseline):
    """A baseline that scores with every combination of its open settings after one fit.

    `fit` returns a row for each, the best first: prec@1 chooses, among equals the likelihood, then
    the order of the grids."""

    select: ClassVar[str] = "prec@1"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.memo: dict[tuple[object, ...], Any] | None = None

    @abstractmethod
    def _learn(self, train: EncodedSessions) -> None:
        """Count what the scores of every combination need."""

    @abstractmethod
    def _scores_with(self, batch: Batch, chosen: Values) -> Float64Array:
        """Score a batch's candidates under these values of `grids`, shape (n_candidates,)."""

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        self._learn(train)
        fixed, self.memo = list(self._batches(validation)), {}

        def scores_with(values: Values) -> Float64Array:
            return np.concatenate([self._scores_with(batch, values) for batch in fixed])

        # rounded so that equal precisions are equal floats
        rows: SettingRows = [
            values
            | {"val_loss": None}
            | {"val_prec1": round(validation_prec1(scores_with(values), validation), 9)}
            for values in self.combinations()
        ]
        most = max(row["val_prec1"] for row in rows)
        for row in rows:
            if row["val_prec1"] == most:
                row["val_loss"] = validation_nll(scores_with(row), validation, self.no_click)
        self.memo, self.settings_tried = None, len(rows)
        rows.sort(key=lambda row: (-row["val_prec1"], row["val_loss"] or 0.0))
        self.chosen = {name: rows[0][name] for name in self.grids}
        return rows

    def _kept(self, batch: Batch, key: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """Call `make` once for each batch and key while the settings are chosen."""
        if self.memo is None:
            return make()
        where = (id(batch), *key)
        if where not in self.memo:
            self.memo[where] = make()
        kept: _T = self.memo[where]
        return kept

    def _scores(self, batch: Batch) -> Float64Array:
        return self._scores_with(batch, self.chosen)
