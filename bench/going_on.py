"""What going on from a former run brings: `python bench/going_on.py LOG [--seeds 3] [--json FILE]`.

LOG is a registry name, a path, or `synthetic` (with `--events`, `--items`). Its sessions are cut in two in
their order. Four models of one preset: *former*, trained on the first part; *further*, which goes
on from it on the second part; *anew*, trained on the second part alone; *both*, on the training
sessions of both and the second part's validation sessions. All are judged on the second part's
test sessions: NLL of the reward, nats per event, the mean over seeds, and its difference to *anew*
with a paired 95 % interval over users.

What a fit costs is counted in training events that it went through, those of settings that it
compared included, beside its processor time. The bar: *further* beats *anew* by an interval that
excludes 0, and costs at most a third of *both*."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fastgaum as fg
from fastgaum.game.checkpoint import Checkpointer, Resumable
from fastgaum.game.loop import Trainer
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import TRAIN, SessionLog
from fastgaum.metrics.intervals import paired_difference
from fastgaum.models.start import config_from
from fastgaum.models.user_model import UserModel

NAMES = ("former", "anew", "both", "further")


class Count(Checkpointer):
    """Counts the training events of all fits that it is given to."""

    def __init__(self) -> None:
        super().__init__()
        self.events = 0

    def after_epoch(self, trainer: Resumable, last: bool = False) -> None:
        assert isinstance(trainer, Trainer)
        self.events += trainer.data.train.n_events
        super().after_epoch(trainer, last)


@dataclass
class Costs:
    """Of each model by name, summed over seeds."""

    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, 0.0))

    def fit(self, name: str, model: UserModel, log: SessionLog) -> UserModel:
        """Fit a model, and count."""
        count, started = Count(), time.process_time()
        model.fit(log, checkpointer=count)
        self.events[name] += count.events
        self.seconds[name] += time.process_time() - started
        return model


def in_order(log: SessionLog) -> np.ndarray:
    """Rows of the sessions in the order of their names where these are numbers, else of the log."""
    numbers = log.session_ids.cast(int, strict=False)
    return numbers.arg_sort().to_numpy() if not numbers.null_count() else np.arange(log.n_sessions)


def measure(log: SessionLog, seeds: int, **changes: Any) -> dict[str, Any]:
    """NLL, differences to *anew* and costs, by model; `changes` of the preset."""
    rows = in_order(log)
    early, late = np.array_split(rows, 2)
    first, second = slice_sessions(log, early), slice_sessions(log, late)
    train = early[log.split[early] == TRAIN]
    both = slice_sessions(log, np.concatenate([train, late]))
    costs, nll, users = Costs(), dict.fromkeys(NAMES, np.zeros(1)), np.zeros(1, int)
    for seed in range(seeds):
        models = {
            name: costs.fit(name, UserModel.from_preset(seed=seed, **changes), of)
            for name, of in (("former", first), ("anew", second), ("both", both))
        }
        start = models["former"]
        further = UserModel(config_from(start, Path("former"), {}), device=start.device.type)
        further.start = start
        models["further"] = costs.fit("further", further, second)
        for name, model in models.items():
            judged = model.evaluate(second)
            nll[name] = nll[name] + judged.heads["reward"].nll_per_event / seeds
            users = judged.users
    figures: dict[str, Any] = {}
    for name in NAMES:
        found = paired_difference(nll[name], nll["anew"], users)
        figures[name] = {
            "nll": float(nll[name].mean()),
            "vs_anew": {"mean": found.mean, "ci": [found.low, found.high]},
            "training_events": costs.events[name],
            "cost": costs.events[name] / costs.events["both"],
            "seconds": costs.seconds[name],
        }
    return figures


def holds(figures: dict[str, Any]) -> bool:
    """Whether the bar is reached."""
    further = figures["further"]
    return bool(further["vs_anew"]["ci"][1] < 0 and further["cost"] <= 1 / 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--events", type=int, default=24_000)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    from fastgaum.threads import set_threads

    set_threads(asked.threads)
    log = (
        fg.synthesise(asked.events, n_items=asked.items)[0]
        if asked.log == "synthetic"
        else fg.load(asked.log)
    )
    result = measure(log, asked.seeds)
    for name, one in result.items():
        low, high = one["vs_anew"]["ci"]
        print(
            f"{name:8} NLL {one['nll']:.4f} · vs anew {one['vs_anew']['mean']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}] · {one['training_events']:>11,} training events, "
            f"{one['cost']:.2f} of both's · {one['seconds']:.0f} s of a processor"
        )
    print("the bar holds" if holds(result) else "the bar is missed")
    if asked.json:
        asked.json.write_text(json.dumps({"log": asked.log, **result}, indent=2) + "\n")
