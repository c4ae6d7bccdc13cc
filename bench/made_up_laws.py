"""Logs of users whose law of choice is known, and `fastgaum` beside the maximum likelihood of
exactly that law: `python bench/made_up_laws.py --events 500 1000 --draws 5 -o laws.json`.

Twenty items with a worth and a price each; a display is five of them, a session eight displays. The
rival is told the law's form and fits its numbers alone, by scipy; FastGAUM is told nothing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl
from scipy.optimize import minimize
from scipy.special import log_softmax

from fastgaum.arrays import Float64Array, LongArray
from fastgaum.baselines.registry import make_model
from fastgaum.bench.report import write_object
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.machine import machine_facts
from fastgaum.reports.table import Json, rows_to_markdown
from fastgaum.threads import one_thread

LawName = Literal["main", "price_type", "boredom", "repeats", "places", "no_click"]
LAWS: tuple[LawName, ...] = get_args(LawName)
ITEMS, SHOWN, EVENTS = 20, 5, 8
"""items of a log, of a display, and displays of a session"""
TEST_EVENTS = 2000
PRICE, PRICE_OF_TYPE = -0.8, (-0.3, -1.4)
BORED, AGAIN, NO_CLICK = -0.8, 1.0, -1.5
BY_PLACE = -0.4 * np.arange(SHOWN)


@dataclass(frozen=True)
class MadeUp:
    """Events of a law, in the order of the log; five candidates each."""

    log: SessionLog
    form: Float64Array
    """what the law weighs, (n_events, alternatives, n_numbers); no click is the last alternative"""
    choices: LongArray
    """of alternatives"""
    log_probs: Float64Array
    """of the law, (n_events, alternatives)"""
    split: LongArray
    """of events: 0 training, 1 validation, 2 test"""

    def loss(self, log_probs: Float64Array, split: int = 2) -> float:
        """Mean loss of the events of a split under log probabilities of all events."""
        at = np.flatnonzero(self.split == split)
        return -float(log_probs[at, self.choices[at]].mean())


def make_law(law: LawName, n_events: int, seed: int) -> MadeUp:
    """A log of so many training events, half as many validation events, and TEST_EVENTS."""
    rng = np.random.default_rng([seed, LAWS.index(law)])
    parts = [n_events // EVENTS, n_events // EVENTS // 2, TEST_EVENTS // EVENTS]
    users = sum(parts)
    worth, base = rng.normal(0, 1, ITEMS), rng.uniform(1, 4, ITEMS)
    types = rng.integers(2, size=users)
    items = rng.permuted(np.tile(np.arange(ITEMS), (users * EVENTS, 1)), axis=1)[:, :SHOWN]
    items = items.reshape(users, EVENTS, SHOWN)
    prices = base[items] * rng.uniform(0.7, 1.3, items.shape)
    by_type = types[:, None, None] == np.arange(2)
    n_own = {"price_type": 2, "places": SHOWN}.get(law, 1)
    form = np.zeros((users, EVENTS, SHOWN + 1, ITEMS + 1 + n_own))
    np.put_along_axis(form[:, :, :SHOWN, :ITEMS], items[..., None], 1.0, axis=-1)
    own = form[..., ITEMS + 1 :]
    form[:, :, :SHOWN, ITEMS] = prices
    weights = np.concatenate([worth, [PRICE], np.zeros(n_own)])
    if law == "price_type":
        own[:, :, :SHOWN] = prices[..., None] * by_type[:, :, None]
        form[..., ITEMS], weights[-2:] = 0, PRICE_OF_TYPE
    elif law == "places":
        own[:, :, :SHOWN] = np.eye(SHOWN)
        weights[-SHOWN:] = BY_PLACE
    elif law == "no_click":
        own[:, :, SHOWN, 0] = 1
        weights[-1] = NO_CLICK
    elif law in ("boredom", "repeats"):
        weights[-1] = BORED if law == "boredom" else AGAIN
    hidden = np.zeros(SHOWN + 1)
    hidden[SHOWN] = 0 if law == "no_click" else -np.inf
    log_probs, choices = np.empty((users, EVENTS, SHOWN + 1)), np.empty((users, EVENTS), np.int64)
    chosen = np.zeros((users, ITEMS))
    for event in range(EVENTS):
        before = np.take_along_axis(chosen, items[:, event], 1)
        if law in ("boredom", "repeats"):
            own[:, event, :SHOWN, 0] = before if law == "boredom" else before > 0
        log_probs[:, event] = log_softmax(form[:, event] @ weights + hidden, axis=1)
        drawn = log_probs[:, event] + rng.gumbel(size=(users, SHOWN + 1))
        choices[:, event] = drawn.argmax(1)
        clicked = np.flatnonzero(choices[:, event] < SHOWN)
        np.add.at(chosen, (clicked, items[clicked, event, choices[clicked, event]]), 1)
    split = np.repeat(np.arange(3), parts)
    rows = np.indices(items.shape).reshape(3, -1)
    frame = pl.DataFrame(
        {
            "session": [f"{session:06d}" for session in rows[0].tolist()],
            "event": rows[1],
            "item": [f"i{item:02d}" for item in items.ravel().tolist()],
            "chosen": (choices[..., None] == np.arange(SHOWN)).ravel().astype(np.int64),
            "price": prices.ravel(),
            "type": np.array(["a", "b"])[types][rows[0]],
            "split": np.array(["train", "validation", "test"])[split][rows[0]],
        }
    )
    typed = law == "price_type"
    log = read_log(
        frame if typed else frame.drop("type"),
        candidate_fields=["price"],
        context_fields=["type"] if typed else [],
        ordered=law == "places",
        name=f"{law}-{n_events}-{seed}",
    )
    n = users * EVENTS
    return MadeUp(
        log,
        form.reshape(n, SHOWN + 1, -1),
        choices.ravel(),
        log_probs.reshape(n, SHOWN + 1),
        np.repeat(split, EVENTS),
    )


def fit_right_form(made: MadeUp) -> Float64Array:
    """Log probabilities of all events under the maximum likelihood of the law's form, on training
    and validation events, (n_events, alternatives)."""
    hidden = np.where(np.isneginf(made.log_probs), -np.inf, 0.0)
    at = np.flatnonzero(made.split < 2)
    form, rows = made.form[at], np.arange(len(at))
    picked = form[rows, made.choices[at]].mean(0)

    def loss(weights: Float64Array) -> tuple[float, Float64Array]:
        log_probs = log_softmax(form @ weights + hidden[at], axis=1)
        value = -float(log_probs[rows, made.choices[at]].mean())
        return value, np.einsum("ea,eaw->w", np.exp(log_probs), form) / len(at) - picked

    found = minimize(loss, np.zeros(form.shape[2]), jac=True, method="L-BFGS-B")
    log_probs: Float64Array = log_softmax(made.form @ found.x + hidden, axis=1)
    return log_probs


def compare(
    laws: Sequence[LawName], sizes: Sequence[int], draws: int, models: Sequence[str]
) -> list[Json]:
    """A row per law, size and model: its test loss less that of the right form, of each draw."""
    rows: list[Json] = []
    for law in laws:
        for n_events in sizes:
            found: dict[str, list[float]] = {"the law itself": [], **{one: [] for one in models}}
            seconds = dict.fromkeys(found, 0.0)
            for seed in range(draws):
                made = make_law(law, n_events, seed)
                rival = made.loss(fit_right_form(made))
                found["the law itself"].append(made.loss(made.log_probs) - rival)
                for name in models:
                    started = time.process_time()
                    with one_thread():
                        model = make_model(name, {"seed": seed})
                        model.fit(made.log)
                        loss = model.evaluate(made.log, "test").heads["reward"].nll.mean
                    found[name].append(loss - rival)
                    seconds[name] += time.process_time() - started
            for name, differences in found.items():
                row: Json = {"law": law, "events": n_events, "model": name}
                row |= {"less_right_form": differences, "mean": float(np.mean(differences))}
                row["seconds"] = round(seconds[name] / draws, 2)
                rows.append(row)
                print(law, n_events, name, f"{row['mean']:+.4f}", row["seconds"], flush=True)
    return rows


def to_markdown(rows: Sequence[Json]) -> str:
    """Mean differences by law and size, a column per model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        cells.setdefault((row["law"], row["events"]), []).append(f"{row['mean']:+.3f}")
    lines = [[law, f"{events:,}", *values] for (law, events), values in cells.items()]
    return rows_to_markdown([["law", "training events", *models], *lines])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=LAWS)
    parser.add_argument("--events", nargs="+", type=int, default=[500, 1000, 3000, 20_000])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["fastgaum"])
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args(argv)
    rows = compare(args.laws, args.events, args.draws, args.models)
    print(to_markdown(rows))
    write_object(args.output, {"machine": machine_facts(), "draws": args.draws, "rows": rows})


if __name__ == "__main__":
    main()
