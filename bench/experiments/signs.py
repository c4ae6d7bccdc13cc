"""What signs on costs and times cost on London travel, and the value of time that they give.

    python bench/experiments/signs.py --seeds 3

Each fit is `fastgaum-exact` in one setting, with and without signs, with the same seeds; NLL in
nats a trip, the value of time in pounds an hour, of users who did not train."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.models.user_model import UserModel
from fastgaum.reports.table import rows_to_markdown
from fastgaum.reports.what_if import willingness_to_pay
from fastgaum.threads import one_thread

SETTING: dict[str, Any] = {"search": [], "dropout": 0.2, "batch_sessions": 256}
SIGNS: dict[str, tuple[str, ...]] = {
    "no sign": (),
    "cost, dur": ("cost", "dur"),
    "all costs and times": (
        *("cost", "charge", "dur", "access", "rail", "bus", "waiting", "changes_walk"),
    ),
}
MODES = ("drive", "pt")


def figures_of(log: SessionLog, names: tuple[str, ...], seed: int) -> list[float]:
    """NLL of validation and test, and the worth of an hour of all paid modes and of each."""
    signs = dict.fromkeys(names, "-")
    model = UserModel.from_preset("fastgaum-exact", seed=seed, signs=signs, **SETTING)
    model.fit(log, progress=False)
    nll = [model.evaluate(log, one).heads["reward"].nll.mean for one in ("validation", "test")]
    worth = willingness_to_pay(model, log, "dur", "cost", "test", items=MODES)["worth"]
    return [*nll, *(np.nan if one is None else float(one) for one in worth)]


def main() -> None:
    """Fit, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", nargs="?", default="lpmc")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--signs", nargs="*", default=list(SIGNS), choices=list(SIGNS))
    asked = parser.parse_args()
    log = load(asked.log)
    found: dict[str, list[list[float]]] = {name: [] for name in asked.signs}
    # seed by seed, so that what is stopped early compares the same seeds
    for seed in range(asked.seeds):
        for name in asked.signs:
            started = time.perf_counter()
            with one_thread():
                found[name].append(figures_of(log, SIGNS[name], seed))
            texts = " ".join(f"{one:.4f}" for one in found[name][-1])
            print(
                f"seed {seed}, {name}: {texts} ({time.perf_counter() - started:.0f} s)", flush=True
            )
    columns = ["signs", "NLL, validation", "NLL, test", "an hour", *MODES]
    rows = [
        [name, *(f"{one:.4f}" for one in mean[:2]), *(f"{one:.1f}" for one in mean[2:])]
        for name, mean in ((name, np.mean(each, 0)) for name, each in found.items())
    ]
    print(rows_to_markdown([columns, *rows]))


if __name__ == "__main__":
    main()
