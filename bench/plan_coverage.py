"""How often what `fastgaum data plan` promises comes true:
`python bench/plan_coverage.py law:main world:default lpmc --draws 20 --part 4 -o coverage.json`.

A draw plans on a sample of the users of a log (of a made-up one that is made anew), and fits the
same setting on four times as many training users. `gain`: whether its gain on the plan's validation
users lies inside the interval of the gain. `nll`: whether its NLL on other validation users of the
log, of about JUDGED events, lies inside that of the NLL. Only training and validation splits are
read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from fastgaum.arrays import IntArray
from fastgaum.bench.made_up_laws import LawName, make_law
from fastgaum.bench.report import write_object
from fastgaum.config import Config, parse_setting
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.logs.synthetic import synthesise
from fastgaum.machine import machine_facts
from fastgaum.models.folds import member_config
from fastgaum.models.user_model import UserModel
from fastgaum.reports.learning_curve import AHEAD, learning_curve
from fastgaum.reports.table import Json
from fastgaum.threads import one_thread

TIMES = 4
JUDGED = 5000
"""events of validation, about, of the users that a plan has not seen"""


def log_of(name: str, n_events: int, seed: int) -> SessionLog:
    """A log of about so many training events of a law (law:main) or of a world (world:tail), made
    anew for each seed; or a log by its name or path."""
    kind, _, which = name.partition(":")
    if kind == "law":
        return make_law(cast(LawName, which), n_events, seed).log
    if kind == "world":
        return synthesise(2 * n_events, seed=seed, preset=which)[0]
    return load(name)


def sessions_of(log: SessionLog, users: IntArray, *splits: int) -> IntArray:
    """Rows of the sessions of some users in some splits."""
    return np.flatnonzero(np.isin(log.users, users) & np.isin(log.split, splits)).astype(np.int32)


def plan_and_see(log: SessionLog, part: int, seed: int, config: Config) -> Json:
    """Plan on one in `part` of a log's users, then fit on TIMES as many training users."""
    rng = np.random.default_rng(seed)
    users = rng.permutation(np.unique(log.users))
    few = slice_sessions(log, sessions_of(log, users[: len(users) // part], 0, 1))
    curve = learning_curve(few, config.replace(seed=seed), device="cpu")
    training = log.users[log.split == 0]
    n_users = TIMES * len(np.unique(few.users[few.split == 0]))
    more = sessions_of(log, users[np.isin(users, training)][:n_users], 0)
    own = sessions_of(log, few.users, 1)
    many = slice_sessions(log, np.sort(np.concatenate([more, own])))
    model = UserModel(member_config(curve.config, seed + 1), device="cpu")
    model.fit(many)
    n_others = JUDGED * len(np.unique(log.users)) // max(log.count("events", "validation"), 1)
    others = slice_sessions(log, sessions_of(log, users[-n_others:], 1))
    same, everyone = (
        model.evaluate(one, "validation").heads["reward"].nll.mean for one in (many, others)
    )
    today, ahead = curve.fits[-1], curve.ahead[AHEAD.index(TIMES)]
    row: Json = {"events": [today.n_events, many.count("events", "train")]}
    found = ("gain", today.nll - same, ahead.gain), ("nll", everyone, ahead.nll)
    for what, truth, said in found:
        row[what] = {**said.to_dict(), "truth": truth, "holds": said.low <= truth <= said.high}
    return row


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("logs", nargs="+")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--part", type=int, default=4)
    parser.add_argument("--events", type=int, default=8000)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args(argv)
    config = Config.from_preset("fastgaum", **dict(map(parse_setting, args.set)))
    rows = list[Json]()
    for name in args.logs:
        for seed in range(args.draws):
            with one_thread():
                log = log_of(name, args.events, seed)
                found = plan_and_see(log, args.part, seed, config)
            rows.append({"log": name, "draw": seed, **found})
            own = [row for row in rows if row["log"] == name]
            held = {what: sum(row[what]["holds"] for row in own) for what in ("gain", "nll")}
            print(name, rows[-1], f"inside, of {len(own)}: {held}", flush=True)
    write_object(args.output, {"machine": machine_facts(), "part": args.part, "rows": rows})


if __name__ == "__main__":
    main()
