"""What would a lower fare do? `python what_if.py [LOG]`.

LOG is London travel (`lpmc`, or the path of its file); without it a small log is made up, whose
travellers gain .5 a minute less and 4 a pound less: a minute is worth .125 pounds.
"""

import sys
from typing import Any

import numpy as np
import polars as pl

import fastgaum as fg


def made_up(n: int) -> fg.SessionLog:
    """Choices between three modes, each trip alone, two trips a household."""
    rng = np.random.default_rng(0)
    dur = rng.uniform(5, 15, (n, 3))
    cost = rng.uniform(0.5, 2, (n, 3)) * [1, 1, 0]
    utility = [0, 0.5, -1] - 0.5 * dur - 4 * cost + rng.gumbel(size=(n, 3))
    trip = np.repeat(np.arange(n), 3)
    rows = {
        "session": trip,
        "event": trip,
        "user": trip // 2,
        "item": ["drive", "pt", "walk"] * n,
        "chosen": (np.arange(3) == utility.argmax(1)[:, None]).astype(int).ravel(),
        "dur": dur.ravel(),
        "cost": cost.ravel(),
    }
    return fg.read_log(pl.DataFrame(rows), candidate_fields=["dur", "cost"], name="trips")


def main(source: str | None = None, n: int = 6000, **settings: Any) -> dict[str, pl.DataFrame]:
    """Train, and ask: a fare cut of 10 %, elasticities of cost, the worth of travel time."""
    log = made_up(n) if source is None else fg.load(source)
    model = fg.UserModel.from_preset("fastgaum", **settings)
    model.fit(log)
    paid = ["drive", "pt"]
    found = {
        "fare cut": fg.what_if(model, log, fields={"cost": lambda c: 0.9 * c}, items=["pt"]),
        "elasticities": fg.elasticities(model, log, "cost", items=paid),
        "worth of time": fg.willingness_to_pay(model, log, "dur", "cost", items=paid),
        "curve": fg.response_curve(model, log, "cost", 6, items=["pt"]),
    }
    with pl.Config(tbl_cols=10, tbl_width_chars=160):
        for name, frame in found.items():
            print(name, frame, sep="\n")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:2])
