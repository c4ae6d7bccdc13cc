"""What a fit reads: a log under one feature space; bootstraps of its training users."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastgaum.arrays import IntArray
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_training, grow_training
from fastgaum.features.space import FeatureSpace
from fastgaum.game.loop import TrainingData
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.models.splits import require_validation

SpaceOptions = tuple[str, bool, bool, bool, bool, int]
"""protocol, set_context, relations, examination, towers, pieces"""


def space_options(config: Config) -> SpaceOptions:
    """The options of a configuration's feature space."""
    switches = config.set_context, config.relations, config.examination
    protocol = "identity" if config.protocol == "bags" and not config.counts else config.protocol
    return protocol, *switches, config.tower_dim > 0, config.pieces


@dataclass(frozen=True)
class Prepared:
    """A log under one feature space."""

    log: SessionLog
    space: FeatureSpace
    data: TrainingData

    @classmethod
    def of(
        cls,
        log: SessionLog,
        config: Config,
        former: FeatureSpace | None = None,
    ) -> Prepared:
        """Count the training split, and encode both splits; `former` is the space that a model goes
        on with.

        Raises:
            LogFormatError: a split is empty, or the log is the former space's.
            FeatureMismatchError: the log has other fields than the former space's.
            ConfigError: the configuration does not go with actions.
        """
        made_of = space_options(config)
        if config.states == "generated" and log.actions is not None:
            raise ConfigError(
                "states = generated replaces the last choice by a drawn one, and the log has "
                "actions after its choices: use states = logged"
            )
        if former is None:
            space, train = fit_training(log, *made_of)
        else:
            space, train = grow_training(former, log)
        require_validation(log)
        validation = Encoder(space, log).encode(log.sessions_in("validation"))
        return cls(log, space, TrainingData(train, validation))

    def bootstrap(self, seed: int, number: int) -> Prepared:
        """The same with training users drawn with replacement (Efron, "Bootstrap methods", 1979),
        by the run's seed and the number of the bootstrap, from 1.

        Counts of items stay those of all users: a bootstrap has seen a third fewer items."""
        everything = np.arange(self.data.train.n_sessions, dtype=np.int32)
        drawn = _drawn(everything, self.data.train.users, seed, number)
        return replace(self, data=replace(self.data, drawn=drawn))


def bootstrap_of(log: SessionLog, seed: int, number: int) -> SessionLog:
    """The log of as many training users, drawn with replacement (Efron, "Bootstrap methods", 1979),
    and the validation sessions as they are; no test session. Arguments as of
    `Prepared.bootstrap`."""
    training = log.sessions_in("train")
    rows = _drawn(training, log.users[training], seed, number)
    return slice_sessions(log, np.concatenate([rows, log.sessions_in("validation")]))


def _drawn(sessions: IntArray, users: IntArray, seed: int, number: int) -> IntArray:
    each, of_session = np.unique(users, return_inverse=True)
    rng = np.random.default_rng([seed, number])
    times = np.bincount(rng.integers(0, len(each), len(each)), minlength=len(each))
    return np.repeat(sessions, times[of_session])
