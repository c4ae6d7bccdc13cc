"""What a split or a context field gives away: users on both sides, copied sessions, a field that
says what was chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from fastgaum.logs.log import TEST, TRAIN, SessionLog
from fastgaum.logs.user_split import Hashes, mix_hashes

FIXED, FEWEST = 0.99, 20
"""share of the choices that a field must tell, and how many of them, before it is flagged"""
LeakShare = tuple[str, int, int, str]
"""name, how many of how many, and what to do"""


def leak_shares(log: SessionLog) -> Iterator[LeakShare]:
    """What each leak is of; one that is found is flagged."""
    of_train, of_test = log.split == TRAIN, log.split == TEST
    users = np.unique(log.users[of_test])
    n_both = int(np.isin(users, log.users[of_train]).sum())
    yield (
        "test users who have training sessions too",
        n_both,
        len(users),
        _flag(n_both > 0, "test figures are of users whom a model knows: split by user"),
    )
    hashes = hash_contents(log)
    train, test = hashes[of_train], hashes[of_test]
    copies = int(np.isin(test, train).sum())
    times = np.unique(train, return_counts=True)[1]
    by_chance = times[times > 1].sum() / max(len(train), 1) * len(test)
    yield (
        "test sessions that equal a training session",
        copies,
        len(test),
        _flag(
            copies > by_chance + 3 * math.sqrt(by_chance) + 1,
            "more than equal one another in training: copies under other ids are no test",
        ),
    )
    for name, counts in sorted(_choices_by_value(log), key=lambda one: one[0]):
        yield _fixed(name, counts)


def hash_contents(log: SessionLog) -> Hashes:
    """A hash of what each session displays and chooses, with its fields, shape (n_sessions,)."""
    if not log.n_sessions:
        return np.zeros(0, np.uint64)
    number, of_candidate = log.event_number.astype(np.uint64), log.event_of_candidate()
    chosen = np.zeros(log.n_candidates, np.uint64)
    chosen[log.chosen_candidates] = 1
    hashes = mix_hashes(number[of_candidate] * np.uint64(2) + chosen, log.items.astype(np.uint64))
    for column in log.columns_of("candidate").values():
        hashes = mix_hashes(hashes, column.values.view(np.uint32).astype(np.uint64))
    starts = log.session_offsets[:-1]
    whole = np.add.reduceat(hashes, log.display_offsets[starts])
    for column in log.columns_of("event").values():
        number = mix_hashes(number, column.values.view(np.uint32).astype(np.uint64))
    return whole + np.add.reduceat(number, starts)


def _choices_by_value(log: SessionLog) -> Iterator[tuple[str, pl.DataFrame]]:
    """How often each item is chosen among several under each value of the context."""
    counted = (log.choices >= 0) & (np.diff(log.display_offsets) > 1)
    item = log.items[log.display_offsets[:-1][counted] + log.choices[counted]]
    for name, column in log.context.items():
        values = log.values_at(name, counted)
        known = values >= 0 if column.texts is not None else ~np.isnan(values)
        frame = pl.DataFrame({"value": values[known], "item": item[known]})
        yield name, frame.group_by("value", "item").len()


def _fixed(name: str, counts: pl.DataFrame) -> LeakShare:
    """Choices whose item is that of most choices under the same value of a field."""
    by_value = counts.group_by("value").agg(n=pl.col("len").sum(), most=pl.col("len").max())
    several = by_value.filter(pl.col("n") > 1)
    n, most = int(several["n"].sum()), int(several["most"].sum())
    usual = counts.group_by("item").agg(pl.col("len").sum())["len"].max()
    share = (usual if isinstance(usual, int) else 0) / max(int(by_value["n"].sum()), 1)
    return (
        f"choices of the item that is usual under their {name}",
        most,
        n,
        _flag(
            n >= FEWEST and most >= FIXED * n and share < FIXED,
            f"{name} tells the choice: if it is not known before the choice, leave it out",
        ),
    )


def _flag(found: bool, action: str) -> str:
    return f"FLAG: {action}" if found else "-"
