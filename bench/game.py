"""What the rounds of the game win or lose: `python bench/game.py yelp clara2:2000 synthetic
[--seeds 0,1] [warm_start=0 …]`.

A log is a name of the registry or a path; `:2000` draws so many of its sessions. `synthetic` stands
for 20 logs of known users, 200 to 200,000 events with displays of up to 100 candidates. Validation
figures only: the exact players' loss, what the rounds change in it (best epoch, worst epoch, the
epoch at which they end), and the training gap of their first epoch and the largest."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import polars as pl
import torch

from fastgaum.config import Config, parse_setting
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel

SIZES = [200] * 4 + [500] * 4 + [1000] * 4 + [3000] * 3 + [10_000] * 2 + [50_000] * 2 + [200_000]
"""events of the synthetic logs"""
DISPLAYS = (2, 5, 20, 100)
"""their largest displays, in turn"""
HEADER = (
    f"{'log':22} {'seed':>4} {'events':>7} {'exact':>7} {'best':>8} {'worst':>8} {'end':>8} "
    f"{'first gap':>9} {'largest':>9} {'epochs':>6} {'s':>5}"
)


def drawn(log: SessionLog, n_sessions: int) -> SessionLog:
    """The log with only so many of its training and validation sessions, by chance."""
    split = np.full_like(log.split, 2)
    kept = np.random.default_rng(0).permutation(np.flatnonzero(log.split != 2))[:n_sessions]
    split[kept] = log.split[kept]
    return log.with_split(split)


def logs(name: str) -> Iterator[tuple[str, SessionLog]]:
    """The logs that an argument names."""
    if name != "synthetic":
        path, _, n_sessions = name.partition(":")
        log = load(path)
        yield name, drawn(log, int(n_sessions)) if n_sessions else log
        return
    for seed, n_events in enumerate(SIZES):
        size = DISPLAYS[seed % len(DISPLAYS)]
        mean = max(2.0, size / 2)
        log, _ = synthesise(
            n_events,
            seed=seed,
            n_items=max(50, 2 * size),
            max_display=size,
            mean_display=mean,
            no_click=0.3 * (seed % 3 == 2),
        )
        yield f"{n_events:,} of up to {size}", log


def model_of(seed: int, changes: dict[str, object]) -> UserModel:
    """The model to fit: the `fastgaum` preset without its search, so that it does not size itself
    either, changed."""
    settings = {"seed": seed, "search": [], **changes}
    return UserModel(Config.from_preset("fastgaum", **settings), device="cpu")


def row(name: str, log: SessionLog, seed: int, changes: dict[str, object]) -> str:
    """A line of the table: both phases of one training."""
    model = model_of(seed, changes)
    started = time.perf_counter()
    table = model.fit(log)
    seconds = time.perf_counter() - started
    rounds = table.filter(pl.col("phase") == "rounds")
    losses, gaps = rounds["val_loss"].to_numpy(), rounds["gap"].to_numpy()
    exact = table.filter(pl.col("phase") == "exact")["val_loss"].to_numpy()
    # a cold start is compared with exact players of as many epochs
    start = exact.min() if len(exact) else exact_players_loss(log, seed, changes)
    differences = (losses.min() - start, losses.max() - start, losses[-1] - start)
    return (
        f"{name:22} {seed:4} {log.count('events', 'train'):7} {start:7.4f} "
        + " ".join(f"{difference:+8.4f}" for difference in differences)
        + f" {gaps[0]:9.5f} {gaps.max():9.5f} {len(losses):6} {seconds:5.0f}"
    )


def exact_players_loss(log: SessionLog, seed: int, changes: dict[str, object]) -> float:
    """The exact players' validation loss."""
    table = model_of(seed, {**changes, "players": "exact"}).fit(log)
    return float(table["val_loss"].to_numpy().min())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arguments", nargs="+", help="logs, and settings as key=value")
    parser.add_argument("--seeds", default="0")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = dict(parse_setting(one) for one in given.arguments if "=" in one)
    print(HEADER, flush=True)
    for name in (one for one in given.arguments if "=" not in one):
        for label, log in logs(name):
            for seed in map(int, given.seeds.split(",")):
                print(row(label, log, seed, settings), flush=True)
