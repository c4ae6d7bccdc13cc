"""XGBOOST: boosted trees by the xgboost library (Chen & Guestrin, "XGBoost: a scalable tree
boosting system", KDD 2016).

`xgboost` boosts utilities by the softmax over the display set; `xgboost-rank` is the library's
LambdaMART (Burges, "From RankNet to LambdaRank to LambdaMART: an overview", MSR-TR-2010-82),
objective rank:ndcg."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import torch
from msgspec import Meta
from scipy import sparse

from fastgaum.arrays import BoolArray, Float64Array, FloatArray
from fastgaum.baselines.base import (
    Arrays,
    Baseline,
    Grids,
    Link,
    SettingRows,
    Values,
    item_rows,
    validation_nll,
    validation_prec1,
)
from fastgaum.baselines.field_columns import FieldColumns, chosen_before
from fastgaum.config import CountFromOne, NotNegative
from fastgaum.errors import ConfigError
from fastgaum.features.fitting import fit_training
from fastgaum.features.sessions import EncodedSessions, blocks, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.training_counts import of_relations, of_statistics
from fastgaum.features.training_order import ONCE
from fastgaum.kernels.ranking import rank_counts
from fastgaum.logs.log import SessionLog
from fastgaum.nets.batches import Batch, assemble
from fastgaum.nets.segments import segment_log_softmax
from fastgaum.threads import get_threads

if TYPE_CHECKING:
    from types import ModuleType

    from xgboost import Booster, DMatrix

    Objective = Callable[[np.ndarray, DMatrix], tuple[np.ndarray, np.ndarray]]

ShareAboveZero = Annotated[float, Meta(gt=0, le=1)]
TREES_PATIENCE = 50
"""trees without a better validation score, after which boosting stops"""
TREES_WINDOW = 10
"""so many of the last choices are read as id columns"""
BLOCK_SESSIONS = 1 << 10
"""sessions whose columns are made at once"""
MOST_ALTERNATIVES = 8
"""items of a log whose displays are read as a row of alternatives"""
MOST_TRIED = 1 << 19
"""candidates of each split that what trees read is compared on, and that stop them early; those of
a larger log are then fitted to all of its training split, with two depths"""
MOST_IDS = 1 << 12
"""of a log whose ids are tried in place of what training counted of them"""
FAST_ETA = 0.2
"""learning rate where a log is larger: each of its trees takes seconds"""
INPUTS = ("relations", "counts", "ids", "alternatives")
"""what trees may read of a candidate: all numbers; those that are no relations; those that training
did not count, with its ids; the numbers of all alternatives, with its ids"""


@dataclass(frozen=True, eq=False)
class TreeRows:
    """Sessions whose candidates are rows of a matrix."""

    encoded: EncodedSessions
    of_keys: FloatArray | None = None
    """as `FieldColumns.numbers` takes it"""

    def part(self, seed: int) -> TreeRows:
        """Random sessions of at most MOST_TRIED candidates, one at least; itself if it has no
        more."""
        encoded = self.encoded
        if len(encoded.ids) <= MOST_TRIED:
            return self
        sessions = np.random.default_rng(seed).permutation(encoded.n_sessions)
        sizes = np.diff(encoded.display_offsets[encoded.session_offsets])[sessions]
        n = max(int(np.searchsorted(np.cumsum(sizes), MOST_TRIED, "right")), 1)
        part = select_sessions(encoded, np.sort(sessions[:n]).astype(np.int32))
        weights, of_keys = encoded.weights, self.of_keys
        picked = replace(
            encoded,
            rows=encoded.rows[part.rows],
            session_offsets=part.session_offsets,
            display_offsets=part.display_offsets,
            choices=part.choices,
            users=encoded.users[part.rows],
            ids=encoded.ids[part.candidates],
            base=encoded.base[part.candidates],
            context_ids=encoded.context_ids[part.events],
            context_numbers=encoded.context_numbers[part.events],
            weights=None if weights is None else weights[part.events],
        )
        return TreeRows(picked, None if of_keys is None else of_keys[part.candidates])

    def blocks(self) -> Iterator[tuple[Batch, FloatArray | None]]:
        """The sessions in batches, with the statistics of keys."""
        order = np.arange(self.encoded.n_sessions, dtype=np.int32)
        for sessions in blocks(self.encoded, order, BLOCK_SESSIONS):
            of_keys = self.of_keys
            if of_keys is not None:
                of_keys = of_keys[select_sessions(self.encoded, sessions).candidates]
            yield assemble(self.encoded, sessions), of_keys


@dataclass(eq=False)
class BoostedTrees(Baseline):
    """Boosted trees over the numbers of a candidate's bag, the place, the declared fields and the
    event's context.

    What trees read (`INPUTS`) is chosen by the validation score with the first value of each of
    `grids`; then each setting in turn, the others as they are; at last the second best of what they
    may read is tried with the chosen settings. Each fit is stopped early on the validation split.
    On a log of more than MOST_TRIED candidates a part of it chooses what they read, and all of it
    between two depths.

    A field of few values is one of the library's own categories, of one of many values the trees
    read what training says of the value (`field_columns`). Where no number is counted in training,
    items are a category too, and how often each id is in the last TREES_WINDOW choices are columns.

    Where most displays have the same MOST_ALTERNATIVES items at most, a candidate may also be read
    in the wide form of surveys: the item is a category, and each item's own numbers are columns,
    alike for all candidates of the display, and missing where it does not show the item."""

    published_name: ClassVar[str | None] = "XGBOOST"
    counts_fields: ClassVar[bool] = True
    grids: ClassVar[Grids] = {
        "depth": (4, 6, 2),
        "min_child_weight": (1.0, 5.0, 0.2),
        "colsample": (0.8, 0.5),
        "eta": (0.1, 0.05, FAST_ETA),
    }

    rounds: CountFromOne = 1000
    """at most so many trees"""
    depth: CountFromOne | None = None
    """of the trees"""
    min_child_weight: NotNegative | None = None
    """least sum of hessians in a leaf"""
    colsample: ShareAboveZero | None = None
    """share of the columns that a tree reads"""
    eta: ShareAboveZero | None = None
    """learning rate"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _xgboost()

    @abstractmethod
    def _objective(self, encoded: EncodedSessions) -> tuple[dict[str, object], Objective | None]:
        """The library's parameters and the objective; None for one of its own."""

    @abstractmethod
    def _loss(self, scores: Float64Array, encoded: EncodedSessions) -> float:
        """The validation score, low is good."""

    def _read_training(self, log: SessionLog) -> tuple[FeatureSpace, EncodedSessions]:
        displays = log.training_counts().displays
        n_items, n_events = np.count_nonzero(displays), log.count("events", "train")
        self.same_items = (
            n_items <= MOST_ALTERNATIVES and 2 * int(displays.sum()) >= n_items * n_events
        )
        # no item is new where all displays have the same ones: none is hidden
        order = ONCE._replace(hides=not self.same_items)
        return fit_training(log, self.protocol, relations=bool(self.relations), order=order)

    def _fit(self, train: EncodedSessions, validation: EncodedSessions) -> SettingRows:
        assert self.space is not None
        assert self.training is not None
        self.fields = FieldColumns.fit(self.space, self.training)
        whole = TreeRows(train, self.fields.of_keys(train, self.training))
        part, held = whole.part(self.seed), TreeRows(validation).part(self.seed)
        self.varying = self._find_varying(part) if self.same_items else np.zeros(0, np.bool_)
        made: dict[str, tuple[DMatrix, DMatrix]] = {}
        rows: SettingRows = []
        best = np.inf

        def compare(fitted: TreeRows, reads: str, tried: Values) -> float:
            nonlocal best
            if reads not in made:
                data = self._data(fitted, reads)
                made[reads] = data, self._held_data(held, reads)
            booster = self._boost(fitted.encoded, held.encoded, *made[reads], tried)
            scores = _margins(booster, made[reads][1])
            loss = self._loss(scores, held.encoded)
            figures = {"val_loss": loss, "val_prec1": validation_prec1(scores, held.encoded)}
            trees = booster.num_boosted_rounds()
            rows.append(tried | {"reads": reads, "trees": trees} | figures)
            if loss < best:
                best, self.booster = loss, booster
                self.inputs, self.chosen = reads, tried
            return loss

        grids = self.open_grids()
        if part is not whole and self.eta is None:
            grids["eta"] = (FAST_ETA,)
        first = {name: grid[0] for name, grid in grids.items()}
        losses = {reads: compare(part, reads, first) for reads in self._may_read()}
        order = sorted(losses, key=lambda reads: losses[reads])
        if part is whole:
            for name, grid in grids.items():
                for value in grid[1:]:
                    compare(whole, order[0], self.chosen | {name: value})
            for reads in order[1:2]:
                compare(whole, reads, self.chosen)
        else:
            # how deep trees may be, a part does not say: it asks for smaller ones
            made.clear()
            best = np.inf
            for depth in grids["depth"][:2]:
                compare(whole, order[0], first | {"depth": depth})
        self.settings_tried = len(rows)
        return rows

    def _may_read(self) -> list[str]:
        """The names in INPUTS that differ on this log."""
        assert self.space is not None
        of_pairs, counted = of_relations(self.space), of_statistics(self.space)
        named = {
            "relations": of_pairs.any(),
            "counts": (counted & ~of_pairs).any(),
            # a tree looks at a column for each id
            "ids": not counted.any() or self.space.n_ids <= MOST_IDS,
            "alternatives": self.same_items,
        }
        return [reads for reads in INPUTS if named[reads]]

    def _boost(
        self,
        train: EncodedSessions,
        validation: EncodedSessions,
        data: DMatrix,
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
            "colsample_bytree": tried["colsample"],
            "tree_method": "hist",
            "base_score": 0.0,
            "disable_default_eval_metric": 1,
            "nthread": get_threads(),
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

    def _held_data(self, rows: TreeRows, reads: str) -> DMatrix:
        """Rows that are scored after each tree: as they are, for the library looks up each value of
        a row in bins anew, which took minutes a tree on half a million candidates."""
        blocks = [self._columns(batch, reads, of_keys) for batch, of_keys in rows.blocks()]
        columns, types = [block for block, _ in blocks], blocks[0][1]
        joined = sparse.vstack(columns, "csr") if reads == "ids" else np.concatenate(columns)
        matrix: DMatrix = _xgboost().DMatrix(
            joined, nthread=get_threads(), feature_types=types, enable_categorical=True
        )
        return matrix

    def _data(self, rows: TreeRows, reads: str) -> DMatrix:
        """The rows in the library's bins, with labels. Columns are made block by block: as floats,
        those of a large log take many times as much."""
        xgboost, encoded, columns = _xgboost(), rows.encoded, self._columns

        class Blocks(xgboost.DataIter):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.reset()

            def reset(self) -> None:
                self.left = rows.blocks()

            def next(self, input_data: Callable[..., None]) -> bool:
                block = next(self.left, None)
                if block is None:
                    return False
                data, types = columns(block[0], reads, block[1])
                input_data(data=data, feature_types=types)
                return True

        matrix: DMatrix = xgboost.QuantileDMatrix(
            Blocks(), nthread=get_threads(), enable_categorical=True
        )
        label = np.zeros(len(encoded.ids), dtype=np.float32)
        label[encoded.chosen_candidates] = 1
        # of the groups: the library's own objective weighs them, ours does itself
        weight = None if encoded.weights is None else encoded.weights
        matrix.set_info(label=label, group=np.diff(encoded.display_offsets), weight=weight)
        return matrix

    def _columns(
        self, batch: Batch, reads: str, of_keys: FloatArray | None = None
    ) -> tuple[FloatArray | sparse.csr_matrix, list[str]]:
        """Inputs of the trees, a row per candidate, and the library's type of each column.
        `of_keys`: as in `FieldColumns.numbers`."""
        space, ids = self.space, batch.ids
        assert space is not None
        event = batch.event_of_candidate()
        shared = [self.fields.places(ids), batch.context_numbers.numpy()[event]]
        of_context = self.fields.context_codes(batch)[event]
        if reads == "alternatives":
            items = item_rows(batch).astype(np.float32)
            items[items < 0] = np.nan
            of_fields = self.fields.codes(ids)
            numbers = [*shared, self._alternatives(batch)[event]]
            return _with_types(numbers, [items, of_fields, of_context])
        of_bags = batch.candidates.numbers.numpy()
        if reads != "relations":
            left_out = of_relations(space) if reads == "counts" else of_statistics(space)
            of_bags = of_bags[:, ~left_out]
        numbers = [of_bags, self.fields.numbers(batch, TREES_WINDOW, of_keys), *shared]
        if reads != "ids":
            return _with_types(numbers, [self.fields.codes(ids), of_context])
        # a field's unknown row is code 0, which a sparse matrix leaves out: to the library, a
        # missing value
        own = ids - np.array([part.start for part in space.categorical])
        codes = np.column_stack([own, np.nan_to_num(of_context + 1)]).astype(np.float32)
        before = chosen_before(batch, space.n_ids, TREES_WINDOW)
        dense = np.column_stack(numbers)
        columns = sparse.hstack([codes, before[event], _every_entry(dense)], format="csr")
        return columns, ["c"] * codes.shape[1] + ["q"] * (space.n_ids + dense.shape[1])

    def _alternatives(self, batch: Batch) -> FloatArray:
        """The numbers of each item of the space that the log has of it, and how often it is among
        the last choices: those that vary in training, missing where a display does not hold the
        item, (n_events, ·)."""
        grid = self._every_alternative(batch)
        return grid[:, self.varying]

    def _every_alternative(self, batch: Batch) -> FloatArray:
        space = self.space
        assert space is not None
        own = self._of_log()
        event, items = batch.event_of_candidate(), item_rows(batch)
        before = chosen_before(batch, space.n_ids, TREES_WINDOW)[event, batch.ids[:, 0]]
        numbers = batch.candidates.numbers.numpy()[:, own]
        numbers = np.column_stack([numbers, np.asarray(before).ravel()])
        shape = batch.n_events, len(space.item_counts.displays), numbers.shape[1]
        grid = np.full(shape, np.nan, np.float32)
        known = items >= 0
        grid[event[known], items[known]] = numbers[known]
        return grid.reshape(len(grid), -1)

    def _of_log(self) -> BoolArray:
        """Which numbers are a candidate's own, and not counted in training, (n_numbers,)."""
        assert self.space is not None
        base = self.space.code.columns < len(self.space.number_names)
        own: BoolArray = base & ~of_statistics(self.space)
        return own

    def _find_varying(self, rows: TreeRows) -> BoolArray:
        """Which columns of all alternatives say something of a display: they have two values, one
        of which may be that the item is missing."""
        grids = [self._every_alternative(batch) for batch, _ in rows.blocks()]
        grid = np.concatenate(grids)
        first = grid[:1]
        varying: BoolArray = ~((grid == first) | (np.isnan(grid) & np.isnan(first))).all(0)
        return varying

    def _scores(self, batch: Batch) -> Float64Array:
        columns, types = self._columns(batch, self.inputs)
        matrix = _xgboost().DMatrix(
            columns, nthread=1, feature_types=types, enable_categorical=True
        )
        return _margins(self.booster, matrix)

    def _arrays(self) -> Arrays:
        booster = np.frombuffer(self.booster.save_raw("ubj"), dtype=np.uint8).copy()
        inputs = np.array([INPUTS.index(self.inputs)])
        own = {"booster": booster, "inputs": inputs, "varying": self.varying}
        return own | self.fields.arrays()

    def _restore(self, arrays: Arrays) -> None:
        assert self.space is not None
        self.fields = FieldColumns.restore(self.space, arrays)
        inputs, self.varying = int(arrays["inputs"].item()), arrays["varying"]
        width = len(self.space.item_counts.displays) * (int(self._of_log().sum()) + 1)
        wanted = (width,) if INPUTS[inputs % len(INPUTS)] == "alternatives" else self.varying.shape
        if inputs not in range(len(INPUTS)) or self.varying.shape != wanted:
            raise ValueError("what the trees read does not fit the feature space")
        self.inputs = INPUTS[inputs]
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
            slope, bend = softmax_gradient(margins, data.get_label(), shown, self.no_click)
            return slope * of_candidates, bend * of_candidates

        return {}, objective

    def _loss(self, scores: Float64Array, encoded: EncodedSessions) -> float:
        """NLL, nats per event."""
        return validation_nll(scores, encoded, self.no_click, Link())


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
    margins: np.ndarray, label: np.ndarray, display_offsets: np.ndarray, no_click: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient p − y of the summed NLL and the diagonal p (1 − p) of its hessian, each
    (n_candidates,)."""
    values = torch.from_numpy(margins.astype(np.float64))
    p = segment_log_softmax(values, torch.from_numpy(display_offsets), no_click)[0].exp().numpy()
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


def _with_types(numbers: list[FloatArray], codes: list[FloatArray]) -> tuple[FloatArray, list[str]]:
    """Numbers and codes of categories side by side, and the library's types of the columns."""
    columns = np.column_stack([*numbers, *codes]).astype(np.float32, copy=False)
    n_codes = np.column_stack(codes).shape[1]
    return columns, ["q"] * (columns.shape[1] - n_codes) + ["c"] * n_codes


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
            "pip install '.[baselines]' in the clone"
        ) from error
    return xgboost
