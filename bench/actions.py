"""What actions are worth: `python bench/actions.py [truth] [--events 50000]`, `… ebnerd FOLDER`.

`truth`: a synthetic log whose choices depend on views between displays. Forty items are of four
kinds, which are a field of the items. Before each display of six, users view two items and put one
in a basket, all drawn at random and in any order. The odds of a candidate are e^3 times as high if
its kind is that of the item that was viewed last; a basket means nothing. So a model needs what was
done, and when. prec@1 on test events: of the law itself, of the model with actions and without, and
of the click rate.

`ebnerd`: EB-NeRD's behaviors.parquet with its history.parquet and without, on other splits of whole
users: the mean difference of log-likelihood per event, with a 95 % interval that draws users."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from fastgaum.baselines.floors import ClickRateFloor
from fastgaum.logs.log import SessionLog, resplit
from fastgaum.logs.read import read_frame, read_log
from fastgaum.metrics.intervals import Interval, paired_difference
from fastgaum.models.user_model import UserModel

N_ITEMS, N_DISPLAYED, N_KINDS, N_EVENTS = 40, 6, 4, 5
SAME_KIND = 3.0
MOST_BELOW, MOST_ABOVE = 1.0, 1.0
"""points of prec@1 that a model may lack to the law with actions, and have above the floor
without"""

Values = np.ndarray


def law(displayed: Values, viewed: Values) -> Values:
    """Probability of each candidate, (n, k), after the view of an item (n,)."""
    odds = np.exp(SAME_KIND * (displayed % N_KINDS == viewed[:, None] % N_KINDS))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def draw(n_events: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, Values]:
    """Displays, actions, and the law's probabilities of the candidates, (n, k), in the order of the
    displays."""
    rng = np.random.default_rng(seed)
    n = max(n_events // N_EVENTS, 8) * N_EVENTS
    displayed = np.sort(rng.random((n, N_ITEMS)).argsort(axis=1)[:, :N_DISPLAYED], axis=1)
    items = rng.integers(0, N_ITEMS, (n, 3))
    # which of the three actions is the basket, a view being last in two cases of three
    basket = rng.integers(0, 3, n)
    viewed = items[np.arange(n), np.where(basket == 2, 1, 2)]
    probs = law(displayed, viewed)
    drawn = (rng.random(n)[:, None] > probs.cumsum(axis=1)).sum(axis=1)
    drawn = np.minimum(drawn, N_DISPLAYED - 1)
    session, time_of = np.arange(n) // N_EVENTS, 10 * (1 + np.arange(n) % N_EVENTS)
    displays = {"session": session, "event": time_of, "items": displayed.tolist()}
    actions = {
        "session": np.repeat(session, 3),
        "time": (time_of[:, None] - np.array([3, 2, 1])).ravel(),
        "item": items.ravel(),
        "action": np.where(np.arange(3) == basket[:, None], "cart", "view").ravel(),
    }
    chosen = displayed[np.arange(n), drawn]
    return pl.DataFrame({**displays, "chosen": chosen}), pl.DataFrame(actions), probs


def read_drawn(n_events: int, seed: int) -> tuple[SessionLog, Values]:
    """A drawn log with its actions and the kinds of its items, and the law's probability of each
    candidate."""
    displays, actions, probs = draw(n_events, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "actions.parquet"
        actions.write_parquet(path)
        log = read_frame(displays, actions=path, split_seed=seed)
    kinds = (log.item_ids.cast(pl.Int64).to_numpy() % N_KINDS).astype(np.int32)
    names = pl.Series([f"kind {number}" for number in range(N_KINDS)])
    log = dataclasses.replace(log, item_fields={"kind": kinds}, categories={"kind": names})
    # candidates stand by the text of their item, the law's by its number
    ids = log.item_ids.cast(pl.Int64).to_numpy()[log.items].reshape(-1, N_DISPLAYED)
    by_number = np.argsort(np.argsort(ids, axis=1), axis=1)
    return log, np.take_along_axis(probs, by_number, axis=1).ravel()


def precision(log: SessionLog, scores: Values) -> float:
    """prec@1 of scores, (n_candidates,), on test events, ties by their exact expectation."""
    test = log.split[log.session_of_event] == 2
    table = scores.reshape(-1, N_DISPLAYED)[test]
    best = table == table.max(axis=1, keepdims=True)
    hit = best[np.arange(len(best)), log.choices[test]]
    return float(100 * (hit / best.sum(axis=1)).mean())


def without_actions(log: SessionLog) -> SessionLog:
    """The log of displays alone."""
    return dataclasses.replace(log, actions=None)


def truth(n_events: int, seed: int = 0, **settings: Any) -> dict[str, float]:
    """prec@1 on test events of the law, the model with actions and without, and the click rate."""
    log, probs = read_drawn(n_events, seed)
    floor = ClickRateFloor()
    floor.fit(log)
    found = {"law": precision(log, probs)}
    for name, of in (("with actions", log), ("without", without_actions(log))):
        model = UserModel.from_preset("fastgaum", seed=seed, **settings)
        model.fit(of)
        found[name] = precision(log, model.predict(of)["utility"].to_numpy())
    return {**found, "click rate": precision(log, floor.predict(log)["utility"].to_numpy())}


def log_likelihood(log: SessionLog, seed: int, **settings: Any) -> Values:
    """Log-probability of what happened at each test event, of a model fitted on the log."""
    model = UserModel.from_preset("fastgaum", seed=seed, **settings)
    model.fit(log)
    encoded, scored = model.score(log, "test")
    head = scored.heads["reward"]
    chosen = np.full(encoded.n_events, -1)
    chosen[encoded.choices >= 0] = encoded.chosen_candidates
    return np.where(chosen >= 0, head.log_probs[chosen], head.outside_log_prob)


def past_or_none(folder: Path, splits: int, **settings: Any) -> Interval:
    """EB-NeRD: log-likelihood per test event with history.parquet less that without, over so many
    splits of whole users, with its interval over users."""
    log = read_log(folder / "behaviors.parquet", actions=folder / "history.parquet")
    each: list[tuple[Values, Values, Values]] = []
    for seed in range(1, splits + 1):
        split = resplit(log, seed)
        rows = split.sessions_in("test")
        users = np.repeat(split.users[rows], np.diff(split.session_offsets)[rows])
        plain = without_actions(split)
        each.append(
            (
                log_likelihood(split, seed, **settings),
                log_likelihood(plain, seed, **settings),
                users,
            )
        )
    return paired_difference(*(np.concatenate(part) for part in zip(*each, strict=True)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["truth", "ebnerd"], default="truth")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    if arguments.what == "truth":
        found = truth(arguments.events, arguments.seed)
        print(", ".join(f"{name} {value:.1f}" for name, value in found.items()))
        below, above = found["law"] - found["with actions"], found["without"] - found["click rate"]
        print(
            f"{below:.1f} points below the law, {MOST_BELOW} may be; without actions {above:+.1f} "
            f"above the floor, {MOST_ABOVE} may be"
        )
    elif arguments.folder is None:
        parser.error("ebnerd needs the folder of behaviors.parquet and history.parquet")
    else:
        gain = past_or_none(arguments.folder, arguments.splits)
        print(
            f"log-likelihood per event with history.parquet less without: {gain.mean:+.4f} "
            f"({gain.low:+.4f} to {gain.high:+.4f}), {gain.n_events} events of {gain.n_users} users"
        )
    print(f"{time.perf_counter() - started:.0f} s")
