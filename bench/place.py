"""How well place and taste are told apart where both are known: `python bench/place.py [--events
200000] [--examination 1.0] [--seeds 1]`.

Draws synthetic worlds whose users look at place p of 6 with odds p^−examination, in two orders of
display, random and most popular first. Fits the `fastgaum` preset, as it grows on a large log and
with its small networks, with the examination part and without. On validation displays:

- rank correlation: Spearman's of utility and truth within each display, the mean over displays.
  With the part, utilities are free of place;
- items: Spearman's over items, of the mean utility of an item and the mean truth;
- worst place: the largest |learned ÷ known examination − 1| of a place."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr

from fastgaum.logs.cut import pick_rows
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel

PLACES = 6
LEAST_CORRELATION = 0.95
MOST_ERROR = 0.05
"""the bar: of a place's examination, as a share of it"""

Values = np.ndarray


@dataclass(frozen=True)
class Apart:
    """How far a model has place and taste apart; without the part it has no places."""

    within: float
    items: float
    ratios: tuple[float, ...]
    """learned ÷ known examination of each place"""
    seconds: float

    @property
    def worst_place(self) -> float:
        """The largest |ratio − 1|."""
        return max((abs(ratio - 1) for ratio in self.ratios), default=float("nan"))

    @property
    def holds(self) -> bool:
        """Whether both bars are reached."""
        return self.within >= LEAST_CORRELATION and self.worst_place <= MOST_ERROR


def apart(
    n_events: int,
    order: Literal["random", "popularity"],
    severity: float = 1.0,
    world_seed: int = 0,
    **settings: Any,
) -> Apart:
    """Fit the preset, with `settings`, on a fresh world, whose examination of place p is
    p^−severity; figures on validation."""
    log, truth = synthesise(
        n_events,
        seed=world_seed,
        order=order,
        examination=severity,
        no_click=0.3,
        mean_display=PLACES,
        max_display=PLACES,
    )
    started = time.perf_counter()
    model = UserModel.from_preset("fastgaum", **settings)
    model.fit(log)
    seconds = time.perf_counter() - started
    by_place = model.examination()
    frame = model.predict(log, "validation", at_place="own" if by_place is None else None)
    _, events = pick_rows(log.session_offsets, log.sessions_in("validation"))
    _, candidates = pick_rows(log.display_offsets, events)
    utility, true = frame["utility"].to_numpy(), truth.utility[candidates]
    known = np.arange(1, PLACES + 1) ** -severity
    return Apart(
        float(within_rows(utility.reshape(-1, PLACES), true.reshape(-1, PLACES)).mean()),
        float(spearmanr(*(item_means(log.items[candidates], v) for v in (utility, true)))[0]),
        () if by_place is None else tuple((by_place / known).tolist()),
        seconds,
    )


def within_rows(left: Values, right: Values) -> Values:
    """Spearman's correlation of each row of two matrices (n, k), shape (n,)."""
    ranks = [rankdata(values, axis=1) for values in (left, right)]
    ranks = [values - values.mean(1, keepdims=True) for values in ranks]
    products = (ranks[0] * ranks[1]).sum(1)
    norms = np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    return np.asarray(products / norms)


def item_means(items: Values, values: Values) -> Values:
    """Mean value of each item that is there."""
    counts = np.bincount(items)
    return (np.bincount(items, values) / np.maximum(counts, 1))[counts > 0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--examination", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'order':12}{'grow':8}{'part':8}{'within':>8}{'items':>8}{'worst place':>13}{'s':>7}")
    for order in ("random", "popularity"):
        for grow in (True, False):
            for part in (True, False):
                for seed in range(arguments.seeds):
                    found = apart(
                        arguments.events,
                        order,
                        arguments.examination,
                        seed,
                        examination=part,
                        grow=grow,
                    )
                    print(
                        f"{order:12}{grow!s:8}{part!s:8}{found.within:8.3f}{found.items:8.3f}"
                        f"{found.worst_place:13.1%}{found.seconds:7.0f}"
                        f"{'  holds' if found.holds else ''}",
                        flush=True,
                    )
