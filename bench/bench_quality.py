"""Time to quality, and the rate of what users run: the preset `fastgaum` as `fit` chooses it.

- `quality-wikispeedia`: wall time until the validation NLL is 1.97, of our whole fit (the median of
  fits after a first one), and of two towers in stock torch, their training alone, once.
- `quality-clara2`, `quality-hotel`: wall time until our validation NLL is that which the best of
  our own baselines ends with, and the time of that baseline's fit. `hotel` is a synthetic log of
  13,600 events with 25 candidates each, a third of them without a click.
- `quality-torch-choice`: the same against torch-choice's conditional logit, on such a log without
  such events.
- `rate-wikispeedia`: candidates per second of exact steps and of rounds, and of the two towers.
- `evaluate-wikispeedia`: candidates per second of `model.evaluate` on the test split.
- `audit-wikispeedia`, `convert-wikispeedia`: seconds of these commands, in processes of their own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from fastgaum.baselines.registry import make_model
from fastgaum.bench.races import SOONER, Group, Race, SkippedError, times_as_soon
from fastgaum.bench.rivals.peers import PEERS, conditional_logit
from fastgaum.bench.rivals.two_towers import BATCH, Displays, Training
from fastgaum.features.encoder import Encoder
from fastgaum.game.game import Game
from fastgaum.game.observers import EpochRow, Observer
from fastgaum.logs.datasets import find_log
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.nets.batches import Batch, batches
from fastgaum.nets.histories import history_encoder
from fastgaum.nets.networks import Networks, context_sizes, log_rates
from fastgaum.nets.regularisers import regulariser_of

ASKED = 1.97
BASELINES = ("logit", "wd-lr", "wd-ccf")
"""trained by gradient, on displays as we are"""
COMMANDS = {"audit-wikispeedia": ("data", "audit"), "convert-wikispeedia": ("data", "convert")}


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


def seconds_until(log: SessionLog, loss: float, full: bool) -> float:
    """Median wall seconds of our fits until the validation loss is at most so much, after a first
    one where sizes are full; infinity where it never is. One fit on the log's own split, whose validation users the
    loss of others is of."""
    seconds: list[float] = []
    while len(seconds) < (6 if full else 1):
        model = UserModel.from_preset("fastgaum", folds=0, device="cpu")
        started = time.perf_counter()
        try:
            model.fit(log, [Until(loss)])
        except ReachedError:
            seconds.append(time.perf_counter() - started)
        else:
            return float("inf")
    return median(seconds[1:] or seconds)


@cache
def sized(full: bool) -> tuple[UserModel, SessionLog]:
    """The preset as `fit` chooses it, after an epoch of exact steps, and its log."""
    log = public_log("wikispeedia") if full else hotel(full)
    model = UserModel.from_preset("fastgaum", players="exact", warm_start=1, folds=0, device="cpu")
    model.fit(log)
    return model, log


def rate_of(step: Callable[[], int], n_calls: int) -> float:
    """Units per second of the median call, after a first one; `step` returns the units of a
    call."""
    step()
    rates = []
    for _ in range(n_calls):
        started = time.perf_counter()
        n = step()
        rates.append(n / (time.perf_counter() - started))
    return median(rates)


def our_rate(model: UserModel, log: SessionLog, kind: str, n_calls: int) -> float:
    """Candidates per second of exact steps or rounds, their batches assembled within the time."""
    assert model.space is not None
    space, config = model.space, model.config.replace(players="adversarial")
    torch.manual_seed(0)
    sizes = (config, space.n_ids, space.n_numbers, history_encoder)
    networks = Networks(*sizes, context_sizes(space), log_rates(space))
    unknown = torch.from_numpy(space.unknown_of_id)
    game = Game(networks, config, regulariser_of(config), unknown, model.no_click)
    train = Encoder(space, log).encode(log.sessions_in("train")[:8192])
    step = game.exact_step if kind == "exact" else game.round
    waiting: Iterator[Batch] = iter(())

    def some() -> int:
        nonlocal waiting
        n = 0
        for _ in range(10):
            batch = next(waiting, None)
            if batch is None:
                waiting = batches(train, config.batch_sessions, np.random.default_rng(0))
                batch = next(waiting)
            step(batch)
            n += len(batch.ids)
        return n

    return rate_of(some, n_calls)


@cache
def public_log(name: str) -> SessionLog:
    """A log of the registry; skips where it is not at hand."""
    if find_log(name) is None:
        raise SkippedError(f"the log {name} is not at hand: `fastgaum data get {name}`")
    return load(name)


def hotel(full: bool, no_click: float = 0.33) -> SessionLog:
    sizes: dict[str, Any] = (
        {"n_items": 2_000, "max_display": 25, "mean_display": 25} if full else {"n_items": 20}
    )
    log, _ = synthesise(13_600 if full else 300, no_click=no_click, seed=1, **sizes)
    return log


def large_log(race: Race) -> None:
    full, record = race.full, race.record
    if not full:
        raise SkippedError("its fits take too long for a smoke test")
    log = public_log("wikispeedia")
    ours = seconds_until(log, ASKED, full)
    theirs = Training(Displays.of(log, ("target", "page"))).seconds_until(ASKED)
    ratio = times_as_soon(ours, theirs)
    record(ratio, f"{SOONER} stock torch at NLL {ASKED}", bar=1, at_least=8.0)
    record(ours, f"s until NLL {ASKED}, encoding and all")
    record(theirs, f"s of stock torch until NLL {ASKED}, training alone")


def small_log(race: Race) -> None:
    full, record = race.full, race.record
    if not full and race.group != "quality-hotel":
        raise SkippedError("at small sizes it is quality-hotel again")
    log = public_log("clara2") if race.group == "quality-clara2" else hotel(full)
    ended = []
    for name in BASELINES:
        model, started = make_model(name, {"protocol": "bags"}), time.perf_counter()
        loss = float(str(model.fit(log).history_["val_loss"].min()))
        ended.append((loss, time.perf_counter() - started, name))
    loss, theirs, name = min(ended)
    ours = seconds_until(log, loss, full)
    ratio = times_as_soon(ours, theirs)
    record(ratio, f"{SOONER} {name} at its best NLL, {loss:.3f}", bar=1, at_least=8.0)
    record(ours, f"s until NLL {loss:.3f}")


def peer(race: Race) -> None:
    full, record = race.full, race.record
    log = hotel(full, no_click=0)
    found = conditional_logit(log, torch.get_num_threads())
    if found is None:
        raise SkippedError(
            f"${PEERS} names no environment with it: bench/rivals/peers.py makes one"
        )
    theirs, loss = found
    ours = seconds_until(log, loss, full)
    ratio = times_as_soon(ours, theirs)
    record(ratio, f"{SOONER} torch-choice's logit at its NLL, {loss:.3f}", bar=13)
    record(ours, f"s until NLL {loss:.3f}")


def rates(race: Race) -> None:
    full, record = race.full, race.record
    if not full:
        raise SkippedError("stock torch's log is not at hand where sizes are small")
    (model, log), n_calls = sized(full), 20
    exact, rounds = (our_rate(model, log, kind, n_calls) for kind in ("exact", "round"))
    displays = Displays.of(log, ("target", "page"))
    training = Training(displays)
    parts = iter(displays.events(0)[torch.randperm(len(displays.events(0)))].split(BATCH))

    def step() -> int:
        events = next(parts)
        training.step(events)
        return int((displays.starts[events + 1] - displays.starts[events]).sum())

    theirs = rate_of(step, n_calls)
    record(exact / theirs, "x the candidates/s of stock torch", bar=2, at_least=12.0)
    record(exact, "candidates/s of exact steps")
    record(theirs, "candidates/s of stock torch")
    record(rounds / exact, "of that rate, rounds", bar=2, at_least=0.5)


def evaluation(race: Race) -> None:
    full, record = race.full, race.record
    model, log = sized(full)
    n_candidates = log.count("candidates", "test")

    def evaluate() -> int:
        model.evaluate(log, "test")
        return n_candidates

    rate = rate_of(evaluate, 5 if full else 1)
    record(rate, "candidates/s", bar=7, at_least=5e6)


def whole_command(race: Race) -> None:
    full, record = race.full, race.record
    if not full and not race.group.startswith("convert"):
        raise SkippedError("one command is enough for a smoke test")
    name = "wikispeedia" if full else "sample"
    public_log(name)
    seconds = []
    for _ in range(5 if full else 1):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "fastgaum", *COMMANDS[race.group], name]
            if race.group.startswith("convert"):
                command += ["-o", str(Path(folder) / "log")]
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
    record(median(seconds), "s, wall", bar=7, at_most=6.0)


GROUPS = {
    "quality-wikispeedia": Group(large_log),
    "quality-clara2": Group(small_log),
    "quality-hotel": Group(small_log),
    "quality-torch-choice": Group(peer),
    "rate-wikispeedia": Group(rates),
    "evaluate-wikispeedia": Group(evaluation),
    **dict.fromkeys(COMMANDS, Group(whole_command)),
}
