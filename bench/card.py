"""What a card does, beside stock torch on the same card: `python bench/card.py [--json FILE]`.

Two races, each by Triton's kernels with recorded steps (*ours*) and by autograd over plain torch
modules (*stock torch*, the reference). Both start from the same weights and take the same batches,
and their first losses are compared.

- rounds on the synthetic world `scale` at the paper's sizes, events/s, batches made in the time:
  the median of five repeats, the first call outside. The bar: 5 million on an H100.
- seconds of a fit, everything in it, until the validation NLL of Wikispeedia is 1.97. The bar: 3 s.
  Left out where the log is not at hand.

Worlds step on the processor: no race of theirs is run here. Without a card this is an error."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import fastgaum as fg
from fastgaum.bench.bench_training import Data, race_config, world
from fastgaum.engine import dispatch
from fastgaum.errors import FastgaumError
from fastgaum.features.batches import Batch, batches
from fastgaum.game.epochs import EpochRow, Observer
from fastgaum.game.game import Game
from fastgaum.logs.log import SessionLog
from fastgaum.logs.registry import find_log
from fastgaum.machine import device_of, machine_facts, peak_memory
from fastgaum.models.user_model import UserModel
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.tensors import to_tensors

REPEATS = 5
TARGET = 1.97
"""validation NLL of Wikispeedia"""
WAYS = ("ours", "stock torch")


def rounds(device: torch.device, data: Data, steps: int) -> dict[str, Any]:
    """Events per second of adversarial rounds, by way, with the first losses."""
    figures: dict[str, Any] = {"unit": "events/s"}
    for way in WAYS:
        game, waiting = _game(way, device, data), _endless(data)

        def train(count: int, game: Game = game, waiting: Iterator[Batch] = waiting) -> float:
            """Rounds on so many batches; returns events per second."""
            started, n_events = time.perf_counter(), 0
            for _ in range(count):
                batch = to_tensors(next(waiting), device)
                game.round(batch)
                n_events += batch.n_events
            return n_events / (time.perf_counter() - started)

        first = game.round(to_tensors(next(waiting), device))
        train(steps)
        rates = [train(steps) for _ in range(REPEATS)]
        figures[way] = statistics.median(rates)
        figures[f"{way}, all"] = rates
        figures[f"{way}, first loss"] = first
    losses = [figures[f"{way}, first loss"] for way in WAYS]
    if not math.isclose(*losses, rel_tol=1e-3, abs_tol=1e-4):
        raise SystemExit(f"the first losses differ, {losses}: a speed does not count")
    return figures


def time_to(device: torch.device, log: SessionLog, target: float) -> dict[str, Any]:
    """Seconds until a fit's validation loss is `target`, by way; None where it never is."""
    figures: dict[str, Any] = {"unit": "s"}
    for way in WAYS:
        clock = Clock(target)
        with _way(way):
            UserModel.from_preset("fastgaum", device=device.type).fit(log, observers=[clock])
        figures[way], figures[f"{way}, best loss"] = clock.seconds, clock.best
    return figures


class Clock(Observer):
    """When the validation loss first was so low."""

    def __init__(self, target: float) -> None:
        self.target, self.started = target, time.perf_counter()
        self.seconds: float | None = None
        self.best = math.inf

    def on_epoch_end(self, row: EpochRow) -> None:
        self.best = min(self.best, row.val_loss)
        if self.seconds is None and row.val_loss <= self.target:
            self.seconds = time.perf_counter() - self.started


def _way(way: str) -> Any:
    """Stock torch: nothing runs on a card's layers."""
    ours = dispatch.runs_on_card if way == "ours" else lambda networks: False
    return mock.patch.object(dispatch, "runs_on_card", ours)


def _game(way: str, device: torch.device, data: Data) -> Game:
    config = race_config(2048, "adagrad")
    torch.manual_seed(0)
    networks = Networks(config, data.n_ids, 0).to(device)
    with _way(way):
        return dispatch.game_for(
            networks, config, regulariser_of(config), data.unknown_of_id, False
        )


def _endless(data: Data) -> Iterator[Batch]:
    while True:
        yield from batches(data.train, 2048)


def main(arguments: list[str] | None = None) -> int:
    """Run both races and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=20, help="rounds of a repeat")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    try:
        device = device_of("cuda")
        dispatch.take_card(device)
    except FastgaumError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    data = world("scale", asked.events, asked.items)
    figures = {"rounds on scale": rounds(device, data, asked.steps)}
    if find_log("wikispeedia") is None:
        print("the log wikispeedia is not at hand: `fastgaum data get wikispeedia`")
    else:
        figures[f"wikispeedia to {TARGET}"] = time_to(device, fg.load("wikispeedia"), TARGET)
    facts = {**machine_facts(seed=0), **peak_memory()}
    print(f"| {facts['cuda']} | ours | stock torch | unit |\n|---|---|---|---|")
    for name, row in figures.items():
        cells = ["never" if row[way] is None else f"{row[way]:,.4g}" for way in WAYS]
        print(f"| {name} | {' | '.join(cells)} | {row['unit']} |")
    print("worlds: their steps run on the processor")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": facts, **figures}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
