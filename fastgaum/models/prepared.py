"""What a fit reads: a log under one feature space; bootstraps of its training users."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastgaum.arrays import IntArray
from fastgaum.config import Config
from fastgaum.errors import require_whole
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_training, grow_training
from fastgaum.features.space import FeatureSpace
from fastgaum.game.loop import TrainingData
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.models.splits import require_validation


@dataclass(frozen=True)
class Prepared:
    """A log under one feature space."""

    log: SessionLog
    space: FeatureSpace
    data: TrainingData

    def bootstrap(self, seed: int, number: int) -> Prepared:
        """The same with training users drawn with replacement (Efron, "Bootstrap methods", 1979),
        by the run's seed and the number of the bootstrap, from 1.

        Counts of items stay those of all users: a bootstrap has seen a third fewer items."""
        everything = np.arange(self.data.train.n_sessions, dtype=np.int32)
        drawn = _drawn(everything, self.data.train.users, seed, number)
        return replace(self, data=replace(self.data, drawn=drawn))


class PreparedLog:
    """A log under the feature space of each configuration that a fit compares, made once each."""

    def __init__(self, log: SessionLog, former: FeatureSpace | None = None) -> None:
        """Take a log, and the feature space that a model goes on with."""
        self.log, self.former = log, former
        self._made: dict[tuple[str, bool, bool, bool, bool, int], Prepared] = {}

    def __call__(self, config: Config) -> Prepared:
        """Count the training split, and encode both splits.

        Raises:
            LogFormatError: a split is empty, or the log is the former space's.
            FeatureMismatchError: the log has other fields than the former space's.
        """
        log, switches = self.log, (config.set_context, config.relations, config.examination)
        bags = config.protocol != "bags" or config.counts
        protocol = config.protocol if bags else "identity"
        made_of = (protocol, *switches, config.tower_dim > 0, config.pieces)
        if made_of not in self._made:
            if self.former is None:
                space, train = fit_training(log, *made_of)
            else:
                space, train = grow_training(self.former, log)
            require_validation(log)
            validation = Encoder(space, log).encode(log.sessions_in("validation"))
            self._made[made_of] = Prepared(log, space, TrainingData(train, validation))
        return self._made[made_of]


def bootstrap_of(log: SessionLog, seed: int, number: int) -> SessionLog:
    """The log of as many training users, drawn with replacement (Efron, "Bootstrap methods", 1979),
    and the validation sessions as they are; no test session. Arguments as of
    `Prepared.bootstrap`."""
    require_whole("seed", seed)
    require_whole("number", number)
    training = log.sessions_in("train")
    rows = _drawn(training, log.users[training], seed, number)
    return slice_sessions(log, np.concatenate([rows, log.sessions_in("validation")]))


def _drawn(sessions: IntArray, users: IntArray, seed: int, number: int) -> IntArray:
    each, of_session = np.unique(users, return_inverse=True)
    rng = np.random.default_rng([seed, number])
    times = np.bincount(rng.integers(0, len(each), len(each)), minlength=len(each))
    return np.repeat(sessions, times[of_session])
