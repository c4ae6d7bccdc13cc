"""Who trained a model, as hashes of users and sessions, and how many users of a split are among
them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastgaum.arrays import IntArray
from fastgaum.errors import SeenUsersError
from fastgaum.logs.hashes import Hashes, hash_texts, mix_hashes
from fastgaum.logs.log import TEST, TRAIN, SessionLog, SplitName


@dataclass(frozen=True)
class TrainedUsers:
    """The users and sessions of training splits, each 64-bit hash once, in order."""

    users: Hashes
    """shape (n_users,)"""
    sessions: Hashes
    """of a session and its user together, shape (n_sessions,)"""

    @classmethod
    def of(cls, log: SessionLog) -> TrainedUsers:
        """Those of a log's training split."""
        rows = log.sessions_in("train")
        return cls(np.unique(log.user_hashes[rows]), np.unique(_sessions(log, rows)))


@dataclass(frozen=True)
class SeenUsers:
    """Users of a split, and those of them that trained a model, counted."""

    log: str
    split: SplitName
    n_users: int
    n_seen: int
    """users with a training session"""
    n_leaked: int
    """seen users that the log's own training split lacks, or of whom a session of this split
    trained"""
    out_of_fold: bool
    """whether sessions that trained are scored by the counts and the fit that left their user
    out"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        said = f"{self.n_seen:,} of {self.n_users:,} users of the {self.split} split trained this"
        if self.split == "test" and self.n_seen > self.n_leaked:
            said += (
                f" model, {self.n_seen - self.n_leaked:,} with other sessions: the log's own split "
                "has them in both parts"
            )
            return said
        if self.out_of_fold:
            return f"{said} model, and each is scored by the fit that left it out (out of fold)"
        return f"{said} model"

    def require_unseen(self) -> None:
        """Raise SeenUsersError where users of a test split trained."""
        if self.split == "test" and self.n_leaked:
            raise SeenUsersError(
                f"{self.n_leaked:,} of {self.n_users:,} users of the test split of log "
                f"'{self.log}' trained this model, so that its figures would be no test figures: "
                "read the log and split it as for training (--split-by, --split-seed), give users "
                "that did not train, or pass --allow-seen-users (allow_seen_users=True)"
            )


def count_seen(
    trained: TrainedUsers, log: SessionLog, split: SplitName, folds: int, *, reads_training: bool
) -> SeenUsers:
    """Count the users of a split that trained; one whom the log's own training split has too, with
    folds its validation split too, is leaked only where a session of the scored split trained.
    reads_training: whether it is the training log."""
    rows = log.sessions_in(split)
    users = log.user_hashes[rows]
    n_users = len(np.unique(users))
    knows = np.isin(users, trained.users)
    own = log.split != TEST if folds else log.split == TRAIN
    by_design = np.isin(log.users[rows], log.users[own])
    leaked = (knows & ~by_design) | np.isin(_sessions(log, rows), trained.sessions)
    n_seen, n_leaked = len(np.unique(users[knows])), len(np.unique(users[leaked]))
    out_of_fold = bool(folds and reads_training and own[rows].any())
    return SeenUsers(log.name, split, n_users, n_seen, n_leaked, out_of_fold)


def _sessions(log: SessionLog, rows: IntArray) -> Hashes:
    return mix_hashes(hash_texts(log.session_ids.gather(rows)), log.user_hashes[rows])
