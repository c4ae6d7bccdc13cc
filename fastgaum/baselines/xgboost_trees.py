"""XGBOOST: boosted trees by the xgboost library (Chen & Guestrin, "XGBoost: a scalable tree
boosting system", KDD 2016).

`xgboost` boosts utilities by the softmax over the display set; `xgboost-rank` is the library's
LambdaMART (Burges, "From RankNet to LambdaRank to LambdaMART: an overview", MSR-TR-2010-82),
objective rank:ndcg."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import torch
from msgspec import Meta
from scipy import sparse

from fastgaum.arrays import Float64Array
from fastgaum.baselines.base import (
    Arrays,
    Baseline,
    Grids,
    Link,
    SettingRows,
    Values,
    validation_nll,
    validation_prec1,
)
from fastgaum.baselines.field_columns import FieldColumns, chosen_before
from fastgaum.config import CountFromOne, NotNegative
from fastgaum.errors import ConfigError
from fastgaum.features.batches import assemble
from fastgaum.features.ordered_counts import Training
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.statistics import of_statistics
from fastgaum.kernels.ranking import rank_counts
from fastgaum.nets.segments import segment_log_softmax
from fastgaum.nets.tensors import BatchTensors, to_tensors

if TYPE_CHECKING:
    from types import ModuleType

    from xgboost import Booster, DMatrix

    Objective = Callable[[np.ndarray, DMatrix], tuple[np.ndarray, np.ndarray]]

ShareAboveZero = Annotated[float, Meta(gt=0, le=1)]
TREES_PATIENCE = 50
"""trees without a better validation score, after which boosting stops"""
TREES_WINDOW = 10
"""so many of the last choices are read as id columns"""


@dataclass(eq=False)
class BoostedTrees(Baseline):
    """Boosted trees over the numbers of a candidate's bag, the place, the declared fields and the
    event's context.

    Chosen here: depth, learning rate and leaf size by the validation score, of all combinations in
    `grids`, each stopped early on it. A field of few values is one of the library's own categories,
    of one of many values the trees read what training says of the value (`field_columns`). Where
    the protocol makes no numbers, items are a category too, and how often each id is in the last
    TREES_WINDOW choices are columns."""

    published_name: ClassVar[str | None] = "XGBOOST"
    counts_fields: ClassVar[bool] = True
    grids: ClassVar[Grids] = {"depth": (2, 4), "eta": (0.05, 0.2), "min_child_weight": (1.0, 0.2)}

    rounds: CountFromOne = 500
    """at most so many trees"""
    depth: CountFromOne | None = None
    """of the trees"""
    eta: ShareAboveZero | None = None
    """learning rate"""
    min_child_weight: NotNegative | None = None
    """least sum of hessians in a leaf"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _xgboost()

    @abstractmethod
    def _objective(self, encoded: EncodedSessions) -> tuple[dict[str, object], Objective | None]:
        """The library's parameters and the objective; None for one of its own."""

    @abstractmethod
    def _loss(self, scores: Float64Array, encoded: EncodedSessions) -> float:
        """The validation score, low is good."""

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        assert self.space is not None
        assert self.training is not None
        self.fields = FieldColumns.fit(self.space, self.training)
        inputs = [
            (self._data(train, counts, self.training), self._data(validation, counts), counts)
            for counts in ((True, False) if self.space.has_statistics else (False,))
        ]
        rows: SettingRows = []
        best = np.inf
        for tried in self.combinations():
            losses = []
            for data, held, counts in inputs:
                booster = self._boost(train, data, validation, held, tried)
                scores = _margins(booster, held)
                loss = self._loss(scores, validation)
                figures = {"val_loss": loss, "val_prec1": validation_prec1(scores, validation)}
                rows.append(tried | {"trees": booster.num_boosted_rounds()} | figures)
                losses.append(loss)
                if loss < best:
                    best, self.booster, self.reads_counts = loss, booster, counts
                    self.chosen = tried
            # the first setting decides whether trees read what training chose
            inputs = [inputs[int(np.argmin(losses))]]
        self.settings_tried = len(rows)
        return rows

    def _boost(
        self,
        train: EncodedSessions,
        data: DMatrix,
        validation: EncodedSessions,
        held: DMatrix,
        tried: Values,
    ) -> Booster:
        """An ensemble, cut at its best tree."""
        own, objective = self._objective(train)
        parameters = own | {
            "max_depth": tried["depth"],
            "eta": tried["eta"],
            "min_child_weight": tried["min_child_weight"],
            "lambda": 1.0,
            "subsample": 0.8,
            "colsample_bytree": 0.8,
            "tree_method": "hist",
            "base_score": 0.0,
            "disable_default_eval_metric": 1,
            "nthread": 1,
            "seed": self.seed,
            "verbosity": 0,
        }

        def metric(margins: np.ndarray, held: DMatrix) -> tuple[str, float]:
            return "loss", self._loss(margins.astype(np.float64), validation)

        stop = _xgboost().callback.EarlyStopping(
            rounds=TREES_PATIENCE, save_best=True, maximize=False
        )
        booster: Booster = _xgboost().train(
            parameters,
            data,
            self.rounds,
            evals=[(held, "held")],
            obj=objective,
            custom_metric=metric,
            verbose_eval=False,
            callbacks=[stop],
        )
        return booster

    def _data(
        self, encoded: EncodedSessions, counts: bool, training: Training | None = None
    ) -> DMatrix:
        label = np.zeros(len(encoded.ids), dtype=np.float32)
        label[encoded.chosen_candidates] = 1
        labels = {"label": label, "group": np.diff(encoded.display_offsets)}
        if encoded.weights is not None:
            # of the groups: the library's own objective weighs them, ours does itself
            labels["weight"] = encoded.weights
        return self._matrix(to_tensors(assemble(encoded)), counts, training, **labels)

    def _matrix(
        self,
        batch: BatchTensors,
        counts: bool,
        training: Training | None = None,
        **labels: np.ndarray,
    ) -> DMatrix:
        """Inputs of the trees, a row per candidate: with `counts` the statistics of its item, else
        the item itself. `training`: as in `FieldColumns.numbers`."""
        space, source = self.space, batch.source
        assert space is not None
        event, of_bags = source.event_of_candidate(), source.numbers
        if not counts:
            of_bags = of_bags[:, ~of_statistics(space)]
        of_fields = self.fields.numbers(batch, TREES_WINDOW, training)
        numbers = np.column_stack(
            [of_bags, self.fields.places(source.ids), of_fields, source.context_numbers[event]]
        )
        of_context = self.fields.context_codes(source)[event]
        if counts:
            codes = np.column_stack([self.fields.codes(source.ids), of_context])
            columns = np.column_stack([numbers, codes])
            types = ["q"] * numbers.shape[1] + ["c"] * codes.shape[1]
        else:
            # a field's unknown row is code 0, which a sparse matrix leaves out: to the library, a
            # missing value
            codes = source.ids - np.array([part.start for part in space.categorical])
            codes = np.column_stack([codes, np.nan_to_num(of_context + 1)]).astype(np.float32)
            before = chosen_before(batch, space.n_ids, TREES_WINDOW)
            columns = sparse.hstack([codes, before[event], _every_entry(numbers)], format="csr")
            types = ["c"] * codes.shape[1] + ["q"] * (space.n_ids + numbers.shape[1])
        matrix: DMatrix = _xgboost().DMatrix(
            columns, nthread=1, feature_types=types, enable_categorical=True, **labels
        )
        return matrix

    def _scores(self, batch: BatchTensors) -> Float64Array:
        return _margins(self.booster, self._matrix(batch, self.reads_counts))

    def _arrays(self) -> Arrays:
        booster = np.frombuffer(self.booster.save_raw("ubj"), dtype=np.uint8).copy()
        reads = np.array([self.reads_counts])
        return {"booster": booster, "reads_counts": reads} | self.fields.arrays()

    def _restore(self, arrays: Arrays) -> None:
        assert self.space is not None
        self.fields = FieldColumns.restore(self.space, arrays)
        self.reads_counts = bool(arrays["reads_counts"].all())
        self.booster = _xgboost().Booster({"nthread": 1})
        self.booster.load_model(bytearray(arrays["booster"].tobytes()))


@dataclass(eq=False)
class XgboostSoftmax(BoostedTrees):
    """Trees are utilities: the NLL of the choice within its display set, Newton steps with the
    diagonal hessian."""

    name: ClassVar[str] = "xgboost"
    fit_link: ClassVar[bool] = False

    def _objective(self, encoded: EncodedSessions) -> tuple[dict[str, object], Objective | None]:
        shown = encoded.display_offsets
        of_candidates = encoded.weight_of_event[encoded.event_of_candidate()]

        def objective(margins: np.ndarray, data: DMatrix) -> tuple[np.ndarray, np.ndarray]:
            slope, bend = softmax_gradient(margins, data.get_label(), shown, self.outside)
            return slope * of_candidates, bend * of_candidates

        return {}, objective

    def _loss(self, scores: Float64Array, encoded: EncodedSessions) -> float:
        """NLL, nats per event."""
        return validation_nll(scores, encoded, self.outside, Link())


@dataclass(eq=False)
class XgboostRank(BoostedTrees):
    """LambdaMART: pairs within a display set, weighted by the ndcg that swapping them would
    change."""

    name: ClassVar[str] = "xgboost-rank"

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        # the library weights a pair by its places in the present order, and breaks ties by the
        # order of the rows
        return super()._fit(shuffled_within_sets(train, self.seed), validation)

    def _objective(self, encoded: EncodedSessions) -> tuple[dict[str, object], Objective | None]:
        return {"objective": "rank:ndcg"}, None

    def _loss(self, scores: Float64Array, encoded: EncodedSessions) -> float:
        """Minus the mean ndcg, ties by their expectation."""
        better, tied = rank_counts(scores, encoded.display_offsets, encoded.choices)
        gains = np.append(
            0.0, np.cumsum(1 / np.log2(2 + np.arange(np.diff(encoded.display_offsets).max())))
        )
        weights = encoded.weight_of_event[better >= 0]
        better, tied = better[better >= 0], tied[better >= 0]
        ndcg = (gains[better + tied + 1] - gains[better]) / (tied + 1)
        return -float(np.average(ndcg, weights=weights)) if len(better) else 0.0


def softmax_gradient(
    margins: np.ndarray, label: np.ndarray, display_offsets: np.ndarray, outside: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient p − y of the summed NLL and the diagonal p (1 − p) of its hessian, each
    (n_candidates,)."""
    values = torch.from_numpy(margins.astype(np.float64))
    p = segment_log_softmax(values, torch.from_numpy(display_offsets), outside)[0].exp().numpy()
    return p - label, np.maximum(p * (1 - p), 1e-6)


def shuffled_within_sets(encoded: EncodedSessions, seed: int) -> EncodedSessions:
    """The same sessions with the candidates of each display set in a random order."""
    event = encoded.event_of_candidate()
    order = np.lexsort((np.random.default_rng(seed).random(len(event)), event))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    starts = encoded.display_offsets[:-1]
    moved = place[starts + np.maximum(encoded.choices, 0)] - starts
    choices = np.where(encoded.choices >= 0, moved, -1).astype(np.int32)
    return replace(encoded, choices=choices, ids=encoded.ids[order], base=encoded.base[order])


def _every_entry(dense: np.ndarray) -> sparse.csr_matrix:
    """The rows as sparse ones that keep zeros: what is left out is missing to the library."""
    n, width = dense.shape
    columns = np.tile(np.arange(width), n)
    return sparse.csr_matrix((dense.ravel(), columns, np.arange(n + 1) * width), shape=(n, width))


def _margins(booster: Booster, data: DMatrix) -> Float64Array:
    return np.asarray(booster.predict(data, output_margin=True), dtype=np.float64)


def _xgboost() -> ModuleType:
    """The library, imported when it is used. Raises ConfigError where it is not installed."""
    try:
        import xgboost
    except ImportError as error:
        raise ConfigError(
            "models xgboost and xgboost-rank need xgboost, which is not installed: "
            "pip install 'fastgaum[baselines]'"
        ) from error
    return xgboost
