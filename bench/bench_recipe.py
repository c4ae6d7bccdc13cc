"""The authors' whole recipe on the released files: 2,000 iterations of 50 users with a validation
every ten, in seconds.

The rival is the authors' own TensorFlow graph with its feeding made fast, as measured on two cores
of this kind of
machine: it cannot be shipped, so its events per second stand here as bounds (docs/performance.md
says whence)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from fastgaum.bench.training import Run, config_of, data_of, public_log
from fastgaum.features.batches import batches
from fastgaum.game.scoring import score
from fastgaum.metrics.precision import precision_at_k
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.tensors import to_tensors

ITERATIONS, EVERY, USERS = 2_000, 10, 50


@dataclass(frozen=True)
class Recipe:
    """A log, a preset, and the authors' events per second."""

    log: str
    preset: str
    rival: float
    times: float
    """how many times the rival's rate ours must reach"""
    seconds: float | None
    """longest that the whole recipe may take"""


RECIPES = {
    "recipe-yelp-lstm": Recipe("yelp", "paper-lstm", 11_700, 8, 2.0),
    "recipe-taobao-lstm": Recipe("taobao", "paper-lstm", 3_700, 20, None),
    "recipe-taobao-pw": Recipe("taobao", "paper-pw", 1_290, 50, 4.0),
}
GROUPS = dict.fromkeys([f"{name}{what}" for name in RECIPES for what in ("-seconds", "-rate")])


@pytest.mark.parametrize("group", GROUPS)
def test_recipe(record: Callable[..., None], full: bool, group: str) -> None:
    name, _, what = group.rpartition("-")
    recipe = RECIPES[name]
    log = public_log(recipe.log)
    if log is None:
        pytest.skip(f"the log {recipe.log} is not at hand: `fastgaum data get {recipe.log}`")
    times = [run_recipe(recipe, log, ITERATIONS if full else 20) for _ in range(3 if full else 1)]
    seconds, rate = sorted(times)[len(times) // 2]
    if what == "seconds":
        record(seconds, "s", bar=1, at_most=recipe.seconds)
    else:
        record(rate / recipe.rival, "x the authors' events/s", at_least=recipe.times)


def run_recipe(recipe: Recipe, log: object, iterations: int) -> tuple[float, float]:
    """Seconds of the recipe, and events per second of its training alone."""
    space, data = data_of(log)  # type: ignore[arg-type]
    held = space.encode(log, log.sessions_in("validation"))  # type: ignore[attr-defined,arg-type]
    config = config_of(recipe.preset, players="exact", batch_sessions=USERS)
    run = Run(data, config, kind="exact_step")
    run.steps(3)
    validation = [to_tensors(batch) for batch in batches(held, 1024)]
    rule, best, n_events, training = regulariser_of(config), 0.0, 0, 0.0
    started = time.perf_counter()
    for _ in range(0, iterations, EVERY):
        before = time.perf_counter()
        run.steps(EVERY)
        training += time.perf_counter() - before
        n_events += run.n_events
        run.game.settle()
        scores = score(run.game.networks, validation, rule, 1.0, False).reward.scores
        best = max(
            best, float(precision_at_k(scores, held.display_offsets, held.choices, 1).mean())
        )
    assert best > 0
    return time.perf_counter() - started, n_events / training
