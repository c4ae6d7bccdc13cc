"""People in the Horizon task (Wilson et al., J. Exp. Psychol. General 2014) whom training does not
know: NLL of their free choices, beside published figures.

    python bench/experiments/horizon.py [--seeds 3]

The log is horizon/choices.parquet of $FASTGAUM_DATA_DIR. A session is a person, and an item an arm
of one game; what arms have paid comes from the outcome `reward` alone. Of a forced trial the other
arm is not available, so that it says nothing of choices and is no part of the figure."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl

import fastgaum as fg

PUBLISHED = {
    "uniform": np.log(2),
    "hybrid cognitive model (people on both sides)": 0.4322,
    "read-outs of LLaMA-65B (people on both sides)": 0.3864,
}
"""Binz and Schulz, "Turning large language models into cognitive models", ICLR 2024"""


def read_people(path: Path, seed: int) -> fg.SessionLog:
    """The games of each person in their order, people split by `seed`."""
    frame = pl.read_parquet(path).with_columns(
        item=pl.col("game") + "/" + pl.col("arm"),
        time=pl.col("game_number") * 20 + pl.col("trial"),
    )
    return fg.read_log(
        frame,
        columns={"session": "person", "user": "person", "event": "time", "item": "item"},
        candidate_fields=["arm"],
        context_fields=["horizon", "trials_left"],
        available="available",
        outcomes=["reward"],
        split="user",
        split_seed=seed,
    )


def nll_of_free_choices(log: fg.SessionLog, seed: int) -> tuple[float, int]:
    """NLL of test people's free choices, nats each, and how many these are."""
    model = fg.UserModel.from_preset("fastgaum", seed=seed).fit(log)
    events = log.split[log.session_of_event] == 2
    is_free = events & (np.diff(log.display_offsets) > 1)
    # the one arm of a forced trial has the probability 1
    total = model.evaluate(log, split="test").heads["reward"].nll.mean * events.sum()
    return float(total / is_free.sum()), int(is_free.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    folder = os.environ.get("FASTGAUM_DATA_DIR")
    if folder is None:
        parser.error("$FASTGAUM_DATA_DIR is not set: it is the folder that holds horizon/")
    path, found = Path(folder) / "horizon" / "choices.parquet", []
    for seed in range(parser.parse_args().seeds):
        nll, n = nll_of_free_choices(read_people(path, seed), seed)
        found.append(nll)
        print(f"fastgaum, people apart, split {seed}: {nll:.4f} of {n:,} free choices", flush=True)
    print(f"fastgaum, people apart, mean: {fmean(found):.4f}")
    for name, value in PUBLISHED.items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
