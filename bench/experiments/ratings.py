"""Ratings of MovieLens as an outcome: the error of the rating head for users whom training does not
know, beside the mean by item and a matrix factorisation with biases.

    python bench/experiments/ratings.py

The log is ml-latest-small/ of $FASTGAUM_DATA_DIR, with made-up displays. All read the same: ratings
of training users, and of a test user those before the one in question. The factorisation (Koren,
Bell & Volinsky, "Matrix factorization techniques for recommender systems", 2009) is by alternating
least squares; a user's bias and vector are solved anew before each rating. Its size and penalties
are those that are best on validation users."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

import fastgaum as fg
from fastgaum.arrays import Float64Array, IntArray, LongArray
from fastgaum.logs.log import TEST, TRAIN, VALIDATION
from fastgaum.logs.made_up_displays import make_displays

SIZES, PENALTIES, OF_BIAS = (0, 4, 8, 16), (5.0, 10.0, 20.0), (1.0, 3.0)
SWEEPS = 10


def read_ratings(folder: Path) -> fg.SessionLog:
    """The log, whose outcome is the rating."""
    stars = pl.read_csv(folder / "ratings.csv").select(
        session=pl.col("userId").cast(pl.String),
        chosen=pl.col("movieId").cast(pl.String),
        rating="rating",
    )
    displays = make_displays(folder).join(stars, on=["session", "chosen"], how="left")
    return fg.read_log(displays, outcomes=["rating"])


@dataclass(frozen=True)
class Ratings:
    """Ratings in the order of the log, less the training mean, (n,) each."""

    users: LongArray
    items: LongArray
    values: Float64Array
    split: IntArray


def ratings_of(log: fg.SessionLog) -> tuple[Ratings, float]:
    """All ratings of a log, and the training mean."""
    session = log.session_of_event
    values, split = log.outcomes["rating"].values.astype(np.float64), log.split[session]
    mean = float(values[split == TRAIN].mean())
    items = log.items[log.chosen_candidates].astype(np.int64)
    return Ratings(
        log.users[session].astype(np.int64), items, values - mean, split.astype(np.int32)
    ), mean


def solved(x: Float64Array, y: Float64Array, penalties: Float64Array) -> Float64Array:
    """The ridge of y (n,) on x (n, d)."""
    return np.asarray(np.linalg.solve(x.T @ x + np.diag(penalties), x.T @ y))


def factorise(ratings: Ratings, size: int, penalties: Float64Array) -> Float64Array:
    """Bias and vector of each item, (n_items, 1 + size), of training ratings."""
    at = np.flatnonzero(ratings.split == TRAIN)
    users, items, values = ratings.users[at], ratings.items[at], ratings.values[at]
    n_users, n_items = ratings.users.max() + 1, ratings.items.max() + 1
    of_user, of_item = np.zeros((n_users, 1 + size)), np.zeros((n_items, 1 + size))
    of_item[:, 1:] = np.random.default_rng(0).normal(scale=0.1, size=(n_items, size))
    by_user, by_item = (
        np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
        for keys in (users, items)
        for order in (np.argsort(keys, kind="stable"),)
    )
    for _ in range(SWEEPS):
        for groups, keys, others, own, theirs in (
            (by_user, users, items, of_user, of_item),
            (by_item, items, users, of_item, of_user),
        ):
            for rows in groups:
                other = theirs[others[rows]]
                x = np.column_stack([np.ones(len(rows)), other[:, 1:]])
                own[keys[rows[0]]] = solved(x, values[rows] - other[:, 0], penalties)
    return of_item


def predicted(
    ratings: Ratings, at: LongArray, of_item: Float64Array, penalties: Float64Array
) -> Float64Array:
    """What is said of some ratings, whose users rated those before them, (n,)."""
    found, user = np.empty(len(at)), -1
    for place, row in enumerate(at):
        if ratings.users[row] != user:
            user, left, gram = ratings.users[row], np.zeros(len(penalties)), np.diag(penalties)
        bias, vector = of_item[ratings.items[row], 0], of_item[ratings.items[row]].copy()
        vector[0] = 1.0
        found[place] = bias + vector @ np.linalg.solve(gram, left)
        left = left + vector * (ratings.values[row] - bias)
        gram = gram + np.outer(vector, vector)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    folder = os.environ.get("FASTGAUM_DATA_DIR")
    if folder is None:
        parser.error("$FASTGAUM_DATA_DIR is not set: it is the folder that holds ml-latest-small/")
    parser.parse_args()
    log = read_ratings(Path(folder) / "ml-latest-small")
    ratings, _ = ratings_of(log)

    def error_of(split: int, size: int, penalty: float, of_bias: float) -> Float64Array:
        at = np.flatnonzero(ratings.split == split)
        penalties = np.array([of_bias, *[penalty] * size])
        said = predicted(ratings, at, factorise(ratings, size, penalties), penalties)
        return np.asarray((said - ratings.values[at]) ** 2)

    best, found = (0, 0.0, 0.0), np.inf
    for size, penalty, of_bias in product(SIZES, PENALTIES, OF_BIAS):
        if size == 0 and penalty != PENALTIES[0]:
            continue
        error = float(np.sqrt(error_of(VALIDATION, size, penalty, of_bias).mean()))
        print(f"size {size}, penalty {penalty:g}, of biases {of_bias:g}: {error:.4f}", flush=True)
        if error < found:
            best, found = (size, penalty, of_bias), error
    rival = error_of(TEST, *best)
    print(f"factorisation, {best}: RMSE {np.sqrt(rival.mean()):.4f} of {len(rival):,}", flush=True)
    # heads stand on the states of the first fit
    model = fg.UserModel.from_preset("fastgaum", seed=0, folds=0).fit(log)
    figures = model.evaluate(log).outcomes["rating"]
    print(f"mean by item: RMSE {figures.by_item**0.5:.4f}")
    print(f"rating head: RMSE {figures.error.mean**0.5:.4f} of {figures.n:,}")


if __name__ == "__main__":
    main()
