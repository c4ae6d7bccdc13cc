"""What a fit reads: a log under one feature space, whole or less a fold of its users."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from fastgaum.arrays import BoolArray, IntArray, LongArray
from fastgaum.config import Config
from fastgaum.errors import FeatureMismatchError, require_known, require_whole
from fastgaum.features.coded_log import CodedLog
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import SpaceChoices, fit_training
from fastgaum.features.parts import PartsOfLog, Windows
from fastgaum.features.sessions import EncodedSessions, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.training_order import folds_of, with_all_training
from fastgaum.game.loop import TrainingData
from fastgaum.game.processes import Processes
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.store import StoredLog
from fastgaum.models.fit_checks import require_validation
from fastgaum.presets import FOLDS_BELOW


@dataclass(frozen=True)
class Prepared:
    """A log under one feature space."""

    log: SessionLog
    """with folds, its validation sessions are in training"""
    space: FeatureSpace
    train: EncodedSessions
    """training sessions as they are read"""

    def scaled_as(self, other: FeatureSpace) -> Prepared:
        """The same with numbers scaled as in another space, and its users among those who trained.
        Raises FeatureMismatchError for other fields or numbers."""
        own, wanted = (
            {*one.number_names, *one.context_number_names, *(field.name for field in one.fields)}
            for one in (self.space, other)
        )
        if differ := ", ".join(sorted(own ^ wanted)):
            raise FeatureMismatchError(
                f"log '{self.log.name}' and that of start differ in {differ}: fit without start"
            )
        users = np.union1d(other.trained.users, self.space.trained.users)
        trained = replace(self.space.trained, users=users)
        codes = {"code": other.code, "context_code": other.context_code}
        space = self.space.with_changes(trained=trained, **codes)
        events = select_sessions(self.log, self.train.rows).events
        context = CodedLog(space, self.log).context_numbers(events)
        return Prepared(
            self.log, space, replace(self.train, code=other.code, context_numbers=context)
        )

    def data(self, fold: int = 0) -> TrainingData:
        """What the fit of a fold trains and validates on: all other users, and this one's. Without
        folds, the log's own splits."""
        if not self.space.folds:
            return TrainingData(self.train, self._validation)
        return TrainingData(self.train, self._held_out[fold], self._others(fold))

    def _others(self, fold: int) -> IntArray:
        """Positions in `train` of the users who are not in a fold."""
        return np.flatnonzero(self._folds[self.train.rows] != fold).astype(np.int32)

    @cached_property
    def _folds(self) -> LongArray:
        return folds_of(self.log.user_hashes, self.space.folds)

    @cached_property
    def _validation(self) -> EncodedSessions:
        return Encoder(self.space, self.log).encode(self.log.sessions_in("validation"))

    @cached_property
    def _held_out(self) -> list[EncodedSessions]:
        """Sessions of each fold, with the counts of the others, and unknown ids for those that
        the others do not have: their rows are not trained."""
        encoder, train = Encoder(self.space, self.log), self.log.sessions_in("train")
        others = encoder.spaces_without_folds()

        def held_out(fold: int) -> EncodedSessions:
            rows = train[self._folds[train] == fold]
            encoded = encoder.with_space(others[fold], None).encode(rows)
            unknown = self.space.unknown_of_id
            own = np.where(self.known_ids(fold), np.arange(len(unknown), dtype=np.int32), unknown)
            actions = encoded.actions
            return replace(
                encoded,
                ids=own[encoded.ids],
                context_ids=own[encoded.context_ids],
                actions=actions and actions._replace(ids=own[actions.ids]),
            )

        return [held_out(fold) for fold in range(self.space.folds)]

    def known_ids(self, fold: int) -> BoolArray:
        """Whether the users that train a fold's fit have each feature id, shape (n_ids,)."""
        known: BoolArray = self.space.unknown_of_id == np.arange(self.space.n_ids)
        known[0] = True
        part = select_sessions(self.train, self._others(fold))
        known[self.train.ids[part.candidates]] = True
        known[self.train.context_ids[part.events]] = True
        if self.train.actions is not None:
            known[self.train.actions.before(part.events).ids] = True
        return known


class PreparedLog:
    """A log under the feature space of each configuration that a fit compares, made once each."""

    def __init__(self, log: SessionLog, folds: int = 0, start: FeatureSpace | None = None) -> None:
        """Take a log, the folds of its users (`FeatureSpace.folds`), and the space of a model whose
        weights are taken over."""
        self.log, self.folds, self.start = log, folds, start
        self._made: dict[tuple[str, bool, bool, bool, bool, int], Prepared] = {}

    def __call__(self, config: Config) -> Prepared:
        """Count the training split, and encode it.

        Raises:
            LogFormatError: a split is empty.
            FeatureMismatchError: the log has other fields than that of `start`.
        """
        log, switches = self.log, (config.relative_numbers, config.relations, config.examination)
        made_of = (_protocol_of(config), *switches, config.tower_dim > 0, config.pieces)
        if made_of not in self._made:
            space, train = fit_training(
                log,
                *made_of,
                folds=self.folds,
                robust=True,
                shared_rows=True,
                signs=config.signs,
            )
            require_validation(log)
            found = Prepared(with_all_training(log, self.folds), space, train)
            self._made[made_of] = found if self.start is None else found.scaled_as(self.start)
        return self._made[made_of]


class PreparedParts:
    """A log in parts under one feature space, as `Prepared`; it has no folds."""

    def __init__(self, stored: StoredLog, config: Config, processes: Processes) -> None:
        """Count the training split. Raises LogFormatError as `PreparedLog`."""
        require_validation(stored)
        choices = SpaceChoices(
            protocol=_protocol_of(config),
            relative_numbers=config.relative_numbers,
            relations=config.relations,
            towers=config.tower_dim > 0,
            pieces=config.pieces,
            robust=True,
            shared_rows=True,
            signs=config.signs,
        )
        self.log, self.parts = stored, PartsOfLog(stored, choices, config.examination, processes)
        self.space = self.parts.space
        self._of_process = config.seed, processes.rank, processes.size

    def data(self, fold: int = 0) -> TrainingData:
        """What the fit trains and validates on."""
        windows = Windows(self.parts, *self._of_process)
        return TrainingData(self.parts.sample, self.parts.validation, windows=windows)

    def known_ids(self, fold: int) -> BoolArray:
        """Every id is met."""
        return np.ones(self.space.n_ids, np.bool_)


CHOOSING_EVENTS = 100_000
"""training events of the parts, at least, that say which setting a log in parts has"""


def in_memory(stored: StoredLog) -> StoredLog | SessionLog:
    """A saved log as it is fitted: in memory if it is one part, or so small that its fit has
    folds."""
    if stored.n_parts > 1 and stored.count("events", "train") >= FOLDS_BELOW:
        return stored
    return stored.read(range(stored.n_parts))


def parts_to_choose(stored: StoredLog) -> SessionLog:
    """The first parts of a log, as many as choose a setting; users are spread over parts at
    random."""
    n_events = 0
    for number, part in enumerate(stored.about.parts):
        n_events += part.counts.events[0]
        if n_events >= CHOOSING_EVENTS:
            return stored.read(range(number + 1))
    return stored.read(range(stored.n_parts))


def _protocol_of(config: Config) -> str:
    bags = config.protocol != "bags" or config.counts
    return config.protocol if bags else "identity"


def bootstrap_of(
    log: SessionLog, seed: int, number: int, split: Literal["train", "all"] = "train"
) -> SessionLog:
    """The log of as many training users, drawn with replacement (Efron, "Bootstrap methods", 1979),
    and the validation sessions as they are; no test session. With "all", users of all splits are
    drawn: for models that are fitted to all, as by `fastgaum.logit`. `number`: of the bootstrap,
    from 1. Raises ConfigError for another split, or numbers that are not whole."""
    require_whole("seed", seed)
    require_whole("number", number)
    require_known("split", split, ("train", "all"))
    training = log.sessions_in(split)
    each, of_session = np.unique(log.users[training], return_inverse=True)
    rng = np.random.default_rng([seed, number])
    times = np.bincount(rng.integers(0, len(each), len(each)), minlength=len(each))
    rows = np.repeat(training, times[of_session])
    kept = rows[:0] if split == "all" else log.sessions_in("validation")
    return slice_sessions(log, np.concatenate([rows, kept]))
