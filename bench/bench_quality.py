"""Time to quality, and the rate of what users run: the preset `fastgaum` as `fit` sizes it.

- `quality-wikispeedia`: wall time until the validation NLL is 1.97, of our whole fit, encoding and
  sizing included, and of two towers in stock torch (`rivals/two_towers.py`), their training alone.
- `quality-clara2`, `quality-hotel`: wall time until our validation NLL is that which the best of
  our own baselines in stock torch ends with, and the time of that baseline's fit. `hotel` is a
  synthetic log of 13,600 events with 25 candidates each, a third of them without a click.
- `evaluate-wikispeedia`: candidates per second of `model.evaluate` on the test split.
- `audit-wikispeedia`, `convert-wikispeedia`: seconds of these commands, in processes of their own.

Validation figures stop the clocks; nothing is chosen by them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fastgaum.baselines.registry import make_model
from fastgaum.bench.rivals.two_towers import Displays, Training
from fastgaum.game.epochs import EpochRow, Observer
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.logs.registry import find_log
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel

ASKED = 1.97
BASELINES = ("logit", "wd-lr", "wd-ccf")
"""trained by gradient, on displays as we are"""
COMMANDS = {"audit-wikispeedia": ("data", "audit"), "convert-wikispeedia": ("data", "convert")}
GROUPS = dict.fromkeys(
    [
        "quality-wikispeedia",
        "quality-clara2",
        "quality-hotel",
        "evaluate-wikispeedia",
        *COMMANDS,
    ]
)


class ReachedError(Exception):
    """The loss that was asked for."""


class Until(Observer):
    """Ends a fit at a validation loss."""

    may_fail = False

    def __init__(self, loss: float) -> None:
        self.loss = loss

    def on_epoch_end(self, row: EpochRow) -> None:
        if row.val_loss <= self.loss:
            raise ReachedError


def seconds_until(log: SessionLog, loss: float) -> float:
    """Wall seconds of our fit until the validation loss is at most so much; infinity where it never
    is."""
    model, started = UserModel.from_preset("fastgaum", device="cpu"), time.perf_counter()
    try:
        model.fit(log, [Until(loss)])
    except ReachedError:
        return time.perf_counter() - started
    return float("inf")


@cache
def public_log(name: str) -> SessionLog:
    """A log of the registry; skips where it is not at hand."""
    if find_log(name) is None:
        pytest.skip(f"the log {name} is not at hand: `fastgaum data get {name}`")
    return load(name)


def hotel(full: bool) -> SessionLog:
    sizes: dict[str, Any] = (
        {"n_items": 2_000, "max_display": 25, "mean_display": 25} if full else {"n_items": 20}
    )
    log, _ = synthesise(13_600 if full else 300, no_click=0.33, seed=1, **sizes)
    return log


@pytest.mark.parametrize("group", ["quality-wikispeedia"])
def test_a_large_log(record: Callable[..., None], full: bool, group: str) -> None:
    if not full:
        pytest.skip("its fits take too long for a smoke test")
    log = public_log("wikispeedia")
    ours = seconds_until(log, ASKED)
    theirs = Training(Displays.of(log, ("target", "page"))).seconds_until(ASKED)
    record(theirs / ours, f"x as soon as stock torch at NLL {ASKED}", bar=1, at_least=8.0)
    record(ours, f"s until NLL {ASKED}, encoding and all")
    record(theirs, f"s of stock torch until NLL {ASKED}, training alone")


@pytest.mark.parametrize("group", ["quality-clara2", "quality-hotel"])
def test_a_small_log(record: Callable[..., None], full: bool, group: str) -> None:
    log = public_log("clara2") if full and group == "quality-clara2" else hotel(full)
    ended = []
    for name in BASELINES:
        model, started = make_model(name, {"protocol": "bags"}), time.perf_counter()
        loss = float(str(model.fit(log)["val_loss"].min()))
        ended.append((loss, time.perf_counter() - started, name))
    loss, theirs, name = min(ended)
    ours = seconds_until(log, loss)
    record(theirs / ours, f"x as soon as {name} at its best NLL, {loss:.3f}", bar=1, at_least=8.0)
    record(ours, f"s until NLL {loss:.3f}")


@pytest.mark.parametrize("group", ["evaluate-wikispeedia"])
def test_evaluation(record: Callable[..., None], full: bool, group: str) -> None:
    log = public_log("wikispeedia") if full else hotel(full)
    model = UserModel.from_preset("fastgaum", players="exact", warm_start=1, device="cpu")
    model.fit(log)
    n_candidates, seconds = log.count("candidates", "test"), []
    for _ in range(3 if full else 1):
        started = time.perf_counter()
        model.evaluate(log, "test")
        seconds.append(time.perf_counter() - started)
    record(n_candidates / sorted(seconds)[len(seconds) // 2], "candidates/s", bar=7, at_least=5e6)


@pytest.mark.parametrize("group", COMMANDS)
def test_a_command(record: Callable[..., None], full: bool, group: str) -> None:
    name = "wikispeedia" if full else "sample"
    public_log(name)
    seconds = []
    for _ in range(3 if full else 1):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "fastgaum", *COMMANDS[group], name]
            if group.startswith("convert"):
                command += ["-o", str(Path(folder) / "log")]
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
    record(sorted(seconds)[len(seconds) // 2], "s, wall", bar=7, at_most=6.0)
